"""W3: how long from `signal()` to the result of the execution that waited for it, here and from another process?"""

from __future__ import annotations

import sys
import time

from benchmarks.figures import REDIS, SHARED, Figure, count, on, p50_and_p99
from benchmarks.worlds import Place, World, process, say, told_to_go, until_waiting
from durable import Context, Durable, Signal, workflow
from durable.cli.process import run_process

FIGURES = (
    Figure(
        "p50 ms",
        must={"memory": 0.3, "sqlite-full": 1.0} | on(REDIS, 1.0),
        goal={"memory": 0.1, "sqlite-full": 0.5} | on(REDIS, 0.4),
    ),
    Figure("p99 ms"),
    Figure("other process p50 ms", goal=on(SHARED, 1.0)),
    Figure("other process p99 ms"),
)

Answer = Signal("answer", int)


@workflow
async def answered(ctx: Context, n: int) -> int:
    return n + await ctx.wait_for_signal(Answer)


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(200, scale)
    async with world.durable(answered) as durable:
        figures = p50_and_p99(await _times(durable, executions))
    if world.has_processes:
        async with process("benchmarks.w3_signal", world.place.text) as worker:
            assert await worker.says() == "ready"
            async with world.durable(answered, worker=False) as durable:
                figures |= p50_and_p99(await _times(durable, executions), "other process ")
    return figures


async def _times(durable: Durable, executions: int) -> list[float]:
    handles = [await durable.start(answered, n) for n in range(executions)]
    for handle in handles:
        await until_waiting(handle)
    seconds: list[float] = []
    for n, handle in enumerate(handles):
        began = time.perf_counter()
        await handle.signal(Answer, 1000)
        result = await handle.result(timeout=60)
        seconds.append(time.perf_counter() - began)
        assert result == n + 1000
    return seconds


async def work(place: Place) -> None:
    async with place.durable(answered):
        say("ready")
        await told_to_go()


if __name__ == "__main__":
    run_process(work(Place.parse(sys.argv[1])))
