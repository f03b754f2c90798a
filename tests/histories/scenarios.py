"""Workflows that use everything, each with what the world does to it. Their histories are kept beside this file.

What is recorded here must go on and end in the same way under every later version: do not change a workflow, add one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from durable import (
    Branch,
    Context,
    Event,
    ExecutionFailed,
    Fail,
    Handle,
    Received,
    Retry,
    Signal,
    TimedOut,
    current_step,
    step,
    workflow,
)
from durable.testing import DurableEnv
from durable.workflow import AnyWorkflow

Go = Signal("go")
Approved = Signal("approved", str)
Rejected = Signal("rejected", str)
Shipped = Event("shipped", str)


@dataclass
class Order:
    id: str
    total: Decimal
    placed_at: datetime | None = None


@dataclass
class Scenario:
    """A workflow, its input, and the world around it: `drive` yields wherever the execution is to be kept."""

    name: str
    workflow: AnyWorkflow
    input: object = None
    drive: Callable[[DurableEnv, Handle[Any]], AsyncIterator[None]] | None = None
    others: tuple[AnyWorkflow, ...] = ()


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, workflow: Any, input: object = None, drive: Any = None, *others: Any) -> None:
    SCENARIOS[name] = Scenario(name, workflow, input, drive, others)


async def add(a: int, b: int) -> int:
    return a + b


def double(number: int) -> int:
    return number * 2


async def undo_nothing(what: object) -> None:
    return None


async def signals(env: DurableEnv, handle: Handle[Any]) -> AsyncIterator[None]:
    yield
    await handle.signal(Go)


# ---- steps, values, time


@step
async def price(order: Order) -> Decimal:
    return order.total * 2


@workflow
async def all_steps(ctx: Context, order: Order) -> Order:
    total = await ctx.step(price, order)
    for number in range(3):
        await ctx.step("add", add, number, b=number)
    key = await ctx.step("key", lambda: current_step().idempotency_key)
    assert key.endswith(":0:key")
    await ctx.wait_for_signal(Go)
    await ctx.step("sync", double, 4)
    return Order(order.id, total, order.placed_at)


scenario(
    "steps",
    all_steps,
    Order("42", Decimal("9.99"), datetime.fromisoformat("2026-01-01T12:00:00+01:00")),
    signals,
)


async def flaky() -> int:
    if current_step().attempt < 3:
        raise ConnectionError("no route")
    return current_step().attempt


async def ticks(env: DurableEnv, handle: Handle[Any]) -> AsyncIterator[None]:
    while not (await handle.status()).status.final:
        yield
        await env.advance("1ms")


@workflow
async def retried_step(ctx: Context) -> int:
    return await ctx.step("flaky", retry=Retry(attempts=5, base="1ms", factor=1, jitter=0)).up(flaky)


scenario("retried_step", retried_step, None, ticks)


@workflow
async def caught_error(ctx: Context) -> str:
    try:
        await ctx.step("reject", reject)
    except ValueError as error:
        await ctx.wait_for_signal(Go)
        return await ctx.step("instead", str.upper, str(error))
    return "not reached"


async def reject() -> None:
    raise ValueError("too many")


scenario("caught_error", caught_error, None, signals)


@workflow(retry=Retry(attempts=3, base="1ms", factor=1, jitter=0))
async def retried_run(ctx: Context) -> int:
    kept = await ctx.step("kept", add, 1, 1)
    if ctx.attempt < 3:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return kept + ctx.attempt


scenario("retried_run", retried_run, None, ticks)


@workflow(retry=Retry(attempts=2, base="1ms", jitter=0))
async def failed_run(ctx: Context) -> None:
    await ctx.step("kept", add, 1, 1)
    await ctx.step("reject", reject)


scenario("failed_run", failed_run, None, ticks)


@workflow
async def declined(ctx: Context) -> None:
    await ctx.wait_for_signal(Go)
    raise Fail("card declined", code="declined", details={"card": 4711})


scenario("declined", declined, None, signals)


@workflow
async def bailed(ctx: Context) -> None:
    await ctx.wait_for_signal(Go)
    ctx.bail("rejected by ada")


scenario("bailed", bailed, None, signals)


@workflow
async def same_every_time(ctx: Context) -> list[str]:
    before = [str(ctx.uuid4()), str(ctx.random.randint(0, 999_999))]
    await ctx.wait_for_signal(Go)
    UUID(before[0])
    return [*before, str(ctx.uuid4()), str(ctx.random.random())]


scenario("same_every_time", same_every_time, None, signals)


@workflow
async def sleeper(ctx: Context) -> str:
    await ctx.sleep("3d")
    await ctx.step("add", add, 1, 2)
    await ctx.sleep("1ms", id="nap")
    return "rested"


async def days(env: DurableEnv, handle: Handle[Any]) -> AsyncIterator[None]:
    yield
    await env.advance("3d")
    await env.advance("1s")


scenario("sleeper", sleeper, None, days)


# ---- signals


@workflow
async def approval(ctx: Context) -> str:
    await ctx.set_value("progress", 0.5)
    await ctx.note("asked", by="ada")
    match await ctx.wait_for_signal(Approved, timeout="3d"):
        case Received(approver):
            return f"approved by {approver}"
        case TimedOut():
            await ctx.emit(Shipped, "late")
            return "too late"


async def approves(env: DurableEnv, handle: Handle[Any]) -> AsyncIterator[None]:
    yield
    await handle.signal(Approved, "grace", key="1")


scenario("approved_in_time", approval, None, approves)
scenario("approved_too_late", approval, None, days)


@workflow
async def any_of_two(ctx: Context) -> list[str]:
    outcomes = []
    for _ in range(2):
        outcome = await ctx.wait_for_any(Approved, Rejected, timeout="30d")
        outcomes.append(
            outcome.kind if isinstance(outcome, TimedOut) else f"{outcome.name} {outcome.payload}"
        )
    return outcomes


async def both(env: DurableEnv, handle: Handle[Any]) -> AsyncIterator[None]:
    yield
    await handle.signal(Rejected, "ada")
    yield
    await handle.signal(Approved, "bob")


scenario("any_of_two", any_of_two, None, both)


# ---- choices and branches


@workflow
async def choices(ctx: Context, total: int) -> list[str]:
    async def premium() -> str:
        await ctx.step("gift", add, 1, 1)
        await ctx.wait_for_signal(Go)
        return "premium"

    async def standard() -> str:
        return "standard"

    tier = await ctx.switch("tier", "gold", {"gold": premium, "tin": standard})
    size = await ctx.switch("size", total, [Branch("big", lambda t: t > 500, premium)], default=standard)
    return [tier, size]


scenario("choices", choices, 10, signals)


@workflow
async def side_by_side(ctx: Context) -> list[int]:
    async def branch(number: int) -> int:
        first = await ctx.step("work", add, number, 0)
        await ctx.wait_for_signal(Go) if number == 2 else await ctx.sleep("1ms")
        return first + await ctx.step("work", add, number, 1)

    mapped = await ctx.map("double", double, [1, 2, 3, 4], limit=2)
    a, b = await ctx.gather(ctx.step("left", add, 1, 2), ctx.step("right", add, 3, 4))
    plain = await asyncio.gather(branch(1), branch(2))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(branch(number)) for number in (3, 4)]
    return [*mapped, a, b, *plain, *(task.result() for task in tasks)]


async def ticks_and_signals(env: DurableEnv, handle: Handle[Any]) -> AsyncIterator[None]:
    yield
    await env.advance("1s")
    yield
    await handle.signal(Go)
    await env.advance("1s")


scenario("side_by_side", side_by_side, None, ticks_and_signals)


@workflow
async def one_branch_fails(ctx: Context) -> str:
    async def patient() -> None:
        await ctx.wait_for_signal(Rejected)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(patient())
            group.create_task(ctx.step("reject", reject))
    except* ValueError:
        await ctx.step("note", add, 1, 1)
    await ctx.wait_for_signal(Go)
    return "went on"


scenario("one_branch_fails", one_branch_fails, None, signals)


# ---- children


@workflow
async def child(ctx: Context, name: str) -> str:
    await ctx.wait_for_signal(Go)
    return await ctx.step("greet", str.title, f"hello {name}")


@workflow(retry=1)
async def failing_child(ctx: Context) -> None:
    await ctx.sleep("1ms")
    raise Fail("child", code="child_failed")


@workflow
async def parent(ctx: Context) -> list[str]:
    started = await ctx.start(child, "ada", id="started")
    await started.signal(Go)
    said = [await ctx.wait_for(started)]
    other = await ctx.start(child, "bob", id="other")
    outcome = await ctx.wait_for(other, timeout="1h")
    said.append(outcome.kind)
    await other.signal(Go)
    said.append(await ctx.wait_for(other))
    try:
        await ctx.run(failing_child)
    except ExecutionFailed as error:
        said.append(str(error.code))
    return said


async def an_hour(env: DurableEnv, handle: Handle[Any]) -> AsyncIterator[None]:
    yield
    await env.advance("1h")
    await env.advance("1s")


scenario("parent", parent, None, an_hour, child, failing_child)


@workflow
async def cancelled_parent(ctx: Context) -> str:
    return await ctx.run(child, "ada")


async def cancels(env: DurableEnv, handle: Handle[Any]) -> AsyncIterator[None]:
    yield
    await handle.cancel("fraud")


scenario("cancelled_parent", cancelled_parent, None, cancels, child)


# ---- undoing and ending


@step
async def reserve(what: str) -> str:
    return f"reserved {what}"


@reserve.undo
async def release(reservation: str) -> None:
    assert reservation.startswith("reserved")


@workflow
async def saga(ctx: Context) -> str:
    await ctx.step(reserve, "kept")
    try:
        async with ctx.saga():
            await ctx.step("hotel").up(str.upper, "hotel").down(undo_nothing)
            await ctx.step(reserve, "flight")
            await ctx.wait_for_signal(Go)
            await ctx.step("reject", reject)
    except ValueError:
        return "rolled back"
    return "not reached"


scenario("saga", saga, None, signals)


@workflow(rollback="on_failure", retry=1)
async def rolled_back(ctx: Context) -> None:
    await ctx.step(reserve, "hotel")
    await ctx.step(reserve, "flight")
    await ctx.wait_for_signal(Go)
    await ctx.step("reject", reject)


scenario("rolled_back_on_failure", rolled_back, None, signals)
scenario("rolled_back_on_cancel", rolled_back, None, cancels)


@workflow
async def tidy(ctx: Context) -> None:
    try:
        await ctx.step(reserve, "hotel")
        await ctx.sleep("30d")
    except asyncio.CancelledError:
        await ctx.step("tidy", add, 1, 1)
        await ctx.rollback()
        raise


scenario("cancelled_while_it_sleeps", tidy, None, cancels)


@workflow
async def cannot_be_undone(ctx: Context) -> None:
    await ctx.step("first").up(str.upper, "first").down(undo_nothing)
    await ctx.step("second").up(str.upper, "second").down(refuse)
    await ctx.wait_for_signal(Go)
    await ctx.rollback()


async def refuse(reservation: str) -> None:
    raise PermissionError(reservation)


scenario("cannot_be_undone", cannot_be_undone, None, signals)


@workflow(timeout="1h")
async def out_of_time(ctx: Context) -> None:
    await ctx.step("add", add, 1, 1)
    await ctx.sleep("2h")


scenario("out_of_time", out_of_time, None, an_hour)


# ---- a chain, and a change


@workflow
async def chain(ctx: Context, number: int) -> int:
    await ctx.step("work", add, number, 1)
    await ctx.wait_for_signal(Go)
    if number < 2:
        ctx.continue_as_new(number + 1)
    return number


async def three_times(env: DurableEnv, handle: Handle[Any]) -> AsyncIterator[None]:
    for _ in range(3):
        yield
        await handle.signal(Go)


scenario("chain", chain, 0, three_times)


@workflow
async def guarded(ctx: Context) -> list[int]:
    done = []
    if ctx.patched("validate"):
        done.append(await ctx.step("validate", add, 1, 1))
    await ctx.wait_for_signal(Go)
    if ctx.patched("later"):
        done.append(await ctx.step("later", add, 2, 2))
    return done


scenario("guarded", guarded, None, signals)
