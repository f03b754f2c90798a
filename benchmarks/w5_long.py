"""W5: does a step cost the same when 2,000 are behind it, and how long does a new process take to replay them?"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from itertools import pairwise

from benchmarks.figures import BACKENDS, REDIS, Figure, count, on
from benchmarks.w1_throughput import increased
from benchmarks.worlds import Place, World, process, say, told_to_go, until_waiting
from durable import Context, Durable, Signal, workflow
from durable.cli.process import run_process

FIGURES = (
    Figure("seconds", goal={"sqlite-full": 0.45} | on(REDIS, 0.25)),
    Figure("last 10 % / first 10 %", must=on(BACKENDS, 1.15), goal=on(BACKENDS, 1.05), is_compared=False),
    Figure("replay ms", goal=on(BACKENDS, 20)),
    Figure("replay, in the body ms"),
)

Finish = Signal("finish")

_marks: list[float] = []
_calls: list[int] = []
_last_step_done = asyncio.Event()


async def counted(n: int) -> dict[str, int]:
    _calls.append(n)
    return await increased(n)


@workflow
async def long(ctx: Context, steps: int) -> int:
    n = 0
    _marks[:] = [time.perf_counter()]
    for _ in range(steps):
        n = (await ctx.step("increase", counted, n))["n"]
        _marks.append(time.perf_counter())
    _last_step_done.set()
    await ctx.wait_for_signal(Finish)
    return n


async def measure(world: World, scale: float) -> dict[str, float]:
    return await measured(world, count(2000, scale, least=20))


async def measured(world: World, steps: int) -> dict[str, float]:
    if not world.has_processes:
        return await _in_one_process(world, steps)
    async with process("benchmarks.w5_long", "run", world.place.text, steps) as first:
        execution_id, figures = await first.says()
        await first.kill()
    async with process("benchmarks.w5_long", "replay", world.place.text, execution_id, steps) as second:
        return {**figures, **(await second.says())}


async def _in_one_process(world: World, steps: int) -> dict[str, float]:
    """Memory dies with its process: a new worker that knows nothing of the execution replays it instead."""
    async with world.durable(long) as durable:
        execution_id, figures = await run(durable, steps)
        await durable.stop()
    async with world.durable(long) as durable:
        return {**figures, **(await replay(durable, execution_id, steps))}


async def run(durable: Durable, steps: int) -> tuple[str, dict[str, float]]:
    warm = await durable.start(long, 20)
    await warm.signal(Finish)
    assert await warm.result(timeout=60) == 20
    _calls.clear()
    _last_step_done.clear()
    began = time.perf_counter()
    handle = await durable.start(long, steps)
    # Asking for its status meanwhile would be work for the store.
    await asyncio.wait_for(_last_step_done.wait(), 120)
    await until_waiting(handle)
    assert _calls == list(range(steps))
    spans = [after - before for before, after in pairwise(_marks)]
    tenth = steps // 10
    return handle.id, {
        "seconds": _marks[-1] - began,
        "last 10 % / first 10 %": statistics.mean(spans[-tenth:]) / statistics.mean(spans[:tenth]),
    }


async def replay(durable: Durable, execution_id: str, steps: int) -> dict[str, float]:
    warm = await durable.start(long, 20)
    await warm.signal(Finish)
    assert await warm.result(timeout=60) == 20
    _calls.clear()
    handle = durable.handle(execution_id, long)
    began = time.perf_counter()
    await handle.signal(Finish)
    result = await handle.result(timeout="2m")
    seconds = time.perf_counter() - began
    assert result == steps
    assert _calls == [], "steps ran again"
    return {"replay ms": seconds * 1000, "replay, in the body ms": (_marks[-1] - _marks[0]) * 1000}


async def main(what: str, place: str, *args: str) -> None:
    async with Place.parse(place).durable(long) as durable:
        if what == "run":
            say(await run(durable, int(args[0])))
            await told_to_go()
        else:
            say(await replay(durable, args[0], int(args[1])))


if __name__ == "__main__":
    run_process(main(*sys.argv[1:]))
