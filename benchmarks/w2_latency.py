"""W2: how long does a lone execution of one step take, from `start` to its result?"""

from __future__ import annotations

import time

from benchmarks.figures import Figure, count, p50_and_p99
from benchmarks.w1_throughput import increased
from benchmarks.worlds import World
from durable import Context, workflow

FIGURES = (
    Figure("p50 ms", must={"memory": 0.2, "sqlite-full": 1.5}, goal={"memory": 0.06, "sqlite-full": 0.7}),
    Figure("p99 ms"),
)


@workflow
async def one_step(ctx: Context, n: int) -> int:
    return (await ctx.step("increase", increased, n))["n"]


async def measure(world: World, scale: float) -> dict[str, float]:
    seconds: list[float] = []
    async with world.durable(one_step) as durable:
        for n in range(count(20, scale)):
            await durable.start_and_wait(one_step, n, timeout=60)
        for n in range(count(300, scale)):
            began = time.perf_counter()
            result = await durable.start_and_wait(one_step, n, timeout=60)
            seconds.append(time.perf_counter() - began)
            assert result == n + 1
    return p50_and_p99(seconds)
