"""What does a worker cost in a minute that has nothing to do, alone and with 10,000 sleeping executions?"""

from __future__ import annotations

import asyncio
import time

from benchmarks.figures import Figure, count
from benchmarks.memory_of_sleepers import all_asleep, long_sleeper
from benchmarks.scale.ports import CountingStore, bare_store, redis_says
from benchmarks.worlds import World

_CASES = ("idle", "10,000 asleep")
FIGURES = tuple(
    Figure(f"{case}: {what}")
    for case in _CASES
    for what in ("CPU s/min", "store calls/min", "Redis CPU s/min")
)

_WATCHED = 20.0
"""Seconds, four of the sweeps that a worker makes by default."""


async def measure(world: World, scale: float) -> dict[str, float]:
    store = CountingStore(bare_store(world))
    figures: dict[str, float] = {}
    async with world.durable(long_sleeper, store=store, bus=world.place.store) as durable:
        figures |= await _watched(world, store, _CASES[0], scale)
        await all_asleep(durable, count(10_000, scale))
        figures |= await _watched(world, store, _CASES[1], scale)
    return figures


async def _watched(world: World, store: CountingStore, case: str, scale: float) -> dict[str, float]:
    seconds = max(0.05, _WATCHED * min(1.0, scale))
    await asyncio.sleep(min(1.0, seconds))  # for what has just begun
    server = await redis_says(world) if world.has_redis else None
    calls, cpu, began = store.calls.total(), time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    minutes = (time.perf_counter() - began) / 60
    figures = {
        f"{case}: CPU s/min": (time.process_time() - cpu) / minutes,
        f"{case}: store calls/min": (store.calls.total() - calls) / minutes,
    }
    if server is not None:
        now = await redis_says(world)
        used = sum(now[name] - server[name] for name in ("used_cpu_user", "used_cpu_sys"))
        figures[f"{case}: Redis CPU s/min"] = used / minutes
    return figures
