"""W1: how many executions of five trivial steps does one worker do in a second?"""

from __future__ import annotations

import asyncio
import time

from benchmarks.figures import REDIS, Figure, count, on
from benchmarks.worlds import World
from durable import Context, workflow

FIGURES = (
    Figure(
        "executions/s",
        higher_is_better=True,
        limits_are_shares=True,
        must=on(("sqlite-full", *REDIS), 0.12),
        goal={"memory": 0.20, "sqlite-full": 0.28} | on(REDIS, 0.24),
        ratios={
            "memory": {"runner-memory": (0.8, 1.5)},
            "sqlite-full": {"dbos-sqlite": (30, 70)},
            "redis": {"runner-redis+rabbitmq": (2.5, 5), "restate": (None, 13)},
            "redis+rabbitmq": {"runner-redis+rabbitmq": (2, 4)},
        },
    ),
)


async def increased(n: int) -> dict[str, int]:
    return {"n": n + 1}


@workflow
async def five_steps(ctx: Context, n: int) -> int:
    for _ in range(5):
        n = (await ctx.step("increase", increased, n))["n"]
    return n


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(2000, scale)
    async with world.durable(five_steps) as durable:
        assert await durable.start_and_wait(five_steps, 0, timeout=60) == 5
        began = time.perf_counter()
        handles = await asyncio.gather(*(durable.start(five_steps, n) for n in range(executions)))
        results = await asyncio.gather(*(handle.result(timeout="5m") for handle in handles))
        seconds = time.perf_counter() - began
    assert results == [n + 5 for n in range(executions)]
    return {"executions/s": executions / seconds}
