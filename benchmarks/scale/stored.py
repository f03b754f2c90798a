"""Does it stay as fast when 1,000, 100,000 and 1,000,000 executions are stored?"""

from __future__ import annotations

import asyncio
import statistics
import time

from benchmarks.figures import BACKENDS, Figure, count, on
from benchmarks.scale.ports import open_store, stored_bytes
from benchmarks.w1_throughput import five_steps
from benchmarks.w2_latency import one_step
from benchmarks.worlds import World
from durable import Durable, ExecutionStatus
from durable.protocols import Batch, Claimed, Close, DurableStore, NewExecution

LEVELS = (1_000, 100_000, 1_000_000)

FIGURES = (
    *(Figure(f"executions/s at {level:,}", higher_is_better=True) for level in LEVELS),
    *(Figure(f"p50 ms at {level:,}") for level in LEVELS),
    Figure("cost at the most / at the least", goal=on(BACKENDS, 1.1)),
    Figure("bytes each"),
)

_TASKS = 200
_PROBES = 3


async def measure(world: World, scale: float) -> dict[str, float]:
    figures: dict[str, float] = {}
    stored = 0
    async with world.durable(five_steps, one_step) as durable, open_store(world) as store:
        await _probe(durable, scale)  # what is slow the first time
        empty = await stored_bytes(world)
        for level in LEVELS:
            wanted = count(level, scale, least=20)
            await _fill(store, stored, wanted)
            stored = wanted
            rate, p50 = await _probe(durable, scale)
            figures[f"executions/s at {level:,}"] = rate
            figures[f"p50 ms at {level:,}"] = p50
        figures["bytes each"] = (await stored_bytes(world) - empty) / stored
    least, most = LEVELS[0], LEVELS[-1]
    slower = figures[f"executions/s at {least:,}"] / figures[f"executions/s at {most:,}"]
    figures["cost at the most / at the least"] = slower
    return figures


async def _fill(store: DurableStore, first: int, end: int) -> None:
    """Have so many executions stored that have ended, each by the three writes that its life is."""
    numbers = iter(range(first, end))

    async def work() -> None:
        for n in numbers:
            await _life(store, f"stored-{n}")

    await asyncio.gather(*(work() for _ in range(_TASKS)))


async def _life(store: DurableStore, id: str) -> None:
    # Not ready before it is claimed: a worker would look for it.
    await store.create(NewExecution(id, "stored", "1", b"1", queue="stored"), op_id=f"{id}-create")
    claimed = await store.claim(id, nonce=f"{id}-nonce", worker="bench")
    assert isinstance(claimed, Claimed)
    batch = Batch(seen=0, next=Close(ExecutionStatus.COMPLETED, result=b"2"))
    await store.commit(id, nonce=f"{id}-nonce", ver=claimed.row.ver, op_id=f"{id}-end", batch=batch)


async def _probe(durable: Durable, scale: float) -> tuple[float, float]:
    """Executions of five steps in a second, and the median time of a lone one of one step."""
    executions = count(1000, scale)
    rates: list[float] = []
    for _ in range(_PROBES):
        began = time.perf_counter()
        handles = await asyncio.gather(*(durable.start(five_steps, n) for n in range(executions)))
        results = await asyncio.gather(*(handle.result(timeout="5m") for handle in handles))
        rates.append(executions / (time.perf_counter() - began))
        assert results == [n + 5 for n in range(executions)]
    seconds: list[float] = []
    for n in range(count(100, scale)):
        began = time.perf_counter()
        assert await durable.start_and_wait(one_step, n, timeout=60) == n + 1
        seconds.append(time.perf_counter() - began)
    return statistics.median(rates), statistics.median(seconds) * 1000
