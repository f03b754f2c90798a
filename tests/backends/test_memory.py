"""What is particular to the memory backend: sharing, atomicity, isolation, speed, its limits and its check."""

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest

from durable.backends.memory import MemoryBus, MemoryStore, backend
from durable.clock import SystemClock
from durable.errors import ConfigurationError, InvalidInput, StoreFull
from durable.models import ExecutionStatus
from durable.protocols import (
    Block,
    CheckpointStatus,
    Close,
    Continue,
    DurableStore,
    Exists,
    Full,
    Message,
    MessageKind,
    NewExecution,
    Next,
    Outcome,
    Post,
    Posted,
    Query,
    Reach,
    Ready,
    State,
    Watch,
)
from tests.backends.memory_world import (
    DONE,
    NOBODY,
    PARK,
    START_MS,
    WANTED,
    World,
    at_once,
    ids,
    nap,
    new,
    signal,
    step,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def world() -> World:
    return World()


# ---- by URL


def opened(url: str, namespace: str = "default") -> DurableStore:
    assert backend.open_store is not None
    return backend.open_store(url, namespace=namespace, clock=SystemClock())


async def test_each_store_without_a_name_is_private() -> None:
    one, two = opened("memory://"), opened("memory://")
    await one.create(new("x"), op_id="op")
    assert await one.get("x") is not None
    assert await two.get("x") is None


async def test_stores_of_one_name_share_what_they_keep_even_after_all_were_closed() -> None:
    url = f"memory://{ids.nonce()}"
    one = opened(url)
    await one.open()
    await one.create(new("x"), op_id="op")
    await one.close()
    row = await opened(url).get("x")
    assert row is not None
    row = await opened(url.replace("memory", "MEMORY")).get("x")
    assert row is not None


async def test_another_name_or_another_namespace_is_other_data() -> None:
    name = ids.nonce()
    await opened(f"memory://{name}", "shop").create(new("x", key="k"), op_id="op")
    assert await opened(f"memory://{name}", "blog").get("x") is None
    assert await opened(f"memory://{name}2", "shop").get("x") is None
    other = await opened(f"memory://{name}", "blog").create(new("x", key="k"), op_id="op 2")
    assert not isinstance(other, Exists)


@pytest.mark.parametrize(
    "url", ["memory://a/b", "memory:///a", "memory://a?b=c", "memory://ä", "memory://a b"]
)
def test_a_url_that_says_more_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="memory URL"):
        opened(url)


async def test_buses_are_shared_by_name_and_namespace_as_stores_are() -> None:
    assert backend.open_bus is not None
    name, heard = ids.nonce(), list[str]()
    for url, namespace in [(f"memory://{name}", "shop"), (f"memory://{name}", "blog"), ("memory://", "shop")]:
        bus = backend.open_bus(url, namespace=namespace, clock=SystemClock())
        await bus.subscribe("t", partial(heard.append, f"{url} {namespace}"))
    backend.open_bus(f"memory://{name}", namespace="shop", clock=SystemClock()).publish(["t"])
    assert heard == [f"memory://{name} shop"]


async def test_closing_one_of_two_buses_keeps_the_others_subscriptions() -> None:
    name, heard = ids.nonce(), list[int]()
    one, two = MemoryBus(name=name), MemoryBus(name=name)
    await one.subscribe("t", lambda: heard.append(1))
    await two.subscribe("t", lambda: heard.append(2))
    await one.close()
    one.publish(["t"])
    assert heard == [2]


# ---- atomic


def test_no_verb_suspends(world: World) -> None:
    store = world.store
    at_once(store.open())
    at_once(store.capabilities())
    at_once(store.create(new("x"), op_id="op"))
    at_once(store.due(0, WANTED, limit=1, again_ms=1))
    world.own("x")
    world.post("x", signal())
    world.commit("x", DONE, checkpoints=[step("a")])
    at_once(store.tick(0, live=at_once(store.live()), limit=1))
    at_once(store.relay(0, limit=1))
    reads: list[Coroutine[Any, Any, object]] = [
        store.get("x"),
        store.history("x"),
        store.inbox("x"),
        store.peek({"x": 0}),
        store.value("x", "v"),
        store.query(Query()),
        store.counts(),
        store.event("paid", "e"),
        store.check(),
    ]
    for read in reads:
        at_once(read)
    assert at_once(store.prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=1)) == 1
    at_once(store.close())


async def test_leases_are_held_from_other_threads_while_the_loop_is_busy() -> None:
    store = MemoryStore()
    done = threading.Event()

    def beat(worker: str) -> None:
        while not done.is_set():
            store.beat(worker, ttl_ms=60_000, info=worker.encode())

    threads = [threading.Thread(target=beat, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    seen: set[str] = set()
    for _ in range(2_000):
        live = await store.live()
        assert seen <= live.workers.keys()
        seen |= live.workers.keys()
    done.set()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert (await store.live()).workers.keys() == {"w0", "w1", "w2", "w3"}


# ---- isolated


def test_what_is_handed_in_or_out_shares_nothing_with_the_store(world: World) -> None:
    tags, values = {"a": "b"}, {"v": b"1"}
    world.running("x", tags=tags)
    tags["a"] = "changed"
    world.commit("x", values=values)
    values["v"] = b"changed"
    row = at_once(world.store.get("x"))
    assert row is not None
    assert row.tags == {"a": "b"}
    row.tags["a"] = "changed"  # type: ignore[index]
    live = at_once(world.store.live())
    live.workers["w"] = None  # type: ignore[index]
    no_tags = dict[str, str]()
    world.create("y", tags=no_tags)
    no_tags["c"] = "d"
    assert [row.id for row in at_once(world.store.query(Query(tags={"a": "b"}))).rows] == ["x"]
    assert at_once(world.store.query(Query(tags={"c": "d"}))).rows == []
    assert at_once(world.store.value("x", "v")) == b"1"
    assert not at_once(world.store.live()).workers


# ---- fast


@pytest.fixture
def no_collection() -> Iterator[None]:
    """A garbage collection that falls into what is measured would be measured."""
    gc.disable()
    yield
    gc.enable()


def seconds(act: Callable[[int], object], times: int) -> float:
    started_at = time.process_time()
    for number in range(times):
        act(number)
    return time.process_time() - started_at


@pytest.mark.usefixtures("no_collection")
def test_what_one_step_costs_does_not_depend_on_how_many_are_ready() -> None:
    def of(ready: int) -> tuple[float, float, float]:
        world = World()
        for number in range(ready):
            priority, later = number % 3, number % 2 * 10**9
            spec = NewExecution(f"x{number}", "held-back", "1", b"", priority=9 + priority, delay_ms=later)
            at_once(world.store.create(spec, op_id=""))
        for number in range(1_000):
            world.create(f"y{number}", timeout_ms=10**9)
        order = random.Random(7).sample(range(0, ready, 2), 200)

        def claim(turn: int) -> None:
            world.own(f"x{order[turn]}")

        def find(_: int) -> None:
            [bell] = at_once(world.store.due(0, WANTED, limit=1, again_ms=10**9))
            world.own(bell.id)

        def tick(_: int) -> None:
            at_once(world.store.tick(0, live=NOBODY, limit=100))

        return seconds(claim, 200), seconds(find, 200), seconds(tick, 200)

    few, many = of(400), of(100_000)
    # A walk over what is ready would make it a hundred times as much.
    assert all(slow < 20 * fast for slow, fast in zip(many, few, strict=True)), (few, many)


def test_timers_that_are_stopped_leave_nothing_behind(world: World) -> None:
    world.running("x")
    for number in range(1_000):
        world.commit("x", checkpoints=[nap(f"wait {number}", START_MS + 10**9)])
        world.commit("x", checkpoints=[step(f"wait {number}")])
    assert len(world.store._tables.timers._heap) < 100  # pyright: ignore[reportPrivateUsage]


def test_an_execution_that_continues_forever_does_not_grow(world: World) -> None:
    world.create("x")
    for number in range(100):
        world.own("x")
        world.post("x", signal())
        seq = at_once(world.store.inbox("x"))[-1].seq
        world.commit("x", Continue(b"%d" % number), checkpoints=[step("a")], consume=[(seq, "a")])
    assert len(at_once(world.store.inbox("x"))) == 0
    assert len(at_once(world.store.history("x"))) == 0


# ---- limits


def test_an_inbox_holds_ten_thousand_unread_messages(world: World) -> None:
    world.running("x")
    for number in range(10_000):
        world.post("x", signal(f"m{number}"))
    with pytest.raises(StoreFull, match="x has 10,000 unread"):
        at_once(world.store.post("x", signal()))
    again = at_once(world.store.post("x", signal("m1")))
    assert not isinstance(again, Posted), "a message that was taken is not refused"
    assert again.duplicate

    world.running("sender")
    before = at_once(world.store.get("sender"))
    assert world.send("sender", out=[Post("x", signal())]) == Full("inbox", 10_001, 10_000)
    assert at_once(world.store.get("sender")) == before

    world.commit("x", consume=[(1, "a")])
    world.commit("sender", out=[Post("x", signal())])
    assert len(world.unread("x")) == 10_000


def test_timers_and_ends_arrive_in_a_full_inbox(world: World) -> None:
    world.running("target")
    world.running("x")
    world.commit("x", checkpoints=[nap("nap", START_MS)], out=[Watch("target", "join")])
    for _ in range(10_000):
        world.post("x", signal())
    at_once(world.store.tick(0, live=NOBODY, limit=100))
    world.commit("target", DONE)
    assert len(world.unread("x")) == 10_002


def test_a_history_holds_ten_thousand_checkpoints(world: World) -> None:
    world.running("x")
    world.commit("x", checkpoints=[step(f"s{number}") for number in range(9_999)])
    world.commit("x", checkpoints=[step("open", CheckpointStatus.OPEN)])
    before = at_once(world.store.get("x"))
    assert world.send("x", checkpoints=[step("more")]) == Full("checkpoints", 10_001, 10_000)
    assert at_once(world.store.get("x")) == before
    world.commit("x", checkpoints=[step("open")])
    world.commit("x", checkpoints=[step("instead")], drop=["s0"])
    world.commit("x", Continue(b""), checkpoints=[step("last words")])


# ---- decisions that the port leaves to the reader


@pytest.mark.parametrize(
    "next",
    [Block(ExecutionStatus.PAUSED, b"why"), Ready(START_MS + 10**9, ExecutionStatus.RETRYING, 2)],
    ids=["block", "retry"],
)
@pytest.mark.parametrize("reach", Reach)
def test_a_cancel_that_the_owner_has_not_seen_is_not_slept_over(
    world: World, next: Next, reach: Reach
) -> None:
    world.running("x")
    world.post("x", Message("m", MessageKind.CANCEL, "cancel", reach=reach))
    answer = world.commit("x", next, seen=0)
    is_woken = reach is not Reach.PARKED
    assert [bell.id for bell in answer.doorbells] == (["x"] if is_woken else [])
    assert [bell.id for bell in at_once(world.store.due(0, WANTED, limit=1, again_ms=1))] == (
        ["x"] if is_woken else []
    )
    world.assert_sound()


def test_a_cancel_that_the_owner_has_seen_does_not_keep_it_from_waiting(world: World) -> None:
    world.running("x")
    world.post("x", Message("m", MessageKind.CANCEL, "cancel", reach=Reach.BLOCKED))
    world.commit("x", Block(ExecutionStatus.PAUSED))
    assert world.state("x") is State.BLOCKED


def test_a_key_is_compared_with_the_input_that_it_began_with(world: World) -> None:
    world.running("x", key="k", input=b"first")
    world.commit("x", Continue(b"second"))
    again = at_once(world.store.create(new("y", key="k", input=b"first"), op_id="again"))
    assert again == Exists("x", same_input=True)


def test_an_end_that_was_read_can_be_waited_for_again(world: World) -> None:
    world.running("target")
    world.commit("target", DONE)
    world.running("x")
    for seq in (1, 2):
        world.commit("x", out=[Watch("target", "join")])
        assert world.unread("x") == ["watch:target:join"]
        world.commit("x", consume=[(seq, "join")])


def test_a_timer_that_is_set_again_fires_again(world: World) -> None:
    world.running("x")
    for fired in (1, 2, 3):
        world.commit("x", checkpoints=[nap("nap", START_MS)])
        at_once(world.store.tick(0, live=NOBODY, limit=100))
        at_once(world.store.tick(0, live=NOBODY, limit=100))
        assert len(world.unread("x")) == fired
    world.commit("x", Continue(b""), consume=[(1, "nap"), (2, "nap"), (3, "nap")])
    world.own("x")
    world.commit("x", checkpoints=[nap("nap", START_MS)])
    at_once(world.store.tick(0, live=NOBODY, limit=100))
    assert len(set(world.unread("x"))) == 1


def test_one_that_is_opened_again_has_neither_timers_nor_a_deadline(world: World) -> None:
    world.running("x", timeout_ms=10)
    world.commit("x", Close(ExecutionStatus.FAILED, error=b"boom"), checkpoints=[nap("nap", START_MS + 10)])
    world.post("x", Message("m", MessageKind.OPERATOR, "retry", reach=Reach.CLOSED))
    row = at_once(world.store.get("x"))
    assert row is not None
    assert (row.status, row.deadline_at, row.error) == (ExecutionStatus.PENDING, None, None)
    world.clock.advance_to(START_MS + 10)
    assert at_once(world.store.tick(0, live=NOBODY, limit=100)).next_at is None
    assert world.unread("x") == ["m"]


def test_why_it_was_blocked_is_shown_until_it_is_claimed(world: World) -> None:
    world.running("x")
    world.commit("x", Block(ExecutionStatus.PAUSED, b"why", "code"))
    world.post("x", Message("m", MessageKind.OPERATOR, "resume", reach=Reach.BLOCKED))
    row = at_once(world.store.get("x"))
    assert row is not None
    assert (row.state, row.status, row.error) == (State.READY, ExecutionStatus.PAUSED, b"why")
    assert (world.own("x").row.error, world.own("x").row.code) == (None, None)


def test_a_watcher_of_one_that_was_cancelled_before_it_began_is_told(world: World) -> None:
    world.create("target")
    world.running("x")
    world.commit("x", PARK, out=[Watch("target", "join")])
    posted = world.post("target", Message("m", MessageKind.CANCEL, "cancel", b"no need"))
    assert (posted.closed, posted.doorbell) == (True, None)
    assert [bell.id for bell in at_once(world.store.due(0, WANTED, limit=9, again_ms=1))] == ["x"]
    [entry] = world.own("x").inbox
    assert Outcome.unpack(entry.data) == Outcome(ExecutionStatus.CANCELLED, "order", 1, b"no need")


def test_watching_something_everlasting_leaves_nothing_behind(world: World) -> None:
    world.running("everlasting")
    for number in range(3):
        world.running(f"x{number}")
        world.commit(f"x{number}", Close(ExecutionStatus.FAILED), out=[Watch("everlasting", "join")])
    assert at_once(world.store.prune(before=2**53, status=[ExecutionStatus.FAILED], limit=9)) == 3
    world.running("x0")
    world.commit("x0", PARK)
    world.assert_sound()
    assert world.commit("everlasting", DONE).doorbells == ()
    assert world.unread("x0") == []


def test_a_cursor_that_is_none_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput):
        at_once(world.store.query(Query(cursor="' OR 1=1")))
    assert at_once(world.store.query(Query(cursor="9" * 100))).rows == []
