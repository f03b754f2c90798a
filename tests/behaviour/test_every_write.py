"""One execution, again and again: its worker dies before, or after, each store write, or is answered by an error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable import (
    Context,
    ExecutionFailed,
    Fail,
    Handle,
    Received,
    Retry,
    Signal,
    TimedOut,
    current_step,
    workflow,
)
from durable.testing import CrashReport, DurableEnv, crash_everywhere

Number = Signal("number", int)


async def give(value: int) -> int:
    return value


def double(value: int) -> int:
    return value * 2


async def undo(value: int) -> None: ...


async def fail_twice() -> str:
    if current_step().attempt < 3:
        raise ConnectionError("not yet")
    return "third time"


@workflow
async def child(ctx: Context, value: int) -> int:
    await ctx.sleep("1h")
    if value < 0:
        raise Fail("negative", code="negative")
    return await ctx.step("in-child", give, value * 10)


@workflow
async def a_bit_of_everything(ctx: Context, value: int) -> list[object]:
    results: list[object] = [await ctx.step("first", give, value)]
    await ctx.sleep("3d")
    match await ctx.wait_for_signal(Number, timeout="1d"):
        case Received(number):
            results.append(number)
        case TimedOut():
            results.append("nobody")
    results.append(await ctx.step("flaky", retry=3).up(fail_twice))
    results += await ctx.gather(ctx.step("left", give, 1), ctx.step("right", double, 2), ctx.sleep("5m"))
    results += await ctx.map("item", give, [1, 2, 3], limit=2)
    results.append(await ctx.run(child, 5))
    return results


@workflow
async def parent_of_a_failure(ctx: Context) -> str | None:
    try:
        await ctx.run(child, -1)
    except ExecutionFailed as error:
        return error.code
    return None


@workflow(rollback="on_failure", retry=Retry(attempts=2))
async def fails_in_the_end(ctx: Context) -> None:
    await ctx.step("one").up(give, 1).down(undo)
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.step("two").up(give, 2).down(undo))
        group.create_task(ctx.sleep("1h"))
    raise ValueError("in the end")


@workflow
async def undoes_when_cancelled(ctx: Context) -> None:
    await ctx.step("one").up(give, 1).down(undo)
    await ctx.step("two").up(give, 2).down(undo)
    try:
        await ctx.wait_for_signal(Number)
    except asyncio.CancelledError:
        await ctx.rollback()
        await ctx.step("goodbye", give, 3)
        raise


@workflow(timeout="2h", rollback="on_failure")
async def takes_too_long(ctx: Context) -> None:
    await ctx.step("one").up(give, 1).down(undo)
    await ctx.sleep("1d")


@workflow
async def chained(ctx: Context, count: int) -> int:
    await ctx.step("step", give, count)
    await ctx.sleep("1h")
    number = await ctx.wait_for_signal(Number)
    if count < 2:
        ctx.continue_as_new(count + 1)
    return number


async def send_one(env: DurableEnv, handle: Handle[Any]) -> None:
    await handle.signal(Number, 7)


async def send_three(env: DurableEnv, handle: Handle[Any]) -> None:
    for number in range(3):
        await handle.signal(Number, number)


async def cancel_while_it_waits(env: DurableEnv, handle: Handle[Any]) -> None:
    await env.until_idle()
    await handle.cancel("no longer wanted")


@pytest.mark.parametrize(
    ("workflow", "input", "drive"),
    [
        pytest.param(a_bit_of_everything, 5, send_one, id="signalled"),
        pytest.param(parent_of_a_failure, None, None, id="failed-child"),
        pytest.param(fails_in_the_end, None, None, id="rollback"),
        pytest.param(undoes_when_cancelled, None, cancel_while_it_waits, id="cancelled"),
        pytest.param(takes_too_long, None, None, id="timeout"),
        pytest.param(chained, 0, send_three, id="continue-as-new"),
    ],
)
async def test_the_outcome_is_the_same_wherever_the_worker_dies(
    workflow: Any, input: Any, drive: Any
) -> None:
    report: CrashReport = await crash_everywhere(workflow, input, workflows=[child], drive=drive)

    assert report.runs == 3 + 3 * report.writes
    assert {fault.partition(" ")[2] for fault in report.faults} >= {"claim", "commit", "due"}
