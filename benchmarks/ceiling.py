"""How fast could it be? Bare programs that make just the durable writes that no workflow engine can do without.

Accept, one commit for each step, completion; each commit checks the fence. The last step's commit and the completion
travel together. Nothing else is there: no replay, no retries, no queue, no wake-ups from elsewhere.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.ceiling_local import MemoryStore, SqliteStore
from benchmarks.ceiling_redis import open_redis
from benchmarks.ceiling_writes import Store, accept, commit, complete, fire, park, post
from benchmarks.figures import Figure, count
from benchmarks.w1_throughput import increased
from benchmarks.w4_sleepers import sleep_ms
from benchmarks.worlds import CONCURRENCY, World

FIGURES = tuple(
    Figure(name, higher_is_better=name.endswith("/s"))
    for name in (
        "w1: executions/s",
        "w2: p50 ms",
        "w3: p50 ms",
        "w4: seconds over",
        "w4: greatest lateness ms",
        "w5: seconds",
        "w5: replay ms",
        "w6: steps ms",
        "w6: children ms",
    )
)


@asynccontextmanager
async def open_store(world: World) -> AsyncIterator[Store]:
    if world.backend == "memory":
        yield MemoryStore()
        return
    if world.backend.startswith("redis"):
        async with open_redis(world.place) as bare:
            yield bare
        return
    store = SqliteStore(world.directory / "ceiling.db", world.backend.removeprefix("sqlite-"))
    try:
        yield store
    finally:
        store.close()


async def measure(world: World, scale: float) -> dict[str, float]:
    async with open_store(world) as store:
        await _execution(store, "warm", 5, 0)
        return {
            "w1: executions/s": await _w1(store, count(2000, scale)),
            "w2: p50 ms": await _w2(store, count(300, scale)),
            "w3: p50 ms": await _w3(store, count(200, scale)),
            **await _w4(store, count(5000, scale), sleep_ms(scale)),
            **await _w5(store, count(2000, scale)),
            "w6: steps ms": await _w6_steps(store, count(200, scale)),
            "w6: children ms": await _w6_children(store, count(200, scale)),
        }


async def _execution(store: Store, id: str, steps: int, n: int) -> None:
    await store.write(accept(id, n))
    for step in range(steps - 1):
        n = (await increased(n))["n"]
        await store.write(commit(id, f"increase#{step}", {"n": n}))
    n = (await increased(n))["n"]
    await store.write(commit(id, "last", {"n": n}), complete(id, n))


async def _w1(store: Store, executions: int) -> float:
    numbers = iter(range(executions))

    async def work() -> None:
        for n in numbers:
            await _execution(store, f"w1-{n}", 5, n)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    seconds = time.perf_counter() - began
    for n in range(executions):
        assert n % 50 or await store.result(f"w1-{n}") == n + 5
    return executions / seconds


async def _w2(store: Store, executions: int) -> float:
    seconds: list[float] = []
    for n in range(executions):
        began = time.perf_counter()
        await _execution(store, f"w2-{n}", 1, n)
        seconds.append(time.perf_counter() - began)
    assert await store.result("w2-0") == 1
    return statistics.median(seconds) * 1000


async def _w3(store: Store, executions: int) -> float:
    seconds: list[float] = []
    for n in range(executions):
        id = f"w3-{n}"
        await store.write(accept(id, n))
        began = time.perf_counter()
        await store.write(post(id, 1000))
        await store.write(commit(id, "wait", 1000), complete(id, n + 1000))
        seconds.append(time.perf_counter() - began)
    assert await store.result("w3-0") == 1000
    return statistics.median(seconds) * 1000


async def _w4(store: Store, executions: int, milliseconds: int) -> dict[str, float]:
    """The timers are stored; what wakes is told by the loop, which has them all."""
    late: list[float] = []

    async def sleep(n: int) -> None:
        id = f"w4-{n}"
        await store.write(accept(id, milliseconds))
        due = time.perf_counter() + milliseconds / 1000
        await store.write(park(id, due))
        await asyncio.sleep(due - time.perf_counter())
        late.append(time.perf_counter() - due)
        await store.write(fire(id), commit(id, "sleep", None), complete(id, milliseconds))

    began = time.perf_counter()
    await asyncio.gather(*(sleep(n) for n in range(executions)))
    seconds = time.perf_counter() - began
    assert await store.result("w4-0") == milliseconds
    return {"w4: seconds over": seconds - milliseconds / 1000, "w4: greatest lateness ms": max(late) * 1000}


async def _w5(store: Store, steps: int) -> dict[str, float]:
    began = time.perf_counter()
    await store.write(accept("w5", 0))
    n = 0
    for step in range(steps):
        n = (await increased(n))["n"]
        await store.write(commit("w5", f"increase#{step}", {"n": n}))
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    history = await store.history("w5")
    await store.write(commit("w5", "wait", None), complete("w5", n))
    replay = time.perf_counter() - began
    assert (len(history), await store.result("w5")) == (steps, steps)
    return {"w5: seconds": seconds, "w5: replay ms": replay * 1000}


async def _w6_steps(store: Store, width: int) -> float:
    async def step(n: int) -> int:
        value = await increased(n)
        await store.write(commit("w6-steps", f"increase-{n}", value))
        return value["n"]

    began = time.perf_counter()
    await store.write(accept("w6-steps", width))
    results = await asyncio.gather(*(step(n) for n in range(width)))
    await store.write(complete("w6-steps", sum(results)))
    seconds = time.perf_counter() - began
    assert await store.result("w6-steps") == width * (width + 1) // 2
    return seconds * 1000


async def _w6_children(store: Store, width: int) -> float:
    began = time.perf_counter()
    await store.write(accept("w6-children", width))
    await asyncio.gather(*(_execution(store, f"w6-child-{n}", 1, n) for n in range(width)))
    await store.write(
        *(commit("w6-children", f"child-{n}", n + 1) for n in range(width)), complete("w6-children", width)
    )
    seconds = time.perf_counter() - began
    assert await store.result("w6-child-0") == 1
    return seconds * 1000
