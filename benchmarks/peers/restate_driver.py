"""The workloads on Restate: its server keeps everything, and calls the handlers here over HTTP/2.

What starts and asks does it over the server's ingress, in the same process as the handlers. Signals are resolved as
promises of a workflow. The server keeps what a call returned when it has an idempotency key.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import hypercorn
import hypercorn.asyncio
import restate
from driving import PATIENCE, Series, Settings, growth, peak_memory_mb, run_process, say, told, told_to_go

CONCURRENCY = 20
"""Requests in flight: its handlers' HTTP/2 server does fewer executions a second with more."""

_asked: dict[str, float] = {}
_woke: dict[str, float] = {}
_marks: list[float] = []
_calls: list[int] = []
_last_step_done = asyncio.Event()
_dies_after = 0
_ended = 0

bench = restate.Service("bench")
answering = restate.Workflow("answering")
long = restate.Workflow("long")


async def increased(n: int) -> dict[str, int]:
    return {"n": n + 1}


async def counted(n: int) -> dict[str, int]:
    _calls.append(n)
    return {"n": n + 1}


@bench.handler()
async def five_steps(ctx: restate.Context, n: int) -> int:
    for _ in range(5):
        n = (await ctx.run_typed("increase", increased, n=n))["n"]
    return n


@bench.handler()
async def one_step(ctx: restate.Context, n: int) -> int:
    return (await ctx.run_typed("increase", increased, n=n))["n"]


@bench.handler()
async def sleeper(ctx: restate.Context, milliseconds: int) -> int:
    id = ctx.request().id
    _asked.setdefault(id, time.perf_counter())
    await ctx.sleep(timedelta(milliseconds=milliseconds))
    _woke.setdefault(id, time.perf_counter())
    return milliseconds


@bench.handler()
async def many_steps(ctx: restate.Context, width: int) -> int:
    results = await restate.gather(*(ctx.run_typed(f"increase-{n}", increased, n=n) for n in range(width)))
    values = [(await each)["n"] for each in results]
    assert values == list(range(1, width + 1))
    return sum(values)


@bench.handler()
async def many_children(ctx: restate.Context, width: int) -> int:
    results = await restate.gather(*(ctx.service_call(one_step, arg=n) for n in range(width)))
    values = [await each for each in results]
    assert values == list(range(1, width + 1))
    return sum(values)


@bench.handler()
async def mortal_steps(ctx: restate.Context, n: int) -> int:
    global _ended  # noqa: PLW0603 - it is a count of this process
    for _ in range(5):
        n = (await ctx.run_typed("increase", increased, n=n))["n"]
    _ended += 1
    if _ended == 1 and _dies_after:
        say("begun")
    if _ended == _dies_after:
        say(time.time())
        os.kill(os.getpid(), signal.SIGKILL)
    return n


@answering.main()
async def answered(ctx: restate.WorkflowContext, n: int) -> int:
    return n + await ctx.promise("answer", type_hint=int)


@answering.handler()
async def answer(ctx: restate.WorkflowSharedContext, value: int) -> None:
    await ctx.promise("answer", type_hint=int).resolve(value)


@long.main()
async def long_run(ctx: restate.WorkflowContext, steps: int) -> int:
    n = 0
    _marks[:] = [time.perf_counter()]
    for _ in range(steps):
        n = (await ctx.run_typed("increase", counted, n=n))["n"]
        _marks.append(time.perf_counter())
    _last_step_done.set()
    await ctx.promise("finish", type_hint=int)
    return n


@long.handler()
async def finish(ctx: restate.WorkflowSharedContext, value: int) -> None:
    await ctx.promise("finish", type_hint=int).resolve(value)


def serving(settings: Settings) -> asyncio.Task[None]:
    config = hypercorn.Config()
    config.bind = [settings.urls["handlers"].removeprefix("http://")]
    config.h2_max_concurrent_streams = 2147483647
    config.keep_alive_max_requests = 2147483647
    config.keep_alive_timeout = 2147483647
    config.errorlog = None
    app: Any = restate.app([bench, answering, long])
    return asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=asyncio.Event().wait))


async def register(settings: Settings) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        given = {"uri": settings.urls["handlers"], "force": True}
        (await client.post(f"{settings.urls['admin']}/deployments", json=given)).raise_for_status()


class Ingress:
    """Requests to the server. They wait here for their turn: httpx looks at each that waits whenever one ends."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._turns = asyncio.Semaphore(CONCURRENCY)

    async def get(self, path: str) -> Any:
        async with self._turns:
            response = await self._client.get(path)
        response.raise_for_status()
        return response.json()

    async def call(self, path: str, argument: object, **headers: str) -> Any:
        async with self._turns:
            response = await self._client.post(path, json=argument, headers=headers)
        response.raise_for_status()
        return response.json() if response.content else None


@asynccontextmanager
async def ingress(settings: Settings) -> AsyncIterator[Ingress]:
    limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
    async with httpx.AsyncClient(base_url=settings.urls["ingress"], limits=limits, timeout=None) as client:
        yield Ingress(client)


async def w1(server: Ingress, settings: Settings) -> dict[str, float]:
    executions = settings.count(2000)
    assert await server.call("/bench/five_steps", 0) == 5
    began = time.perf_counter()
    results = await asyncio.gather(*(server.call("/bench/five_steps", n) for n in range(executions)))
    seconds = time.perf_counter() - began
    assert results == [n + 5 for n in range(executions)]
    return {"executions/s": executions / seconds}


async def w2(server: Ingress, settings: Settings) -> dict[str, float]:
    for n in range(settings.count(20)):
        assert await server.call("/bench/one_step", n) == n + 1
    series = Series(settings.count(300))
    while series.goes_on():
        n = len(series.seconds)
        began = time.perf_counter()
        assert await server.call("/bench/one_step", n) == n + 1
        series.seconds.append(time.perf_counter() - began)
    return series.figures()


async def w3(server: Ingress, settings: Settings) -> dict[str, float]:
    series = Series(settings.count(200))
    while series.goes_on():
        n = len(series.seconds)
        await server.call(f"/answering/{n}/answered/send", n)
        attached = asyncio.create_task(server.get(f"/restate/workflow/answering/{n}/attach"))
        await asyncio.sleep(0.02)  # until it waits: nothing tells when it does
        began = time.perf_counter()
        await server.call(f"/answering/{n}/answer", 1000)
        assert await attached == n + 1000
        series.seconds.append(time.perf_counter() - began)
    return series.figures()


async def w4(server: Ingress, settings: Settings) -> dict[str, float]:
    executions, milliseconds = settings.count(5000), settings.sleep_ms

    async def once(n: int) -> object:
        await server.call("/bench/sleeper/send", milliseconds, **{"idempotency-key": f"w4-{n}"})
        return n

    began = time.perf_counter()
    await asyncio.gather(*(once(n) for n in range(executions)))
    results = await asyncio.gather(
        *(server.get(f"/restate/invocation/bench/sleeper/w4-{n}/attach") for n in range(executions))
    )
    seconds = time.perf_counter() - began
    assert results == [milliseconds] * executions
    slept = [_woke[id] - at for id, at in _asked.items()]
    assert len(slept) == executions
    return {
        "seconds over": seconds - milliseconds / 1000,
        "greatest lateness ms": max(slept) * 1000 - milliseconds,
        "peak RSS MB": peak_memory_mb(),
    }


async def w5_run(server: Ingress, settings: Settings) -> dict[str, object]:
    steps = settings.count(2000, least=20)
    await server.call("/long/w5/long_run/send", steps)
    await asyncio.wait_for(_last_step_done.wait(), 300)
    await asyncio.sleep(0.1)  # until it waits
    assert _calls == list(range(steps))
    figures = {"seconds": _marks[-1] - _marks[0], "last 10 % / first 10 %": growth(_marks)}
    return {"id": "w5", "figures": figures}


async def w5_replay(server: Ingress, settings: Settings) -> dict[str, float]:
    """The server calls again what it lost the connection to, by itself: what is measured is the body."""
    steps = settings.count(2000, least=20)
    attached = asyncio.create_task(server.get(f"/restate/workflow/long/{settings.argument}/attach"))
    await server.call(f"/long/{settings.argument}/finish", 1)
    assert await attached == steps
    assert _calls == [], "steps ran again"
    return {"replay, in the body ms": (_marks[-1] - _marks[0]) * 1000}


async def w6(server: Ingress, settings: Settings) -> dict[str, float]:
    width = settings.count(200, least=3)

    async def median_ms(name: str) -> float:
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            assert await server.call(f"/bench/{name}", width) == width * (width + 1) // 2
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds) * 1000

    return {"steps ms": await median_ms("many_steps"), "children ms": await median_ms("many_children")}


async def w7_accept(server: Ingress, settings: Settings) -> dict[str, float]:
    """Nothing tells when an invocation ended, so each is attached to, and it is the answer's arrival that counts."""
    executions = settings.count(2000, least=20)

    async def accepted(n: int) -> None:
        await server.call("/bench/mortal_steps/send", n, **{"idempotency-key": f"w7-{n}"})

    await asyncio.to_thread(told)  # until the handlers are there and registered
    await asyncio.gather(*(accepted(n) for n in range(executions)))
    say("accepted")
    ended: dict[int, float] = {}

    async def attached(n: int) -> None:
        answer = await server.get(f"/restate/invocation/bench/mortal_steps/w7-{n}/attach")
        assert answer == n + 5
        ended[n] = time.time()

    attaching = asyncio.gather(*(attached(n) for n in range(executions)))
    killed = float(await asyncio.to_thread(told))
    await asyncio.wait([attaching], timeout=PATIENCE)
    later = [at for at in ended.values() if at > killed] or [killed]
    figures = {
        "first progress s": min(later) - killed,
        "stuck": executions - len(ended),
        "lost": 0,
        "done when killed %": 100 * sum(at <= killed for at in ended.values()) / executions,
    }
    return figures if len(ended) < executions else {"all done s": max(later) - killed, **figures}


async def worker(settings: Settings) -> None:
    global _dies_after  # noqa: PLW0603 - it is a setting of this process
    _dies_after = int(settings.argument.partition(":")[2])
    say("ready")
    if await asyncio.to_thread(told_to_go):
        handlers = serving(settings)
        if _dies_after:
            await asyncio.sleep(0.3)
            await register(settings)
            say("registered")
        await asyncio.to_thread(told_to_go)
        handlers.cancel()


ROLES = {
    "w1": w1,
    "w2": w2,
    "w3": w3,
    "w4": w4,
    "w5-run": w5_run,
    "w5-replay": w5_replay,
    "w6": w6,
    "w7-accept": w7_accept,
}


async def main(settings: Settings) -> None:
    if settings.role == "w7-worker":
        await worker(settings)
        return
    if settings.role != "w7-accept":
        serving(settings)
        await asyncio.sleep(0.3)  # until it listens
        await register(settings)
    async with ingress(settings) as server:
        say(await ROLES[settings.role](server, settings))
        if settings.role == "w5-run":
            await asyncio.to_thread(told_to_go)
    os._exit(0)


if __name__ == "__main__":
    run_process(main(Settings.given()))
