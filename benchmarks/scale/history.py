"""Does a step stay as cheap in a history of 10,000 checkpoints, the most there may be, and how long is its replay?"""

from __future__ import annotations

from benchmarks import w5_long
from benchmarks.figures import BACKENDS, Figure, count, on
from benchmarks.worlds import World

FIGURES = (
    Figure("seconds"),
    Figure("last 10 % / first 10 %", must=on(BACKENDS, 1.15), goal=on(BACKENDS, 1.05)),
    Figure("replay ms"),
    Figure("replay, in the body ms"),
)


async def measure(world: World, scale: float) -> dict[str, float]:
    return await w5_long.measured(world, count(9_999, scale, least=20))  # the last is the wait for its signal
