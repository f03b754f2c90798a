"""The verbs that read, each on a connection that it is given. None leaves a cursor open."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast, final

from durable.backends.sqlite.connection import WriteLock, translate
from durable.backends.sqlite.head import STATES, STATUSES, checkpoint, inbox_entry, tags_of
from durable.backends.sqlite.lane import Answer, Request
from durable.backends.sqlite.schema import NEVER
from durable.backends.sqlite.statements import NEXT_TIMER
from durable.models import ExecutionStatus
from durable.protocols import (
    Checkpoint,
    Depth,
    Due,
    EventRow,
    ExecutionRow,
    GateKind,
    GateRow,
    Holding,
    InboxEntry,
    Live,
    Looked,
    Plan,
    ScheduleRow,
    Subscriber,
    WorkerInfo,
)

ROW: Final = """
    SELECT e.id, e.workflow, e.version, e.queue, e.priority, nullif(e.key, ''), inputs.tags, inputs.options,
           inputs.input, nullif(e.parent_id, ''), e.state, e.status, e.attempt, e.generation, e.ver, e.op_id,
           nullif(e.nonce, ''), nullif(e.worker, ''), e.crashes, e.inbox_seq, e.created_at, e.available_at,
           nullif(e.started_at, -1), nullif(e.finished_at, -1), nullif(e.wake_at, -1), nullif(e.deadline_at, -1),
           e.result, e.error, e.code, (SELECT gate FROM line WHERE line.n = e.n AND line.step_id = ''), inputs.cause,
           e.n
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
_EVENT: Final = "SELECT name, id, data, seq, at, receipt FROM events WHERE ns = ? AND name = ? AND id = ?"
_SHAPES: Final = "SELECT shape FROM event_shapes WHERE ns = ? AND name = ? ORDER BY rowid"
_SUBSCRIBERS: Final = """
    SELECT event, workflow, data, shapes FROM subscribers WHERE ns = ?1 AND (?2 IS NULL OR event = ?2)
"""
_LOOK: Final = """
    SELECT name, id, data, seq, at, receipt FROM events WHERE ns = ?1 AND name = ?2 AND seq > ?3 AND at >= ?4 AND (
        ?6 = '' OR EXISTS (SELECT 1 FROM json_each(topics) WHERE value = ?6)
        OR NOT EXISTS (SELECT 1 FROM json_each(shapes) WHERE value = ?5)
    ) ORDER BY seq LIMIT ?7
"""
_LAST_SEQ: Final = "SELECT seq FROM event_names WHERE ns = ? AND name = ?"
_SCHEDULE: Final = "SELECT id, data, nullif(next_at, -1), ver FROM schedules WHERE ns = ? "
_ONE_SCHEDULE: Final = _SCHEDULE + "AND id = ?"
_SCHEDULES: Final = _SCHEDULE + "AND id > ? ORDER BY id LIMIT ?"
_DUE_SCHEDULES: Final = _SCHEDULE + "AND next_at != -1 AND next_at <= ? ORDER BY next_at LIMIT ?"
_NEXT_SCHEDULE: Final = "SELECT min(next_at) FROM schedules WHERE ns = ? AND next_at != -1 AND next_at > ?"
_GATES: Final = """
    SELECT name, kind, ifnull((SELECT number FROM limits WHERE limits.ns = g.ns AND limits.rule = g.rule), declared),
           (SELECT count(*) FROM slots WHERE slots.ns = g.ns AND gate = name),
           (SELECT count(*) FROM line WHERE line.ns = g.ns AND gate = name),
           (SELECT min(since) FROM line WHERE line.ns = g.ns AND gate = name), opens_at
    FROM gates AS g WHERE ns = ?
"""
_IS_SOUGHT: Final = """
    AND (EXISTS (SELECT 1 FROM slots WHERE slots.ns = g.ns AND gate = name)
         OR EXISTS (SELECT 1 FROM line WHERE line.ns = g.ns AND gate = name))
"""
_ONE_GATE: Final = _GATES + "AND name = ?"
_SOUGHT_GATES: Final = _GATES + _IS_SOUGHT + "AND name > ? ORDER BY name LIMIT ?"
_HOLDINGS: Final = """
    SELECT e.id, s.step_id, s.since FROM slots AS s CROSS JOIN executions AS e USING (n)
    WHERE s.ns = ? AND s.gate = ? ORDER BY s.since, s.rowid LIMIT 100
"""
_LIMITS: Final = "SELECT rule, number FROM limits WHERE ns = ?"
_PAUSED: Final = "SELECT queue FROM paused_queues WHERE ns = ? ORDER BY queue"
_DEPTHS: Final = """
    SELECT queue, sum(is_ready), sum(NOT is_ready), min(CASE WHEN is_ready THEN available_at END) FROM (
        SELECT queue, 1 AS is_ready, available_at FROM executions WHERE ns = ?1 AND bell = 0
        UNION ALL
        SELECT queue, 1, available_at FROM executions
        WHERE ns = ?1 AND bell IN (1, 2) AND likely(bell > 0) AND available_at <= ?2
        UNION ALL
        SELECT queue, 0, NULL FROM executions WHERE ns = ?1 AND bell = 4 AND likely(bell > 0)
    ) GROUP BY queue ORDER BY queue
"""
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


def event(db: sqlite3.Connection, ns: int, name: str, event_id: str) -> EventRow | None:
    found = db.execute(_EVENT, (ns, name, event_id)).fetchone()
    return None if found is None else _event(*found)


def _event(name: str, id: str, data: bytes, seq: int, at: int, receipt: str) -> EventRow:
    return EventRow(name, id, data, seq, at, tuple(json.loads(receipt)))


def plan(db: sqlite3.Connection, ns: int, event: str) -> Plan:
    shapes = dict.fromkeys(shape for (shape,) in db.execute(_SHAPES, (ns, event)).fetchall())
    found = subscribers(db, ns, event)
    return Plan(tuple(shapes | dict.fromkeys(shape for each in found for shape in each.shapes)), found)


def subscribers(db: sqlite3.Connection, ns: int, event: str | None = None) -> Sequence[Subscriber]:
    found = db.execute(_SUBSCRIBERS, (ns, event)).fetchall()
    return [
        Subscriber(name, workflow, data, tuple(json.loads(shapes))) for name, workflow, data, shapes in found
    ]


def look(
    db: sqlite3.Connection, ns: int, event: str, shape: str, topic: str, since: int, after: int, limit: int
) -> Looked:
    (last,) = db.execute(_LAST_SEQ, (ns, event)).fetchone() or (0,)
    rows = db.execute(_LOOK, (ns, event, after, since, shape, topic, limit + 1)).fetchall()
    found = [_event(*columns) for columns in rows[:limit]]
    if len(rows) > limit:
        return Looked(found, found[-1].seq, more=True)
    return Looked(found, max(after, last), more=False)


def schedule(db: sqlite3.Connection, ns: int, schedule_id: str) -> ScheduleRow | None:
    found = db.execute(_ONE_SCHEDULE, (ns, schedule_id)).fetchone()
    return None if found is None else ScheduleRow(*found)


def schedules(db: sqlite3.Connection, ns: int, after: str, limit: int) -> Sequence[ScheduleRow]:
    rows = db.execute(_SCHEDULES, (ns, after, limit)).fetchall()
    return [ScheduleRow(*columns) for columns in rows]


def due_schedules(db: sqlite3.Connection, ns: int, now: int, limit: int) -> Due:
    rows = [ScheduleRow(*columns) for columns in db.execute(_DUE_SCHEDULES, (ns, now, limit)).fetchall()]
    (next_at,) = db.execute(_NEXT_SCHEDULE, (ns, now)).fetchone()
    return Due(rows, next_at, now)


def gate(db: sqlite3.Connection, ns: int, name: str) -> GateRow | None:
    found = db.execute(_ONE_GATE, (ns, name)).fetchone()
    return None if found is None else _gate(db, ns, found)


def gates(db: sqlite3.Connection, ns: int, after: str, limit: int) -> Sequence[GateRow]:
    found = db.execute(_SOUGHT_GATES, (ns, after, limit)).fetchall()
    return [_gate(db, ns, columns) for columns in found]


def _gate(db: sqlite3.Connection, ns: int, columns: Sequence[Any]) -> GateRow:
    name, kind, limit, held, waiting, oldest_at, opens_at = columns
    holdings = [Holding(*each) for each in db.execute(_HOLDINGS, (ns, name)).fetchall()]
    next_at = None if opens_at == NEVER else opens_at
    return GateRow(name, GateKind(kind), limit, holdings, held, waiting, oldest_at, next_at)


def limits(db: sqlite3.Connection, ns: int) -> Mapping[str, int]:
    return dict(db.execute(_LIMITS, (ns,)).fetchall())


def paused_queues(db: sqlite3.Connection, ns: int) -> Sequence[str]:
    return [queue for (queue,) in db.execute(_PAUSED, (ns,)).fetchall()]


def depths(db: sqlite3.Connection, ns: int, now: int) -> Sequence[Depth]:
    return [Depth(*columns) for columns in db.execute(_DEPTHS, (ns, now)).fetchall()]


def first_timer(db: sqlite3.Connection, ns: int) -> int | None:
    first: tuple[int | None] = db.execute(NEXT_TIMER, (ns,)).fetchone()
    return first[0]


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
