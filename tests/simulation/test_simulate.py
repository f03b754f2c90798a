"""`simulate` gives the same run for a seed each time, finds what is broken, and leaves what is right alone."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from durable import (
    Context,
    ExecutionCancelled,
    Fail,
    Handle,
    Received,
    Retry,
    Signal,
    TimedOut,
    current_step,
    workflow,
)
from durable.testing import DurableEnv, simulate
from durable.testing.simulation.simulate import SimulationReport, in_a_thread, run_seed
from durable.testing.simulation.world import Scenario
from tests.simulation.programs import plan, program

ROOT = Path(__file__).parents[2]

Approved = Signal("approved", str)


async def give(value: int) -> int:
    return value


def double(value: int) -> int:
    return value * 2


async def undo(value: int) -> None: ...


@workflow
async def order(ctx: Context, number: int) -> list[object]:
    first = await ctx.step("first", give, number)
    second = await ctx.step("second").up(double, first).down(undo)
    match await ctx.wait_for_signal(Approved, timeout="30d"):
        case Received(who):
            approver = who
        case TimedOut():
            approver = "nobody"
    await ctx.sleep("1d")
    return [*await ctx.gather(ctx.step("left", give, second), ctx.sleep("1h")), approver]


async def approve(env: DurableEnv, handle: Handle[Any]) -> None:
    await env.until_idle()
    assert (await handle.status()).status == "waiting"
    await handle.signal(Approved, "ada", key="approved")
    await env.advance("2d")


async def test_every_seed_ends_alike() -> None:
    report = await simulate(order, 5, drive=approve, seeds=range(60))

    assert report.runs == 60
    assert report.outcomes == {"completed": 60}
    assert report.writes > 60 * 5
    assert {fault.partition(" ")[0] for fault in report.faults} == {"store", "bus", "queue", "node"}


async def test_an_owner_is_lost_and_another_goes_on() -> None:
    report = await simulate(order, 5, drive=approve, seeds=range(60))

    assert report.losses > 0
    assert report.answers["claim NotClaimed"] > 0


def trace_of(seed: int) -> list[str]:
    plan_ = plan(seed)
    scenario = Scenario(program, plan_.root, [program], plan_.drive)
    return [repr(line) for line in run_seed(scenario, seed, SimulationReport()).trace]


async def test_a_seed_is_the_same_run_each_time() -> None:
    def run(_: object) -> None:
        for seed in range(40):
            assert trace_of(seed) == trace_of(seed), seed

    await in_a_thread(run)


def test_a_seed_is_the_same_run_in_another_process() -> None:
    code = (
        "import hashlib, logging; logging.disable(); from tests.simulation.test_simulate import trace_of;"
        "print(hashlib.sha256(repr([trace_of(seed) for seed in range(40)]).encode()).hexdigest())"
    )
    traces = {
        subprocess.check_output(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        for hash_seed in ("1", "2")
    }
    assert len(traces) == 1


async def test_other_seeds_are_other_runs() -> None:
    def run(_: object) -> int:
        return len({tuple(trace_of(seed)) for seed in range(20)})

    assert await in_a_thread(run) == 20


async def test_what_depends_on_the_process_is_found_with_its_seed() -> None:
    processes: list[object] = []

    @workflow
    async def forgetful(ctx: Context) -> int:
        processes.append(ctx)
        await ctx.step("first", give, 1)
        await ctx.sleep("1d")
        return len(processes)

    with pytest.raises(AssertionError) as failed:
        await simulate(forgetful, seeds=range(50))
    message = str(failed.value)
    assert re.search(r"forgetful, seed \d+: it ended as completed: \d+ instead of completed: \d+", message)
    assert re.search(r"again: simulate\(forgetful, \.\.\., seeds=\[\d+\]\)", message)


async def test_a_body_that_takes_another_path_on_a_replay_is_found() -> None:
    paths = iter(range(1_000_000))

    @workflow
    async def fickle(ctx: Context) -> None:
        await ctx.step(f"path-{next(paths)}", give, 1)
        await ctx.sleep("1d")
        await ctx.step("last", give, 1)

    with pytest.raises(AssertionError, match=r"fickle"):
        await simulate(fickle, seeds=range(50))


async def test_a_failed_assertion_of_the_world_names_the_seed() -> None:
    async def demand(env: DurableEnv, handle: Handle[Any]) -> None:
        assert (await handle.status()).attempt == 2, "not the second attempt"

    with pytest.raises(AssertionError, match="not the second attempt"):
        await simulate(order, 5, drive=demand, seeds=[7])


async def test_what_waits_for_ever_is_reported() -> None:
    @workflow
    async def hopeful(ctx: Context) -> str:
        return await ctx.wait_for_signal(Approved)

    report = await simulate(hopeful, seeds=[1], expect=lambda outcome: outcome.status == "waiting")
    assert report.outcomes == {"waiting": 1}


async def test_an_expectation_allows_more_than_one_end() -> None:
    async def cancel(env: DurableEnv, handle: Handle[Any]) -> None:
        await asyncio.sleep(1)
        await handle.cancel("too late?")

    @workflow
    async def short(ctx: Context) -> int:
        await ctx.sleep("1s")
        return await ctx.step("last", give, 1)

    report = await simulate(
        short,
        drive=cancel,
        seeds=range(100),
        expect=lambda outcome: outcome.status in ("completed", "cancelled"),
    )
    assert set(report.outcomes) == {"completed", "cancelled"}


async def test_retries_sync_steps_and_timeouts_take_no_real_time() -> None:
    def flaky() -> str:
        if current_step().attempt < 4:
            raise ConnectionError
        return threading.current_thread().name

    @workflow
    async def patient(ctx: Context) -> str:
        await ctx.sleep("300d")
        await ctx.step("flaky", retry=Retry(5, base="1h")).up(flaky)
        async with asyncio.timeout(3600):
            await asyncio.sleep(60)
        raise Fail("done", code="done")

    report = await simulate(patient, seeds=range(20))
    assert report.outcomes == {"failed": 20}


async def test_stubs_and_failures_of_the_world_hold_on_every_node() -> None:
    async def world(env: DurableEnv, handle: Handle[Any]) -> None:
        env.stub("first", 100)
        env.fail("second", Fail("no", code="no"))

    async def begin(env: DurableEnv, handle: Handle[Any]) -> None:
        await world(env, handle)
        await handle.signal(Approved, "now")

    @workflow
    async def waits_first(ctx: Context) -> object:
        await ctx.wait_for_signal(Approved)
        first = await ctx.step("first", give, 1)
        try:
            await ctx.step("second", give, 1)
        except Fail as error:
            return [first, error.code]
        return None

    await simulate(
        waits_first, drive=begin, seeds=range(20), expect=lambda outcome: outcome.value == [100, "no"]
    )


async def test_cancelling_the_call_ends_it() -> None:
    task = asyncio.create_task(simulate(order, 5, drive=approve, seeds=range(1_000_000)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_world_sees_the_end_as_a_client_does() -> None:
    async def cancel(env: DurableEnv, handle: Handle[Any]) -> None:
        await env.until_idle()
        await handle.cancel("enough")
        with pytest.raises(ExecutionCancelled, match="enough"):
            await handle.result("1h")

    report = await simulate(order, 5, drive=cancel, seeds=range(30))
    assert report.outcomes == {"cancelled": 30}
