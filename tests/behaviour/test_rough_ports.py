"""The queue and the bus carry doorbells and hints: losing, repeating or reordering any costs delay, never state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from durable import Context, Durable, ExecutionCancelled, Retry, Signal, current_step, workflow
from tests.support import ROUGHEST, World, reaches, rough_ports, until

Go = Signal("go")
Number = Signal("number", int)

HOW = ["silent bus", "lossy queue", "repeating queue", ROUGHEST]

RoughNode = Callable[..., Awaitable[Durable]]


@pytest.fixture(params=HOW)
def rough_node(request: pytest.FixtureRequest, world: World) -> RoughNode:
    """Makes nodes on `world` whose ports are as bad as they may be."""

    async def node(*workflows: Any, **settings: Any) -> Durable:
        ports = rough_ports(world, request.param)
        return await world.node(*workflows, **ports, **{"sweep": 0.05} | settings)

    return node


@workflow
async def double(ctx: Context, number: int) -> int:
    return await ctx.step("double", lambda: number * 2)


@workflow
async def collect(ctx: Context) -> list[int]:
    return [await ctx.wait_for_signal(Number) for _ in range(3)]


async def test_executions_complete(rough_node: RoughNode) -> None:
    node = await rough_node(double)
    client = await rough_node(double, worker=False)
    handles = [await (node, client)[number % 2].start(double, number) for number in range(20)]
    assert await asyncio.gather(*(handle.result(10) for handle in handles)) == [n * 2 for n in range(20)]


async def test_thousands_that_wait_do_not_poll_as_often_as_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node(collect, sweep="1h", lease="1h")
    handle = await node.start(collect)
    await reaches(handle, "waiting")
    loop, pauses = asyncio.get_running_loop(), list[float]()
    call_later = loop.call_later

    def noted(delay: float, *rest: Any) -> asyncio.TimerHandle:
        if delay < 10:  # a driver's time limits are longer
            pauses.append(delay)
        return call_later(delay, *rest)

    monkeypatch.setattr(loop, "call_later", noted)
    alone = asyncio.create_task(handle.result())
    await until(lambda: pauses)
    assert max(pauses) < 0.5
    pauses.clear()
    crowd = [asyncio.create_task(handle.result()) for _ in range(1500)]
    await until(lambda: len(pauses) >= 1500)
    assert sum(pause > 0.6 for pause in pauses) > 500
    for number in range(3):
        await handle.signal(Number, number)
    assert await asyncio.gather(alone, *crowd) == [[0, 1, 2]] * 1501


async def test_no_step_runs_twice(rough_node: RoughNode) -> None:
    ran: list[int] = []

    async def work(number: int) -> None:
        ran.append(number)
        await asyncio.sleep(0)

    @workflow
    async def order(ctx: Context) -> None:
        for number in range(3):
            await ctx.step("work", work, number)
            await ctx.sleep("1ms")

    nodes = [await rough_node(order) for _ in range(2)]
    handle = await nodes[0].start(order)
    await handle.result(10)
    assert ran == [0, 1, 2]


async def test_signals_arrive_once_and_in_order(rough_node: RoughNode) -> None:
    node = await rough_node(collect)
    client = await rough_node(collect, worker=False)
    handle = await client.start(collect)
    await reaches(handle, "waiting")
    for number in (1, 2, 3):
        await client.signal(handle.id, Number, number)
    assert await node.handle(handle.id, collect).result(10) == [1, 2, 3]


async def test_timers_fire(rough_node: RoughNode) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        await ctx.sleep("10ms")
        return (await ctx.wait_for_signal(Go, timeout="10ms")).kind

    node = await rough_node(order)
    assert await node.start_and_wait(order, timeout=10) == "timeout"


async def test_retries_happen(rough_node: RoughNode) -> None:
    def flaky() -> int:
        if current_step().attempt < 3:
            raise ConnectionError
        return current_step().attempt

    @workflow(retry=Retry(2, base="1ms"))
    async def order(ctx: Context) -> int:
        tries = await ctx.step("flaky", retry=Retry(3, base="1ms")).up(flaky)
        if ctx.attempt == 1:
            raise ConnectionError
        return tries

    node = await rough_node(order)
    assert await node.start_and_wait(order, timeout=10) == 3


async def test_children_report_back(rough_node: RoughNode) -> None:
    @workflow
    async def parent(ctx: Context) -> list[int]:
        return list(await ctx.gather(*(ctx.run(double, number) for number in range(5))))

    node = await rough_node(parent, double)
    await rough_node(double)
    assert await node.start_and_wait(parent, timeout=10) == [0, 2, 4, 6, 8]


async def test_a_cancel_arrives(rough_node: RoughNode) -> None:
    begun = asyncio.Event()

    async def slow() -> None:
        begun.set()
        await asyncio.Event().wait()

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step("slow", slow)

    await rough_node(order)
    client = await rough_node(order, worker=False)
    handle = await client.start(order)
    await asyncio.wait_for(begun.wait(), 10)
    await handle.cancel("stop")
    with pytest.raises(ExecutionCancelled, match="stop"):
        await handle.result(10)


async def test_a_long_chain_of_waits_is_not_stuck(rough_node: RoughNode) -> None:
    @workflow
    async def chain(ctx: Context, number: int) -> int:
        await ctx.sleep("1ms")
        if number:
            ctx.continue_as_new(number - 1)
        return 42

    node = await rough_node(chain)
    assert await node.start_and_wait(chain, 5, timeout=10) == 42


async def test_fifty_starts_of_one_key_are_one(rough_node: RoughNode) -> None:
    node = await rough_node(double)
    handles = await asyncio.gather(*(node.start(double, 1, key="k") for _ in range(50)))
    assert len({handle.id for handle in handles}) == 1
    assert await handles[0].result(10) == 2
