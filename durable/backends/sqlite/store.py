"""`SqliteStore`: executions in a file, for the processes of one host.

every loop ─▶ writer lane ─▶ Writer ─▶ Unit ─▶ one transaction for a group of writes
           ─▶ reader lanes ─▶ a connection each
beat ───────▶ a connection of its own, on the caller's thread
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, final

from typing_extensions import override

from durable.backends.sqlite import (
    events as events_of,
    gates,
    preflight,
    query as pages,
    reads,
    schedules,
    schema,
    sweeps,
    verbs,
)
from durable.backends.sqlite.check import contradictions
from durable.backends.sqlite.checkpointer import Checkpointer
from durable.backends.sqlite.connection import Use, WriteLock, connect, translate
from durable.backends.sqlite.hub import Hub, check_process, hub_of
from durable.backends.sqlite.lane import Lane
from durable.backends.sqlite.reads import Reader
from durable.backends.sqlite.transactions import Transactions
from durable.backends.sqlite.unit import Unit
from durable.backends.sqlite.writer import Writer
from durable.clock import Clock, SystemClock
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

T = TypeVar("T")

_BEAT: Final = """
    INSERT INTO workers (ns, id, until, info) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET until = excluded.until, info = excluded.info
"""
_LAST_BEAT: Final = "DELETE FROM workers WHERE ns = ? AND (id = ? OR until <= ?)"
_FORGOTTEN_MS: Final = 3_600_000
"""So long after its end the lease of a worker that died is deleted."""


@final
@dataclass(slots=True)
class _Open:
    """What there is between `open` and `close`."""

    pid: int
    ns: int
    lock: WriteLock
    writer: Lane[Unit]
    reader: Lane[sqlite3.Connection]
    scanner: Lane[sqlite3.Connection]
    """For reads that may be long."""
    heart: sqlite3.Connection
    transactions: Transactions


@final
class SqliteStore(TransactionalStore):
    """Any number of stores, in any number of processes of one host, work on one file. Namespaces do not see each other.

    `foreign_keys`: whether the connections of `transaction` enforce them. `give_up_s`: how long a call waits for a file
    that other processes keep locked.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        namespace: str = "default",
        clock: Clock | None = None,
        *,
        synchronous: str = "full",
        foreign_keys: bool = False,
        give_up_s: float = 10.0,
        mounts: Path = preflight.MOUNTS,
    ) -> None:
        self._path = Path(path).absolute()
        self._namespace = namespace
        self._clock = clock or SystemClock()
        self._synchronous = synchronous
        self._foreign_keys = foreign_keys
        self._give_up_s = give_up_s
        self._mounts = mounts
        self._opened: _Open | None = None
        self._heart_lock = threading.Lock()
        self._lifecycle = threading.Lock()

    @override
    async def open(self) -> None:
        await asyncio.to_thread(self._connect)

    @override
    async def close(self) -> None:
        if self._opened is not None and self._opened.pid == os.getpid():
            opened, self._opened = self._opened, None
            await asyncio.to_thread(self._disconnect, opened)

    @override
    async def capabilities(self) -> Capabilities:
        is_full = self._synchronous == "full"
        return Capabilities(
            name="sqlite",
            grade="D2" if is_full else "D1",
            shared=True,
            notes=(
                "One host, local disk."
                if is_full
                else "After a power loss executions may resume from an earlier checkpoint.",
                *preflight.notes(),
            ),
            connection="sqlite3.Connection",
        )

    # -- writes

    @override
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Joined | Exists:
        return await self._is_open.writer.submit(lambda unit: verbs.create(unit, spec, op_id), op_id)

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        return await self._is_open.writer.submit(
            lambda unit: verbs.claim(unit, execution_id, nonce, worker, have_op), nonce
        )

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        return await self._is_open.writer.submit(
            lambda unit: verbs.commit(unit, execution_id, nonce, ver, op_id, batch), op_id
        )

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        return await self._is_open.writer.submit(
            lambda unit: verbs.post(unit, execution_id, message), message.id
        )

    @override
    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        return await self._is_open.writer.submit(lambda unit: sweeps.tick(unit, live, limit), "tick")

    @override
    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        return await self._is_open.writer.submit(
            lambda unit: sweeps.due(unit, wanted, limit, again_ms), "due"
        )

    @override
    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        opened = self._is_open
        check_process(opened.pid)
        try:
            with self._heart_lock, opened.lock.guest(opened.heart):
                now = self._clock.now_ms()
                if ttl_ms > 0:
                    opened.heart.execute(_BEAT, (opened.ns, worker, now + ttl_ms, info))
                else:
                    opened.heart.execute(_LAST_BEAT, (opened.ns, worker, now - _FORGOTTEN_MS))
        except sqlite3.Error as error:
            raise translate(error) from error

    @override
    async def relay(self, partition: int, *, limit: int) -> Ticked:
        return Ticked(doorbells=(), touched=(), more=False, next_at=None, now=self._clock.now_ms())

    @override
    async def prune(self, *, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
        return await self._is_open.writer.submit(
            lambda unit: sweeps.prune(unit, before, status, limit), "prune"
        )

    @override
    async def send(self, events: Sequence[Emit], *, op_id: str) -> Sent:
        return await self._is_open.writer.submit(lambda unit: verbs.send(unit, events, op_id), op_id)

    @override
    async def subscribe(self, add: Sequence[Subscriber], remove: Sequence[Subscriber] = ()) -> None:
        await self._is_open.writer.submit(lambda unit: events_of.subscribe(unit, add, remove), "subscribe")

    @override
    async def save_schedule(
        self, row: ScheduleRow, *, op_id: str, starts: Sequence[NewExecution] = ()
    ) -> Saved | None:
        return await self._is_open.writer.submit(
            lambda unit: verbs.save_schedule(unit, row, op_id, starts), op_id
        )

    @override
    async def remove_schedule(self, schedule_id: str) -> bool:
        return await self._is_open.writer.submit(
            lambda unit: schedules.remove(unit, schedule_id), schedule_id
        )

    @override
    async def set_limit(self, rule: str, limit: int | None) -> None:
        await self._is_open.writer.submit(lambda unit: gates.set_limit(unit, rule, limit), rule)

    @override
    async def pause_queue(self, queue: str, paused: bool) -> None:
        await self._is_open.writer.submit(lambda unit: schedules.pause_queue(unit, queue, paused), queue)

    @override
    async def prune_events(self, *, before: int, limit: int) -> int:
        return await self._is_open.writer.submit(
            lambda unit: events_of.prune(unit, before, limit), "prune events"
        )

    @override
    def transaction(self) -> AbstractAsyncContextManager[sqlite3.Connection]:
        return self._is_open.transactions.transaction()

    @override
    async def enlist(self, connection: object) -> Writes:
        return await self._is_open.transactions.enlist(connection)

    # -- reads

    @override
    async def live(self) -> Live:
        opened = self._is_open
        return await opened.reader.submit(lambda db: reads.live(db, opened.ns, self._clock.now_ms()))

    @override
    async def get(self, execution_id: str) -> ExecutionRow | None:
        opened = self._is_open
        return await opened.reader.submit(lambda db: reads.get(db, opened.ns, execution_id))

    @override
    async def history(self, execution_id: str) -> Sequence[Checkpoint]:
        opened = self._is_open
        return await opened.scanner.submit(lambda db: reads.history(db, opened.ns, execution_id))

    @override
    async def inbox(self, execution_id: str) -> Sequence[InboxEntry]:
        opened = self._is_open
        return await opened.scanner.submit(lambda db: reads.inbox(db, opened.ns, execution_id))

    @override
    async def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        opened = self._is_open
        return await opened.reader.submit(lambda db: reads.peek(db, opened.ns, seen))

    @override
    async def value(self, execution_id: str, name: str) -> bytes | None:
        opened = self._is_open
        return await opened.reader.submit(lambda db: reads.value(db, opened.ns, execution_id, name))

    @override
    async def query(self, query: Query) -> Rows:
        opened = self._is_open
        return await opened.scanner.submit(lambda db: pages.query(db, opened.ns, query))

    @override
    async def counts(self) -> Mapping[ExecutionStatus, int]:
        opened = self._is_open
        return await opened.reader.submit(lambda db: reads.counts(db, opened.ns))

    @override
    async def event(self, name: str, event_id: str) -> EventRow | None:
        return await self._read(lambda db, ns: reads.event(db, ns, name, event_id))

    @override
    async def plan(self, event: str) -> Plan:
        return await self._read(lambda db, ns: reads.plan(db, ns, event))

    @override
    async def look(
        self, event: str, *, shape: str, topic: str, since: int, after: int = 0, limit: int = 100
    ) -> Looked:
        return await self._read(lambda db, ns: reads.look(db, ns, event, shape, topic, since, after, limit))

    @override
    async def subscribers(self) -> Sequence[Subscriber]:
        return await self._read(reads.subscribers)

    @override
    async def schedule(self, schedule_id: str) -> ScheduleRow | None:
        return await self._read(lambda db, ns: reads.schedule(db, ns, schedule_id))

    @override
    async def schedules(self, *, after: str = "", limit: int = 100) -> Sequence[ScheduleRow]:
        return await self._read(lambda db, ns: reads.schedules(db, ns, after, limit))

    @override
    async def due_schedules(self, *, limit: int) -> Due:
        return await self._read(lambda db, ns: reads.due_schedules(db, ns, self._clock.now_ms(), limit))

    @override
    async def gate(self, name: str) -> GateRow | None:
        return await self._read(lambda db, ns: reads.gate(db, ns, name))

    @override
    async def gates(self, *, after: str = "", limit: int = 100) -> Sequence[GateRow]:
        return await self._read(lambda db, ns: reads.gates(db, ns, after, limit))

    @override
    async def limits(self) -> Mapping[str, int]:
        return await self._read(reads.limits)

    @override
    async def paused_queues(self) -> Sequence[str]:
        return await self._read(reads.paused_queues)

    @override
    async def depths(self) -> Sequence[Depth]:
        return await self._read(lambda db, ns: reads.depths(db, ns, self._clock.now_ms()))

    @override
    async def first_timer(self) -> int | None:
        return await self._read(reads.first_timer)

    async def _read(self, read: Callable[[sqlite3.Connection, int], T]) -> T:
        opened = self._is_open
        return await opened.reader.submit(lambda db: read(db, opened.ns))

    @override
    async def check(self) -> Sequence[str]:
        opened = self._is_open
        return await opened.scanner.submit(lambda db: contradictions(db, opened.ns))

    # -- connections

    @property
    def _is_open(self) -> _Open:
        if self._opened is None:
            raise StoreUnavailable("the store is not open", "await store.open() first")
        return self._opened

    def _connect(self) -> None:
        with self._lifecycle:
            if self._opened is not None:
                check_process(self._opened.pid)
                return
            preflight.check_sqlite()
            preflight.check_place(self._path, self._mounts)
            hub = hub_of(self._path)
            hub.enter()
            try:
                preflight.create(self._path)
                lock = WriteLock(self._give_up_s)
                self._opened = lock.patiently(lambda: self._connections(lock, hub))
            except BaseException as error:
                hub.leave()
                if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
                    raise schema.not_ours(self._path, "is not a database") from error
                if isinstance(error, sqlite3.Error):
                    raise translate(error) from error
                raise

    def _connections(self, lock: WriteLock, hub: Hub) -> _Open:
        with ExitStack() as unwind:

            def connection(use: Use) -> sqlite3.Connection:
                db = connect(self._path, use, synchronous=self._synchronous)
                unwind.callback(db.close)
                return db

            db = connection(Use.WRITE)
            schema.migrate(db, self._path, lock)
            ns = schema.namespace_number(db, self._namespace, lock)
            reader, scanner = Reader(connection(Use.READ), lock), Reader(connection(Use.READ), lock)
            heart = connection(Use.BESIDES)
            checkpointer = Checkpointer(self._path, connection(Use.BESIDES), db, lock)
            writer = Writer(db, Unit(db, ns, self._clock), lock, checkpointer, hub)
            unwind.pop_all()
        lock.was_busy = False
        return _Open(
            pid=os.getpid(),
            ns=ns,
            lock=lock,
            writer=Lane("durable-sqlite-writer", writer),
            reader=Lane("durable-sqlite-reader", reader),
            scanner=Lane("durable-sqlite-scanner", scanner),
            heart=heart,
            transactions=Transactions(
                self._path,
                ns,
                lock,
                hub,
                self._clock,
                synchronous=self._synchronous,
                foreign_keys=self._foreign_keys,
            ),
        )

    def _disconnect(self, opened: _Open) -> None:
        with self._lifecycle:
            opened.transactions.close()
            for lane in (opened.writer, opened.reader, opened.scanner):
                lane.close()
            with self._heart_lock:
                opened.heart.close()
            hub_of(self._path).leave()
