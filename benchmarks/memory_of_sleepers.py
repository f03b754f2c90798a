"""What do 10,000 sleeping executions cost in memory?"""

from __future__ import annotations

import asyncio

from benchmarks.figures import BACKENDS, Figure, count, on
from benchmarks.worlds import World, memory_mb, until_counted
from durable import Context, Durable, ExecutionStatus, workflow

FIGURES = (
    Figure("RSS MB", must=on(BACKENDS, 300), goal=on(BACKENDS, 300)),
    Figure("without them MB", is_compared=False),
    Figure("KB each"),
)


@workflow
async def long_sleeper(ctx: Context, n: int) -> int:
    await ctx.sleep("1d")
    return n


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(10_000, scale)
    async with world.durable(long_sleeper) as durable:
        before = memory_mb()
        await all_asleep(durable, executions)
        after = memory_mb()
    return {"RSS MB": after, "without them MB": before, "KB each": (after - before) * 1024 / executions}


async def all_asleep(durable: Durable, executions: int) -> None:
    """Start so many, and come back when all of them sleep."""
    for first in range(0, executions, 500):
        numbers = range(first, min(first + 500, executions))
        await asyncio.gather(*(durable.start(long_sleeper, n) for n in numbers))
    await until_counted(durable, ExecutionStatus.SLEEPING, executions)
