"""W6: how long does one execution take that runs 200 steps side by side, or 200 children?"""

from __future__ import annotations

import statistics
import time

from benchmarks.figures import SHARED, Figure, count, on
from benchmarks.w1_throughput import increased
from benchmarks.w2_latency import one_step
from benchmarks.worlds import World
from durable import Context, Durable, Workflow, workflow

FIGURES = (
    Figure("steps ms", must=on(SHARED, 25), goal=on(SHARED, 8)),
    Figure("children ms", must=on(SHARED, 60), goal=on(SHARED, 20)),
)

_TIMES = 5


@workflow
async def many_steps(ctx: Context, width: int) -> int:
    results = await ctx.gather(*(ctx.step(f"increase-{n}", increased, n) for n in range(width)))
    assert [result["n"] for result in results] == list(range(1, width + 1))
    return sum(result["n"] for result in results)


@workflow
async def many_children(ctx: Context, width: int) -> int:
    results = await ctx.gather(*(ctx.run(one_step, n) for n in range(width)))
    assert results == list(range(1, width + 1))
    return sum(results)


async def measure(world: World, scale: float) -> dict[str, float]:
    width = count(200, scale, least=3)
    async with world.durable(many_steps, many_children, one_step) as durable:
        return {
            "steps ms": await _median_ms(durable, many_steps, width),
            "children ms": await _median_ms(durable, many_children, width),
        }


async def _median_ms(durable: Durable, wide: Workflow[int, int], width: int) -> float:
    assert await durable.start_and_wait(wide, 3, timeout=60) == 6
    seconds: list[float] = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        result = await durable.start_and_wait(wide, width, timeout=60)
        seconds.append(time.perf_counter() - began)
        assert result == width * (width + 1) // 2
    return statistics.median(seconds) * 1000
