"""When 100,000 timers are due at the same instant, how long until all have woken, and how much memory is that?"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from benchmarks.figures import Figure, count
from benchmarks.worlds import World, peak_memory_mb
from durable import Context, Durable, Handle, workflow

FIGURES = (
    Figure("all done s"),
    Figure("timers/s", higher_is_better=True),
    Figure("first woke ms"),
    Figure("asleep when due %", is_compared=False),
    Figure("peak RSS MB"),
)

_asked: list[float] = []
_woke: list[float] = []


@workflow
async def until(ctx: Context, instant: float) -> float:
    _asked.append(time.time())
    await ctx.sleep_until(datetime.fromtimestamp(instant, UTC))
    _woke.append(time.time())
    return instant


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(100_000, scale, least=20)
    _asked.clear()
    _woke.clear()
    async with world.durable(until) as durable:
        # How long starting takes, and what is slow the first time.
        began, some = time.time(), count(2000, scale, least=10)
        started = await _start(durable, some, began)
        each = (time.time() - began) / some
        for handle in started:
            assert await handle.result(timeout="2m") == began
        _asked.clear()
        _woke.clear()
        due = time.time() + 1.6 * each * executions + 2 * min(1.0, 10 * scale)
        handles = await _start(durable, executions, due)
        for handle in handles:
            assert await handle.result(timeout="20m") == due
        seconds = time.time() - due
    return {
        "all done s": seconds,
        "timers/s": executions / seconds,
        "first woke ms": (min(_woke) - due) * 1000,
        "asleep when due %": 100 * sum(at < due for at in _asked) / len(_asked),
        "peak RSS MB": peak_memory_mb(),
    }


async def _start(durable: Durable, executions: int, due: float) -> list[Handle[float]]:
    handles: list[Handle[float]] = []
    for first in range(0, executions, 1000):
        number = min(1000, executions - first)
        handles += await asyncio.gather(*(durable.start(until, due) for _ in range(number)))
    return handles
