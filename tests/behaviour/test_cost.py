"""What things cost, in calls of the store."""

from __future__ import annotations

import pytest

from durable import Context, Durable, Signal, workflow
from tests.support import CountingStore, World, ends, reaches, until

Go = Signal("go")

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


class Counted:
    """A node, and the calls that it makes."""

    def __init__(self, store: CountingStore, node: Durable) -> None:
        self.store = store
        self.node = node

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
    node = await world.node(order, counting, side_by_side, store=store, **NO_POLLS)
    await has_begun(store)
    counted = Counted(store, node)
    await counted.rests()
    store.reset()
    return counted


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
