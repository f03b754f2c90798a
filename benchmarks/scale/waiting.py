"""Do 10,000 executions that wait for a signal slow down those that work, and how fast is one of them answered?"""

from __future__ import annotations

import asyncio
import time

from benchmarks.figures import Figure, count, p50_and_p99
from benchmarks.w1_throughput import five_steps
from benchmarks.w3_signal import Answer, answered
from benchmarks.worlds import World, memory_mb, until_counted
from durable import Durable, ExecutionStatus

FIGURES = (
    Figure("executions/s before", higher_is_better=True),
    Figure("executions/s beside them", higher_is_better=True),
    Figure("signal p50 ms"),
    Figure("signal p99 ms"),
    Figure("KB each"),
)


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(10_000, scale, least=10)
    async with world.durable(five_steps, answered) as durable:
        await _rate(durable, count(1000, scale))
        before = await _rate(durable, count(1000, scale))
        empty = memory_mb()
        handles = []
        for first in range(0, executions, 500):
            numbers = range(first, min(first + 500, executions))
            handles += await asyncio.gather(*(durable.start(answered, n) for n in numbers))
        await until_counted(durable, ExecutionStatus.WAITING, executions)
        each = (memory_mb() - empty) * 1024 / executions
        beside = await _rate(durable, count(1000, scale))
        seconds: list[float] = []
        for n in range(0, executions, max(1, executions // 200)):
            began = time.perf_counter()
            await handles[n].signal(Answer, 1000)
            assert await handles[n].result(timeout=60) == n + 1000
            seconds.append(time.perf_counter() - began)
    rates = {"executions/s before": before, "executions/s beside them": beside, "KB each": each}
    return {**rates, **p50_and_p99(seconds, "signal ")}


async def _rate(durable: Durable, executions: int) -> float:
    began = time.perf_counter()
    handles = await asyncio.gather(*(durable.start(five_steps, n) for n in range(executions)))
    results = await asyncio.gather(*(handle.result(timeout="5m") for handle in handles))
    seconds = time.perf_counter() - began
    assert results == [n + 5 for n in range(executions)]
    return executions / seconds
