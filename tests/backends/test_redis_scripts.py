"""What the scripts of the Redis store must never do: round, write half, look into payloads, run long, or forget."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import pytest

from durable.backends.redis import scripts
from durable.backends.redis.connect import open_wire
from durable.backends.redis.courier import Courier, Effects
from durable.backends.redis.gates import Passing, Word as Passes, pack_gates
from durable.backends.redis.keys import Keyspace
from durable.backends.redis.letters import Ended, Letter
from durable.backends.redis.location import Location
from durable.backends.redis.preflight import read_info
from durable.backends.redis.store import RedisStore
from durable.backends.redis.turnstile import set_limit
from durable.backends.redis.wire import RedisWire
from durable.errors import StoreFull, StoreUnavailable
from durable.models import ExecutionStatus
from durable.protocols import (
    Claimed,
    Close,
    Continue,
    Emit,
    Gate,
    GateKind,
    Join,
    Listen,
    Live,
    NotClaimed,
    Outcome,
    Park,
    Query,
    Ready,
    Run,
    ScheduleRow,
    Unlisten,
    Watch,
    WhenFull,
    WorkerInfo,
)
from durable.testing.contracts.store.acts import (
    LATER,
    WORKER,
    Situation,
    bring,
    cancel,
    contradictions,
    create,
    due,
    everything,
    ids,
    message,
    new,
    own,
    record,
    reopen,
    row,
    signal,
    tick,
    timer,
)
from tests.backends.redis_keys import forget, keys_of
from tests.brokers.fixtures import StartRedis

pytestmark = pytest.mark.anyio

PARTITIONS: Final = 2
PARK: Final = Park(ExecutionStatus.WAITING)
DONE: Final = Close(ExecutionStatus.COMPLETED, b"42")
LISTEN: Final = Listen("paid", "wait", "o=1", "order")
RETRY: Final = Ready(2**53, ExecutionStatus.RETRYING, attempt=2)


@pytest.fixture
def location(redis_url: str) -> Location:
    return Location.parse(f"{redis_url}?partitions={PARTITIONS}")


@pytest.fixture
async def store(location: Location, namespace: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(location, namespace)
    await store.open()
    yield store
    await store.open()
    await forget(store.verbs.wire, store.verbs.space)
    await store.close()


@pytest.fixture
async def wire(location: Location) -> AsyncIterator[RedisWire]:
    """Another connection to the same server, for what no store would do."""
    wire = await open_wire(location)
    yield wire
    await wire.close()


@pytest.fixture
def space(namespace: str) -> Keyspace:
    return Keyspace(namespace, PARTITIONS)


# ---- numbers


@pytest.mark.parametrize("number", [10**14, 10**15, 2**53 - 2])
async def test_counters_of_any_length_are_exact(
    store: RedisStore, wire: RedisWire, space: Keyspace, number: int
) -> None:
    owner = await own(store)
    x = space.of(owner.id).x
    await wire.call("HSET", x, "ver", number, "iq", number, "hq", number, "cr", number, key=x, op_id="test")
    await signal(store, owner.id)
    ticked = await tick(store, live=Live({}, at=owner.now + 1))
    assert [bell.crashes for bell in ticked.doorbells] == [number + 1]
    owner = await own(store, owner.id)
    assert [entry.seq for entry in owner.inbox] == [number + 1]
    assert (owner.ver, (await row(store, owner.id)).crashes) == (number, number + 1)
    answer = await owner.commit(Ready(0, ExecutionStatus.PENDING, 1), consume=[(number + 1, "a")])
    assert answer.ver == number + 1
    await wire.call("HDEL", x, "hq", key=x, op_id="test")


# ---- all or nothing

Act = Callable[[], Awaitable[object]]


async def _creating(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    spec = new(key=ids.nonce(), timeout_ms=LATER, tags={"a": "b"})
    return space.of(spec.id).create, lambda: store.create(spec, op_id="op")


async def _claiming(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    owner = await own(store)
    await signal(store, owner.id)
    await owner.commit(Ready(0, ExecutionStatus.PENDING, 1), checkpoints=[record("a")])
    return space.of(owner.id).claim, lambda: store.claim(owner.id, nonce="n", worker=WORKER)


def _committing(next: Run | Park | Ready | Close | Continue) -> Scenario:
    async def scenario(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
        owner = await own(store, await create(store, timeout_ms=LATER))
        await signal(store, owner.id)
        await owner.commit(checkpoints=[timer("nap", owner.now + LATER)], values={"v": b"1"})
        watcher = await own(store)
        await watcher.commit(PARK, out=[Watch(owner.id, "join")])
        batch = owner.batch(
            next,
            checkpoints=[record("a"), record("nap"), timer("next", owner.now + LATER)],
            consume=[(1, "a")],
            values={"v": b"2"},
            out=[Watch(ids.execution_id(), "other")],
            seen=1,
        )
        return space.of(owner.id).commit, lambda: owner.send(batch)

    return scenario


def _posting(situation: Situation, post: Callable[[], object]) -> Scenario:
    async def scenario(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
        target = await bring(store, situation, timeout_ms=LATER)
        if situation is not Situation.CLOSED:
            await (await own(store)).commit(PARK, out=[Watch(target.id, "join")])
        sent = cancel() if post is cancel else reopen() if post is reopen else message()
        return space.of(target.id).post, lambda: store.post(target.id, sent)

    return scenario


async def _firing(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    owner = await own(store)
    await owner.commit(PARK, checkpoints=[timer("nap", owner.now)])
    return space.of(owner.id).fire, lambda: tick(store)


async def _taking_over(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    owner = await own(store)
    keys = space.of(owner.id)
    part = keys.part
    live = Live({}, at=owner.now + 1)
    return (keys.x, part.owned, part.ready), lambda: tick(store, live=live)


async def _ringing(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    part = space.of(await create(store)).part
    return (part.ready, part.later, part.rung), lambda: due(store)


async def _pruning(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    ended = (await bring(store, Situation.CLOSED, key=ids.nonce())).id
    keys = space.of(ended)
    part = keys.part
    return (keys.x, part.keys, part.closed, part.index), lambda: store.prune(
        before=2**53, status=[ExecutionStatus.COMPLETED], limit=100
    )


def _letter(store: RedisStore, letter: Letter) -> Act:
    async def deliver() -> None:
        if not await Courier(store.verbs).deliver([letter], Effects()):
            raise StoreUnavailable("it stays in the outbox")

    return deliver


async def _watching(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    target = await create(store)
    keys = space.of(target)
    return keys.watch, _letter(store, Letter(keys.part, b"1-1", "watcher", "", Watch(target, "join")))


async def _telling(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    spec = new()
    await store.create(spec, op_id="op")
    await (await own(store, spec.id)).commit(PARK)
    ended = Ended("target", Outcome(None, "", 0, b""), [(spec.id, "join", "0:1-1 op")])
    keys = space.of(spec.id)
    return keys.tell, _letter(store, Letter(keys.part, b"1-1", "target", "", ended))


GATE: Final = Gate("order/slots", "", GateKind.SLOTS, 1, when_full=WhenFull.REFUSE, refusal=b"full")


def _said(word: Passes, execution_id: str, epoch: str, *, is_new: bool = True) -> Passing:
    gates = [GATE]
    return Passing(word, execution_id, "", epoch, "2147483647", is_new, "", gates, pack_gates(gates))


async def _joining(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    first, second = [new(id=f"g:{number}", join=Join("g", LATER), gates=[GATE]) for number in range(2)]
    await store.create(first, op_id="first")
    keys = space.of("g:1").create
    return (*keys, space.of("g:0").x), lambda: store.create(second, op_id="second")


def _seeking(is_new: bool) -> Scenario:
    """A gate that is full; it refuses who is new, and lets others wait."""

    async def scenario(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
        await create(store, gates=[GATE])
        spec, keys = new(), space.of_gate(GATE.name)
        letter = Letter(keys.part, b"9-9", spec.id, "", _said(Passes.SEEK, spec.id, "9-9", is_new=is_new))
        return keys.gate, _letter(store, letter)

    return scenario


async def _giving_back(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    first, _ = [await create(store, gates=[replace(GATE, when_full=WhenFull.WAIT)]) for _ in range(2)]
    keys = space.of_gate(GATE.name)
    epoch = f"{2**52}-1"
    return keys.gate, _letter(store, Letter(keys.part, b"9-9", first, "", _said(Passes.END, first, epoch)))


def _admitting(word: Passes) -> Scenario:
    async def scenario(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
        spec = new(gates=[GATE], timeout_ms=LATER)
        [letter] = (await store.verbs.start(spec, "op")).letters
        watcher = await own(store)
        await watcher.send(watcher.batch(PARK, out=[Watch(spec.id, "join")]))
        said = Letter(letter.part, b"9-9", spec.id, "", _said(word, spec.id, letter.entry_id.decode()))
        return space.of(spec.id).admit, _letter(store, said)

    return scenario


async def _limiting(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    part = space.of_gate(GATE.name).part
    await create(store, gates=[GATE])
    return (part.limits, part.gates, part.timers, part.outbox), lambda: set_limit(
        store.verbs, part, GATE.rule, "2", ""
    )


def _hearing(listen: Listen) -> Scenario:
    async def scenario(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
        await (await own(store)).commit(PARK, out=[LISTEN, replace(LISTEN, step_id="other", shape="tenant")])
        event = Emit("e", "paid", b"", ["order"], ["o=1"], [new()])
        if listen.seen is None:
            return space.of_events("paid").all, lambda: store.send([event], op_id="op")
        await store.send([event], op_id="op")
        target = await own(store)
        letter = Letter(space.of(target.id).part, b"1-1", target.id, "", listen)
        return space.of_events("paid").all, _letter(store, letter)

    return scenario


async def _listening_no_more(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    owner = await own(store)
    await owner.commit(PARK, out=[LISTEN])
    letter = Letter(space.of(owner.id).part, b"9999999999999-1", owner.id, "", Unlisten("paid", "wait"))
    return space.of_events("paid").unlisten, _letter(store, letter)


async def _outdating(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    await store.send([Emit("e", "paid", b"")], op_id="op")
    return space.of_events("paid").all, lambda: store.prune_events(before=2**53, limit=10)


async def _leaving(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    events = [Emit("e", "paid", b""), Emit("f", "refunded", b"")]
    part = space.of_events("paid").part
    return (part.outbox,), lambda: store.send(events, op_id="op")


async def _scheduling(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    keys = space.schedules
    daily = ScheduleRow("daily", b"", LATER)
    declared = (keys.rows, keys.ids, keys.due, keys.answers, keys.part.outbox)
    return declared, lambda: store.save_schedule(daily, op_id="op", starts=[new()])


async def _unscheduling(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    keys = space.schedules
    await store.save_schedule(ScheduleRow("daily", b"", LATER), op_id="op")
    return (keys.rows, keys.ids, keys.due, keys.answers), lambda: store.remove_schedule("daily")


async def _ending_what_listens(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    target = await create(store, listens=[replace(LISTEN, cancel=b"why", seen=None)], timeout_ms=LATER)
    return space.of(target).post, lambda: store.post(target, cancel())


async def _creating_what_listens(store: RedisStore, space: Keyspace) -> tuple[Sequence[str], Act]:
    spec = new(listens=[LISTEN])
    return space.of(spec.id).create, lambda: store.create(spec, op_id="op")


Scenario = Callable[[RedisStore, Keyspace], Awaitable[tuple[Sequence[str], Act]]]
SCENARIOS: dict[str, Scenario] = {
    "create": _creating,
    "claim": _claiming,
    "run": _committing(Run()),
    "park": _committing(PARK),
    "retry": _committing(RETRY),
    "close": _committing(DONE),
    "continue": _committing(Continue(b"{}")),
    "signal": _posting(Situation.PARKED, message),
    "cancel": _posting(Situation.DELAYED, cancel),
    "reopen": _posting(Situation.CLOSED, reopen),
    "fire": _firing,
    "take over": _taking_over,
    "due": _ringing,
    "prune": _pruning,
    "watch": _watching,
    "emit": _hearing(replace(LISTEN, seen=None)),
    "listen": _hearing(LISTEN),
    "unlisten": _listening_no_more,
    "outdate": _outdating,
    "leave": _leaving,
    "schedule": _scheduling,
    "unschedule": _unscheduling,
    "cancel a listener": _ending_what_listens,
    "create a listener": _creating_what_listens,
    "tell": _telling,
    "join": _joining,
    "refuse": _seeking(True),
    "wait in line": _seeking(False),
    "give back": _giving_back,
    "admit": _admitting(Passes.PASSED),
    "cannot admit": _admitting(Passes.REFUSED),
    "limit": _limiting,
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_script_that_fails_has_written_nothing_whichever_key_is_damaged(
    location: Location, wire: RedisWire, namespace: str, name: str
) -> None:
    failures, number, index = 0, 1, 0
    while index < number:
        async with _opened(location, f"{namespace}-{index}") as (store, space):
            keys, act = await SCENARIOS[name](store, space)
            number, damaged = len(keys), keys[index]
            kept = await wire.call("DUMP", damaged, key=damaged)
            await wire.call("SET", damaged, "not ours", key=damaged, op_id="test")
            before = await _everything(wire, space)
            try:
                await act()
            except StoreUnavailable:
                failures += 1
                assert await _everything(wire, space) == before, damaged
            await wire.call("DEL", damaged, key=damaged, op_id="test")
            if kept is not None:
                await wire.call("RESTORE", damaged, 0, _bytes(kept), key=damaged, op_id="test")
        index += 1
    assert failures >= min(number, 3)


@asynccontextmanager
async def _opened(location: Location, namespace: str) -> AsyncIterator[tuple[RedisStore, Keyspace]]:
    store = RedisStore(location, namespace)
    await store.open()
    try:
        yield store, Keyspace(namespace, PARTITIONS)
        await forget(store.verbs.wire, store.verbs.space)
    finally:
        await store.close()


async def _everything(wire: RedisWire, space: Keyspace) -> dict[bytes, object]:
    """Every key of the namespace with what it holds, as the server itself would move it elsewhere."""
    return {key: await wire.call("DUMP", key, key=by) async for key, by in keys_of(wire, space)}


def _bytes(reply: object) -> bytes:
    assert isinstance(reply, bytes)
    return reply


async def test_a_full_server_takes_nothing_in_loses_nothing_and_lets_what_runs_end(
    private_redis: StartRedis,
) -> None:
    server = private_redis(maxmemory="8mb")
    store = RedisStore(Location.parse(server.url), "full")
    await store.open()
    owner = await own(store)
    await owner.commit(checkpoints=[record("a", b"first")])
    created: list[str] = []

    async def start() -> None:
        created.append(await create(store, input=bytes(20_000)))

    async def send() -> None:
        await store.post(owner.id, message(data=bytes(2_000)))

    async def step() -> None:
        await owner.commit(checkpoints=[record(f"step {owner.ver}", bytes(2_000))], seen=posted)

    await _until_full(start)
    posted = await _until_full(send)
    for _ in range(10):
        await step()
    assert {row.id for row in await everything(store)} == {owner.id, *created}
    assert (len(await store.inbox(owner.id)), len(await store.history(owner.id))) == (posted, 11)
    await owner.commit(DONE)
    assert (await row(store, owner.id)).status is ExecutionStatus.COMPLETED
    assert await contradictions(store) == []
    await store.close()
    await store.open()
    await asyncio.to_thread(store.beat, "w", ttl_ms=60_000)
    assert await store.prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=10) == 1
    server.ask("CONFIG SET maxmemory 64mb")
    await start()
    await store.close()


async def _until_full(write: Callable[[], Awaitable[None]]) -> int:
    """Do it until the server refuses; how often it did not."""
    for number in range(10_000):
        try:
            await write()
        except StoreFull:
            return number
    raise AssertionError("it is never full")


# ---- speed that does not depend on what there is


async def test_a_commit_costs_the_same_after_ten_thousand_checkpoints(private_redis: StartRedis) -> None:
    server = private_redis()
    store = RedisStore(Location.parse(server.url), "long")
    await store.open()
    owner = await own(store)
    await owner.commit(checkpoints=[record("first")])
    few = await _commands(store, owner.send(owner.batch(checkpoints=[record("second")])))
    owner.ver += 1
    for part in range(9):
        steps = [record(f"step {part} {number}", b"data") for number in range(1_000)]
        await owner.commit(checkpoints=steps)
    many = await _commands(store, owner.send(owner.batch(checkpoints=[record("last")])))
    owner.ver += 1
    assert few == many
    assert many["commands"] <= 5
    await owner.commit(Ready(0, ExecutionStatus.PENDING, 1))
    claims: list[Claimed | NotClaimed] = []

    async def claim() -> None:
        claims.append(await store.claim(owner.id, nonce="n", worker=WORKER))

    assert (await _commands(store, claim()))["commands"] <= 12
    [claimed] = claims
    assert isinstance(claimed, Claimed)
    assert claimed.history is not None
    assert [entry.seq for entry in claimed.history] == list(range(1, 9_004))
    await store.close()


async def test_a_search_by_the_beginning_of_an_id_costs_the_same_among_many_others(
    private_redis: StartRedis,
) -> None:
    store = RedisStore(Location.parse(f"{private_redis().url}?partitions=2"), "many")
    await store.open()
    wanted = {await create(store, id=f"wanted-{number}") for number in range(3)}

    async def others(count: int) -> None:
        await asyncio.gather(*(create(store) for _ in range(count)))

    async def search() -> None:
        for query in (Query(id_prefix="wan"), Query(id_prefix="wan", workflow="order")):
            assert {row.id for row in (await store.query(query)).rows} == wanted

    await others(10)
    among_few = await _commands(store, search())
    await others(400)
    assert await _commands(store, search()) == among_few
    await store.close()


async def _commands(store: RedisStore, act: Awaitable[object]) -> dict[str, int]:
    """How many scripts a call runs, and how many commands in them and beside them."""
    [before] = await store.verbs.wire.each("INFO", "commandstats")
    await act
    [after] = await store.verbs.wire.each("INFO", "commandstats")
    first, then = _calls(before), _calls(after)
    ran = {name: then[name] - first.get(name, 0) for name in then if name not in ("info", "ping")}
    runs = ran.pop("evalsha", 0) + ran.pop("eval", 0)
    return {"scripts": runs, "commands": sum(ran.values())}


def _calls(info: object) -> dict[str, int]:
    stats = read_info(_bytes(info))
    return {
        name.removeprefix("cmdstat_"): int(re.findall(r"calls=(\d+)", value)[0])
        for name, value in stats.items()
        if name.startswith("cmdstat_")
    }


async def test_each_act_of_an_execution_is_one_round_trip(store: RedisStore) -> None:
    async def trips(act: Awaitable[object]) -> int:
        before = store.sent.writes
        await act
        return store.sent.writes - before

    before = await own(store)  # a server is told each script once
    await before.commit(PARK)
    await signal(store, before.id)
    await store.tick(0, live=await store.live(), limit=10)
    spec, nonce = new(), ids.nonce()
    assert await trips(store.create(spec, op_id="op")) == 1
    assert await trips(store.claim(spec.id, nonce=nonce, worker=WORKER)) == 1
    owner = await own(store)
    assert await trips(owner.send(owner.batch(checkpoints=[record("a")]))) == 1
    assert await trips(owner.send(owner.batch(PARK, checkpoints=[timer("nap", LATER)]), ver=1)) == 1
    assert await trips(store.post(owner.id, message())) == 1
    nonce = ids.nonce()
    assert await trips(store.claim(owner.id, nonce=nonce, worker=WORKER)) == 1
    live = Live({WORKER: WorkerInfo(WORKER, until=2**53)}, at=0)
    assert await trips(store.tick(0, live=live, limit=10)) <= 2


async def test_what_leaves_in_one_turn_of_the_loop_is_one_round_trip(store: RedisStore) -> None:
    await create(store)
    before = store.sent.writes
    await asyncio.gather(*[store.create(new(), op_id=ids.nonce()) for _ in range(50)])
    assert store.sent.writes == before + 1


# ---- servers that forget scripts


async def test_a_server_that_forgets_its_scripts_is_told_them_again(private_redis: StartRedis) -> None:
    server = private_redis()
    store = RedisStore(Location.parse(server.url), "flushed")
    await store.open()
    is_over = False

    async def forget() -> None:
        while not is_over:
            server.ask("SCRIPT FLUSH")
            await asyncio.sleep(0)

    async def live_through() -> None:
        owner = await own(store)
        await signal(store, owner.id)
        for number in range(5):
            await owner.commit(checkpoints=[record(f"step {number}")])
        await owner.commit(DONE, seen=1)

    forgetting = asyncio.create_task(forget())
    await asyncio.gather(*[live_through() for _ in range(20)])
    is_over = True
    await forgetting
    assert await store.counts() == {ExecutionStatus.COMPLETED: 20}
    assert await contradictions(store) == []
    await store.close()


# ---- what is written in them

SOURCES: Final = {script.name: re.sub(r"--.*", "", script.source) for script in scripts.ALL}


@pytest.mark.parametrize("name", SOURCES)
def test_a_script_declares_its_keys_and_lets_nothing_expire_and_scans_nothing(name: str) -> None:
    source = SOURCES[name]
    assert source.startswith("#!lua")
    commands = set(re.findall(r"call\(\s*'(\w+)'", source)) | set(re.findall(r"many\('(\w+)'", source))
    assert commands
    assert not {command for command in commands if "EXPIRE" in command or command in FORBIDDEN}
    assert not re.search(r"cjson|cmsgpack|struct|loadstring|redis\.pcall", source)


FORBIDDEN: Final = {
    "SETEX",
    "PSETEX",
    "GETEX",
    "SCAN",
    "HSCAN",
    "SSCAN",
    "ZSCAN",
    "KEYS",
    "SORT",
    "RANDOMKEY",
}


async def test_no_key_ever_expires(store: RedisStore, wire: RedisWire, space: Keyspace) -> None:
    for name in ("close", "retry", "continue"):
        _, act = await SCENARIOS[name](store, space)
        await act()
    keys = await _everything(wire, space)
    assert keys
    assert {await wire.call("PTTL", key, key=space.partitions[0].index) for key in keys} == {-1}
