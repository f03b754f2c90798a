"""How much more do 2 and 4 worker processes do than one?"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack

from benchmarks.figures import Figure, count
from benchmarks.w1_throughput import five_steps
from benchmarks.worlds import Place, World, process, say, told_to_go, until_counted
from durable import ExecutionStatus
from durable.cli.process import run_process

NUMBERS = (1, 2, 4)
FIGURES = tuple(Figure(f"executions/s of {number}", higher_is_better=True) for number in NUMBERS)


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(4000, scale, least=20)
    figures: dict[str, float] = {}
    done = 0
    async with world.durable(five_steps, worker=False) as durable:
        for number in NUMBERS:
            handles = await asyncio.gather(*(durable.start(five_steps, n) for n in range(executions)))
            done += executions
            async with AsyncExitStack() as stack:
                workers = [
                    await stack.enter_async_context(process("benchmarks.scale.workers", world.place.text))
                    for _ in range(max(1, round(number * min(1.0, 10 * scale))))
                ]
                for worker in workers:
                    assert await worker.says() == "ready"
                began = time.perf_counter()
                for worker in workers:
                    worker.go()
                # Not counted: until they have connected, and the first are done.
                tenth = done - executions + executions // 10
                first = await until_counted(durable, ExecutionStatus.COMPLETED, tenth)
                if first < done - executions // 2:
                    began = time.perf_counter()
                else:  # so few that they were done before anybody looked
                    first = done - executions
                await until_counted(durable, ExecutionStatus.COMPLETED, done)
                seconds = time.perf_counter() - began
            figures[f"executions/s of {number}"] = (done - first) / seconds
            results = [await handle.result(timeout=60) for handle in handles[:: max(1, executions // 100)]]
            assert results == [n + 5 for n in range(0, executions, max(1, executions // 100))]
    return figures


async def work(place: Place) -> None:
    say("ready")
    if await told_to_go():
        async with place.durable(five_steps):
            await told_to_go()


if __name__ == "__main__":
    run_process(work(Place.parse(sys.argv[1])))
