"""W4: when 5,000 executions sleep three seconds, how late do they wake?"""

from __future__ import annotations

import asyncio
import time

from benchmarks.figures import BACKENDS, Figure, count, on
from benchmarks.worlds import World, peak_memory_mb
from durable import Context, workflow

FIGURES = (
    Figure("seconds over", must=on(BACKENDS, 1.0), goal=on(BACKENDS, 0.3)),
    Figure("greatest lateness ms", must=on(BACKENDS, 250), goal=on(BACKENDS, 60)),
    Figure("peak RSS MB", goal=on(BACKENDS, 120)),
)

SLEEP_MS = 3000

_asked: dict[str, float] = {}
_woke: dict[str, float] = {}


@workflow
async def sleeper(ctx: Context, milliseconds: int) -> int:
    # A body that is put aside meanwhile begins again: what counts is when it asked first.
    _asked.setdefault(ctx.execution_id, time.perf_counter())
    await ctx.sleep(milliseconds / 1000)
    _woke.setdefault(ctx.execution_id, time.perf_counter())
    return milliseconds


def sleep_ms(scale: float) -> int:
    return max(50, round(SLEEP_MS * min(1.0, 10 * scale)))


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(5000, scale)
    milliseconds = sleep_ms(scale)
    _asked.clear()
    _woke.clear()
    async with world.durable(sleeper) as durable:
        began = time.perf_counter()
        handles = await asyncio.gather(*(durable.start(sleeper, milliseconds) for _ in range(executions)))
        results = await asyncio.gather(*(handle.result(timeout="5m") for handle in handles))
        seconds = time.perf_counter() - began
    assert results == [milliseconds] * executions
    slept = [_woke[handle.id] - _asked[handle.id] for handle in handles]
    # Its timer is stored in whole milliseconds of another clock, which may be a little before what we read here.
    assert min(slept) > milliseconds / 1000 - 0.01, "one woke too early"
    return {
        "seconds over": seconds - milliseconds / 1000,
        "greatest lateness ms": max(slept) * 1000 - milliseconds,
        "peak RSS MB": peak_memory_mb(),
    }
