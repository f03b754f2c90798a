"""`PostgresStore`: executions in the schema `durable` of a PostgreSQL database, for any number of processes and hosts.

create, claim, commit, post, get ─▶ Lane ─▶ Writer ─▶ durable.serve(...): a group of calls in one transaction
                                    └─ held up by others ─▶ the same, alone, on a connection apart
tick, due ───────────────────▶ Sweeps ─▶ durable.sweep(...): both in one transaction
all other verbs ─────────────▶ a function or a statement, each a transaction
transaction, enlist ─────────▶ Transactions: the same functions, in a transaction of a user
beat ────────────────────────▶ a connection of its own, on the caller's thread

What the verbs do is written in SQL, in `sql/`, and runs in the server: each is one round trip.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, final

from typing_extensions import override

from durable.errors import StoreUnavailable
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Capabilities,
    Checkpoint,
    Claimed,
    Committed,
    Created,
    Depth,
    Diverged,
    Doorbell,
    Due,
    Emit,
    EventRow,
    ExecutionRow,
    Exists,
    Fenced,
    Full,
    GateRow,
    InboxEntry,
    Joined,
    Live,
    Looked,
    Message,
    NewExecution,
    NotClaimed,
    NotPosted,
    Plan,
    Posted,
    Query,
    Rows,
    Saved,
    ScheduleRow,
    Sent,
    Subscriber,
    Ticked,
    TransactionalStore,
    Wanted,
    Writes,
)
from durable_postgres import answers, reads, requests, schema
from durable_postgres.bus import channel_of
from durable_postgres.check import contradictions
from durable_postgres.driver import Connection, Row
from durable_postgres.errors import FAILURES, translate
from durable_postgres.heart import Heart
from durable_postgres.lane import Lane
from durable_postgres.location import Location
from durable_postgres.pool import Pool, Share, check_sessions
from durable_postgres.sweeps import Sweeps
from durable_postgres.texts import stored
from durable_postgres.transactions import Transactions
from durable_postgres.writer import Writer, run

_SEND: Final = "SELECT * FROM durable.send($1, $2::durable.emitting[], $3)"
_SAVE_SCHEDULE: Final = "SELECT * FROM durable.save_schedule($1, $2, $3, $4, $5, $6, $7::durable.spec[])"
_REMOVE_SCHEDULE: Final = "DELETE FROM durable.schedules WHERE ns = $1 AND id = $2 RETURNING id"
_PRUNE: Final = "SELECT durable.prune($1, $2, $3, $4)"
_PRUNE_EVENTS: Final = "SELECT durable.prune_events($1, $2, $3)"
_SET_LIMIT: Final = "SELECT durable.set_limit($1, $2, $3)"
_PAUSE: Final = "INSERT INTO durable.paused_queues (ns, queue) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_RESUME: Final = "DELETE FROM durable.paused_queues WHERE ns = $1 AND queue = $2"
_SUBSCRIBE: Final = """
    WITH removed AS (
        DELETE FROM durable.subscribers AS s USING unnest($2::text[], $3::text[]) AS r (event, workflow)
        WHERE s.ns = $1 AND s.event = r.event AND s.workflow = r.workflow
    )
    INSERT INTO durable.subscribers (ns, event, workflow, data, shapes)
    SELECT $1, event, workflow, data, array(SELECT jsonb_array_elements_text(shapes))
    FROM unnest($4::text[], $5::text[], $6::bytea[], $7::jsonb[]) AS a (event, workflow, data, shapes)
    ON CONFLICT (ns, event, workflow) DO UPDATE SET data = excluded.data, shapes = excluded.shapes
"""
_NOW: Final = "SELECT durable.now_ms()"
_DURABILITY: Final = "SELECT current_setting('fsync'), current_setting('synchronous_commit')"

_WRITERS: Final = 2
_OTHERS: Final = 2
_PATIENT: Final = 2


@final
@dataclass(frozen=True, slots=True)
class _Open:
    """What there is between `open` and `close`."""

    ns: int
    pool: Pool
    share: Share
    """For what waits for nobody: reads and sweeps."""
    patient: Share
    """For what may have to wait for the transactions of others."""
    writers: Sequence[Writer]
    lane: Lane
    gets: Lane
    """Of what callers look at most often, apart from what waits for the disk."""
    sweeps: Sweeps
    writing: set[asyncio.Task[list[Row]]]
    """What is under way besides the lanes."""
    transactions: Transactions
    heart: Heart
    loop: asyncio.AbstractEventLoop
    capabilities: Capabilities


@final
class PostgresStore(TransactionalStore):
    """Any number of stores, in any number of processes of any number of hosts, work on one database. Namespaces do
    not see each other. A store belongs to the event loop that opened it; only `beat` is called from other threads.

    `patience_s`: how long a statement may take.
    """

    def __init__(self, url: str, namespace: str = "default", *, patience_s: float = 15.0) -> None:
        self._location = Location.parse(url)
        self._namespace = namespace
        self._patience_s = patience_s
        self._opened: _Open | None = None
        self._opening = asyncio.Lock()

    @override
    async def open(self) -> None:
        async with self._opening:
            if self._opened is None:
                self._opened = await self._open()

    @override
    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.lane.close()
            await opened.gets.close()
            await opened.sweeps.close()
            for writer in opened.writers:
                await writer.close()
            if opened.writing:
                await asyncio.wait(opened.writing)
            await opened.transactions.close()
            await opened.pool.close()
            await asyncio.to_thread(opened.heart.close)

    @override
    async def capabilities(self) -> Capabilities:
        return self._is_open.capabilities

    # -- writes

    @override
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Joined | Exists:
        return answers.created(await self._is_open.lane.submit(requests.create(spec, op_id)))

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        request = requests.claim(execution_id, nonce, worker, have_op)
        return answers.claimed(await self._is_open.lane.submit(request))

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        request = requests.commit(execution_id, nonce, ver, op_id, batch)
        return answers.committed(await self._is_open.lane.submit(request))

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        request = requests.post(execution_id, message)
        return answers.posted(execution_id, await self._is_open.lane.submit(request))

    @override
    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        return answers.ticked(await self._is_open.sweeps.tick(live, limit))

    @override
    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        return answers.bells_of(await self._is_open.sweeps.due(wanted, limit, again_ms))

    @override
    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        self._is_open.heart.beat(stored(worker), ttl_ms, info)

    @override
    async def relay(self, partition: int, *, limit: int) -> Ticked:
        [(now,)] = await self._read(_NOW)
        return Ticked(doorbells=(), touched=(), more=False, next_at=None, now=now)

    @override
    async def send(self, events: Sequence[Emit], *, op_id: str) -> Sent:
        emits = [requests.emit_of(event) for event in events]
        [(receipts, *rest)] = await self._write(_SEND, emits, stored(op_id), op_id=op_id)
        return answers.sent((json.loads(receipts), *rest))

    @override
    async def subscribe(self, add: Sequence[Subscriber], remove: Sequence[Subscriber] = ()) -> None:
        added = {(each.event, each.workflow): each for each in add}
        gone = [each for each in remove if (each.event, each.workflow) not in added]
        await self._write(
            _SUBSCRIBE,
            [stored(each.event) for each in gone],
            [stored(each.workflow) for each in gone],
            [stored(each.event) for each in added.values()],
            [stored(each.workflow) for each in added.values()],
            [each.data for each in added.values()],
            [json.dumps([stored(shape) for shape in each.shapes]) for each in added.values()],
            op_id="subscribe",
        )

    @override
    async def save_schedule(
        self, row: ScheduleRow, *, op_id: str, starts: Sequence[NewExecution] = ()
    ) -> Saved | None:
        specs = [requests.spec_of(spec) for spec in starts]
        rows = await self._write(
            _SAVE_SCHEDULE, stored(row.id), row.data, row.next_at, row.ver, stored(op_id), specs, op_id=op_id
        )
        if not rows:
            return None
        [(ver, ids, bells, touched, next_at)] = rows
        return Saved(
            ver, list(answers.ids_of(ids)), answers.bells_of(bells), answers.ids_of(touched), next_at
        )

    @override
    async def remove_schedule(self, schedule_id: str) -> bool:
        return bool(await self._write(_REMOVE_SCHEDULE, stored(schedule_id), op_id=schedule_id))

    @override
    async def set_limit(self, rule: str, limit: int | None) -> None:
        await self._write(_SET_LIMIT, stored(rule), limit, op_id=rule)

    @override
    async def pause_queue(self, queue: str, paused: bool) -> None:
        await self._write(_PAUSE if paused else _RESUME, stored(queue), op_id=queue)

    @override
    async def prune_events(self, *, before: int, limit: int) -> int:
        [(number,)] = await self._write(_PRUNE_EVENTS, before, limit, op_id="prune events")
        return int(number)

    @override
    async def prune(self, *, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
        statuses = [each.value for each in status if each.final]
        [(number,)] = await self._write(_PRUNE, before, statuses, limit, op_id="prune")
        return int(number)

    # -- transactions of users

    @override
    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        return self._is_open.transactions.transaction()

    @override
    async def enlist(self, connection: object) -> Writes:
        return await self._is_open.transactions.enlist(connection)

    # -- reads

    @override
    async def live(self) -> Live:
        return await reads.live(self._is_open.share, self._is_open.ns)

    @override
    async def get(self, execution_id: str) -> ExecutionRow | None:
        return answers.got(await self._is_open.gets.submit(requests.get(execution_id)))

    @override
    async def history(self, execution_id: str) -> Sequence[Checkpoint]:
        return await reads.history(self._is_open.share, self._is_open.ns, execution_id)

    @override
    async def inbox(self, execution_id: str) -> Sequence[InboxEntry]:
        return await reads.inbox(self._is_open.share, self._is_open.ns, execution_id)

    @override
    async def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        return await reads.peek(self._is_open.share, self._is_open.ns, seen)

    @override
    async def value(self, execution_id: str, name: str) -> bytes | None:
        return await reads.value(self._is_open.share, self._is_open.ns, execution_id, name)

    @override
    async def query(self, query: Query) -> Rows:
        return await reads.query(self._is_open.share, self._is_open.ns, query)

    @override
    async def counts(self) -> Mapping[ExecutionStatus, int]:
        return await reads.counts(self._is_open.share, self._is_open.ns)

    @override
    async def event(self, name: str, event_id: str) -> EventRow | None:
        return await reads.event(self._is_open.share, self._is_open.ns, name, event_id)

    @override
    async def plan(self, event: str) -> Plan:
        return await reads.plan(self._is_open.share, self._is_open.ns, event)

    @override
    async def look(
        self, event: str, *, shape: str, topic: str, since: int, after: int = 0, limit: int = 100
    ) -> Looked:
        opened = self._is_open
        return await reads.look(opened.share, opened.ns, event, shape, topic, since, after, limit)

    @override
    async def subscribers(self) -> Sequence[Subscriber]:
        return await reads.subscribers(self._is_open.share, self._is_open.ns)

    @override
    async def schedule(self, schedule_id: str) -> ScheduleRow | None:
        return await reads.schedule(self._is_open.share, self._is_open.ns, schedule_id)

    @override
    async def schedules(self, *, after: str = "", limit: int = 100) -> Sequence[ScheduleRow]:
        return await reads.schedules(self._is_open.share, self._is_open.ns, after, limit)

    @override
    async def due_schedules(self, *, limit: int) -> Due:
        return await reads.due_schedules(self._is_open.share, self._is_open.ns, limit)

    @override
    async def gate(self, name: str) -> GateRow | None:
        return await reads.gate(self._is_open.share, self._is_open.ns, name)

    @override
    async def gates(self, *, after: str = "", limit: int = 100) -> Sequence[GateRow]:
        return await reads.gates(self._is_open.share, self._is_open.ns, after, limit)

    @override
    async def limits(self) -> Mapping[str, int]:
        return await reads.limits(self._is_open.share, self._is_open.ns)

    @override
    async def paused_queues(self) -> Sequence[str]:
        return await reads.paused_queues(self._is_open.share, self._is_open.ns)

    @override
    async def depths(self) -> Sequence[Depth]:
        return await reads.depths(self._is_open.share, self._is_open.ns)

    @override
    async def first_timer(self) -> int | None:
        return await reads.first_timer(self._is_open.share, self._is_open.ns)

    @override
    async def check(self) -> Sequence[str]:
        return await contradictions(self._is_open.share, self._is_open.ns)

    # -- connections

    @property
    def _is_open(self) -> _Open:
        if self._opened is None:
            raise StoreUnavailable("the store is not open", "await store.open() first")
        return self._opened

    async def _write(self, statement: str, *parameters: object, op_id: str) -> list[Row]:
        opened = self._is_open
        writing = opened.loop.create_task(run(opened.patient, statement, opened.ns, *parameters, op_id=op_id))
        opened.writing.add(writing)
        writing.add_done_callback(opened.writing.discard)
        return await asyncio.shield(writing)  # who waits may be cancelled; what was accepted goes through

    async def _read(self, statement: str) -> list[Row]:
        return await run(self._is_open.share, statement)

    async def _open(self) -> _Open:
        pool = Pool(self._location, patience_s=self._patience_s)
        share = Share(pool, _OTHERS)
        try:
            async with share.connection() as connection:
                ns, capabilities = await self._prepare(connection)
        except BaseException:
            await pool.close()
            raise
        patient = Share(pool, _PATIENT)
        writer, getter = Writer(Share(pool, _WRITERS), patient, ns), Writer(Share(pool, 1), patient, ns)
        lane, gets = Lane(writer.serve, width=_WRITERS), Lane(getter.serve, width=1)
        sweeps = Sweeps(share, ns)
        channel = channel_of(self._namespace)
        transactions = Transactions(self._location, ns, channel, share, patience_s=self._patience_s)
        heart, loop = Heart(self._location, ns), asyncio.get_running_loop()
        writers = writer, getter
        return _Open(
            ns,
            pool,
            share,
            patient,
            writers,
            lane,
            gets,
            sweeps,
            set(),
            transactions,
            heart,
            loop,
            capabilities,
        )

    async def _prepare(self, connection: Connection) -> tuple[int, Capabilities]:
        try:
            await check_sessions(self._location, connection)
            await schema.check_server(connection)
            await schema.migrate(connection)
            ns = await schema.namespace_number(connection, self._namespace)
            row = await connection.fetchrow(_DURABILITY)
        except FAILURES as error:
            raise translate(error) from error
        assert row is not None
        return ns, _capabilities(*row)


def _capabilities(fsync: str, synchronous_commit: str) -> Capabilities:
    if fsync != "on":
        grade, note = "D1", "fsync is off: a power loss may destroy the database."
    elif synchronous_commit == "off":
        grade, note = "D1", "synchronous_commit is off: the last moments may be lost when the server dies."
    else:
        grade, note = "D2", "A failover to an asynchronous standby may undo the last acknowledged operations."
    return Capabilities(
        name="postgresql", grade=grade, shared=True, notes=(note,), connection="asyncpg.Connection"
    )
