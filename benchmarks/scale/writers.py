"""What do 16 processes do that all start and run executions on one SQLite file, and does any of them starve?"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack

from benchmarks.figures import Figure, count
from benchmarks.w1_throughput import five_steps
from benchmarks.worlds import Place, World, process, say, told_to_go
from durable.cli.process import run_process

PROCESSES = 16
FIGURES = (
    Figure("executions/s of 1", higher_is_better=True),
    Figure("executions/s of 16", higher_is_better=True),
    Figure("slowest / fastest"),
)


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(1600, scale, least=PROCESSES)
    alone, _ = await _together(world, 1, executions)
    processes = max(2, min(PROCESSES, round(PROCESSES * 10 * scale)))  # a small run is not to wait for them
    together, seconds = await _together(world, processes, executions // processes)
    return {
        "executions/s of 1": alone,
        "executions/s of 16": together,
        "slowest / fastest": max(seconds) / min(seconds),
    }


async def _together(world: World, processes: int, each: int) -> tuple[float, list[float]]:
    """(Executions in a second of all together, what each process took for its own.)"""
    async with AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(
                process("benchmarks.scale.writers", world.place.text, number, each)
            )
            for number in range(processes)
        ]
        for other in others:
            assert await other.says() == "ready"
        began = time.perf_counter()
        for other in others:
            other.go()
        seconds = [await other.says() for other in others]
        return processes * each / (time.perf_counter() - began), seconds


async def work(place: Place, number: int, executions: int) -> None:
    async with place.durable(five_steps) as durable:
        say("ready")
        if await told_to_go():
            began = time.perf_counter()
            first = number * executions
            numbers = range(first, first + executions)
            handles = await asyncio.gather(*(durable.start(five_steps, n) for n in numbers))
            results = await asyncio.gather(*(handle.result(timeout="5m") for handle in handles))
            assert results == [n + 5 for n in numbers]
            say(time.perf_counter() - began)
            await told_to_go()


if __name__ == "__main__":
    run_process(work(Place.parse(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
