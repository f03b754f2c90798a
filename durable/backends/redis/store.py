"""`RedisStore`: executions on a Redis, for any number of processes.

every verb ─▶ Verbs ─▶ a script for each, atomic within one partition ─▶ Wire
commit ─────▶ outbox ─▶ Courier ─▶ other executions, wherever they are
beat ───────▶ Heart, over a connection of its own, on the caller's thread
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from typing_extensions import override

from durable.backends.redis import events as event_log, flow_reads, pages, reads, schedules, scripts, sweeps
from durable.backends.redis.check import contradictions
from durable.backends.redis.connect import open_wire
from durable.backends.redis.courier import PASSING, Courier
from durable.backends.redis.effects import Effects
from durable.backends.redis.heart import Heart
from durable.backends.redis.keys import Keyspace, lease_keys, meta_key
from durable.backends.redis.letters import Letter
from durable.backends.redis.location import Location
from durable.backends.redis.records import as_list
from durable.backends.redis.turnstile import set_limit
from durable.backends.redis.verbs import Answer, Verbs
from durable.backends.redis.wire import RedisWire, Sent
from durable.errors import ConfigurationError, OutcomeUnknown, StoreUnavailable
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
    DurableStore,
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
    Receipt,
    Rows,
    Saved,
    ScheduleRow,
    Sent as SentEvents,
    Subscriber,
    Ticked,
    Wanted,
)

SCHEMA: Final = 3
DEFAULT_PARTITIONS: Final = 16
_FEWEST_PARTITIONS: Final = 2
"""With one, nobody would relay what a process that died had put into the outbox."""
_RELAYED_AT_ONCE: Final = 100


@final
@dataclass(slots=True)
class _Open:
    """What there is between `open` and `close`."""

    wire: RedisWire
    verbs: Verbs
    courier: Courier
    heart: Heart


@final
class RedisStore(DurableStore):
    """Any number of stores, in any number of processes, work on one namespace. Namespaces do not see each other."""

    def __init__(self, location: Location, namespace: str = "default") -> None:
        """Raises: `ConfigurationError` for a number of partitions that cannot be."""
        if location.partitions is not None and location.partitions < _FEWEST_PARTITIONS:
            raise ConfigurationError(
                f"{location.shown!r} asks for {location.partitions} partition",
                f"use {_FEWEST_PARTITIONS} or more, or leave it out: {DEFAULT_PARTITIONS} suit most",
            )
        self._location = location
        self._namespace = namespace
        self._opened: _Open | None = None
        self._read: dict[int, list[Letter]] = {}
        """Delivered letters, by partition, that are still in the outbox."""
        self._chore: asyncio.Task[None] | None = None

    @override
    async def open(self) -> None:
        if self._opened is not None:
            return
        wire = await open_wire(self._location)
        try:
            await wire.load(scripts.ALL)
            verbs = Verbs(wire, Keyspace(self._namespace, await self._partitions(wire)))
            await pages.put_in_order(verbs)
        except BaseException:
            await wire.close()
            raise
        heart = Heart(self._location, lease_keys(self._namespace))
        self._opened = _Open(wire, verbs, Courier(verbs), heart)

    @override
    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is None:
            return
        await opened.wire.close()
        if self._chore is not None:
            await asyncio.wait((self._chore,))
        await asyncio.to_thread(opened.heart.close)

    @override
    async def capabilities(self) -> Capabilities:
        opened = self._is_open
        grade = opened.wire.grade
        return Capabilities(
            name="redis",
            grade=grade.grade.partition("+")[0],
            partitions=len(opened.verbs.space.partitions),
            shared=True,
            notes=grade.notes,
        )

    @property
    def verbs(self) -> Verbs:
        """What it is made of."""
        return self._is_open.verbs

    @property
    def sent(self) -> Sent:
        """What went out since `open`, beats not counted: a test can count round trips."""
        return self._is_open.wire.sent

    # -- writes

    @override
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Joined | Exists:
        opened = self._is_open
        started = await opened.verbs.start(spec, op_id)
        answer = started.answer
        if not started.letters or isinstance(answer, Exists):
            return answer
        effects = await self._deliver(opened, started.letters)
        own, others = _of(answer.id, effects.doorbells)
        if isinstance(answer, Joined):
            return replace(answer, doorbell=answer.doorbell or own)
        return replace(
            answer,
            doorbell=answer.doorbell or own,
            doorbells=(*answer.doorbells, *others),
            touched=tuple(id for id in effects.touched if id != answer.id),
            next_at=effects.next_at,
        )

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        return await self._is_open.verbs.claim(execution_id, nonce, worker, have_op)

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        opened = self._is_open
        answer = await opened.verbs.commit(execution_id, nonce, ver, op_id, batch)
        if not isinstance(answer, Answer):
            return answer
        committed = answer.committed
        if answer.letters:
            effects = await self._deliver(opened, answer.letters)
            return replace(
                committed,
                doorbells=(*committed.doorbells, *effects.doorbells),
                touched=(*committed.touched, *effects.touched),
                next_at=effects.next_at,
            )
        return committed

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        opened = self._is_open
        answer, letters = await opened.verbs.post(execution_id, message)
        if letters:
            effects = await self._deliver(opened, letters)
            if isinstance(answer, Posted):
                own, others = _of(execution_id, effects.doorbells)
                return replace(
                    answer,
                    doorbell=answer.doorbell or own,
                    doorbells=tuple(others),
                    next_at=effects.next_at,
                )
        return answer

    @override
    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        opened = self._is_open
        return await sweeps.tick(opened.courier, opened.verbs.space.partitions[partition], live, limit)

    @override
    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        opened = self._is_open
        return await sweeps.due(
            opened.verbs, opened.verbs.space.partitions[partition], wanted, limit, again_ms
        )

    @override
    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        self._is_open.heart.beat(worker, ttl_ms, info)

    @override
    async def relay(self, partition: int, *, limit: int) -> Ticked:
        opened = self._is_open
        effects = Effects()
        part = opened.verbs.space.partitions[partition]
        now, more = await opened.courier.relay(part, limit, effects)
        return Ticked(effects.doorbells, tuple(effects.touched), more=more, next_at=effects.next_at, now=now)

    @override
    async def send(self, events: Sequence[Emit], *, op_id: str) -> SentEvents:
        opened = self._is_open
        effects = Effects()
        receipts: Sequence[Receipt]
        if len(events) == 1:
            receipts = [await opened.courier.emit(events[0], f"{op_id}:0", effects)]
        elif events:
            # Those of different names are in different places: they are all in one, before any goes anywhere.
            letters = await event_log.leave(opened.verbs, events, op_id)
            try:
                receipts = await asyncio.gather(
                    *[
                        opened.courier.emit(event, f"{op_id}:{number}", effects)
                        for number, event in enumerate(events)
                    ]
                )
            except PASSING as error:
                raise OutcomeUnknown(op_id, "they will be sent, but are not yet") from error
            self._take_off_soon(opened, letters)
        else:
            receipts = ()
        self._take_off_soon(opened, effects.read)
        return SentEvents(receipts, tuple(effects.doorbells), tuple(effects.touched), effects.next_at)

    @override
    async def subscribe(self, add: Sequence[Subscriber], remove: Sequence[Subscriber] = ()) -> None:
        await event_log.subscribe(self._is_open.verbs, add, remove)

    @override
    async def save_schedule(
        self, row: ScheduleRow, *, op_id: str, starts: Sequence[NewExecution] = ()
    ) -> Saved | None:
        opened = self._is_open
        kept = await schedules.save(opened.verbs, row, op_id, starts)
        if kept is None:
            return None
        if not kept.letters:
            return Saved(kept.ver, kept.execution_ids, ())
        effects = await self._deliver(opened, kept.letters)
        ids = effects.names(kept.execution_ids, kept.places)
        return Saved(kept.ver, ids, tuple(effects.doorbells), tuple(effects.touched), effects.next_at)

    @override
    async def remove_schedule(self, schedule_id: str) -> bool:
        return await schedules.remove(self._is_open.verbs, schedule_id)

    @override
    async def set_limit(self, rule: str, limit: int | None) -> None:
        opened = self._is_open
        part = opened.verbs.space.partition_of(rule)
        letters = await set_limit(opened.verbs, part, rule, "-" if limit is None else str(limit), "")
        await self._deliver(opened, letters)

    @override
    async def pause_queue(self, queue: str, paused: bool) -> None:
        verbs = self._is_open.verbs
        key = verbs.space.paused
        await verbs.wire.call("SADD" if paused else "SREM", key, queue, key=key, op_id="pause")

    @override
    async def prune_events(self, *, before: int, limit: int) -> int:
        return await event_log.prune(self._is_open.verbs, before, limit)

    @override
    async def prune(self, *, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
        opened = self._is_open
        return await sweeps.prune(opened.verbs, opened.verbs.space.partitions, before, status, limit)

    # -- reads

    @override
    async def live(self) -> Live:
        return await reads.live(self._is_open.verbs)

    @override
    async def get(self, execution_id: str) -> ExecutionRow | None:
        return await reads.row(self._is_open.verbs, execution_id)

    @override
    async def history(self, execution_id: str) -> Sequence[Checkpoint]:
        return await reads.history(self._is_open.verbs, execution_id)

    @override
    async def inbox(self, execution_id: str) -> Sequence[InboxEntry]:
        return await reads.inbox(self._is_open.verbs, execution_id)

    @override
    async def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        return await reads.peek(self._is_open.verbs, seen)

    @override
    async def value(self, execution_id: str, name: str) -> bytes | None:
        return await reads.value(self._is_open.verbs, execution_id, name)

    @override
    async def query(self, query: Query) -> Rows:
        return await pages.page(self._is_open.verbs, query)

    @override
    async def counts(self) -> Mapping[ExecutionStatus, int]:
        return await reads.counts(self._is_open.verbs)

    @override
    async def event(self, name: str, event_id: str) -> EventRow | None:
        return await event_log.event(self._is_open.verbs, name, event_id)

    @override
    async def plan(self, event: str) -> Plan:
        return await event_log.plan(self._is_open.verbs, event)

    @override
    async def look(
        self, event: str, *, shape: str, topic: str, since: int, after: int = 0, limit: int = 100
    ) -> Looked:
        return await event_log.look(
            self._is_open.verbs, event, shape=shape, topic=topic, since=since, after=after, limit=limit
        )

    @override
    async def subscribers(self) -> Sequence[Subscriber]:
        return await event_log.subscribers(self._is_open.verbs)

    @override
    async def schedule(self, schedule_id: str) -> ScheduleRow | None:
        return await schedules.row(self._is_open.verbs, schedule_id)

    @override
    async def schedules(self, *, after: str = "", limit: int = 100) -> Sequence[ScheduleRow]:
        return await schedules.page(self._is_open.verbs, after, limit)

    @override
    async def due_schedules(self, *, limit: int) -> Due:
        return await schedules.due(self._is_open.verbs, limit)

    @override
    async def gate(self, name: str) -> GateRow | None:
        return await flow_reads.gate(self._is_open.verbs, name)

    @override
    async def gates(self, *, after: str = "", limit: int = 100) -> Sequence[GateRow]:
        return await flow_reads.gates(self._is_open.verbs, after, limit)

    @override
    async def limits(self) -> Mapping[str, int]:
        return await flow_reads.limits(self._is_open.verbs)

    @override
    async def paused_queues(self) -> Sequence[str]:
        return await reads.paused_queues(self._is_open.verbs)

    @override
    async def depths(self) -> Sequence[Depth]:
        return await flow_reads.depths(self._is_open.verbs)

    @override
    async def first_timer(self) -> int | None:
        return await reads.first_timer(self._is_open.verbs)

    @override
    async def check(self) -> Sequence[str]:
        return await contradictions(self._is_open.verbs)

    # -- connections

    @property
    def _is_open(self) -> _Open:
        if self._opened is None:
            raise StoreUnavailable("the store is not open", "await store.open() first")
        return self._opened

    async def _partitions(self, wire: RedisWire) -> int:
        """How many the namespace was made with; it is made now if it is new."""
        shown, asked = self._location.shown, self._location.partitions
        key = meta_key(self._namespace)
        reply = await wire.run(scripts.META, (key,), (SCHEMA, asked or DEFAULT_PARTITIONS), op_id="open")
        schema, partitions = (
            int(word) if isinstance(word, bytes) and word.isdigit() else None for word in as_list(reply)
        )
        if schema is None or partitions is None:
            raise StoreUnavailable(
                f"namespace {self._namespace} of the Redis at {shown} holds something that is not durable's",
                "use another namespace or another database",
            )
        if schema != SCHEMA:
            raise StoreUnavailable(
                f"namespace {self._namespace} of the Redis at {shown} has schema {schema}, and this is for {SCHEMA}",
                "use the version of durable that wrote it, or a newer one",
            )
        if asked not in (None, partitions):
            raise ConfigurationError(
                f"namespace {self._namespace} of the Redis at {shown} has {partitions} partitions, not {asked}",
                f"say partitions={partitions} or leave it out: the number is fixed when a namespace is made",
            )
        return partitions

    # -- the outbox

    async def _deliver(self, opened: _Open, letters: Sequence[Letter]) -> Effects:
        """Deliver at once what a write has just put into its outbox; what fails is left to the relay."""
        effects, part = Effects(), letters[0].part
        with contextlib.suppress(*PASSING):
            done = await opened.courier.deliver(letters, effects)
            if len(done) < len(letters):
                await opened.courier.relay(part, _RELAYED_AT_ONCE, effects)
            else:
                self._take_off_soon(opened, done)
        self._take_off_soon(opened, effects.read)
        return effects

    def _take_off_soon(self, opened: _Open, done: Sequence[Letter]) -> None:
        for letter in done:
            self._read.setdefault(letter.part.number, []).append(letter)
        if self._read and self._chore is None:
            self._chore = asyncio.create_task(self._take_off(opened), name="durable.redis.outbox")

    async def _take_off(self, opened: _Open) -> None:
        """Take delivered letters off their outboxes, as many as there are in a turn of the loop."""
        try:
            while self._read:
                read, self._read = self._read, {}
                for number, letters in read.items():
                    with contextlib.suppress(*PASSING):
                        await opened.courier.take_off(opened.verbs.space.partitions[number], letters)
        finally:
            self._chore = None


def _of(execution_id: str, doorbells: Sequence[Doorbell]) -> tuple[Doorbell | None, Sequence[Doorbell]]:
    """Its own doorbell, and those of others."""
    own = next((bell for bell in doorbells if bell.id == execution_id), None)
    return own, [bell for bell in doorbells if bell.id != execution_id]
