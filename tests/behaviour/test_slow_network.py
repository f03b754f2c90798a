"""A network between nodes and Redis that is slow, or breaks: what happens meanwhile is neither lost nor doubled."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from durable import Context, Durable, Signal, workflow
from tests.proxy import Proxy
from tests.support import World, reaches, until

Go = Signal("go")
Number = Signal("number", int)

LATENCIES = [0.002, 0.005, 0.02]
MANY = 1000

both = pytest.mark.parametrize("world", [False, True], ids=["kept", "forgetful"], indirect=True)
"""With executions that wait kept in memory, and put aside."""


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    """Between the worker and Redis; clients have a line of their own."""
    async with Proxy.to(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def world(
    request: pytest.FixtureRequest, proxy: Proxy, redis_url: str, namespace: str
) -> AsyncIterator[World]:
    """Its nodes are gone before the network is."""
    async with World(redis_url, namespace=namespace, forgetful=getattr(request, "param", False)) as world:
        yield world


@pytest.fixture(params=LATENCIES, ids=lambda seconds: f"{seconds * 1000:.0f} ms")
def latency(request: pytest.FixtureRequest, proxy: Proxy) -> float:
    proxy.request_latency = proxy.reply_latency = request.param / 2
    return request.param


async def worker(world: World, proxy: Proxy, *workflows: Any) -> Durable:
    return await world.node(*workflows, store=proxy.url)


@both
async def test_signals_that_come_as_executions_park_wake_them(
    world: World, proxy: Proxy, latency: float
) -> None:
    chance = random.Random(0)
    begun = [asyncio.Event() for _ in range(MANY)]

    @workflow
    async def order(ctx: Context, number: int) -> int:
        loop = asyncio.get_running_loop()
        # Its commit and its parking take one and two times the latency from here.
        await ctx.step(
            "work", lambda: loop.call_later(chance.random() * 2.5 * latency, begun[number].set) and None
        )
        await ctx.wait_for_signal(Go)
        return number

    await worker(world, proxy, order)
    client = await world.node(order, worker=False)

    async def one(number: int) -> int:
        handle = await client.start(order, number)
        await begun[number].wait()
        await handle.signal(Go)
        return await handle.result(20)

    assert await asyncio.gather(*(one(number) for number in range(MANY))) == list(range(MANY))


@both
async def test_short_sleeps_end(world: World, proxy: Proxy, latency: float) -> None:
    @workflow
    async def order(ctx: Context, number: int) -> int:
        await ctx.sleep(f"{number % 21}ms")
        return number

    node = await worker(world, proxy, order)
    handles = await asyncio.gather(*(node.start(order, number) for number in range(MANY)))
    assert await asyncio.gather(*(handle.result(20) for handle in handles)) == list(range(MANY))


@both
async def test_two_hundred_who_wait_for_one_all_go_on(world: World, proxy: Proxy, latency: float) -> None:
    @workflow
    async def target(ctx: Context) -> int:
        return await ctx.wait_for_signal(Number)

    @workflow
    async def follower(ctx: Context, target_id: str) -> int:
        return await ctx.wait_for(ctx.handle(target_id, target))

    await worker(world, proxy, target, follower)
    client = await world.node(target, follower, worker=False)
    awaited = await client.start(target)
    handles = await asyncio.gather(*(client.start(follower, awaited.id) for _ in range(200)))
    for handle in handles[:150]:  # the others are on their way
        await reaches(handle, "waiting")
    await awaited.signal(Number, 9)
    assert await asyncio.gather(*(handle.result(20) for handle in handles)) == [9] * 200


@both
async def test_five_hundred_signals_at_once_arrive_in_order(
    world: World, proxy: Proxy, latency: float
) -> None:
    @workflow
    async def collect(ctx: Context) -> list[int]:
        return [await ctx.wait_for_signal(Number) for _ in range(500)]

    await worker(world, proxy, collect)
    client = await world.node(collect, worker=False)
    handle = await client.start(collect)
    await reaches(handle, "waiting")
    await asyncio.gather(*(handle.signal(Number, number) for number in range(500)))
    assert await handle.result(60) == list(range(500))


# ---- and one that breaks


async def test_lost_replies_double_nothing(world: World, proxy: Proxy) -> None:
    ran: Counter[int] = Counter()

    @workflow
    async def order(ctx: Context, number: int) -> list[int]:
        return [await ctx.step("work", work, number) for _ in range(5)]

    async def work(number: int) -> int:
        ran[number] += 1
        if ran[number] == 3:
            proxy.lose_reply()
        return ran[number]

    node = await worker(world, proxy, order)
    await asyncio.gather(*(node.start_and_wait(order, number, timeout=20) for number in range(5)))
    assert ran == Counter(dict.fromkeys(range(5), 5))


async def test_connections_that_are_reset_all_the_time_cost_only_time(world: World, proxy: Proxy) -> None:
    ran: Counter[tuple[int, int]] = Counter()

    @workflow
    async def order(ctx: Context, number: int) -> int:
        for turn in range(4):
            await ctx.step("work", work, number, turn)
            await ctx.sleep("5ms")
        return number

    async def work(number: int, turn: int) -> None:
        ran[number, turn] += 1

    await worker(world, proxy, order)
    client = await world.node(order, worker=False)
    handles = [await client.start(order, number) for number in range(30)]
    ended = asyncio.gather(*(handle.result(30) for handle in handles))
    while not ended.done():
        before = proxy.accepted
        proxy.reset()
        await until(lambda before=before: ended.done() or proxy.accepted > before)  # type: ignore[misc]
        await asyncio.wait([ended], timeout=0.1)
    assert await ended == list(range(30))
    # A step may run again only where its commit was refused; one that is stored never does.
    assert set(ran) == {(number, turn) for number in range(30) for turn in range(4)}


async def test_half_open_connections_are_given_up(world: World, proxy: Proxy) -> None:
    @workflow
    async def order(ctx: Context) -> int:
        return await ctx.wait_for_signal(Number)

    await worker(world, proxy, order)
    client = await world.node(order, worker=False)
    handle = await client.start(order)
    await reaches(handle, "waiting")
    proxy.half_open()
    await handle.signal(Number, 5)
    assert await handle.result(30) == 5
