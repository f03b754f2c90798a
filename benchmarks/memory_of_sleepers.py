"""What do 10,000 sleeping executions cost in memory?"""

from __future__ import annotations

import asyncio

from benchmarks.figures import BACKENDS, Figure, count, on
from benchmarks.worlds import World, memory_mb
from durable import Context, Durable, ExecutionStatus, workflow

FIGURES = (Figure("RSS MB", must=on(BACKENDS, 300), goal=on(BACKENDS, 300)), Figure("without them MB"))


@workflow
async def long_sleeper(ctx: Context, n: int) -> int:
    await ctx.sleep("1d")
    return n


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(10_000, scale)
    async with world.durable(long_sleeper) as durable:
        before = memory_mb()
        for first in range(0, executions, 500):
            numbers = range(first, min(first + 500, executions))
            await asyncio.gather(*(durable.start(long_sleeper, n) for n in numbers))
        async with asyncio.timeout(300):
            while not await _all_sleep(durable, executions):  # noqa: ASYNC110 - the store has no event for it
                await asyncio.sleep(0.05)
        return {"RSS MB": memory_mb(), "without them MB": before}


async def _all_sleep(durable: Durable, executions: int) -> bool:
    return (await durable.operator.counts())[ExecutionStatus.SLEEPING] == executions
