"""Workers: several on one store, some of which die, are cut off, or know nothing of a workflow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, final

import pytest
from typing_extensions import override

from durable import Context, ExecutionFailed, ExecutionNotFound, NotRunning, Signal, workflow
from durable.backends.wrapped import WrappedStore
from durable.ids import Ids
from durable.protocols import Claimed, Delivery, DurableStore, Live
from tests.support import CutOffStore, World, ends, of, reaches, records, steps, until

Go = Signal("go")
T = TypeVar("T")

ids = Ids()


@workflow
async def double(ctx: Context, number: int) -> int:
    return await ctx.step("double", lambda: number * 2)


# ---- workers that die or are cut off


@final
class StoreWithClaims(WrappedStore):
    """Keeps what was claimed, from the moment on that it is stored."""

    def __init__(self, store: DurableStore) -> None:
        super().__init__(store)
        self.claimed: set[str] = set()

    @override
    async def through(self, verb: str, call: partial[Coroutine[Any, Any, T]]) -> T:
        answer = await call()
        if verb == "claim":
            self.claimed.add(call.args[0])
        return answer


async def test_a_doorbell_is_acknowledged_when_its_claim_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then a broker has it for another worker, if this one dies."""
    store, bus = StoreWithClaims(world.store()), world.bus()
    queue = world.queue(store, bus)
    acknowledge, in_time = queue.ack, list[bool]()

    def ack(delivery: Delivery) -> None:
        in_time.append(delivery.doorbell.id in store.claimed)
        acknowledge(delivery)

    monkeypatch.setattr(queue, "ack", ack)
    await world.node(double, store=store, bus=bus, queue=queue)
    client = await world.node(double, worker=False)
    handles = [await client.start(double, number) for number in range(3)]
    assert [await handle.result(10) for handle in handles] == [0, 2, 4]
    await until(lambda: len(in_time) >= 3)
    assert all(in_time)


async def test_another_worker_goes_on_where_a_dead_one_was(world: World) -> None:
    ran: list[str] = []
    begun = asyncio.Event()

    async def hang_the_first_time(store: CutOffStore) -> str:
        ran.append("second")
        if not begun.is_set():
            store.cut_off()
            begun.set()
            await asyncio.Event().wait()
        return "second"

    @workflow
    async def order(ctx: Context) -> list[str]:
        first = await ctx.step("first", lambda: ran.append("first") or "first")
        second = await ctx.step("second", hang_the_first_time, store)
        return [first, second, await ctx.step("third", lambda: ran.append("third") or "third")]

    store = CutOffStore(world.store())
    await world.node(order, store=store, lease=0.3)
    client = await world.node(order, worker=False)
    handle = await client.start(order)
    await begun.wait()
    await world.node(order, lease=0.3, sweep=0.1)
    assert await handle.result(5) == ["first", "second", "third"]
    assert ran == ["first", "second", "second", "third"]
    assert (await handle.status()).attempt == 1
    store.heal()


async def test_what_a_worker_writes_that_has_lost_its_execution_is_refused(world: World) -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    who = ["late"]

    async def slow() -> str:
        me = who[0]
        if me == "late":
            store.cut_off()
            begun.set()
            await release.wait()
        return me

    @workflow
    async def order(ctx: Context) -> str:
        result = await ctx.step("slow", slow)
        await ctx.wait_for_signal(Go)
        return result

    store = CutOffStore(world.store())
    cut_off = await world.node(order, store=store, lease=0.3)
    client = await world.node(order, worker=False)
    handle = await client.start(order)
    await begun.wait()
    who[0] = "new owner"
    await world.node(order, lease=0.3, sweep=0.1)
    await reaches(handle, "waiting")
    release.set()
    store.heal()
    await until(lambda: cut_off.worker.dispatcher.active == 0)
    assert (await steps(client, handle))["slow"].result == "new owner"
    await handle.signal(Go)
    assert await handle.result(5) == "new owner"


async def test_a_worker_that_was_cut_off_for_a_while_loses_nothing(world: World) -> None:
    ran: list[int] = []

    async def work(number: int) -> int:
        if number == 2:
            store.cut_off()
            asyncio.get_running_loop().call_later(0.1, store.heal)
        ran.append(number)
        return number

    @workflow
    async def order(ctx: Context) -> list[int]:
        return [await ctx.step("work", work, number) for number in range(5)]

    store = CutOffStore(world.store())
    node = await world.node(order, store=store, lease=5)
    handle = await node.start(order)
    assert await handle.result(5) == list(range(5))
    assert ran == list(range(5))


async def test_a_step_longer_than_the_lease_runs_once(world: World) -> None:
    ran: list[int] = []

    def slow() -> None:
        ran.append(1)
        threading.Event().wait(0.9)

    @workflow
    async def order(ctx: Context) -> int:
        await ctx.step("slow", slow)
        return len(ran)

    await world.node(order, lease=0.3, sweep=0.05)
    node = await world.node(order, lease=0.3, sweep=0.05)
    assert await node.start_and_wait(order, timeout=5) == 1


async def dies_with(store: DurableStore, execution_id: str) -> None:
    """A worker claims the execution, and is never heard of again."""
    claimed = await store.claim(execution_id, nonce=ids.nonce(), worker="dead")
    assert isinstance(claimed, Claimed)
    for partition in range((await store.capabilities()).partitions):
        await store.tick(partition, live=Live({}, claimed.now + 1), limit=100)


async def test_an_execution_that_its_workers_die_of_is_given_up(world: World) -> None:
    ran: list[int] = []

    @workflow
    async def deadly(ctx: Context) -> None:
        ran.append(1)

    client = await world.node(deadly, worker=False)
    handle = await client.start(deadly)
    store = world.store()
    await store.open()
    for _ in range(5):
        await dies_with(store, handle.id)
    await store.close()
    await world.node(deadly, max_crashes=5)
    with pytest.raises(ExecutionFailed, match="died 5 times") as failed:
        await handle.result(5)
    assert failed.value.code == "poison"
    assert ran == []


async def test_crashes_before_the_limit_are_forgiven_and_count_in_a_row_only(world: World) -> None:
    @workflow
    async def lucky(ctx: Context) -> int:
        await ctx.step("a", lambda: 1)
        await ctx.wait_for_signal(Go)
        await ctx.wait_for_signal(Go)
        return ctx.attempt

    client = await world.node(lucky, worker=False)
    handle = await client.start(lucky)
    store = world.store()
    await store.open()
    for _ in range(2):
        for _ in range(4):
            await dies_with(store, handle.id)
        node = await world.node(lucky, max_crashes=5)
        await reaches(handle, "waiting")
        await world.stop(node)
        await handle.signal(Go)
    await store.close()
    await world.node(lucky, max_crashes=5)
    assert await handle.result(5) == 1


async def test_the_last_try_before_poison_shares_its_worker_with_no_other_suspect(world: World) -> None:
    running: list[str] = []
    release = asyncio.Event()

    @workflow
    async def bystander(ctx: Context, name: str) -> str:
        async def work() -> str:
            running.append(name)
            await release.wait()
            return name

        return await ctx.step("work", work)

    # Started beside the broker: workers that die use up the doorbells of a start, and those of `dies_with` take none.
    client = await world.node(bystander, worker=False, queue=None)
    suspects = [await client.start(bystander, name) for name in ("one", "two")]
    store = world.store()
    await store.open()
    for suspect in suspects:
        for _ in range(4):
            await dies_with(store, suspect.id)
    await store.close()
    node = await world.node(bystander, max_crashes=5, sweep=0.05)
    fresh = await client.start(bystander, "fresh")
    await until(lambda: "fresh" in running)
    await node.worker.sweeper.turn()
    assert len(running) == 2
    release.set()
    assert [await handle.result(5) for handle in (*suspects, fresh)] == ["one", "two", "fresh"]


async def test_a_poisoned_execution_is_run_again_when_an_operator_says_so(world: World) -> None:
    client = await world.node(double, worker=False)
    handle = await client.start(double, 4)
    store = world.store()
    await store.open()
    for _ in range(5):
        await dies_with(store, handle.id)
    await store.close()
    await world.node(double)
    assert (await ends(handle)).code == "poison"
    await client.operator.retry(handle.id)
    assert await handle.result(5) == 8


async def test_waiting_executions_are_not_replayed_because_a_worker_died(world: World) -> None:
    begun: list[int] = []

    @workflow
    async def patient(ctx: Context) -> None:
        begun.append(1)
        await ctx.wait_for_signal(Go)

    store = CutOffStore(world.store())
    first = await world.node(patient, store=store, lease=0.3, sweep=0.05)
    handle = await first.start(patient)
    await reaches(handle, "waiting")
    store.cut_off()
    second = await world.node(patient, lease=0.3, sweep=0.05)
    times = len(begun)
    sweeps = second.worker.sweeper
    await until(lambda: first.worker.id not in sweeps._leases.live.workers)
    assert len(begun) == times
    store.heal()
    assert (await second.status(handle.id)).status == "waiting"


# ---- workers that do not know a workflow


async def test_a_worker_leaves_alone_what_it_does_not_know(world: World) -> None:
    @workflow
    async def other(ctx: Context) -> str:
        return "other"

    client = await world.node(other, double, worker=False)
    await world.node(double, sweep=0.05)
    unknown = await client.start(other)
    known = [await client.start(double, number) for number in range(10)]
    assert await asyncio.gather(*(handle.result(5) for handle in known)) == [n * 2 for n in range(10)]
    assert (await unknown.status()).status == "pending"
    assert "other" in await client.operator.explain(unknown.id)
    await world.node(other)
    assert await unknown.result(5) == "other"


async def test_an_execution_of_a_workflow_that_was_removed_waits_for_one_that_has_it(world: World) -> None:
    @workflow
    async def patient(ctx: Context) -> str:
        await ctx.wait_for_signal(Go)
        return "went on"

    node = await world.node(patient)
    handle = await node.start(patient)
    await reaches(handle, "waiting")
    node = await world.restart(double)
    await node.signal(handle.id, Go)
    assert await node.start_and_wait(double, 1, timeout=5) == 2
    assert not (await node.status(handle.id)).status.final
    assert "patient" in await node.operator.explain(handle.id)
    await world.node(patient)
    assert await node.handle(handle.id).result(5) == "went on"


async def test_another_version_is_another_workflow(world: World) -> None:
    def version(number: str) -> Any:
        @workflow(name="order", version=number)
        async def order(ctx: Context) -> str:
            return number

        return order

    client = await world.node(version("2"), worker=False)
    await world.node(version("1"))
    handle = await client.start(version("2"))
    second = await world.node(version("2"))
    assert await handle.result(5) == "2"
    assert second.workflows()[0].version == "2"


# ---- several at once


async def test_executions_are_shared_and_each_is_run_by_one_worker_at_a_time(world: World) -> None:
    running: dict[str, int] = {}
    overlaps: list[str] = []

    async def work(id: str) -> None:
        running[id] = running.get(id, 0) + 1
        if running[id] > 1:
            overlaps.append(id)
        await asyncio.sleep(0.002)
        running[id] -= 1

    @workflow
    async def order(ctx: Context) -> int:
        for _ in range(3):
            await ctx.step("work", work, ctx.execution_id)
            await ctx.sleep("1ms")
        return 1

    nodes = [await world.node(order, sweep=0.05, concurrency=5) for _ in range(3)]
    handles = [await nodes[number % 3].start(order) for number in range(30)]
    assert sum(await asyncio.gather(*(handle.result(10) for handle in handles))) == 30
    assert overlaps == []


async def test_a_node_without_a_worker_runs_nothing(world: World) -> None:
    ran: list[int] = []

    @workflow
    async def order(ctx: Context) -> None:
        ran.append(1)

    client = await world.node(order, worker=False)
    handle = await client.start(order)
    with pytest.raises(TimeoutError):
        await handle.result(0.1)
    assert ran == []
    with pytest.raises(NotRunning):
        _ = client.worker


async def test_namespaces_see_nothing_of_each_other(world: World) -> None:
    one = await world.node(double, namespace="one")
    two = await world.node(double, namespace="two", worker=False)
    handle = await one.start(double, 1, key="k")
    other = await two.start(double, 2, key="k")
    assert await handle.result(5) == 2
    assert (await other.status()).status == "pending"
    assert [e.input for e in (await one.operator.list_executions()).items] == [1]
    assert [e.input for e in (await two.operator.list_executions()).items] == [2]
    alone = await one.start(double, 3)
    with pytest.raises(ExecutionNotFound):
        await two.status(alone.id)


# ---- leaving


async def test_leaving_lets_what_runs_finish_and_takes_nothing_new(world: World) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await release.wait()
        return "finished"

    @workflow
    async def order(ctx: Context) -> str:
        return await ctx.step("slow", slow)

    client = await world.node(order, double, worker=False)
    node = await world.node(order, double, drain="10s")
    handle = await client.start(order)
    await begun.wait()
    worker = node.worker
    leaving = asyncio.ensure_future(node.__aexit__(None, None, None))
    await until(lambda: not worker.dispatcher.has_room)
    late = await client.start(double, 1)
    assert not leaving.done()
    release.set()
    await leaving
    assert (await handle.status()).result == "finished"
    assert (await late.status()).status == "pending"


async def test_what_is_not_finished_when_the_drain_is_over_goes_on_elsewhere_at_once(world: World) -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    interrupted: list[int] = []

    async def slow() -> str:
        begun.set()
        try:
            await release.wait()
        except asyncio.CancelledError:
            interrupted.append(1)
            raise
        return "elsewhere"

    @workflow(retry=1)
    async def order(ctx: Context) -> tuple[str, int]:
        return await ctx.step("slow", slow), ctx.attempt

    client = await world.node(order, worker=False)
    node = await world.node(order, drain="50ms", lease="60s")
    handle = await client.start(order)
    await begun.wait()
    await node.__aexit__(None, None, None)
    assert interrupted == [1]
    assert (await handle.status()).status == "pending"
    release.set()
    await world.node(order, sweep="60s", lease="60s")
    assert await handle.result(5) == ("elsewhere", 1)


async def test_leaving_while_a_claim_hangs_puts_aside_what_was_to_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Held(WrappedStore):
        @override
        async def through(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
            if verb == "claim" and waiting.is_set():
                claiming.set()
                await asyncio.Event().wait()
            return await call()

    waiting, claiming = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    @workflow
    async def order(ctx: Context) -> None:
        try:
            await ctx.wait_for_signal(Go)
        except asyncio.CancelledError:
            await ctx.step("clean up", lambda: None)  # nobody would ever store it
        finally:
            ended.append("put aside")

    monkeypatch.setattr("durable.worker.dispatcher._GRACE_S", 0.05)
    monkeypatch.setattr("durable.worker.worker._HURRIED_S", 0.1)
    node = await world.node(order, store=Held(world.store()))
    client = await world.node(order, worker=False)
    handle = await client.start(order)
    await reaches(handle, "waiting")
    await until(lambda: node.worker.dispatcher.active == 0)
    waiting.set()
    await handle.signal(Go)
    await claiming.wait()
    await world.stop(node)
    assert ended == ["put aside"]


async def test_a_durable_is_used_only_while_it_is_entered(world: World) -> None:
    node = await world.node(double)
    handle = await node.start(double, 1)
    await handle.result(5)
    await node.__aexit__(None, None, None)
    for late in (
        lambda: node.start(double, 1),
        lambda: node.signal(handle.id, Go),
        lambda: node.cancel(handle.id),
        lambda: node.status(handle.id),
        handle.result,
        handle.status,
        lambda: handle.signal(Go),
        handle.cancel,
    ):
        with pytest.raises(NotRunning):
            await late()
    with pytest.raises(NotRunning):
        node.handle(handle.id)


async def test_a_durable_may_be_entered_again(world: World) -> None:
    node = await world.node(double)
    first = await node.start(double, 1)
    await first.result(5)
    await node.__aexit__(None, None, None)
    async with node:
        assert await node.start_and_wait(double, 2, timeout=5) == 4
        with pytest.raises(NotRunning):
            await node.__aenter__()
    await node.__aenter__()


async def test_no_task_and_no_thread_is_left_behind(world: World) -> None:
    @workflow
    async def patient(ctx: Context) -> None:
        await ctx.step("thread", lambda: 1)
        await ctx.wait_for_signal(Go)

    tasks, threads = len(asyncio.all_tasks()), set(threading.enumerate())
    node = await world.node(patient)
    handle = await node.start(patient)
    await reaches(handle, "waiting")
    await world.stop(node)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    ours = [t for t in set(threading.enumerate()) - threads if "durable" in t.name]
    for thread in ours:
        await asyncio.to_thread(thread.join, 2)
    assert [t.name for t in ours if t.is_alive()] == []


# ---- crashes at every commit


@workflow
async def shipping(ctx: Context, order: str) -> str:
    return await ctx.step("ship", lambda: f"shipped {order}")


@pytest.mark.parametrize("applied", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("number", range(1, 12))
async def test_a_worker_that_is_lost_at_any_commit_costs_nothing_but_time(
    world: World, number: int, applied: bool
) -> None:
    """A commit that was stored before the process died is never made again."""
    stored: list[str] = []

    @workflow
    async def order(ctx: Context) -> list[str]:
        def act(what: str) -> str:
            stored.append(what)
            return what

        lines = [await ctx.step("charge").up(act, "charge").down(lambda _: act("refund"))]
        lines += await ctx.gather(ctx.step("a", act, "a"), ctx.step("b", act, "b"))
        await ctx.sleep("1ms")
        lines.append(await ctx.run(shipping, "book"))
        await ctx.wait_for_signal(Go)
        await ctx.rollback()
        return lines

    store = CutOffStore(world.store(), after=number, applied=applied)
    await world.node(order, shipping, store=store, lease=0.2, sweep=0.05)
    client = await world.node(order, shipping, worker=False)
    handle = await client.start(order)
    await handle.signal(Go)

    async def is_lost_or_done() -> bool:
        return store.is_cut_off or (await handle.status()).status.final

    await until(is_lost_or_done)
    await world.node(order, shipping, lease=0.2, sweep=0.05)
    assert await handle.result(10) == ["charge", "a", "b", "shipped book"]
    assert set(stored) == {"charge", "a", "b", "refund"}
    assert len(stored) <= 6  # two branches may have been lost with one commit
    assert len(await of(client, "shipping")) == 1
    recorded = await steps(client, handle)
    assert [id for id in recorded if id.startswith("rollback:")] == ["rollback:charge"]
    store.heal()


async def test_records_of_a_dead_worker_are_those_that_it_stored(world: World) -> None:
    ran: list[str] = []

    @workflow
    async def order(ctx: Context) -> list[str]:
        return [await ctx.step(name, lambda name=name: ran.append(name) or name) for name in "abc"]

    store = CutOffStore(world.store(), after=2)
    await world.node(order, store=store, lease=0.2, sweep=0.05)
    client = await world.node(order, worker=False)
    handle = await client.start(order)
    await until(lambda: store.is_cut_off)
    await records(client, handle, "b", "completed")
    await world.node(order, lease=0.2, sweep=0.05)
    assert await handle.result(5) == ["a", "b", "c"]
    assert ran == ["a", "b", "c"]
    store.heal()
