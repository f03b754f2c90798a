"""The verbs that read, each on a connection that it is given. None leaves a cursor open."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast, final

from durable.backends.sqlite.connection import WriteLock, translate
from durable.backends.sqlite.head import STATES, STATUSES, checkpoint, inbox_entry, tags_of
from durable.backends.sqlite.lane import Answer, Request
from durable.models import ExecutionStatus
from durable.protocols import Checkpoint, Emit, ExecutionRow, InboxEntry, Live, WorkerInfo

ROW: Final = """
    SELECT e.id, e.workflow, e.version, e.queue, e.priority, nullif(e.key, ''), inputs.tags, inputs.options,
           inputs.input, nullif(e.parent_id, ''), e.state, e.status, e.attempt, e.generation, e.ver, e.op_id,
           nullif(e.nonce, ''), nullif(e.worker, ''), e.crashes, e.inbox_seq, e.created_at, e.available_at,
           nullif(e.started_at, -1), nullif(e.finished_at, -1), nullif(e.wake_at, -1), nullif(e.deadline_at, -1),
           e.result, e.error, e.code, e.n
"""
"""The fields of an `ExecutionRow` in their order, and the number of the execution."""
_row: Final = cast("Callable[..., ExecutionRow]", ExecutionRow)

_GET: Final = ROW + "FROM executions AS e CROSS JOIN inputs ON inputs.n = e.n WHERE e.ns = ? AND e.id = ?"
_HISTORY: Final = """
    SELECT step_id, kind, name, status, data, attempts, started_at, finished_at, wake_at, seq
    FROM checkpoints WHERE n = (SELECT n FROM executions WHERE ns = ? AND id = ?) ORDER BY seq
"""
_INBOX: Final = """
    SELECT seq, id, kind, name, data, at, consumed_by
    FROM inbox WHERE n = (SELECT n FROM executions WHERE ns = ? AND id = ?) ORDER BY seq
"""
_PEEK: Final = """
    SELECT e.id, inbox.seq, inbox.id, inbox.kind, inbox.name, inbox.data, inbox.at, inbox.consumed_by
    FROM json_each(?) AS seen
    CROSS JOIN executions AS e ON e.ns = ? AND e.id = seen.key AND e.unread > 0 AND e.inbox_seq > seen.value
    CROSS JOIN inbox ON inbox.n = e.n AND inbox.consumed_by IS NULL AND inbox.seq > seen.value
    ORDER BY e.n, inbox.seq
"""
_VALUE: Final = """
    SELECT data FROM "values" WHERE n = (SELECT n FROM executions WHERE ns = ? AND id = ?) AND name = ?
"""
_EVENT: Final = "SELECT id, name, data FROM events WHERE ns = ? AND id = ?"
_COUNTS: Final = "SELECT status, number FROM counts WHERE ns = ? AND number > 0"
_LIVE: Final = "SELECT id, until, info FROM workers WHERE ns = ? AND until > ?"


def get(db: sqlite3.Connection, ns: int, execution_id: str) -> ExecutionRow | None:
    columns = db.execute(_GET, (ns, execution_id)).fetchone()
    return None if columns is None else row_of(columns)


def row_of(columns: Sequence[Any]) -> ExecutionRow:
    """Of what `ROW` selects."""
    return _row(
        *columns[:6],
        tags_of(columns[6]),
        *columns[7:10],
        STATES[columns[10]],
        STATUSES[columns[11]],
        *columns[12:-1],
    )


def history(db: sqlite3.Connection, ns: int, execution_id: str) -> Sequence[Checkpoint]:
    return [checkpoint(*columns) for columns in db.execute(_HISTORY, (ns, execution_id)).fetchall()]


def inbox(db: sqlite3.Connection, ns: int, execution_id: str) -> Sequence[InboxEntry]:
    return [inbox_entry(*columns) for columns in db.execute(_INBOX, (ns, execution_id)).fetchall()]


def peek(db: sqlite3.Connection, ns: int, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
    found: dict[str, list[InboxEntry]] = {}
    for execution_id, *columns in db.execute(_PEEK, (json.dumps(seen), ns)).fetchall():
        found.setdefault(execution_id, []).append(inbox_entry(*columns))
    return found


def value(db: sqlite3.Connection, ns: int, execution_id: str, name: str) -> bytes | None:
    found = db.execute(_VALUE, (ns, execution_id, name)).fetchone()
    return None if found is None else found[0]


def event(db: sqlite3.Connection, ns: int, event_id: str) -> Emit | None:
    found = db.execute(_EVENT, (ns, event_id)).fetchone()
    return None if found is None else Emit(*found)


def counts(db: sqlite3.Connection, ns: int) -> Mapping[ExecutionStatus, int]:
    return {STATUSES[status]: number for status, number in db.execute(_COUNTS, (ns,)).fetchall()}


def live(db: sqlite3.Connection, ns: int, now: int) -> Live:
    leases = db.execute(_LIVE, (ns, now)).fetchall()
    return Live({worker: WorkerInfo(worker, until, info) for worker, until, info in leases}, now)


@final
class Reader:
    """Serves requests to read, those of a group from one state of the file."""

    def __init__(self, db: sqlite3.Connection, lock: WriteLock) -> None:
        self._db = db
        self._lock = lock

    def serve(self, group: Sequence[Request[sqlite3.Connection]]) -> Sequence[Answer]:
        if len(group) == 1:
            return [self._answer(group[0])]
        self._db.execute("BEGIN")
        try:
            return [self._answer(request) for request in group]
        finally:
            self._db.execute("COMMIT")

    def rest(self) -> None:
        return None

    def close(self) -> None:
        self._db.close()

    def _answer(self, request: Request[sqlite3.Connection]) -> Answer:
        act, future, _ = request
        try:
            return (future, self._lock.patiently(lambda: act(self._db)), None)
        except Exception as error:  # noqa: BLE001 whoever asked is told
            return (future, None, translate(error))
