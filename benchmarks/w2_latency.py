"""W2: how long does a lone execution of one step take, from `start` to its result, here and by another process?"""

from __future__ import annotations

import sys
import time

from benchmarks.figures import REDIS, Figure, count, on, p50_and_p99
from benchmarks.w1_throughput import increased
from benchmarks.worlds import Place, World, process, say, told_to_go
from durable import Context, Durable, workflow
from durable.cli.process import run_process

FIGURES = (
    Figure(
        "p50 ms",
        must={"memory": 0.2, "sqlite-full": 1.5} | on(REDIS, 1.0),
        goal={"memory": 0.06, "sqlite-full": 0.7} | on(REDIS, 0.4),
    ),
    Figure("p99 ms"),
    Figure("other process p50 ms", must={"redis+rabbitmq": 2.5}, goal={"redis+rabbitmq": 1.5}),
    Figure("other process p99 ms"),
)


@workflow
async def one_step(ctx: Context, n: int) -> int:
    return (await ctx.step("increase", increased, n))["n"]


async def measure(world: World, scale: float) -> dict[str, float]:
    async with world.durable(one_step) as durable:
        figures = p50_and_p99(await _times(durable, scale))
    if world.has_processes:
        async with process("benchmarks.w2_latency", world.place.text) as worker:
            assert await worker.says() == "ready"
            async with world.durable(one_step, worker=False) as durable:
                figures |= p50_and_p99(await _times(durable, scale), "other process ")
    return figures


async def _times(durable: Durable, scale: float) -> list[float]:
    for n in range(count(20, scale)):
        await durable.start_and_wait(one_step, n, timeout=60)
    seconds: list[float] = []
    for n in range(count(300, scale)):
        began = time.perf_counter()
        result = await durable.start_and_wait(one_step, n, timeout=60)
        seconds.append(time.perf_counter() - began)
        assert result == n + 1
    return seconds


async def work(place: Place) -> None:
    async with place.durable(one_step):
        say("ready")
        await told_to_go()


if __name__ == "__main__":
    run_process(work(Place.parse(sys.argv[1])))
