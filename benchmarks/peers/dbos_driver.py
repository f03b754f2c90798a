"""The workloads on DBOS, on SQLite or PostgreSQL.

Executions are started directly where one process does the work, which is DBOS's quickest way; where two processes
share it they take it from a queue, which is DBOS's only way. Without its hosted conductor nobody takes over what a
dead executor had begun until an executor with the same id starts: the suite starts that at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time

from dbos import DBOS, DBOSClient, DBOSConfig
from driving import (
    PATIENCE,
    Series,
    Settings,
    growth,
    peak_memory_mb,
    run_process,
    say,
    told,
    told_to_go,
    within_budget,
)

CONCURRENCY = 100
QUEUE = "bench"
VERSION = "bench"

_asked: dict[str, float] = {}
_woke: dict[str, float] = {}
_marks: list[float] = []
_calls: list[int] = []
_last_step_done = asyncio.Event()
_dies_after = 0
_ended = 0


@DBOS.step()
async def increased(n: int) -> dict[str, int]:
    return {"n": n + 1}


@DBOS.step()
async def counted(n: int) -> dict[str, int]:
    _calls.append(n)
    return {"n": n + 1}


@DBOS.workflow()
async def five_steps(n: int) -> int:
    for _ in range(5):
        n = (await increased(n))["n"]
    return n


@DBOS.workflow()
async def one_step(n: int) -> int:
    return (await increased(n))["n"]


@DBOS.workflow()
async def answered(n: int) -> int:
    return n + await DBOS.recv_async("answer", 300)


@DBOS.workflow()
async def sleeper(milliseconds: int) -> int:
    id = DBOS.workflow_id or ""
    _asked.setdefault(id, time.perf_counter())
    await DBOS.sleep_async(milliseconds / 1000)
    _woke.setdefault(id, time.perf_counter())
    return milliseconds


@DBOS.workflow()
async def long(steps: int) -> int:
    n = 0
    _marks[:] = [time.perf_counter()]
    for _ in range(steps):
        n = (await counted(n))["n"]
        _marks.append(time.perf_counter())
    _last_step_done.set()
    await DBOS.recv_async("finish", 300)
    return n


@DBOS.workflow()
async def many_steps(width: int) -> int:
    results = await asyncio.gather(*(increased(n) for n in range(width)))
    assert [result["n"] for result in results] == list(range(1, width + 1))
    return sum(result["n"] for result in results)


@DBOS.workflow()
async def many_children(width: int) -> int:
    handles = [await DBOS.start_workflow_async(one_step, n) for n in range(width)]
    results = [await handle.get_result() for handle in handles]
    assert results == list(range(1, width + 1))
    return sum(results)


@DBOS.workflow()
async def mortal_steps(n: int) -> int:
    global _ended  # noqa: PLW0603 - it is a count of this process
    for _ in range(5):
        n = (await increased(n))["n"]
    _ended += 1
    if _ended == 1 and _dies_after:
        say("begun")
    if _ended == _dies_after:
        say(time.time())
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def launch(settings: Settings, executor: str = "bench") -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": settings.urls["database"],
        "executor_id": executor,
        "application_version": VERSION,
        "console_log_level": "ERROR",
        "enable_otlp": False,
    }
    DBOS(config=config)
    DBOS.launch()


async def w1(settings: Settings) -> dict[str, float]:
    executions = settings.count(2000)
    assert await (await DBOS.start_workflow_async(five_steps, 0)).get_result() == 5
    numbers = within_budget(executions)
    results: dict[int, int] = {}

    async def work() -> None:
        for n in numbers:
            results[n] = await (await DBOS.start_workflow_async(five_steps, n)).get_result()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    seconds = time.perf_counter() - began
    assert results == {n: n + 5 for n in range(len(results))}
    return {"executions/s": len(results) / seconds}


async def w2(settings: Settings) -> dict[str, float]:
    for n in range(settings.count(20)):
        assert await (await DBOS.start_workflow_async(one_step, n)).get_result() == n + 1
    series = Series(settings.count(300))
    while series.goes_on():
        n = len(series.seconds)
        began = time.perf_counter()
        result = await (await DBOS.start_workflow_async(one_step, n)).get_result()
        series.seconds.append(time.perf_counter() - began)
        assert result == n + 1
    return series.figures()


async def w3(settings: Settings) -> dict[str, float]:
    series = Series(settings.count(200))
    while series.goes_on():
        n = len(series.seconds)
        handle = await DBOS.start_workflow_async(answered, n)
        await asyncio.sleep(0.02)  # until it waits: nothing tells when it does
        began = time.perf_counter()
        await DBOS.send_async(handle.workflow_id, 1000, topic="answer")
        result = await handle.get_result()
        series.seconds.append(time.perf_counter() - began)
        assert result == n + 1000
    return series.figures()


async def w4(settings: Settings) -> dict[str, float]:
    executions, milliseconds = settings.count(5000), settings.sleep_ms
    began = time.perf_counter()
    handles = await asyncio.gather(
        *(DBOS.start_workflow_async(sleeper, milliseconds) for _ in range(executions))
    )
    results = await asyncio.gather(*(handle.get_result() for handle in handles))
    seconds = time.perf_counter() - began
    assert results == [milliseconds] * executions
    slept = [_woke[handle.workflow_id] - _asked[handle.workflow_id] for handle in handles]
    return {
        "seconds over": seconds - milliseconds / 1000,
        "greatest lateness ms": max(slept) * 1000 - milliseconds,
        "peak RSS MB": peak_memory_mb(),
    }


async def w5_run(settings: Settings) -> dict[str, object]:
    steps = settings.count(2000, least=20)
    handle = await DBOS.start_workflow_async(long, steps)
    await _last_step_done.wait()
    await asyncio.sleep(0.1)  # until it waits
    assert _calls == list(range(steps))
    figures = {"seconds": _marks[-1] - _marks[0], "last 10 % / first 10 %": growth(_marks)}
    return {"id": handle.workflow_id, "figures": figures}


async def w5_replay(settings: Settings) -> dict[str, float]:
    """Its executor has come back, and resumes by itself; the history is replayed when the last step is passed."""
    steps = settings.count(2000, least=20)
    await asyncio.wait_for(_last_step_done.wait(), PATIENCE)
    handle = await DBOS.retrieve_workflow_async(settings.argument)
    await DBOS.send_async(settings.argument, "go", topic="finish")
    assert await handle.get_result() == steps
    assert _calls == [], "steps ran again"
    return {"replay, in the body ms": (_marks[-1] - _marks[0]) * 1000}


async def w6(settings: Settings) -> dict[str, float]:
    width = settings.count(200, least=3)

    async def median_ms(wide: object) -> float:
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            result = await (await DBOS.start_workflow_async(wide, width)).get_result()
            seconds.append(time.perf_counter() - began)
            assert result == width * (width + 1) // 2
        return statistics.median(seconds) * 1000

    return {"steps ms": await median_ms(many_steps), "children ms": await median_ms(many_children)}


def accept(settings: Settings) -> None:
    """W7: accept all, and tell in the end when each was done."""
    executions = settings.count(2000, least=20)
    launch(settings, "client")
    DBOS.register_queue(QUEUE, worker_concurrency=CONCURRENCY)
    DBOS.destroy()
    client = DBOSClient(system_database_url=settings.urls["database"])
    ids = [
        client.enqueue(
            {"workflow_name": "mortal_steps", "queue_name": QUEUE, "app_version": VERSION}, n
        ).workflow_id
        for n in range(executions)
    ]
    say("accepted")
    killed = float(told())
    deadline = time.time() + PATIENCE
    while time.time() < deadline and client.list_workflows(
        status=["ENQUEUED", "PENDING", "DELAYED"], limit=1
    ):
        time.sleep(0.1)
    records = {record.workflow_id: record for record in client.list_workflows()}
    found = [(n, records[id]) for n, id in enumerate(ids) if id in records]
    ended = [(n, record) for n, record in found if record.status == "SUCCESS"]
    assert all(record.output == n + 5 for n, record in ended)
    finished = [(record.completed_at or record.updated_at or 0) / 1000 for _, record in ended]
    later = [at for at in finished if at > killed] or [killed]
    say(
        {
            "all done s": max(later) - killed,
            "first progress s": min(later) - killed,
            "stuck": len(found) - len(ended),
            "lost": executions - len(found),
            "done when killed %": 100 * sum(at <= killed for at in finished) / executions,
        }
    )
    client.destroy()


def worker(settings: Settings) -> None:
    """W7: work until told otherwise; `argument` is `executor:ended executions after which it kills itself`."""
    global _dies_after  # noqa: PLW0603 - it is a setting of this process
    executor, _, dies_after = settings.argument.partition(":")
    _dies_after = int(dies_after)
    say("ready")
    if told_to_go():
        launch(settings, executor)
        told_to_go()


WORKLOADS = {"w1": w1, "w2": w2, "w3": w3, "w4": w4, "w5-run": w5_run, "w5-replay": w5_replay, "w6": w6}


async def measure(settings: Settings) -> None:
    launch(settings)
    say(await WORKLOADS[settings.role](settings))
    if settings.role == "w5-run":
        await asyncio.to_thread(told_to_go)


if __name__ == "__main__":
    given = Settings.given()
    if given.role in WORKLOADS:
        run_process(measure(given))
        os._exit(0)  # its threads would be waited for
    elif given.role == "w7-accept":
        accept(given)
    else:
        worker(given)
