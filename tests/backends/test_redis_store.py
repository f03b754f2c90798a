"""The Redis store itself: how a namespace is opened, what it finds wrong with itself, and letters of the dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import pytest

from durable.backends.redis.connect import open_wire
from durable.backends.redis.courier import Courier, Effects
from durable.backends.redis.keys import Keyspace
from durable.backends.redis.letters import Ended, Letter
from durable.backends.redis.location import Location
from durable.backends.redis.store import DEFAULT_PARTITIONS, SCHEMA, RedisStore
from durable.backends.redis.verbs import Answer, Verbs
from durable.backends.redis.wire import RedisWire, Word
from durable.errors import ConfigurationError, OutcomeUnknown, StoreUnavailable
from durable.models import ExecutionStatus
from durable.protocols import (
    Close,
    Committed,
    Emit,
    Gate,
    GateKind,
    Join,
    Listen,
    Out,
    Outcome,
    Park,
    Post,
    Query,
    ScheduleRow,
    Start,
    State,
    Watch,
)
from durable.testing.contracts.store.acts import (
    LATER,
    WORKER,
    Owner,
    Situation,
    bring,
    carry,
    contradictions,
    create,
    ids,
    message,
    new,
    own,
    record,
    row,
    signal,
    timer,
    unread,
)
from tests.backends.redis_keys import forget
from tests.brokers.fixtures import StartRedis

pytestmark = pytest.mark.anyio

PARTITIONS: Final = 2
PARK: Final = Park(ExecutionStatus.WAITING)
T = TypeVar("T")
DONE: Final = Close(ExecutionStatus.COMPLETED, b"42")


@pytest.fixture
async def store(redis_url: str, namespace: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(Location.parse(f"{redis_url}?partitions={PARTITIONS}"), namespace)
    await store.open()
    yield store
    await store.open()
    await forget(store.verbs.wire, store.verbs.space)
    await store.close()


@pytest.fixture
async def wire(redis_url: str) -> AsyncIterator[RedisWire]:
    wire = await open_wire(Location.parse(redis_url))
    yield wire
    await wire.close()


@pytest.fixture
def space(namespace: str) -> Keyspace:
    return Keyspace(namespace, PARTITIONS)


# ---- opening


async def test_a_new_namespace_has_the_usual_partitions_and_whoever_does_not_say_takes_those_that_there_are(
    redis_url: str, namespace: str
) -> None:
    for _ in range(2):
        store = RedisStore(Location.parse(redis_url), namespace)
        await store.open()
        assert (await store.capabilities()).partitions == DEFAULT_PARTITIONS
        await store.close()


async def test_another_number_of_partitions_is_refused_by_both_numbers(
    store: RedisStore, redis_url: str, namespace: str
) -> None:
    other = RedisStore(Location.parse(f"{redis_url}?partitions=5"), namespace)
    with pytest.raises(ConfigurationError, match=r"has 2 partitions, not 5"):
        await other.open()
    await create(store)


def test_a_single_partition_is_refused(redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match="partition"):
        RedisStore(Location.parse(f"{redis_url}?partitions=1"))


async def test_a_newer_schema_is_refused_by_both_numbers(
    redis_url: str, wire: RedisWire, space: Keyspace, namespace: str
) -> None:
    newer = SCHEMA + 1
    await wire.call("HSET", space.meta, "schema", newer, "partitions", 4, key=space.meta, op_id="test")
    with pytest.raises(StoreUnavailable, match=rf"schema {newer}.* {SCHEMA}") as raised:
        await RedisStore(Location.parse(redis_url), namespace).open()
    assert raised.value.hint


async def test_a_namespace_of_the_older_schema_is_used_as_it_is_and_is_one_of_this_from_now_on(
    redis_url: str, wire: RedisWire, space: Keyspace, namespace: str
) -> None:
    await wire.call("HSET", space.meta, "schema", 1, "partitions", PARTITIONS, key=space.meta, op_id="test")
    store = RedisStore(Location.parse(redis_url), namespace)
    await store.open()
    await own(store)
    assert await wire.call("HGET", space.meta, "schema", key=space.meta) == b"%d" % SCHEMA
    await forget(store.verbs.wire, space)
    await store.close()


async def test_ids_that_a_process_of_the_older_schema_left_out_are_found_and_indexed_at_the_next_opening(
    store: RedisStore, redis_url: str, wire: RedisWire, space: Keyspace, namespace: str
) -> None:
    many = {await create(store, id=f"batch/{number}") for number in range(501)}  # one partition, two portions
    await create(store)
    for part in space.partitions:
        await wire.call("ZREMRANGEBYLEX", part.index, "[i", "(j", key=part.index, op_id="test")
    pruned = space.of("gone").part.index
    await wire.call("ZADD", pruned, 0, f"igone\0{1:016}", key=pruned, op_id="test")

    async def found(store: RedisStore) -> set[str]:
        return {row.id for row in (await store.query(Query(id_prefix="batch/", limit=1_000))).rows}

    assert await found(store) == many
    assert await store.check() != []
    other = RedisStore(Location.parse(redis_url), namespace)
    await other.open()
    assert await found(other) == many
    assert await other.check() == []
    await other.close()


@pytest.mark.parametrize("command", [("SET", "hello"), ("HSET", "a", "b")], ids=["a string", "a hash"])
async def test_what_is_not_ours_is_left_alone(
    redis_url: str, wire: RedisWire, space: Keyspace, namespace: str, command: tuple[str, ...]
) -> None:
    await wire.call(command[0], space.meta, *command[1:], key=space.meta, op_id="test")
    with pytest.raises(StoreUnavailable):
        await RedisStore(Location.parse(redis_url), namespace).open()


async def test_a_store_that_is_not_open_says_so(redis_url: str) -> None:
    store = RedisStore(Location.parse(redis_url))
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.get("x")
    with pytest.raises(StoreUnavailable, match="not open"):
        store.beat("w", ttl_ms=1)


async def test_a_store_opens_its_heart_again(store: RedisStore) -> None:
    for worker in ("a", "b"):
        await asyncio.to_thread(store.beat, worker, ttl_ms=LATER)
        await store.close()
        await store.open()
    assert set((await store.live()).workers) == {"a", "b"}


# ---- letters of the dead


async def _commit_and_die(store: RedisStore, owner: Owner, out: Sequence[Out], next: Park | Close) -> None:
    """As a process does that is killed between the commit and the delivery."""
    answer = await store.verbs.commit(
        owner.id, owner.nonce, owner.ver, ids.nonce(), owner.batch(next, out=out)
    )
    assert isinstance(answer, Answer)
    assert answer.letters


async def _deliver_and_die(store: RedisStore) -> None:
    """As a process does that is killed between the delivery and taking the letters off."""
    courier = Courier(store.verbs)
    for part in store.verbs.space.partitions:
        _, letters = await courier.read(part)
        await courier.deliver(letters, Effects())


async def test_what_a_process_left_in_the_outbox_arrives_once_however_often_it_is_delivered(
    store: RedisStore,
) -> None:
    parked, target, parent = await bring(store, Situation.PARKED), await own(store), await own(store)
    child = new()
    out = [
        Start(child),
        Post(parked.id, message("hello", id="m")),
        Watch(target.id, "join"),
        Watch("missing", "gone"),
        Emit("e", "paid", b"\x00"),
    ]
    await _commit_and_die(store, parent, out, PARK)
    assert await store.get(child.id) is None
    for _ in range(2):
        await _deliver_and_die(store)
    await carry(store)
    assert (await row(store, child.id)).state is State.READY
    assert [entry.name for entry in await store.inbox(parked.id)] == ["hello"]
    stored = await store.event("paid", "e")
    assert stored is not None
    assert (stored.data, stored.seq) == (b"\x00", 1)
    assert [entry.name for entry in await store.inbox(parent.id)] == ["gone"]

    await _commit_and_die(store, target, (), DONE)
    for _ in range(2):
        await _deliver_and_die(store)
    await carry(store)
    assert [entry.name for entry in await store.inbox(parent.id)] == ["gone", "join"]
    assert [(await Courier(store.verbs).read(part))[1] for part in store.verbs.space.partitions] == [[], []]
    assert await contradictions(store) == []


async def test_an_end_that_was_taken_is_not_told_again_by_an_old_letter(store: RedisStore) -> None:
    target, watcher = await own(store), await own(store)
    await watcher.commit(PARK, out=[Watch(target.id, "join")])
    await _commit_and_die(store, target, (), DONE)
    await _deliver_and_die(store)
    watcher = await own(store, watcher.id)
    await watcher.commit(PARK, consume=[(1, "join")])
    await carry(store)
    assert (await row(store, watcher.id)).state is State.PARKED
    assert await unread(store, watcher.id) == []


async def test_a_watcher_is_told_in_one_command_of_all_that_end_in_one_turn(store: RedisStore) -> None:
    watcher, number = await own(store), 250
    targets = [await own(store) for _ in range(number)]
    await watcher.commit(PARK, out=[Watch(target.id, f"join-{n}") for n, target in enumerate(targets)])
    for target in targets:
        await _commit_and_die(store, target, (), DONE)
    courier, effects = Courier(store.verbs), Effects()
    parts = store.verbs.space.partitions
    letters = [letter for part in parts for letter in (await courier.read(part, 1000))[1]]
    before = store.sent.commands
    # Some letters are delivered by two at once, and some are of a watcher whose id another one has now.
    old = [Ended("target", Outcome(None, "", 0, b""), [(watcher.id, "old", "0:1-1 another")])]
    again = [*letters[:40], Letter(parts[0], b"1-1", "target", "", old[0])]
    await asyncio.gather(courier.deliver(again, effects), courier.deliver(letters, effects))
    assert store.sent.commands - before == 3
    entries = await store.inbox(watcher.id)
    assert sorted(entry.name for entry in entries) == sorted(f"join-{n}" for n in range(number))
    assert [entry.seq for entry in entries] == list(range(1, number + 1))
    assert [bell.id for bell in effects.doorbells] == [watcher.id]
    assert list(effects.touched) == [watcher.id]
    await carry(store)
    assert await contradictions(store) == []


async def test_a_letter_to_a_full_inbox_stays_and_is_in_nobody_elses_way(
    store: RedisStore, space: Keyspace
) -> None:
    full, free, sender = await own(store), await bring(store, Situation.PARKED), await own(store)
    await signal(store, full.id)
    narrow = Verbs(store.verbs.wire, space, max_unread=1)
    out = [Post(full.id, message("later")), Post(free.id, message("now"))]
    await _commit_and_die(store, sender, out, PARK)
    part = space.of(sender.id).part
    assert [(await Courier(narrow).relay(part, 1, Effects()))[1] for _ in range(2)] == [True, False]
    assert [entry.name for entry in await store.inbox(free.id)] == ["now"]
    await full.commit(consume=[(1, "a")])
    assert [entry.name for entry in await unread(store, full.id)] == ["later"]


async def test_a_watcher_that_was_deleted_is_not_taken_for_its_namesake(store: RedisStore) -> None:
    target = await own(store)
    watcher = await own(store, await create(store, id="x"))
    await watcher.commit(DONE, out=[Watch(target.id, "join")])
    await store.prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=9)
    await create(store, id="x")
    await target.commit(DONE)
    assert await unread(store, "x") == []


async def test_an_end_is_told_to_a_thousand_watchers(store: RedisStore) -> None:
    target, watcher = await own(store), await own(store)
    await watcher.commit(PARK, out=[Watch(target.id, f"join {number}") for number in range(1_500)])
    await target.commit(DONE)
    assert len(await unread(store, watcher.id)) == 1_500


# ---- connections that are cut


async def test_connections_that_are_cut_in_the_middle_cost_repeats_and_nothing_else(
    private_redis: StartRedis,
) -> None:
    server = private_redis()
    store = RedisStore(Location.parse(server.url), "cut")
    await store.open()
    calls, unknown = 0, 0

    async def surely(call: Callable[[], Awaitable[T]]) -> T:
        nonlocal calls, unknown
        while True:
            calls += 1
            if calls % 60 == 0:
                server.ask("CLIENT KILL TYPE normal")
            try:
                return await call()
            except OutcomeUnknown:
                unknown += 1

    async def live_through() -> str:
        spec, nonce, sent, created = new(), ids.nonce(), message(), ids.nonce()
        await surely(lambda: store.create(spec, op_id=created))
        await surely(lambda: store.claim(spec.id, nonce=nonce, worker=WORKER))
        await surely(lambda: store.post(spec.id, sent))
        owner, child = Owner(store, spec.id, nonce), new()
        batches = [
            owner.batch(checkpoints=[record("a")]),
            owner.batch(PARK, checkpoints=[record("b")], values={"v": b"1"}),
            owner.batch(checkpoints=[record("c")], consume=[(1, "b")], out=[Start(child)], seen=1),
            owner.batch(DONE, out=[Watch(child.id, "join")], seen=1),
        ]
        for ver, batch in enumerate(batches):
            op_id = ids.nonce()
            answer = await surely(
                partial(store.commit, spec.id, nonce=nonce, ver=ver, op_id=op_id, batch=batch)
            )
            assert isinstance(answer, Committed)
            assert answer.ver == ver + 1
        return spec.id

    ended = await asyncio.gather(*[live_through() for _ in range(60)])
    assert unknown
    await carry(store)
    for execution_id in ended:
        assert [entry.step_id for entry in await store.history(execution_id)] == ["a", "b", "c"]
        assert [entry.consumed_by for entry in await store.inbox(execution_id)] == ["b"]
    assert await store.counts() == {ExecutionStatus.COMPLETED: 60, ExecutionStatus.PENDING: 60}
    assert await contradictions(store) == []
    await store.close()


async def test_a_heart_beats_on_after_its_connection_was_cut(private_redis: StartRedis) -> None:
    server = private_redis()
    store = RedisStore(Location.parse(server.url), "cut")
    await store.open()
    try:
        for worker in ("a", "b", "c"):
            await asyncio.to_thread(store.beat, worker, ttl_ms=LATER)
            server.ask("CLIENT KILL TYPE normal")
        assert set((await store.live()).workers) == {"a", "b", "c"}
    finally:
        await store.close()


async def test_a_heart_without_a_server_says_so_and_beats_when_it_is_back(private_redis: StartRedis) -> None:
    server = private_redis()
    store = RedisStore(Location.parse(server.url), "gone")
    await store.open()
    server.kill()
    with pytest.raises(StoreUnavailable):
        await asyncio.to_thread(store.beat, "a", ttl_ms=LATER)
    server.start()
    await asyncio.to_thread(store.beat, "a", ttl_ms=LATER)
    assert set((await store.live()).workers) == {"a"}
    await store.close()


# ---- what is found wrong

DAMAGES: Final[dict[str, tuple[Word, ...]]] = {
    "not ready": ("DEL", "r"),
    "not owned": ("DEL", "own"),
    "not closed": ("DEL", "d"),
    "not indexed": ("DEL", "q"),
    "no timers": ("DEL", "t"),
    "another's timer": ("ZADD", "t", 1, "nobody\0nap"),
    "another's deadline": ("ZADD", "t", 1, "nobody\0__timeout"),
    "another's key": ("HSET", "k", "order\0other", "nobody"),
    "no key": ("DEL", "k"),
    "another's history": ("HSET", "h:nobody", "a", "b"),
    "another's steps at gates": ("HSET", "z:nobody", "a", "b"),
    "nobody held": ("ZREMRANGEBYSCORE", "g", "+inf", "+inf"),
    "no gates": ("DEL", "n"),
    "a gate without a line": ("DEL", "gl:slots|"),
    "a gate without holders": ("DEL", "gh:slots|"),
    "a gate that knows nobody": ("DEL", "gs:slots|"),
    "another at a gate": ("HSET", "gs:slots|", "nobody\0", "c 1-1"),
    "another's group": ("HSET", "j", "g", "nobody"),
    "another who joined": ("ZADD", "jo", 0, "inobody\0op"),
    "another's listening": ("HSET", "e:nobody", "paid\0wait", "e1-1"),
    "no listeners": ("DEL", "eh:paid"),
    "no index of listeners": ("DEL", "ei:paid"),
    "a listener that is nobody": ("HSET", "eh:paid", "nobody\0wait", "1-1 0 e T0 U0 0\n"),
    "no log of events": ("DEL", "el:paid"),
    "no data of events": ("DEL", "ev:paid"),
    "nothing about events": ("DEL", "ea:paid"),
    "no names of events": ("DEL", "en"),
    "no ids of schedules": ("DEL", "sl"),
    "no due schedules": ("DEL", "sd"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_check_names_what_contradicts_itself(
    store: RedisStore, wire: RedisWire, space: Keyspace, damage: str
) -> None:
    command, name, *rest = DAMAGES[damage]
    for situation in (Situation.NEW, Situation.OWNED, Situation.CLOSED):
        await bring(store, situation, key=f"{situation}")
    napping = await own(store)
    await napping.commit(PARK, checkpoints=[timer("nap", napping.now + LATER), record("a")])
    gate = Gate("slots", "", GateKind.SLOTS, 1)
    for _ in range(2):
        await create(store, gates=[gate])
    await store.create(new(id="g:1", join=Join("g", LATER)), op_id="join")
    await (await own(store)).commit(PARK, out=[Listen("paid", "wait", "o=1", "order")])
    await store.send([Emit("e", "paid", b"")], op_id="op")
    await store.save_schedule(ScheduleRow("daily", b"", LATER), op_id="op")
    await carry(store)
    assert await store.check() == []
    for part in space.partitions:
        await wire.call(command, f"{part.prefix}{name}", *rest, key=part.index, op_id="test")
    assert await store.check()


async def test_an_outcome_survives_the_way_through_the_outbox(store: RedisStore) -> None:
    target, watcher = await own(store), await own(store)
    await watcher.commit(PARK, out=[Watch(target.id, "join")])
    await _commit_and_die(store, target, (), Close(ExecutionStatus.FAILED, None, b"\n\xff"))
    await carry(store)
    [told] = await unread(store, watcher.id)
    assert Outcome.unpack(told.data) == Outcome(ExecutionStatus.FAILED, "order", 1, b"\n\xff")


def test_a_letter_knows_its_sender_by_more_than_its_id(space: Keyspace) -> None:
    part = space.partitions[1]
    first, second = (Letter(part, b"1-1", "x", born, Watch("y", "join")) for born in ("a", "b"))
    assert first.token != second.token
