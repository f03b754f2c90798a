"""How much Python the hot paths run: calls of functions of this package, counted one by one.

A count is the same on every machine, however busy. A limit here is what was measured, and a little more. Whoever
exceeds one sees in the failure which functions are called how often, and either finds the call that is too many, or
raises the limit and says why.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import FrameType

import pytest

import durable
from durable import Context, Durable, Signal, workflow
from tests.support import World, reaches

OURS = str(Path(durable.__file__).parent)
NO_POLLS = {"sweep": "1h", "lease": "1h"}
Go = Signal("go")


async def increased(number: int) -> dict[str, int]:
    return {"n": number + 1}


@workflow
async def stepping(ctx: Context, steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = (await ctx.step("increase", increased, number))["n"]
    return number


@workflow
async def side_by_side(ctx: Context, steps: int) -> int:
    return len(await ctx.map("increase", increased, range(steps)))


@workflow
async def replayed(ctx: Context, steps: int) -> int:
    for number in range(steps):
        await ctx.step("increase", increased, number)
    await ctx.wait_for_signal(Go)
    return steps


@workflow
async def hearing(ctx: Context, times: int) -> int:
    for _ in range(times):
        await ctx.wait_for_signal(Go)
    return times


@workflow
async def napping(ctx: Context, times: int) -> int:
    for _ in range(times):
        await ctx.sleep(0.001)
    return times


@workflow
async def raising(ctx: Context, children: int) -> int:
    return sum(await ctx.gather(*(ctx.run(stepping, 1) for _ in range(children))))


async def calls_of(act: Callable[[], Awaitable[object]]) -> Counter[str]:
    """How often which function of this package is called meanwhile; each time that a coroutine goes on counts too."""
    calls = Counter[str]()

    def count(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS):
            calls[f"{Path(code.co_filename).stem}.{code.co_qualname}"] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        await act()
    finally:
        sys.setprofile(before)
    return calls


async def check(
    limit: int, cost: Callable[[int], Awaitable[Counter[str]]], *, few: int = 5, more: int = 55
) -> None:
    """Fail if one more costs above `limit` calls. The fewest of several counts: on a busy machine timers ring now and
    then that never do on another."""
    each = list[Counter[str]]()
    for _ in range(3):
        before, after = await cost(few), await cost(more)
        each.append(Counter({name: after[name] - before[name] for name in after}))
    fewest = min(each, key=Counter.total)
    calls = fewest.total() / (more - few)
    table = "\n".join(f"{count / (more - few):7.1f}  {name}" for name, count in fewest.most_common(60))
    assert calls <= limit, f"one more costs {calls:.1f} calls, and {limit} are allowed:\n{table}"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World("memory://") as world:
        yield world


@pytest.fixture
async def node(world: World) -> Durable:
    return await world.node(stepping, side_by_side, hearing, napping, raising, **NO_POLLS)


async def test_a_live_step(node: Durable) -> None:
    await check(80, lambda steps: calls_of(lambda: node.start_and_wait(stepping, steps)))


async def test_a_step_beside_others(node: Durable) -> None:
    await check(53, lambda steps: calls_of(lambda: node.start_and_wait(side_by_side, steps)))


async def test_a_replayed_step() -> None:
    async def cost(steps: int) -> Counter[str]:
        async with World("memory://shared") as world:
            first = await world.node(replayed, **NO_POLLS)
            handle = await first.start(replayed, steps)
            await reaches(handle, "waiting")
            second = await world.restart()

            async def go_on() -> None:
                await second.signal(handle.id, Go)
                assert await second.handle(handle.id, replayed).result(5) == steps

            return await calls_of(go_on)

    await check(28, cost)


async def test_an_execution_of_one_step_from_its_start_to_its_result(node: Durable) -> None:
    async def cost(executions: int) -> Counter[str]:
        async def act() -> None:
            for _ in range(executions):
                assert await node.start_and_wait(stepping, 1) == 1

        return await calls_of(act)

    await check(255, cost)


async def test_a_signal_that_is_waited_for(node: Durable) -> None:
    async def cost(times: int) -> Counter[str]:
        handle = await node.start(hearing, times)

        async def act() -> None:
            for _ in range(times):
                await reaches(handle, "waiting")
                await handle.signal(Go)
            assert await handle.result(5) == times

        return await calls_of(act)

    await check(252, cost)


async def test_a_sleep(node: Durable) -> None:
    await check(275, lambda times: calls_of(lambda: node.start_and_wait(napping, times)))


async def test_a_child_among_others(node: Durable) -> None:
    await check(320, lambda children: calls_of(lambda: node.start_and_wait(raising, children)))
