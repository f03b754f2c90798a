"""W7: of two workers one dies of `kill -9` when 2,000 executions are 30 % done: when is all done, and is any lost?

The worker kills itself, in the middle of its work, at 15 % of its own: the two can be expected to have done 30 %.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime

from benchmarks.figures import SHARED, Figure, count, on
from benchmarks.w1_throughput import increased
from benchmarks.worlds import Place, World, process, say, told_to_go
from durable import (
    Context,
    Durable,
    Execution,
    ExecutionNotFound,
    ExecutionStatus,
    Handle,
    WaitTimeout,
    workflow,
)
from durable.cli.process import run_process

LEASE = 1.0
SWEEP = 0.25
PATIENCE = 60.0

FIGURES = (
    Figure("all done s", goal=on(SHARED, 1.5)),
    Figure("first progress s", must=on(SHARED, LEASE + 1), goal=on(SHARED, 0.5)),
    Figure("stuck", must=on(SHARED, 0), goal=on(SHARED, 0)),
    Figure("lost", must=on(SHARED, 0), goal=on(SHARED, 0)),
    Figure("done when killed %", is_compared=False),
)

_dies_after = 0
_ended = 0


@workflow
async def mortal_steps(ctx: Context, n: int) -> int:
    for _ in range(5):
        n = (await ctx.step("increase", increased, n))["n"]
    _one_more()
    return n


def _one_more() -> None:
    global _ended  # noqa: PLW0603 - it is a count of this process
    _ended += 1
    if _ended == 1 and _dies_after:
        say("begun")
    if _ended == _dies_after:
        say(time.time())
        os.kill(os.getpid(), signal.SIGKILL)


async def measure(world: World, scale: float) -> dict[str, float]:
    executions = count(2000, scale, least=20)
    async with world.durable(mortal_steps, worker=False) as durable:
        handles = await asyncio.gather(*(durable.start(mortal_steps, n) for n in range(executions)))
        mine = count(executions, 0.15)
        module = "benchmarks.w7_takeover"
        async with (
            process(module, world.place.text, mine) as victim,
            process(module, world.place.text, 0) as peer,
        ):
            assert [await victim.says(), await peer.says()] == ["ready", "ready"]
            victim.go()
            # So that the victim has its share, however few there are.
            assert await victim.says() == "begun"
            peer.go()
            killed = datetime.fromtimestamp(await victim.says(), UTC)
            assert await victim.ended() == -signal.SIGKILL
            records = await asyncio.gather(*(_end(durable, handle) for handle in handles))
    found = [record for record in records if record is not None]
    finished = [record.finished_at for record in found if record.finished_at is not None]
    ended = [record for record in found if record.status is ExecutionStatus.COMPLETED]
    assert all(isinstance(record.input, int) and record.result == record.input + 5 for record in ended)
    later = [at for at in finished if at > killed] or [killed]
    return {
        "all done s": (max(later) - killed).total_seconds(),
        "first progress s": (min(later) - killed).total_seconds(),
        "stuck": len(found) - len(ended),
        "lost": len(records) - len(found),
        "done when killed %": 100 * sum(at <= killed for at in finished) / executions,
    }


async def _end(durable: Durable, handle: Handle[int]) -> Execution | None:
    """Its record when it has ended, or when it has had its time; None if there is none any more."""
    try:
        with suppress(WaitTimeout):
            await handle.result(timeout=PATIENCE)
        return await durable.status(handle.id)
    except ExecutionNotFound:
        return None


async def work(place: Place, dies_after: int) -> None:
    global _dies_after  # noqa: PLW0603 - it is a setting of this process
    _dies_after = dies_after
    say("ready")
    if await told_to_go():
        async with place.durable(mortal_steps, lease=LEASE, sweep=SWEEP):
            await told_to_go()


if __name__ == "__main__":
    run_process(work(Place.parse(sys.argv[1]), int(sys.argv[2])))
