"""What contradicts itself in a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

_WRONG: Final = (
    (
        "its state, its status and its end do not go together",
        """
        SELECT id FROM executions WHERE ns = :ns
        AND ((state = 'closed') != (status IN ('completed', 'failed', 'cancelled', 'compensation_failed'))
             OR (state = 'closed') != (finished_at != -1) OR (state = 'owned' AND status != 'running'))
        """,
    ),
    (
        "its state does not go with its owner",
        """
        SELECT id FROM executions WHERE ns = :ns
        AND ((state = 'owned') != (nonce != '') OR (state = 'owned') != (worker != '')
             OR (state = 'owned') != (owned_at != -1))
        """,
    ),
    (
        "its state does not go with its place in the index of the ready",
        """
        SELECT id FROM executions WHERE ns = :ns
        AND ((state = 'ready') != (bell != -1) OR (bell > 0) != (ring_at != -1)
             OR (bell = 2 AND ring_at != available_at))
        """,
    ),
    (
        "it is to wake, and not parked",
        "SELECT id FROM executions WHERE ns = :ns AND wake_at != -1 AND state != 'parked'",
    ),
    (
        "its version does not go with its last operation",
        "SELECT id FROM executions WHERE ns = :ns AND (ver = 0) != (op_id = '')",
    ),
    ("it has no input", "SELECT id FROM executions WHERE ns = :ns AND n NOT IN (SELECT n FROM inputs)"),
    (
        "its unread messages are not those that nobody consumed",
        """
        SELECT id FROM executions AS e WHERE ns = :ns
        AND unread != (SELECT count(*) FROM inbox WHERE inbox.n = e.n AND consumed_by IS NULL)
        """,
    ),
    (
        "its inbox or its history goes further than its numbers",
        """
        SELECT id FROM executions AS e WHERE ns = :ns
        AND (inbox_seq < (SELECT ifnull(max(seq), 0) FROM inbox WHERE inbox.n = e.n)
             OR history_seq < (SELECT ifnull(max(seq), 0) FROM checkpoints WHERE checkpoints.n = e.n)
             OR records < (SELECT count(*) FROM checkpoints WHERE checkpoints.n = e.n))
        """,
    ),
    (
        "two of its checkpoints have one number",
        """
        SELECT id FROM executions AS e WHERE ns = :ns
        AND (SELECT count(seq) > count(DISTINCT seq) FROM checkpoints WHERE checkpoints.n = e.n)
        """,
    ),
    (
        "it has a timer that none of its checkpoints asks for",
        """
        SELECT e.id FROM timers JOIN executions AS e USING (n)
        LEFT JOIN checkpoints AS c ON c.n = e.n AND c.step_id = timers.step_id
        WHERE e.ns = :ns AND timers.step_id != '__timeout'
        AND (c.n IS NULL OR c.status NOT IN ('open', 'retrying') OR c.wake_at != timers.at OR c.seq != timers.seq)
        """,
    ),
    (
        "it has a timeout that is not its own",
        """
        SELECT e.id FROM timers JOIN executions AS e USING (n)
        WHERE e.ns = :ns AND timers.step_id = '__timeout' AND timers.at != e.deadline_at
        """,
    ),
    (
        "it has more timers than it knows of",
        """
        SELECT id FROM executions AS e WHERE ns = :ns
        AND timers < (SELECT count(*) FROM timers WHERE timers.n = e.n AND step_id != '__timeout')
        """,
    ),
    (
        "it is closed, and has timers or watchers",
        """
        SELECT id FROM executions AS e WHERE ns = :ns AND state = 'closed'
        AND (n IN (SELECT n FROM timers) OR n IN (SELECT target FROM watchers))
        """,
    ),
    (
        "it is closed, and seeks gates or listens",
        """
        SELECT id FROM executions WHERE ns = :ns AND state = 'closed' AND (
            n IN (SELECT n FROM seekers) OR n IN (SELECT n FROM slots)
            OR n IN (SELECT n FROM line) OR n IN (SELECT n FROM listeners)
        )
        """,
    ),
    (
        "it is held, and in no line, or in one and not held",
        """
        SELECT id FROM executions AS e WHERE ns = :ns
        AND (bell = 4) != EXISTS (SELECT 1 FROM line WHERE line.n = e.n AND step_id = '')
        """,
    ),
    (
        "it is at a gate that it does not seek",
        """
        SELECT id FROM executions AS e WHERE ns = :ns AND EXISTS (
            SELECT n, step_id FROM slots WHERE slots.n = e.n UNION SELECT n, step_id FROM line WHERE line.n = e.n
            EXCEPT SELECT n, step_id FROM seekers WHERE seekers.n = e.n
        )
        """,
    ),
    (
        "it has more watchers than it knows of",
        """
        SELECT id FROM executions AS e WHERE ns = :ns
        AND watchers < (SELECT count(*) FROM watchers WHERE target = e.n)
        """,
    ),
    (
        "it cannot be found by its tags",
        """
        SELECT e.id FROM executions AS e JOIN inputs USING (n)
        LEFT JOIN (SELECT n, count(*) AS found FROM tags GROUP BY n) AS indexed USING (n)
        WHERE e.ns = :ns AND ifnull(found, 0) != (SELECT count(*) FROM json_each(inputs.tags))
        """,
    ),
)
_STRAY: Final = (
    ("checkpoints", "SELECT count(*) FROM checkpoints WHERE n NOT IN (SELECT n FROM executions)"),
    ("messages", "SELECT count(*) FROM inbox WHERE n NOT IN (SELECT n FROM executions)"),
    ("message ids", "SELECT count(*) FROM message_ids WHERE n NOT IN (SELECT n FROM executions)"),
    ("inputs", "SELECT count(*) FROM inputs WHERE n NOT IN (SELECT n FROM executions)"),
    ("timers", "SELECT count(*) FROM timers WHERE n NOT IN (SELECT n FROM executions)"),
    ("values", 'SELECT count(*) FROM "values" WHERE n NOT IN (SELECT n FROM executions)'),
    ("tags", "SELECT count(*) FROM tags WHERE n NOT IN (SELECT n FROM executions)"),
    ("seekers", "SELECT count(*) FROM seekers WHERE n NOT IN (SELECT n FROM executions)"),
    ("slots", "SELECT count(*) FROM slots WHERE n NOT IN (SELECT n FROM executions)"),
    ("places in line", "SELECT count(*) FROM line WHERE n NOT IN (SELECT n FROM executions)"),
    ("listeners", "SELECT count(*) FROM listeners WHERE n NOT IN (SELECT n FROM executions)"),
    ("joins", "SELECT count(*) FROM joined WHERE n NOT IN (SELECT n FROM executions)"),
    ("watchers", "SELECT count(*) FROM watchers WHERE target NOT IN (SELECT n FROM executions)"),
)
_COUNTED: Final = """
    SELECT status, sum(number), sum(found) FROM (
        SELECT status, number, 0 AS found FROM counts WHERE ns = :ns
        UNION ALL SELECT status, 0, count(*) FROM executions WHERE ns = :ns GROUP BY status
    ) GROUP BY status HAVING sum(number) != sum(found)
"""


def contradictions(db: sqlite3.Connection, ns: int) -> Sequence[str]:
    """A sentence for each, of one namespace and of the file."""
    parameters = {"ns": ns}
    found = [
        f"{execution_id}: {what}"
        for what, statement in _WRONG
        for (execution_id,) in db.execute(statement, parameters).fetchall()
    ]
    for what, statement in _STRAY:
        (number,) = db.execute(statement).fetchone()
        if number:
            found.append(f"{number} {what} of executions that are not there")
    for status, number, actual in db.execute(_COUNTED, parameters).fetchall():
        found.append(f"{number} executions are counted as {status}, there are {actual}")
    found += [
        f"the file: {text}" for (text,) in db.execute("PRAGMA integrity_check").fetchall() if text != "ok"
    ]
    return found
