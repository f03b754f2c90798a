"""What contradicts itself in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from durable_postgres.pool import Share
from durable_postgres.texts import given
from durable_postgres.writer import run

_WRONG: Final = (
    (
        "its state, its status and its end do not go together",
        """
        SELECT id FROM durable.executions WHERE ns = $1
        AND ((state = 'closed') <> (status IN ('completed', 'failed', 'cancelled', 'compensation_failed'))
             OR (state = 'closed') <> (finished_at IS NOT NULL) OR (state = 'owned' AND status <> 'running'))
        """,
    ),
    (
        "its state does not go with its owner",
        """
        SELECT id FROM durable.executions WHERE ns = $1
        AND ((state = 'owned') <> (nonce IS NOT NULL) OR (state = 'owned') <> (worker IS NOT NULL)
             OR (state = 'owned') <> (owned_at IS NOT NULL))
        """,
    ),
    (
        "its state does not go with its place in the index of the ready",
        """
        SELECT id FROM durable.executions WHERE ns = $1
        AND ((state = 'ready') <> (bell <> -1) OR (bell > 0) <> (ring_at IS NOT NULL)
             OR (bell = 2 AND ring_at <> available_at))
        """,
    ),
    (
        "it is to wake, and not parked",
        "SELECT id FROM durable.executions WHERE ns = $1 AND wake_at IS NOT NULL AND state <> 'parked'",
    ),
    (
        "its version does not go with its last operation",
        "SELECT id FROM durable.executions WHERE ns = $1 AND (ver = 0) <> (op_id = '')",
    ),
    (
        "it has no input",
        "SELECT id FROM durable.executions WHERE ns = $1 AND n NOT IN (SELECT n FROM durable.inputs)",
    ),
    (
        "its unread messages are not those that nobody consumed",
        """
        SELECT id FROM durable.executions AS e WHERE ns = $1
        AND unread <> (SELECT count(*) FROM durable.inbox AS i WHERE i.n = e.n AND consumed_by IS NULL)
        """,
    ),
    (
        "its inbox or its history goes further than its numbers",
        """
        SELECT id FROM durable.executions AS e WHERE ns = $1
        AND (inbox_seq < (SELECT max(seq) FROM durable.inbox AS i WHERE i.n = e.n)
             OR history_seq < (SELECT max(seq) FROM durable.checkpoints AS c WHERE c.n = e.n)
             OR records < (SELECT count(*) FROM durable.checkpoints AS c WHERE c.n = e.n))
        """,
    ),
    (
        "two of its checkpoints have one number",
        """
        SELECT id FROM durable.executions AS e WHERE ns = $1
        AND (SELECT count(seq) > count(DISTINCT seq) FROM durable.checkpoints AS c WHERE c.n = e.n)
        """,
    ),
    (
        "it has a timer that none of its checkpoints asks for",
        """
        SELECT e.id FROM durable.timers AS t JOIN durable.executions AS e USING (n)
        LEFT JOIN durable.checkpoints AS c ON c.n = e.n AND c.step_id = t.step_id
        WHERE e.ns = $1 AND t.step_id <> '__timeout'
        AND (c.n IS NULL OR c.status NOT IN ('open', 'retrying') OR c.wake_at <> t.at OR c.seq <> t.seq)
        """,
    ),
    (
        "it has a timeout that is not its own",
        """
        SELECT e.id FROM durable.timers AS t JOIN durable.executions AS e USING (n)
        WHERE e.ns = $1 AND t.step_id = '__timeout' AND t.at IS DISTINCT FROM e.deadline_at
        """,
    ),
    (
        "it has other timers than it knows of",
        """
        SELECT id FROM durable.executions AS e WHERE ns = $1
        AND timers <> (SELECT count(*) FROM durable.timers AS t WHERE t.n = e.n AND step_id <> '__timeout')
        """,
    ),
    (
        "it is closed, and has timers, watchers or gates, or listens",
        """
        SELECT id FROM durable.executions WHERE ns = $1 AND state = 'closed' AND (
            n IN (SELECT n FROM durable.timers) OR n IN (SELECT target FROM durable.watchers)
            OR n IN (SELECT n FROM durable.seekers) OR n IN (SELECT n FROM durable.slots)
            OR n IN (SELECT n FROM durable.line) OR n IN (SELECT n FROM durable.listeners)
        )
        """,
    ),
    (
        "it is held, and in no line, or in one and not held",
        """
        SELECT id FROM durable.executions AS e WHERE ns = $1
        AND (bell = 4) <> EXISTS (SELECT 1 FROM durable.line AS l WHERE l.n = e.n AND step_id = '')
        """,
    ),
    (
        "it is at a gate that it does not seek",
        """
        SELECT id FROM durable.executions AS e WHERE ns = $1 AND EXISTS (
            SELECT n, step_id FROM durable.slots AS s WHERE s.n = e.n
            UNION SELECT n, step_id FROM durable.line AS l WHERE l.n = e.n
            EXCEPT SELECT n, step_id FROM durable.seekers AS s WHERE s.n = e.n
        )
        """,
    ),
    (
        "it seeks gates and does not know of it",
        """
        SELECT id FROM durable.executions AS e WHERE ns = $1 AND NOT seeks
        AND EXISTS (SELECT 1 FROM durable.seekers AS s WHERE s.n = e.n)
        """,
    ),
    (
        "it cannot be found by its tags",
        """
        SELECT e.id FROM durable.executions AS e JOIN durable.inputs AS i USING (n) WHERE e.ns = $1
        AND (SELECT count(*) FROM durable.tags AS t WHERE t.n = e.n)
            <> (SELECT count(*) FROM json_object_keys(i.tags::json))
        """,
    ),
)
_STRAY: Final = """
    SELECT what, count(*) FROM (
        SELECT 'checkpoints' AS what, n FROM durable.checkpoints
        UNION ALL SELECT 'messages', n FROM durable.inbox
        UNION ALL SELECT 'message ids', n FROM durable.message_ids
        UNION ALL SELECT 'inputs', n FROM durable.inputs
        UNION ALL SELECT 'timers', n FROM durable.timers
        UNION ALL SELECT 'values', n FROM durable.named_values
        UNION ALL SELECT 'tags', n FROM durable.tags
        UNION ALL SELECT 'seekers', n FROM durable.seekers
        UNION ALL SELECT 'slots', n FROM durable.slots
        UNION ALL SELECT 'places in line', n FROM durable.line
        UNION ALL SELECT 'listeners', n FROM durable.listeners
        UNION ALL SELECT 'joins', n FROM durable.joined
        UNION ALL SELECT 'watchers', target FROM durable.watchers
    ) AS child WHERE NOT EXISTS (SELECT 1 FROM durable.executions AS e WHERE e.n = child.n) GROUP BY what
"""


async def contradictions(share: Share, ns: int) -> Sequence[str]:
    """A sentence for each, of one namespace; and what belongs to no execution of any."""
    found = [
        f"{given(id)}: {what}" for what, statement in _WRONG for (id,) in await run(share, statement, ns)
    ]
    found += [
        f"{number} {what} of executions that are not there" for what, number in await run(share, _STRAY)
    ]
    return found
