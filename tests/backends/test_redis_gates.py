"""Gates on Redis: who dies between two writes, or says a thing twice or too late, changes nothing about who passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Final

import pytest
from typing_extensions import override

from durable.backends.redis import sweeps
from durable.backends.redis.courier import Courier
from durable.backends.redis.effects import Effects
from durable.backends.redis.gates import pack_gates, unpack_gates
from durable.backends.redis.letters import Letter, pack_out, unpack_out
from durable.backends.redis.location import Location
from durable.backends.redis.replies import Reply
from durable.backends.redis.store import RedisStore
from durable.backends.redis.turnstile import set_limit
from durable.backends.redis.verbs import Answer, Verbs
from durable.backends.redis.wire import Script, Wire, Word
from durable.errors import StoreUnavailable
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Claimed,
    Close,
    Free,
    Gate,
    GateKind,
    Join,
    Live,
    MessageKind,
    Next,
    Out,
    Park,
    Posted,
    Ready,
    Seek,
    Start,
    State,
    WhenFull,
)
from durable.testing.contracts.store.acts import (
    HELD,
    LATER,
    SOON,
    WORKER,
    Owner,
    cancel,
    carry,
    contradictions,
    create,
    ids,
    message,
    new,
    own,
    row,
    tick,
    unread,
)
from tests.backends.redis_keys import forget

pytestmark = pytest.mark.anyio

PARTITIONS: Final = 3
PARK: Final = Park(ExecutionStatus.WAITING)
DONE: Final = Close(ExecutionStatus.COMPLETED, b"42")
RELEASE: Final = Ready(0, ExecutionStatus.PENDING, attempt=1)


@pytest.fixture
async def store(redis_url: str, namespace: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(Location.parse(f"{redis_url}?partitions={PARTITIONS}"), namespace)
    await store.open()
    yield store
    await forget(store.verbs.wire, store.verbs.space)
    await store.close()


def slots(limit: int, rule: str, *, when_full: WhenFull = WhenFull.WAIT, keeps: bool = False) -> Gate:
    return Gate(rule, ids.nonce(), GateKind.SLOTS, limit, when_full=when_full, keeps=keeps, refusal=b"\xff\n")


# ---- a process that dies between two writes


@dataclass
class Mortal(Wire):
    """A connection of a process that lives to make so many writes."""

    within: Wire
    writes: int

    @property
    def is_dead(self) -> bool:
        return self.writes < 0

    def _write(self) -> None:
        self.writes -= 1
        if self.is_dead:
            raise StoreUnavailable("dead")

    @override
    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Word], *, op_id: str | None = None
    ) -> Reply:
        if op_id is not None:
            self._write()
        return await self.within.run(script, keys, args, op_id=op_id)

    @override
    async def call(self, *command: Word, key: str, op_id: str | None = None) -> Reply:
        if op_id is not None or command[0] == "XDEL":
            self._write()
        return await self.within.call(*command, key=key, op_id=op_id)

    @override
    async def each(self, *command: Word) -> Sequence[Reply]:
        return await self.within.each(*command)


async def _carried(verbs: Verbs, letters: Sequence[Letter]) -> None:
    """Delivered and taken off, as the store does it."""
    courier, effects = Courier(verbs), Effects()
    await courier.follow(letters, effects)
    await courier.clear(effects)


async def _commits(verbs: Verbs, owner: Owner, next: Next, out: Sequence[Out] = ()) -> None:
    answer = await verbs.commit(owner.id, owner.nonce, owner.ver, ids.nonce(), owner.batch(next, out=out))
    assert isinstance(answer, Answer)
    await _carried(verbs, answer.letters)


Act = Callable[[Verbs], Awaitable[None]]
Proof = Callable[[], Awaitable[None]]
Scenario = Callable[[RedisStore], Awaitable[tuple[Act, Proof]]]


async def _creating(store: RedisStore) -> tuple[Act, Proof]:
    gates = [slots(1, "a"), Gate("rate", ids.nonce(), GateKind.RATE, 1, LATER), slots(1, "b")]
    spec = new(gates=gates, queue=ids.nonce())

    async def act(verbs: Verbs) -> None:
        await _carried(verbs, (await verbs.start(spec, "op")).letters)

    async def proof() -> None:
        for gate in gates:
            found = await store.gate(gate.name)
            assert found is not None
            assert found.held == (1 if gate.kind is GateKind.SLOTS else 0)
        await own(store, spec.id)

    return act, proof


async def _ending(store: RedisStore) -> tuple[Act, Proof]:
    gates = [slots(1, "a"), slots(1, "b", keeps=True)]
    first, second = [await create(store, gates=gates) for _ in range(2)]
    owner = await own(store, first)

    async def proof() -> None:
        await own(store, second)

    return lambda verbs: _commits(verbs, owner, DONE), proof


def _leaving(next: Next) -> Scenario:
    async def scenario(store: RedisStore) -> tuple[Act, Proof]:
        gates = [slots(1, "a"), slots(1, "b")]
        first, second = [await create(store, gates=gates) for _ in range(2)]
        owner = await own(store, first)

        async def proof() -> None:
            successor = await own(store, second)
            await store.post(first, message())
            await carry(store)
            assert (await row(store, first)).held_by == gates[0].name
            await successor.commit(DONE)
            await own(store, first)

        return lambda verbs: _commits(verbs, owner, next), proof

    return scenario


async def _going_past(store: RedisStore) -> tuple[Act, Proof]:
    gates = [slots(3, "a"), slots(1, "b")]
    first, second, third = [await create(store, gates=gates) for _ in range(3)]
    await (await own(store, first)).commit(PARK)
    other = await own(store, second)
    await store.post(first, message())
    await carry(store)
    assert (await row(store, first)).held_by == gates[1].name
    sent = cancel()

    async def act(verbs: Verbs) -> None:
        posted, letters = await verbs.post(first, sent)
        assert isinstance(posted, Posted)
        await _carried(verbs, letters)

    async def proof() -> None:
        await (await own(store, first)).commit(DONE)
        assert (await row(store, third)).held_by == gates[1].name
        await other.commit(DONE)
        await own(store, third)

    return act, proof


async def _cancelling(store: RedisStore) -> tuple[Act, Proof]:
    gates = [slots(1, "a"), slots(1, "b")]
    first, second = [await create(store, gates=gates) for _ in range(2)]
    sent = cancel(b"why")

    async def act(verbs: Verbs) -> None:
        posted, letters = await verbs.post(first, sent)
        assert isinstance(posted, Posted)
        await _carried(verbs, letters)

    async def proof() -> None:
        assert (await row(store, first)).status is ExecutionStatus.CANCELLED
        await own(store, second)

    return act, proof


async def _refusing(store: RedisStore) -> tuple[Act, Proof]:
    gates = [slots(2, "a"), slots(1, "b", when_full=WhenFull.REFUSE)]
    await create(store, gates=gates)
    spec = new(gates=gates)

    async def act(verbs: Verbs) -> None:
        await _carried(verbs, (await verbs.start(spec, "op")).letters)

    async def proof() -> None:
        refused = await row(store, spec.id)
        assert (refused.state, refused.error) == (State.CLOSED, b"\xff\n")
        found = await store.gate(gates[0].name)
        assert found is not None
        assert found.held == 1

    return act, proof


async def _replacing(store: RedisStore) -> tuple[Act, Proof]:
    gates = [slots(1, "a", when_full=WhenFull.REPLACE)]
    first = await create(store, gates=gates)
    owner = await own(store, first)
    spec = new(gates=gates)

    async def act(verbs: Verbs) -> None:
        await _carried(verbs, (await verbs.start(spec, "op")).letters)

    async def proof() -> None:
        [told] = await unread(store, first)
        assert (told.kind, told.data) == (MessageKind.CANCEL, b"\xff\n")
        await owner.commit(DONE, consume=[(1, "c")])
        await own(store, spec.id)

    return act, proof


async def _seeking(store: RedisStore) -> tuple[Act, Proof]:
    gates, owner = [slots(1, "a"), slots(1, "b")], await own(store)

    async def proof() -> None:
        assert [entry.id for entry in await store.inbox(owner.id)] == ["m"]

    return lambda verbs: _commits(verbs, owner, PARK, [Seek("ask", gates, "m")]), proof


async def _freeing(store: RedisStore) -> tuple[Act, Proof]:
    gates, one, two = [slots(1, "a"), slots(1, "b")], await own(store), await own(store)
    await one.commit(out=[Seek("ask", gates, "m1")])
    await two.commit(PARK, out=[Seek("ask", gates, "m2")])

    async def proof() -> None:
        assert [entry.id for entry in await store.inbox(two.id)] == ["m2"]

    return lambda verbs: _commits(verbs, replace(one, seen=1), PARK, [Free("ask")]), proof


async def _limiting(store: RedisStore) -> tuple[Act, Proof]:
    gates = [slots(1, "limited") for _ in range(4)]
    waiting = [[await create(store, gates=[gate]) for _ in range(2)][1] for gate in gates]

    async def act(verbs: Verbs) -> None:
        part = verbs.space.partition_of("limited")
        await _carried(verbs, await set_limit(verbs, part, "limited", "2", ""))

    async def proof() -> None:
        assert await store.limits() == {"limited": 2}
        await tick(store)
        await carry(store)
        for each in waiting:
            await own(store, each)

    return act, proof


async def _opening(store: RedisStore) -> tuple[Act, Proof]:
    gates = [Gate("rate", ids.nonce(), GateKind.RATE, 1, 10 * SOON), slots(1, "b")]
    first, second = [await create(store, gates=gates) for _ in range(2)]
    await (await own(store, first)).commit(DONE)
    found = await store.gate(gates[0].name)
    assert found is not None
    opens_at = found.next_at or 0
    await asyncio.sleep((opens_at - (await store.live()).at + SOON) / 1_000)

    async def act(verbs: Verbs) -> None:
        for part in verbs.space.partitions:
            await sweeps.tick(Courier(verbs), part, HELD, 100)

    async def proof() -> None:
        await tick(store)
        await carry(store)
        await own(store, second)

    return act, proof


async def _delayed(store: RedisStore) -> tuple[Act, Proof]:
    gates = [slots(1, "a"), slots(1, "b")]
    delayed = await create(store, gates=gates, delay_ms=1)
    await asyncio.sleep(0.01)

    async def act(verbs: Verbs) -> None:
        part = verbs.space.of(delayed).part
        await sweeps.tick(Courier(verbs), part, HELD, 100)

    async def proof() -> None:
        await tick(store)
        await carry(store)
        await own(store, delayed)

    return act, proof


async def _filling(store: RedisStore) -> tuple[Act, Proof]:
    group, gates = ids.nonce(), [slots(1, "a")]
    specs = [
        new(id=f"{group}:{number}", input=b"[1]", gates=gates, join=Join(group, LATER, size=2))
        for number in range(2)
    ]
    await store.create(specs[0], op_id=f"{group} first")

    async def act(verbs: Verbs) -> None:
        await _carried(verbs, (await verbs.start(specs[1], f"{group} second")).letters)

    async def proof() -> None:
        await store.create(specs[1], op_id=f"{group} second")
        await carry(store)
        owner = await own(store, specs[0].id)
        assert (await row(store, owner.id)).input == b"[1]\n[1]"

    return act, proof


SCENARIOS: dict[str, Scenario] = {
    "create": _creating,
    "close": _ending,
    "park": _leaving(PARK),
    "release": _leaving(RELEASE),
    "urgent": _going_past,
    "cancel": _cancelling,
    "refuse": _refusing,
    "replace": _replacing,
    "seek": _seeking,
    "free": _freeing,
    "limit": _limiting,
    "rate": _opening,
    "delay": _delayed,
    "batch": _filling,
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_whoever_dies_between_two_writes_leaves_letters_and_the_relay_completes_it(
    store: RedisStore, name: str
) -> None:
    deaths = 0
    while True:
        act, proof = await SCENARIOS[name](store)
        mortal = Mortal(store.verbs.wire, writes=deaths + 1)
        try:
            await act(Verbs(mortal, store.verbs.space))
        except StoreUnavailable:
            assert mortal.is_dead
        await carry(store)
        await proof()
        await carry(store)
        assert await contradictions(store) == []
        if not mortal.is_dead:
            break
        deaths += 1
        await store.set_limit("limited", None)
    assert deaths > 2


@pytest.mark.parametrize("name", SCENARIOS)
async def test_letters_that_arrive_twice_and_in_any_order_change_nothing(
    store: RedisStore, name: str
) -> None:
    act, proof = await SCENARIOS[name](store)
    with suppress(StoreUnavailable):
        await act(Verbs(Mortal(store.verbs.wire, writes=1), store.verbs.space))
    courier = Courier(store.verbs)
    seen: list[Letter] = []
    for _ in range(3):
        for part in store.verbs.space.partitions:
            _, letters = await courier.read(part)
            seen += letters
            await courier.deliver(letters, Effects())
    await carry(store)
    for letter in reversed(seen):
        await _carried(store.verbs, [letter])
    await carry(store)
    await proof()
    for letter in seen:  # and long after
        await _carried(store.verbs, [letter])
    await carry(store)
    assert await contradictions(store) == []


# ---- many at once, some of whom die


class Crowd:
    """Workers that do all there is to do to executions with gates, each of them mortal, while others relay."""

    def __init__(self, store: RedisStore, seed: int) -> None:
        self.store = store
        self.random = Random(seed)
        self.gates = [slots(3, "crowd/a", keeps=True), slots(2, "crowd/b"), slots(1, "crowd/steps")]
        self.rate = Gate("crowd/rate", ids.nonce(), GateKind.RATE, 1_000, 1_000)
        self.ids: list[str] = []

    async def works(self, turns: int) -> None:
        for _ in range(turns):
            mortal = Mortal(self.store.verbs.wire, self.random.choice([0, 1, 2, 3, 4, 99, 99, 99]))
            with suppress(StoreUnavailable):
                await self._turn(Verbs(mortal, self.store.verbs.space))

    async def relays(self) -> None:
        """One that reads letters and delivers them, and later again."""
        courier, read = Courier(self.store.verbs), list[Letter]()
        while True:
            for part in self.store.verbs.space.partitions:
                read += (await courier.read(part, 7))[1]
                await self.store.relay(part.number, limit=7)
                for letter in self.random.sample(read, min(3, len(read))):
                    await courier.deliver([letter], Effects())

    async def _turn(self, verbs: Verbs) -> None:
        if len(self.ids) < 60:
            a, b, _ = self.gates
            gates = self.random.choice([[a], [a, b], [b, self.rate], [a, self.rate, b], []])
            spec = new(gates=gates, priority=self.random.randrange(3))
            self.ids.append(spec.id)
            await _carried(verbs, (await verbs.start(spec, ids.nonce())).letters)
            return
        execution_id = self.random.choice(self.ids)
        if self.random.random() < 0.3:
            sent = cancel() if self.random.random() < 0.1 else message()
            _, letters = await verbs.post(execution_id, sent)
            await _carried(verbs, letters)
            return
        nonce = ids.nonce()
        claimed = await self.store.claim(execution_id, nonce=nonce, worker=WORKER)
        if isinstance(claimed, Claimed):
            await self._own(verbs, claimed, nonce)

    async def _own(self, verbs: Verbs, claimed: Claimed, nonce: str) -> None:
        row = claimed.row
        step = self.random.choice(["one", "two"])
        out = self.random.choice([[], [Seek(step, [self.gates[2]], ids.nonce())], [Free(step)]])
        next = self.random.choice([PARK, PARK, RELEASE, DONE])
        batch = Batch(row.inbox_seq, next, out=out)
        answer = await self.store.verbs.commit(row.id, nonce, row.ver, ids.nonce(), batch)
        assert isinstance(answer, Answer)
        await _carried(verbs, answer.letters)

    async def ends(self) -> None:
        """Everybody is let through to the end."""
        for _ in range(200):
            open_ids = [each for each in self.ids if await self._is_open(each)]
            if not open_ids:
                return
            for execution_id in open_ids:
                await self.store.post(execution_id, message())
            now = (await self.store.live()).at
            await tick(self.store, live=Live({}, now))  # some died as owners
            await carry(self.store)
            for execution_id in open_ids:
                nonce = ids.nonce()
                claimed = await self.store.claim(execution_id, nonce=nonce, worker=WORKER)
                if isinstance(claimed, Claimed):
                    batch = Batch(claimed.row.inbox_seq, DONE)
                    await self.store.commit(
                        execution_id, nonce=nonce, ver=claimed.row.ver, op_id=ids.nonce(), batch=batch
                    )
        raise AssertionError("they wait for each other")

    async def _is_open(self, execution_id: str) -> bool:
        found = await self.store.get(execution_id)
        return found is not None and found.state is not State.CLOSED

    async def within_limits(self) -> None:
        while True:
            for gate in self.gates:
                found = await self.store.gate(gate.name)
                assert found is None or found.held <= gate.limit
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(4))
async def test_a_crowd_with_deaths_leaves_no_slot_taken_and_nobody_waiting(
    store: RedisStore, seed: int
) -> None:
    crowd = Crowd(store, seed)
    async with asyncio.TaskGroup() as tasks:
        others = [tasks.create_task(crowd.relays()), tasks.create_task(crowd.within_limits())]
        working = [tasks.create_task(crowd.works(200)) for _ in range(4)]
        await asyncio.wait(working)
        for other in others:
            other.cancel()
    await carry(store)
    await tick(store)
    await carry(store)
    assert await contradictions(store) == []
    await crowd.ends()
    await carry(store)
    assert await contradictions(store) == []
    assert [row.name for row in await store.gates()] == []
    courier = Courier(store.verbs)
    assert [list((await courier.read(part))[1]) for part in store.verbs.space.partitions] == [[]] * PARTITIONS


# ---- what is counted


async def test_what_is_held_is_counted_though_it_is_of_very_many_priorities(store: RedisStore) -> None:
    gate = slots(1, "a", keeps=True)
    await own(store, await create(store, gates=[gate]))
    [part, *_] = store.verbs.space.partitions
    here = (id for id in iter(ids.execution_id, "") if store.verbs.space.of(id).part is part)
    specs = [new(id=next(here), priority=priority, gates=[gate]) for priority in range(300)]
    await asyncio.gather(*[store.create(spec, op_id=ids.nonce()) for spec in specs])
    assert [(each.queue, each.ready, each.held) for each in await store.depths()] == [("default", 0, 300)]


# ---- what is written


async def test_what_a_seek_costs(store: RedisStore) -> None:
    """Its own write, one for each gate, one for the way back; and what was delivered is taken off behind the answer."""
    gate = slots(9, "a")
    await create(store, gates=[gate])
    await asyncio.sleep(0)
    before = replace(store.sent)
    await store.create(new(gates=[gate]), op_id=ids.nonce())
    assert store.sent.writes - before.writes == 3


def test_gates_survive_being_written() -> None:
    gates = [
        Gate("order/rate", "é|{x}\n", GateKind.RATE, 1, 2, 3, refusal=b"\x00\n\xff"),
        slots(7, "all", when_full=WhenFull.REPLACE, keeps=True),
        Gate("w", "", GateKind.WINDOW, 5, 6),
    ]
    assert unpack_gates(pack_gates(gates)) == gates
    assert unpack_gates(pack_gates(())) == ()


def test_a_start_with_gates_and_a_group_survives_the_outbox() -> None:
    start = Start(
        new(
            input=b"in\n",
            options=b"opt\n",
            gates=[slots(7, "all")],
            join=Join("g", 1, size=3, items=2),
            cause=b"\xffwhy\n",
        )
    )
    assert unpack_out(pack_out(start)) == start
