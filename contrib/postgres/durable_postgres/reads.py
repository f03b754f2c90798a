"""The verbs that read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from durable.errors import InvalidInput
from durable.models import ExecutionStatus
from durable.protocols import (
    Checkpoint,
    Depth,
    Due,
    EventRow,
    GateKind,
    GateRow,
    Holding,
    InboxEntry,
    Live,
    Looked,
    Plan,
    Query,
    Rows,
    ScheduleRow,
    Subscriber,
    WorkerInfo,
)
from durable_postgres.answers import STATUSES, history_of, ids_of, inbox_of, row_of
from durable_postgres.driver import Row
from durable_postgres.pool import Share
from durable_postgres.requests import tag_of
from durable_postgres.texts import given, stored, stored_or_none
from durable_postgres.writer import run

_LIVE: Final = """
    SELECT durable.now_ms(), w.id, w.until, w.info
    FROM (SELECT 1) AS always LEFT JOIN durable.workers AS w ON w.ns = $1 AND w.until > durable.now_ms()
"""
_HISTORY: Final = """
    SELECT step_id, kind, name, status, data, attempts, started_at, finished_at, wake_at, seq
    FROM durable.checkpoints WHERE n = (SELECT n FROM durable.executions WHERE ns = $1 AND id = $2) ORDER BY seq
"""
_INBOX: Final = """
    SELECT seq, id, kind, name, data, at, consumed_by
    FROM durable.inbox WHERE n = (SELECT n FROM durable.executions WHERE ns = $1 AND id = $2) ORDER BY seq
"""
_PEEK: Final = """
    SELECT e.id, i.seq, i.id, i.kind, i.name, i.data, i.at, i.consumed_by
    FROM unnest($2::text[], $3::bigint[]) AS seen (id, seq)
    JOIN durable.executions AS e ON e.ns = $1 AND e.id = seen.id AND e.unread > 0 AND e.inbox_seq > seen.seq
    JOIN durable.inbox AS i ON i.n = e.n AND i.consumed_by IS NULL AND i.seq > seen.seq
    ORDER BY e.n, i.seq
"""
_VALUE: Final = """
    SELECT data FROM durable.named_values
    WHERE n = (SELECT n FROM durable.executions WHERE ns = $1 AND id = $2) AND name = $3
"""
_FILTER: Final = """
    WHERE e.ns = $1 AND e.created_at > 0
    AND e.created_at >= $2 AND e.created_at <= $3 AND (e.created_at < $3 OR e.n < $4)
    AND ($5::text IS NULL OR e.workflow = $5) AND ($6::text IS NULL OR e.parent_id = $6)
    AND ($7::text[] IS NULL OR e.status = ANY($7))
    AND ($8::text IS NULL OR (e.id >= $8 AND e.id < $8 || chr(1114111) AND starts_with(e.id, $8)))
"""
_ORDER: Final = "ORDER BY e.created_at DESC, e.n DESC LIMIT $9"
_SHOWN: Final = "SELECT e.* FROM durable.shown AS e"
_TAGGED: Final = "SELECT e.* FROM durable.tags AS led JOIN durable.shown AS e USING (n)"
_HAS_TAGS: Final = """
    AND led.ns = $1 AND led.tag = $10 AND led.created_at >= $2 AND led.created_at <= $3
    AND NOT EXISTS (
        SELECT 1 FROM unnest($11::text[]) AS wanted WHERE NOT EXISTS (
            SELECT 1 FROM durable.tags AS t
            WHERE t.ns = $1 AND t.tag = wanted AND t.created_at = e.created_at AND t.n = e.n
        )
    )
    ORDER BY led.created_at DESC, led.n DESC LIMIT $9
"""
_QUERY: Final = _SHOWN + _FILTER + _ORDER
_QUERY_BY_TAG: Final = _TAGGED + _FILTER + _HAS_TAGS
_COUNTS: Final = (
    "SELECT status, count(*) FROM durable.executions WHERE ns = $1 AND created_at > 0 GROUP BY status"
)
_EVENT: Final = """
    SELECT name, id, data, seq, at, receipt FROM durable.events WHERE ns = $1 AND name = $2 AND id = $3
"""
_SHAPES: Final = "SELECT shape FROM durable.event_shapes WHERE ns = $1 AND name = $2 ORDER BY turn"
_SUBSCRIBERS: Final = """
    SELECT event, workflow, data, shapes FROM durable.subscribers WHERE ns = $1 AND ($2::text IS NULL OR event = $2)
"""
_LOOK: Final = """
    SELECT name, id, data, seq, at, receipt FROM durable.events
    WHERE ns = $1 AND name = $2 AND seq > $3 AND at >= $4
    AND ($6 = '' OR $6 = ANY(topics) OR NOT $5 = ANY(shapes)) ORDER BY seq LIMIT $7
"""
_LAST_SEQ: Final = "SELECT seq FROM durable.event_names WHERE ns = $1 AND name = $2"
_SCHEDULE: Final = "SELECT id, data, next_at, ver FROM durable.schedules WHERE ns = $1 AND ver > 0 "
_ONE_SCHEDULE: Final = _SCHEDULE + "AND id = $2"
_SCHEDULES: Final = _SCHEDULE + "AND id > $2 ORDER BY id LIMIT $3"
_DUE_SCHEDULES: Final = _SCHEDULE + "AND next_at <= $2 ORDER BY next_at LIMIT $3"
_NEXT_SCHEDULE: Final = """
    SELECT now.at, (SELECT min(next_at) FROM durable.schedules WHERE ns = $1 AND next_at > now.at)
    FROM (SELECT durable.now_ms() AS at) AS now
"""
_GATES: Final = """
    SELECT g.name, g.kind,
           coalesce((SELECT number FROM durable.limits AS l WHERE l.ns = g.ns AND l.rule = g.rule), g.declared),
           (SELECT count(*) FROM durable.slots AS s WHERE s.ns = g.ns AND s.gate = g.name),
           line.waiting, line.oldest_at, g.opens_at
    FROM durable.gates AS g CROSS JOIN LATERAL (
        SELECT count(*) AS waiting, min(since) AS oldest_at FROM durable.line AS l WHERE l.ns = g.ns AND l.gate = g.name
    ) AS line
    WHERE g.ns = $1
"""
_ONE_GATE: Final = _GATES + "AND g.name = $2"
_SOUGHT: Final = """
    AND (line.waiting > 0 OR EXISTS (SELECT 1 FROM durable.slots AS s WHERE s.ns = g.ns AND s.gate = g.name))
    AND g.name > $2 ORDER BY g.name LIMIT $3
"""
_SOUGHT_GATES: Final = _GATES + _SOUGHT
_HOLDINGS: Final = """
    SELECT e.id, s.step_id, s.since FROM durable.slots AS s JOIN durable.executions AS e USING (n)
    WHERE s.ns = $1 AND s.gate = $2 ORDER BY s.since, s.turn LIMIT 100
"""
_LIMITS: Final = "SELECT rule, number FROM durable.limits WHERE ns = $1"
_PAUSED: Final = "SELECT queue FROM durable.paused_queues WHERE ns = $1 ORDER BY queue"
_DEPTHS: Final = """
    SELECT queue, count(*) FILTER (WHERE is_ready), count(*) FILTER (WHERE NOT is_ready),
           min(available_at) FILTER (WHERE is_ready)
    FROM (
        SELECT queue, true AS is_ready, available_at FROM durable.executions WHERE ns = $1 AND bell = 0
        UNION ALL
        SELECT queue, bell <> 4, available_at FROM durable.executions
        WHERE ns = $1 AND bell > 0 AND (bell = 4 OR (bell IN (1, 2) AND available_at <= durable.now_ms()))
    ) AS waiting GROUP BY queue ORDER BY queue
"""
_FIRST_TIMER: Final = "SELECT min(at) FROM durable.timers WHERE ns = $1"
_END_OF_TIME: Final = 2**63 - 1


async def live(share: Share, ns: int) -> Live:
    rows = await run(share, _LIVE, ns)
    leases = {given(id): WorkerInfo(given(id), until, info) for _, id, until, info in rows if id is not None}
    return Live(leases, rows[0][0])


async def history(share: Share, ns: int, execution_id: str) -> Sequence[Checkpoint]:
    return history_of(await run(share, _HISTORY, ns, stored(execution_id)))


async def inbox(share: Share, ns: int, execution_id: str) -> Sequence[InboxEntry]:
    return inbox_of(await run(share, _INBOX, ns, stored(execution_id)))


async def peek(share: Share, ns: int, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
    found: dict[str, list[InboxEntry]] = {}
    for id, *columns in await run(share, _PEEK, ns, [stored(id) for id in seen], list(seen.values())):
        found.setdefault(given(id), []).extend(inbox_of([columns]))
    return found


async def value(share: Share, ns: int, execution_id: str, name: str) -> bytes | None:
    rows = await run(share, _VALUE, ns, stored(execution_id), stored(name))
    return rows[0][0] if rows else None


async def query(share: Share, ns: int, query: Query) -> Rows:
    """Raises: `InvalidInput` for a cursor that is none."""
    newest, n = _END_OF_TIME if query.until is None else query.until - 1, _END_OF_TIME
    if query.cursor is not None:
        newest, n = _position(query.cursor)
    parameters: list[object] = [
        ns,
        -_END_OF_TIME if query.since is None else query.since,
        newest,
        n,
        stored_or_none(query.workflow),
        stored_or_none(query.parent_id),
        [status.value for status in query.status] or None,
        stored_or_none(query.id_prefix),
        query.limit + 1,
    ]
    # The index that has the fewest rows depends on what is asked for.
    if query.tags:
        tags = [tag_of(name, value) for name, value in query.tags.items()]
        rows = await run(share, _QUERY_BY_TAG, *parameters, tags[0], tags[1:], plans_anew=True)
    else:
        rows = await run(share, _QUERY, *parameters, plans_anew=True)
    page = rows[: query.limit]
    found = [row_of(row) for row in page]
    cursor = f"{found[-1].created_at}.{page[-1][1]}" if found and len(rows) > len(page) else None
    return Rows(found, cursor)


def _position(cursor: str) -> tuple[int, int]:
    created_at, _, n = cursor.partition(".")
    try:
        if not (created_at.isascii() and n.isascii() and len(cursor) <= 40):
            raise ValueError(cursor)
        place = int(created_at), int(n)
        if max(map(abs, place)) > _END_OF_TIME:
            raise ValueError(cursor)
    except ValueError as error:
        raise InvalidInput(
            "this is no cursor of a page", "pass on the cursor of the page before, as it is"
        ) from error
    return place


async def counts(share: Share, ns: int) -> Mapping[ExecutionStatus, int]:
    return {STATUSES[status]: number for status, number in await run(share, _COUNTS, ns)}


async def event(share: Share, ns: int, name: str, event_id: str) -> EventRow | None:
    rows = await run(share, _EVENT, ns, stored(name), stored(event_id))
    return _event(rows[0]) if rows else None


def _event(row: Row) -> EventRow:
    name, id, data, seq, at, receipt = row
    return EventRow(given(name), given(id), data, seq, at, ids_of(receipt))


async def plan(share: Share, ns: int, event: str) -> Plan:
    listened = dict.fromkeys(given(shape) for (shape,) in await run(share, _SHAPES, ns, stored(event)))
    found = await subscribers(share, ns, event)
    return Plan(tuple(listened | dict.fromkeys(shape for each in found for shape in each.shapes)), found)


async def subscribers(share: Share, ns: int, event: str | None = None) -> Sequence[Subscriber]:
    rows = await run(share, _SUBSCRIBERS, ns, stored_or_none(event))
    return [
        Subscriber(given(name), given(workflow), data, ids_of(shapes))
        for name, workflow, data, shapes in rows
    ]


async def look(
    share: Share, ns: int, event: str, shape: str, topic: str, since: int, after: int, limit: int
) -> Looked:
    last = await run(share, _LAST_SEQ, ns, stored(event))
    parameters = stored(event), after, since, stored(shape), stored(topic), limit + 1
    rows = await run(share, _LOOK, ns, *parameters)
    found = [_event(row) for row in rows[:limit]]
    if len(rows) > limit:
        return Looked(found, found[-1].seq, more=True)
    return Looked(found, max([after, *(row[0] for row in last), *(each.seq for each in found)]), more=False)


async def schedule(share: Share, ns: int, schedule_id: str) -> ScheduleRow | None:
    rows = await run(share, _ONE_SCHEDULE, ns, stored(schedule_id))
    return _schedule(rows[0]) if rows else None


def _schedule(row: Row) -> ScheduleRow:
    id, data, next_at, ver = row
    return ScheduleRow(given(id), data, next_at, ver)


async def schedules(share: Share, ns: int, after: str, limit: int) -> Sequence[ScheduleRow]:
    return [_schedule(row) for row in await run(share, _SCHEDULES, ns, stored(after), limit)]


async def due_schedules(share: Share, ns: int, limit: int) -> Due:
    [(now, next_at)] = await run(share, _NEXT_SCHEDULE, ns)
    rows = await run(share, _DUE_SCHEDULES, ns, now, limit)
    return Due([_schedule(row) for row in rows], next_at, now)


async def gate(share: Share, ns: int, name: str) -> GateRow | None:
    rows = await run(share, _ONE_GATE, ns, stored(name))
    return await _gate(share, ns, rows[0]) if rows else None


async def gates(share: Share, ns: int, after: str, limit: int) -> Sequence[GateRow]:
    rows = await run(share, _SOUGHT_GATES, ns, stored(after), limit)
    return [await _gate(share, ns, row) for row in rows]


async def _gate(share: Share, ns: int, row: Row) -> GateRow:
    name, kind, limit, held, waiting, oldest_at, opens_at = row
    rows = await run(share, _HOLDINGS, ns, name)
    holdings = [Holding(given(id), given(step_id), since) for id, step_id, since in rows]
    return GateRow(given(name), GateKind(kind), limit, holdings, held, waiting, oldest_at, opens_at)


async def limits(share: Share, ns: int) -> Mapping[str, int]:
    return {given(rule): number for rule, number in await run(share, _LIMITS, ns)}


async def paused_queues(share: Share, ns: int) -> Sequence[str]:
    return [given(queue) for (queue,) in await run(share, _PAUSED, ns)]


async def depths(share: Share, ns: int) -> Sequence[Depth]:
    return [
        Depth(given(queue), ready, held, oldest_at)
        for queue, ready, held, oldest_at in await run(share, _DEPTHS, ns)
    ]


async def first_timer(share: Share, ns: int) -> int | None:
    rows = await run(share, _FIRST_TIMER, ns)
    at: int | None = rows[0][0]
    return at
