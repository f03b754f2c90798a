"""What things cost, in calls of the store. Never in time: so it holds on any machine, however busy."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

import pytest
from typing_extensions import override

from durable import Context, Durable, ExecutionFailed, Fail, Signal, Workflow, workflow
from durable.backends.rabbitmq.queue import RabbitQueue
from durable.backends.wrapped import WrappedStore
from durable.clock import Clock
from durable.engine.attempt import Attempt
from durable.engine.branch import Branch
from durable.engine.journal import Journal
from durable.protocols import ALL_TOPICS, Doorbell, DurableQueue, DurableStore, Message, MessageKind, Ticked
from tests.support import CountingStore, RoughQueue, World, ends, reaches, until

Go = Signal("go")
T = TypeVar("T")

NO_POLLS = {"sweep": "1h", "lease": "1h"}
"""So that what is counted is what the executions cost."""


@workflow
async def order(ctx: Context) -> int:
    total = await ctx.step("reserve", lambda: 1)
    total += await ctx.step("charge", lambda: 2)
    await ctx.wait_for_signal(Go)
    return total + await ctx.step("ship", lambda: 3)


@workflow
async def counting(ctx: Context, steps: int) -> int:
    for number in range(steps):
        await ctx.step("work", lambda number=number: number)
    await ctx.wait_for_signal(Go)
    return steps


@workflow
async def side_by_side(ctx: Context) -> int:
    return sum(await ctx.gather(*(ctx.step("work", lambda: 1) for _ in range(50))))


async def fails() -> None:
    raise Fail("on purpose")


@workflow
async def family(ctx: Context) -> int:
    total = sum(await ctx.gather(ctx.step("a", lambda: 1), ctx.step("b", lambda: 2)))
    total += await ctx.run(plain, 1)
    await ctx.sleep(0.01)
    await ctx.wait_for_signal(Go)
    return total + await ctx.step("c", lambda: 1)


@workflow
async def plain(ctx: Context, number: int) -> int:
    return await ctx.step("work", lambda: number)


@workflow(rollback="on_failure")
async def undone(ctx: Context) -> None:
    await ctx.step("book").up(lambda: 1).down(lambda _: None)
    await ctx.step("fail", fails)


@workflow
async def stepping(ctx: Context, steps: int) -> int:
    for number in range(steps):
        await ctx.step("work", lambda number=number: number)
    return steps


@workflow
async def napping(ctx: Context, times: int) -> int:
    for _ in range(times):
        await ctx.sleep(0.005)
    return times


@workflow
async def hearing(ctx: Context, times: int) -> int:
    for _ in range(times):
        await ctx.wait_for_signal(Go)
    return times


@workflow
async def raising(ctx: Context, children: int) -> int:
    return sum([await ctx.run(plain, 1) for _ in range(children)])


@workflow
async def raising_together(ctx: Context, children: int) -> int:
    return sum(await ctx.gather(*(ctx.run(plain, 1) for _ in range(children))))


@workflow
async def mapping(ctx: Context, items: int) -> int:
    return sum(await ctx.map("work", lambda _: 1, range(items)))


@workflow
async def noting(ctx: Context, notes: int) -> int:
    for number in range(notes):
        await ctx.note(f"number {number}")
        await ctx.set_value("progress", number)
    return notes


@workflow
async def beginning_anew(ctx: Context, left: int) -> int:
    if left > 1:
        ctx.continue_as_new(left - 1)
    return left


@workflow
async def late_riser(ctx: Context, milliseconds: int) -> None:
    await ctx.sleep(milliseconds / 1000)


WORKFLOWS = (
    *(order, counting, side_by_side, family, plain, undone, stepping, napping, hearing, raising),
    *(raising_together, mapping, noting, beginning_anew),
)


class Counted:
    """A node, and the calls that it makes."""

    def __init__(self, store: CountingStore, node: Durable, *, is_rough: bool) -> None:
        self.store = store
        self.node = node
        self.is_rough = is_rough

    @property
    def letters(self) -> int:
        """Messages that went to a broker."""
        queue = self.node._queue
        return queue.figures["sent"] if isinstance(queue, RabbitQueue) else 0

    async def rests(self) -> None:
        """Come back when nothing runs; asking no store."""
        await until(lambda: self.node.worker.idle and self.node.worker.dispatcher.active == 0)


async def has_begun(store: CountingStore) -> None:
    """Come back when a worker has made its first round, through each partition."""
    partitions = (await store.within.capabilities()).partitions
    relayed = partitions if partitions > 1 else 0
    await until(lambda: store.calls["tick"] >= partitions and store.calls["relay"] >= relayed)
    await until(lambda: store.calls["due"])


@pytest.fixture
async def counted(world: World) -> Counted:
    if world.forgetful:
        pytest.skip("it pays for a replay after each step, on purpose")
    store = CountingStore(world.store())
    node = await world.node(*WORKFLOWS, store=store, **NO_POLLS)
    await has_begun(store)
    counted = Counted(store, node, is_rough=world.rough)
    await counted.rests()
    store.reset()
    return counted


@dataclass(frozen=True)
class Price:
    """What one more of a thing costs the execution that it is in, in calls of the store."""

    workflow: Workflow[int, int]
    claims: float = 0
    commits: float = 0
    posts: int = 0
    shared: int = 0
    """Claims and commits for all of them together."""


PRICES = {
    "a step": Price(stepping, commits=1),
    "an item of a map": Price(mapping, shared=5),
    "a note and a value": Price(noting),
    "a sleep": Price(napping, claims=1, commits=1),
    "a signal": Price(hearing, claims=1, commits=1, posts=1),
    "a child": Price(raising, claims=2, commits=2),
    "a child among many": Price(raising_together, claims=1, commits=1, shared=5),
    "another beginning": Price(beginning_anew, claims=1, commits=1),
}


@pytest.mark.parametrize("thing", PRICES)
async def test_each_thing_has_its_price(counted: Counted, thing: str) -> None:
    if counted.is_rough:
        pytest.skip("doorbells that got lost are rung again by sweeps, of which there are none here")
    price = PRICES[thing]

    async def calls_of(count: int) -> Counter[str]:
        await counted.rests()
        counted.store.reset()
        handle = await counted.node.start(price.workflow, count)
        for _ in range(count * price.posts):
            await counted.rests()
            await handle.signal(Go)
        assert await handle.result(20) > 0
        await counted.rests()
        return Counter(counted.store.calls)

    one, many = await calls_of(1), await calls_of(21)
    more = Counter({verb: many[verb] - one[verb] for verb in many})
    assert more["claim"] <= 20 * price.claims + price.shared, more
    assert more["commit"] <= 20 * price.commits + price.shared, more
    assert more["post"] == 20 * price.posts, more
    # Nobody reads what it has written, or asks for what it was told: but for a poll, and for hints that share a look.
    assert sum(more[verb] for verb in ("create", "get", "history", "inbox", "peek", "send")) <= 5, more
    assert counted.letters == 0, "a worker with free slots needs no broker"


@final
class ReorderingStore(WrappedStore):
    """A `due` that is asked for beside a `tick` finds what that makes ready, and is answered after the claim of it."""

    def __init__(self, store: DurableStore, clock: Clock) -> None:
        super().__init__(store)
        self.claims = 0
        self._clock = clock
        self._ticked, self._rung, self._claimed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.is_over = asyncio.Event()

    @override
    async def through(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        if verb == "due" and self.claims and not self._rung.is_set():
            await self._ticked.wait()
            rung = await call()
            assert rung
            self._rung.set()
            await self._claimed.wait()
            self.is_over.set()
            return rung
        answer = await call()
        if isinstance(answer, Ticked) and answer.doorbells:
            self._ticked.set()
            await self._rung.wait()
            await until(lambda: self._clock.now_ms() > answer.now)
        elif verb == "claim":
            self.claims += 1
            if self._ticked.is_set():
                self._claimed.set()
        return answer


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
async def test_a_doorbell_that_is_older_than_a_claim_has_nothing_claimed(tmp_path: Path, scheme: str) -> None:
    may_end = asyncio.Event()

    @workflow
    async def awoken(ctx: Context) -> None:
        await ctx.sleep(0.02)
        await ctx.step("work", may_end.wait)
        await ctx.wait_for_signal(Go)

    url = "memory://reordering" if scheme == "memory" else f"sqlite:///{tmp_path / 'durable.db'}"
    async with World(url) as world:
        store = ReorderingStore(world.store(), world.clock)
        node = await world.node(awoken, store=store, **NO_POLLS)
        handle = await node.start(awoken)
        await asyncio.wait_for(store.is_over.wait(), 5)
        for _ in range(20):  # turns of the loop until the doorbell is taken, which waits for nothing else
            await asyncio.sleep(0)
        may_end.set()
        await reaches(handle, "waiting")
        await until(lambda: node.worker.idle and node.worker.dispatcher.active == 0)
        assert store.claims == 2
        await handle.signal(Go)
        await ends(handle)
        assert store.claims == 3


async def test_a_hint_to_everybody_has_those_claimed_that_have_news(counted: Counted, world: World) -> None:
    if counted.is_rough:
        pytest.skip("its nodes hear no hints")
    handles = [await counted.node.start(hearing, 1) for _ in range(20)]
    for handle in handles:
        await reaches(handle, "waiting")
    await counted.rests()
    counted.store.reset()
    bus = world.bus()
    await bus.open()
    bus.publish([ALL_TOPICS])
    await until(lambda: counted.store.calls["peek"])
    await counted.rests()
    assert not counted.store.calls["claim"], counted.store.calls

    # By somebody who rings nobody.
    await counted.store.within.post(handles[7].id, Message("m", MessageKind.SIGNAL, Go.name, b"null"))
    bus.publish([ALL_TOPICS])
    await ends(handles[7])
    await counted.rests()
    await bus.close()
    # The worker may have heard of it twice: from the hint, and from the queue, which was hinted too.
    assert 1 <= counted.store.calls["claim"] <= 2, counted.store.calls


async def test_three_steps_and_a_wait_cost_eight_calls_from_start_to_end(counted: Counted) -> None:
    handle = await counted.node.start(order)
    await until(lambda: counted.store.calls["commit"] >= 2)
    await counted.rests()
    await handle.signal(Go)
    await until(lambda: counted.store.calls["commit"] >= 4)
    await counted.rests()
    calls = +counted.store.calls
    assert await handle.result(5) == 6
    assert calls.total() <= 8, calls
    assert (calls["create"], calls["post"]) == (1, 1)


async def test_a_replayed_step_costs_nothing(world: World) -> None:
    costs = []
    for steps in (1, 100):
        node = await world.node(counting, **NO_POLLS)
        handle = await node.start(counting, steps)
        await reaches(handle, "waiting")
        await world.stop(node)

        store = CountingStore(world.store())
        node = await world.node(counting, store=store, **NO_POLLS)
        await has_begun(store)
        store.reset()
        await node.signal(handle.id, Go)
        await ends(node.handle(handle.id))
        costs.append({verb: store.calls[verb] for verb in ("claim", "commit", "post", "history", "inbox")})
        assert await node.handle(handle.id, counting).result(5) == steps
        await world.stop(node)
    assert costs[0] == costs[1] == {"claim": 1, "commit": 1, "post": 1, "history": 0, "inbox": 0}


async def test_a_live_step_costs_one_commit(counted: Counted) -> None:
    handle = await counted.node.start(counting, 20)
    await until(lambda: counted.store.calls["commit"] >= 20)
    await counted.rests()
    calls = +counted.store.calls
    await handle.signal(Go)
    assert await handle.result(5) == 20
    assert calls["commit"] <= 20
    assert calls["claim"] == 1


async def test_steps_side_by_side_share_commits(counted: Counted) -> None:
    handle = await counted.node.start(side_by_side)
    assert await handle.result(5) == 50
    assert counted.store.calls["commit"] <= 10


async def test_a_result_that_comes_from_this_process_is_not_read(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable.client._FIRST_POLL", 60.0)  # it polls in vain on a machine that is busy
    assert await counted.node.start_and_wait(side_by_side, timeout=5) == 50
    assert counted.store.calls["get"] == 0, counted.store.calls


async def test_what_has_ended_is_freed_at_once_and_leaves_nothing_to_the_garbage_collector(
    counted: Counted,
) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            handle = await counted.node.start(family)
            await handle.signal(Go)
            assert await handle.result(10) == 5
            with pytest.raises(ExecutionFailed):
                await counted.node.start_and_wait(undone, timeout=10)
        await counted.rests()
        # The task of the last one may have a turn of the loop to go.
        await until(
            lambda: not any(isinstance(each, Attempt | Branch | Journal) for each in gc.get_objects())
        )
    finally:
        gc.enable()


async def test_an_idle_worker_asks_the_store_only_in_its_sweeps(world: World) -> None:
    store = CountingStore(world.store())
    await world.node(order, store=store, sweep="30ms", lease="1h")
    await has_begun(store)
    partitions = (await store.within.capabilities()).partitions
    store.reset()
    await until(lambda: store.calls["live"] >= 3)
    sweeps = store.calls["live"] + 1  # one may be under way
    assert set(+store.calls) <= {"live", "tick", "due", "relay", "due_schedules", "paused_queues"}
    assert store.calls["tick"] <= sweeps * partitions
    assert store.calls["relay"] <= sweeps * partitions
    assert (
        store.calls["due"] <= 2 * sweeps * partitions
    )  # the queue's own look at the index is not in step with them


class RungQueue(RoughQueue):
    """Counts how often each doorbell is rung."""

    def __init__(self, queue: DurableQueue) -> None:
        super().__init__(queue)
        self.rung = Counter[tuple[str, int]]()

    @override
    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        self.rung.update((bell.id, bell.ready_at) for bell in doorbells)
        super().ring(doorbells)


async def test_who_waits_for_a_slot_after_a_sleep_is_rung_once(world: World) -> None:
    if world.queue_url is None:
        pytest.skip("its queue is the store's index of what is ready: nobody has to ring")
    may_end = asyncio.Event()

    @workflow
    async def busy(ctx: Context) -> None:
        await ctx.step("work", may_end.wait)

    first = await world.node(late_riser, busy)
    handles = [await first.start(late_riser, 300) for _ in range(10)]
    for handle in handles:
        await reaches(handle, "sleeping", "completed")  # in time, unless this machine is very busy
    await world.stop(first)
    store, bus = world.store(), world.bus()
    queue = RungQueue(world.queue(store, bus))
    node = await world.node(
        late_riser, busy, store=store, queue=queue, bus=bus, concurrency=1, sweep="1h", lease="1h"
    )
    await node.start(busy)
    asleep = {handle.id for handle in handles if not (await node.status(handle.id)).status.final}
    await until(lambda: asleep <= {id for id, _ in queue.rung})
    for _ in range(3):
        await node.worker.sweeper.turn()
    may_end.set()
    for id in asleep:
        await ends(node.handle(id))
    assert set(queue.rung.values()) == {1}, queue.rung
