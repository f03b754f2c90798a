"""The workloads on Absurd, on PostgreSQL.

An asynchronous client is one connection, and a worker begins the next batch when the whole last one is done. A task may
not wait for tasks of its own queue, so children are not measured.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import absurdctl
from absurd_sdk import AsyncAbsurd, AsyncTaskContext
from driving import (
    LEASE,
    PATIENCE,
    Series,
    Settings,
    growth,
    peak_memory_mb,
    run_process,
    say,
    told,
    told_to_go,
)
from psycopg import AsyncConnection

CONCURRENCY = 100
LEASE_OF_LONG_RUNS = 120

_asked: dict[str, float] = {}
_woke: dict[str, float] = {}
_marks: list[float] = []
_calls: list[int] = []
_last_step_done = asyncio.Event()
_dies_after = 0
_ended = 0


async def increased(n: int) -> dict[str, int]:
    return {"n": n + 1}


async def five_steps(n: int, ctx: AsyncTaskContext) -> int:
    for _ in range(5):
        n = (await ctx.step("increase", lambda n=n: increased(n)))["n"]
    return n


async def one_step(n: int, ctx: AsyncTaskContext) -> int:
    return (await ctx.step("increase", lambda: increased(n)))["n"]


async def answered(given: dict[str, Any], ctx: AsyncTaskContext) -> int:
    return given["n"] + await ctx.await_event(given["event"])


async def sleeper(milliseconds: int, ctx: AsyncTaskContext) -> int:
    _asked.setdefault(str(ctx.task_id), time.perf_counter())
    await ctx.sleep_for("sleep", milliseconds / 1000)
    _woke.setdefault(str(ctx.task_id), time.perf_counter())
    return milliseconds


async def long(steps: int, ctx: AsyncTaskContext) -> int:
    async def counted(n: int) -> dict[str, int]:
        _calls.append(n)
        return await increased(n)

    n = 0
    _marks[:] = [time.perf_counter()]
    for _ in range(steps):
        n = (await ctx.step("increase", lambda n=n: counted(n)))["n"]
        _marks.append(time.perf_counter())
    _last_step_done.set()
    await ctx.await_event("finish")
    return n


async def many_steps(width: int, ctx: AsyncTaskContext) -> int:
    steps = (ctx.step(f"increase-{n}", lambda n=n: increased(n)) for n in range(width))
    results = await asyncio.gather(*steps)
    assert [result["n"] for result in results] == list(range(1, width + 1))
    return sum(result["n"] for result in results)


async def mortal_steps(n: int, ctx: AsyncTaskContext) -> int:
    global _ended  # noqa: PLW0603 - it is a count of this process
    n = await five_steps(n, ctx)
    _ended += 1
    if _ended == 1 and _dies_after:
        say("begun")
    if _ended == _dies_after:
        say(time.time())
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def connect(settings: Settings) -> AsyncAbsurd:
    app = AsyncAbsurd(settings.urls["database"], queue_name="bench")
    for task in (five_steps, one_step, answered, sleeper, long, many_steps, mortal_steps):
        app.register_task(task.__name__, queue="bench")(task)
    return app


async def prepare(settings: Settings) -> None:
    """Lay the schema, once for a database."""
    async with await AsyncConnection.connect(settings.urls["database"], autocommit=True) as connection:
        await connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
    app = connect(settings)
    await app.create_queue("bench")
    await app.close()


@asynccontextmanager
async def working(settings: Settings, claim: int = LEASE_OF_LONG_RUNS) -> AsyncIterator[AsyncAbsurd]:
    """A client, beside a worker with a client of its own."""
    worker, client = connect(settings), connect(settings)
    task = asyncio.create_task(worker.start_worker(claim_timeout=claim, concurrency=CONCURRENCY))
    try:
        yield client
    finally:
        worker.stop_worker()
        await task
        await worker.close()
        await client.close()


async def result(app: AsyncAbsurd, id: str) -> Any:
    snapshot = await app.await_task_result(id, timeout=300)
    assert snapshot.state == "completed", snapshot
    return snapshot.result


async def until_waiting(app: AsyncAbsurd, id: str) -> None:
    while True:
        snapshot = await app.fetch_task_result(id)
        if snapshot is not None and snapshot.state == "sleeping":
            return
        await asyncio.sleep(0.005)


async def w1(settings: Settings) -> dict[str, float]:
    executions = settings.count(2000)
    async with working(settings) as app:
        began = time.perf_counter()
        started = [await app.spawn("five_steps", n) for n in range(executions)]
        results = [await result(app, each["task_id"]) for each in started]
        seconds = time.perf_counter() - began
    assert results == [n + 5 for n in range(executions)]
    return {"executions/s": executions / seconds}


async def w2(settings: Settings) -> dict[str, float]:
    async with working(settings) as app:
        series = Series(settings.count(300))
        while series.goes_on():
            n = len(series.seconds)
            began = time.perf_counter()
            assert await result(app, (await app.spawn("one_step", n))["task_id"]) == n + 1
            series.seconds.append(time.perf_counter() - began)
    return series.figures()


async def w3(settings: Settings) -> dict[str, float]:
    series = Series(settings.count(200))
    async with working(settings) as app:
        while series.goes_on():
            n = len(series.seconds)
            id = (await app.spawn("answered", {"n": n, "event": f"answer-{n}"}))["task_id"]
            async with asyncio.timeout(PATIENCE):
                await until_waiting(app, id)
            began = time.perf_counter()
            await app.emit_event(f"answer-{n}", 1000)
            assert await result(app, id) == n + 1000
            series.seconds.append(time.perf_counter() - began)
    return series.figures()


async def w4(settings: Settings) -> dict[str, float]:
    executions, milliseconds = settings.count(5000), settings.sleep_ms
    async with working(settings) as app:
        began = time.perf_counter()
        ids = [(await app.spawn("sleeper", milliseconds))["task_id"] for _ in range(executions)]
        results = [await result(app, id) for id in ids]
        seconds = time.perf_counter() - began
    assert results == [milliseconds] * executions
    slept = [_woke[id] - _asked[id] for id in map(str, ids)]
    return {
        "seconds over": seconds - milliseconds / 1000,
        "greatest lateness ms": max(slept) * 1000 - milliseconds,
        "peak RSS MB": peak_memory_mb(),
    }


async def w5_run(settings: Settings) -> dict[str, object]:
    steps = settings.count(2000, least=20)
    async with working(settings) as app:
        id = (await app.spawn("long", steps))["task_id"]
        await asyncio.wait_for(_last_step_done.wait(), 300)
        await until_waiting(app, id)
        assert _calls == list(range(steps))
        figures = {"seconds": _marks[-1] - _marks[0], "last 10 % / first 10 %": growth(_marks)}
        say({"id": str(id), "figures": figures})
        await asyncio.to_thread(told_to_go)
    return {}


async def w5_replay(settings: Settings) -> dict[str, float]:
    steps = settings.count(2000, least=20)
    async with working(settings) as app:
        began = time.perf_counter()
        await app.emit_event("finish", 1)
        assert await result(app, settings.argument) == steps
        seconds = time.perf_counter() - began
    assert _calls == [], "steps ran again"
    return {"replay ms": seconds * 1000, "replay, in the body ms": (_marks[-1] - _marks[0]) * 1000}


async def w6(settings: Settings) -> dict[str, float]:
    width = settings.count(200, least=3)
    seconds: list[float] = []
    async with working(settings) as app:
        for _ in range(5):
            began = time.perf_counter()
            assert (
                await result(app, (await app.spawn("many_steps", width))["task_id"])
                == width * (width + 1) // 2
            )
            seconds.append(time.perf_counter() - began)
    return {"steps ms": statistics.median(seconds) * 1000}


async def w7_accept(settings: Settings) -> dict[str, float]:
    executions = settings.count(2000, least=20)
    await prepare(settings)
    app = connect(settings)
    ids = [str((await app.spawn("mortal_steps", n, max_attempts=100))["task_id"]) for n in range(executions)]
    say("accepted")
    killed = float(await asyncio.to_thread(told))
    deadline = time.time() + PATIENCE
    ended: dict[str, float] = {}
    async with await AsyncConnection.connect(settings.urls["database"], autocommit=True) as connection:
        while len(ended) < executions and time.time() < deadline:
            await asyncio.sleep(0.05)
            rows = await connection.execute(
                "SELECT task_id::text, extract(epoch FROM completed_at)::float "
                "FROM absurd.r_bench WHERE state = 'completed'"
            )
            ended = dict(await rows.fetchall())
    lost = 0
    for n, id in enumerate(ids):
        snapshot = await app.fetch_task_result(id)
        lost += snapshot is None
        assert id not in ended or (snapshot is not None and snapshot.result == n + 5)
    await app.close()
    later = [at for at in ended.values() if at > killed] or [killed]
    figures = {
        "first progress s": min(later) - killed,
        "stuck": executions - len(ended) - lost,
        "lost": lost,
        "done when killed %": 100 * sum(at <= killed for at in ended.values()) / executions,
    }
    return figures if len(ended) < executions else {"all done s": max(later) - killed, **figures}


async def w7_worker(settings: Settings) -> dict[str, float]:
    global _dies_after  # noqa: PLW0603 - it is a setting of this process
    _dies_after = int(settings.argument.partition(":")[2])
    say("ready")
    if await asyncio.to_thread(told_to_go):
        async with working(settings, claim=int(LEASE)):
            await asyncio.to_thread(told_to_go)
    return {}


ROLES = {
    "w1": w1,
    "w2": w2,
    "w3": w3,
    "w4": w4,
    "w5-run": w5_run,
    "w5-replay": w5_replay,
    "w6": w6,
    "w7-accept": w7_accept,
    "w7-worker": w7_worker,
}
PREPARES = {"w1", "w2", "w3", "w4", "w5-run", "w6"}


async def main(settings: Settings) -> None:
    if settings.role in PREPARES:
        await prepare(settings)
    figures = await ROLES[settings.role](settings)
    if figures:
        say(figures)


if __name__ == "__main__":
    run_process(main(Settings.given()))
