"""The workflows that run while their workers are killed.

Each body writes into the ledger what it does. What a step gives holds a random token, so that a body that ran again
gives something else, and a value that changed is seen.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeVar
from uuid import uuid4

from durable import (
    Batch,
    Concurrency,
    Context,
    Debounce,
    Event,
    ExecutionFailed,
    Fail,
    Received,
    Retry,
    Signal,
    Throttle,
    current_step,
    step,
    workflow,
)
from tests.crash.evidence import Program
from tests.crash.ledger import Ledger

T = TypeVar("T")

LEDGER_PATH = "CRASH_LEDGER"
QUICK = Retry(attempts=4, base="50ms", factor=1.5, cap="200ms", jitter=0.2)


@cache
def ledger() -> Ledger:
    return Ledger(os.environ[LEDGER_PATH])


def saw(ctx: Context, step_id: str, value: T, *, generation: int = 0) -> T:
    ledger().saw(ctx.execution_id, step_id, value, generation=generation)
    return value


# ---- steps


async def work(label: str, seconds: float) -> str:
    with ledger().body():
        await asyncio.sleep(seconds)
        return f"{label}:{uuid4().hex[:12]}"


def work_in_thread(label: str, seconds: float = 0.02) -> str:
    with ledger().body():
        time.sleep(seconds)
        return f"{label}:{uuid4().hex[:12]}"


async def fails_at_first(label: str, failures: int) -> str:
    with ledger().body() as info:
        await asyncio.sleep(0.01)
        if info.attempt <= failures:
            raise OSError(f"{label} failed at try {info.attempt}")
        return f"{label}:{uuid4().hex[:12]}"


async def fails_in_attempt_one(label: str, attempt: int) -> str:
    with ledger().body():
        await asyncio.sleep(0.02)
        if attempt == 1:
            raise OSError(f"{label} failed in attempt {attempt} of the run")
        return f"{label}:{uuid4().hex[:12]}"


async def refuses_all_but(label: str, given: str, attempt: int, mended: Mending) -> str:
    with ledger().body():
        await asyncio.sleep(0.02)
        if not (given == "fit" or (mended == "retry" and attempt > 1)):
            raise OSError(f"{label} refuses {given}")
        return f"{label}:{uuid4().hex[:12]}"


async def undo(token: str) -> None:
    with ledger().body():
        await asyncio.sleep(0.02)


@step(name="hotel", retry=QUICK)
async def book_hotel(label: str) -> str:
    with ledger().body():
        await asyncio.sleep(0.03)
        return f"{label}:{uuid4().hex[:12]}"


@book_hotel.undo
async def cancel_hotel(token: str) -> None:
    with ledger().body() as info:
        await asyncio.sleep(0.01)
        if token.startswith("difficult") and info.attempt == 1:
            raise OSError("the hotel does not answer")


# ---- workflows


@dataclass(frozen=True)
class Job:
    n: int
    patience: float = 1.5
    """Seconds for which an order waits for its approval."""
    fails: bool = False
    pause: float = 0.05


@dataclass(frozen=True)
class Basket:
    wanted: int
    items: list[str] = field(default_factory=list[str])
    generation: int = 0


Mending = Literal["skip", "edit", "retry"]


@dataclass(frozen=True)
class Broken:
    n: int
    mended: Mending
    """What an operator will do about it."""


Approved = Signal("approved", str)
Item = Signal("item", str)


@workflow(retry=1)
async def order(ctx: Context, job: Job) -> list[str]:
    """Steps with and without retry, branches, a sleep, a wait with a timeout; undone when it is cancelled."""
    try:
        reserve = ctx.step("reserve", retry=QUICK).up(fails_at_first, "reserve", job.n % 3).down(undo)
        tokens = [saw(ctx, "reserve", await reserve)]
        tokens.append(saw(ctx, "charge", await ctx.step("charge").up(work, "charge", job.pause).down(undo)))
        pack, label = await ctx.gather(
            ctx.step("pack", work, "pack", job.pause), ctx.step("label", work_in_thread, "label", 0.03)
        )
        tokens += [saw(ctx, "pack", pack), saw(ctx, "label", label)]
        await ctx.sleep(0.1)
        answer = await ctx.wait_for_signal(Approved, timeout=job.patience)
        text = answer.payload if isinstance(answer, Received) else "nobody"
        tokens.append(saw(ctx, "approved", text))
        tokens.append(saw(ctx, "ship", await ctx.step("ship", work, "ship", job.pause)))
    except asyncio.CancelledError:
        await ctx.rollback()
        raise
    return tokens


@workflow(retry=1, rollback="on_failure")
async def trip(ctx: Context, job: Job) -> list[str]:
    """Undone by the engine when the last step fails."""
    tokens = [saw(ctx, "flight", await ctx.step("flight").up(work, "flight", job.pause).down(undo))]
    tokens.append(saw(ctx, "hotel", await ctx.step(book_hotel, "difficult" if job.n % 2 else "easy")))
    tokens.append(saw(ctx, "car", await ctx.step("car").up(work_in_thread, "car").down(undo)))
    await ctx.sleep(0.05)
    if job.fails:
        raise Fail("the card was declined", code="declined")
    return [*tokens, saw(ctx, "pay", await ctx.step("pay", work, "pay", job.pause))]


@workflow(retry=1)
async def fan(ctx: Context, job: Job) -> list[str]:
    """Sync steps in threads, some at a time."""
    labels = [f"thumb{i}" for i in range(6)]
    thumbs = await ctx.map("thumb", work_in_thread, labels, limit=3)
    return [saw(ctx, f"thumb[{i}]", thumb) for i, thumb in enumerate(thumbs)]


@workflow(retry=1)
async def leaf(ctx: Context, job: Job) -> str:
    first = saw(ctx, "first", await ctx.step("first", work, f"first{job.n}", 0.02))
    await ctx.sleep(0.05)
    if job.fails:
        raise Fail(f"leaf {job.n}", code="withered")
    return f"{first},{saw(ctx, 'second', await ctx.step('second', work, f'second{job.n}', 0.02))}"


@workflow(retry=1)
async def family(ctx: Context, job: Job) -> list[str]:
    """Children side by side, one of which may fail."""
    results = list(
        await ctx.gather(
            ctx.run(leaf, Job(job.n), id="left"),
            ctx.run(leaf, Job(job.n + 1), id="right"),
        )
    )
    third = await ctx.start(leaf, Job(job.n + 2, fails=job.fails), id="third")
    results.append(saw(ctx, "meanwhile", await ctx.step("meanwhile", work, "meanwhile", job.pause)))
    try:
        results.append(await ctx.wait_for(third))
    except ExecutionFailed as failure:
        results.append(f"{failure.code}: {failure.message}")
    return saw(ctx, "wait_for", results)


@workflow(retry=1)
async def collect(ctx: Context, basket: Basket) -> list[str]:
    """A chain of generations, each of which takes two signals and makes a step of them."""
    generation = basket.generation
    taken = [
        saw(ctx, name, await ctx.wait_for_signal(Item), generation=generation) for name in ("item", "item#2")
    ]
    items = [*basket.items, *taken]
    token = await ctx.step("count", work, f"count{len(items)}", 0.02)
    saw(ctx, "count", token, generation=generation)
    if len(items) < basket.wanted:
        ctx.continue_as_new(Basket(basket.wanted, items, generation + 1))
    return items


@workflow(retry=Retry(attempts=3, base="100ms"))
async def stubborn(ctx: Context, job: Job) -> list[str]:
    """A run that is tried again: what is done stays, what failed is done again."""
    once = saw(ctx, "once", await ctx.step("once", work, "once", job.pause))
    fragile = saw(ctx, "fragile", await ctx.step("fragile", fails_in_attempt_one, "fragile", ctx.attempt))
    return [once, fragile]


@workflow(retry=1)
async def slow(ctx: Context, job: Job) -> list[str]:
    """Steps that are long beside everything else."""
    return [saw(ctx, f"long{i}", await ctx.step(f"long{i}", work, f"long{i}", 0.4)) for i in range(3)]


@workflow(retry=1)
async def broken(ctx: Context, job: Broken) -> list[str]:
    """Fails until an operator skips its second step, edits the result of its first one, or retries it."""
    first = saw(ctx, "first", await ctx.step("first", work, "first", 0.02))
    attempt = ctx.step("second", retry=QUICK)
    second = await attempt.up(refuses_all_but, "second", first, ctx.attempt, job.mended)
    third = await ctx.step("third", work, f"third{job.n}", 0.05)
    return [first, saw(ctx, "second", second), saw(ctx, "third", third)]


@workflow(retry=1)
async def port(ctx: Context, n: int) -> str:
    return saw(ctx, "dock", await ctx.step("dock", work, f"dock{n}", 0.001))


@workflow(retry=1)
async def voyage(ctx: Context, job: Job) -> list[str]:
    """One of many: a step, a timer, a signal, a child, a step."""
    tokens = [saw(ctx, "pack", await ctx.step("pack", work, "pack", job.pause))]
    await ctx.sleep(job.pause)
    tokens.append(saw(ctx, "approved", await ctx.wait_for_signal(Approved)))
    tokens.append(await ctx.run(port, job.n, id="port"))
    return [*tokens, saw(ctx, "arrive", await ctx.step("arrive", work, "arrive", job.pause))]


@workflow(retry=1)
async def tick(ctx: Context, pause: float) -> list[str]:
    """What a schedule starts."""
    first = saw(ctx, "first", await ctx.step("first", work, "first", pause))
    return [first, saw(ctx, "second", await ctx.step("second", work, "second", pause))]


PROGRAMS: Mapping[str, Program] = {
    "order": Program(
        chains=[
            ["reserve", "charge", "pack", "sleep", "approved", "ship"],
            ["charge", "label", "sleep"],
        ],
        undone=["reserve", "charge"],
        rolls_back=True,
    ),
    "trip": Program(
        chains=[["flight", "hotel", "car", "sleep", "pay"]],
        undone=["flight", "hotel", "car"],
        rolls_back=True,
    ),
    "leaf": Program(chains=[["first", "sleep", "second"]]),
    "family": Program(chains=[["left", "third"], ["right", "third", "meanwhile", "wait_for"]]),
    "port": Program(chains=[["dock"]]),
    "voyage": Program(chains=[["pack", "sleep", "approved", "port", "arrive"]]),
    "collect": Program(chains=[["item", "item#2", "count"]]),
    "stubborn": Program(chains=[["once", "fragile"]]),
    "tick": Program(chains=[["first", "second"]]),
    "broken": Program(chains=[["first", "second", "third"]]),
    "slow": Program(chains=[["long0", "long1", "long2"]]),
    "small": Program(
        chains=[
            ["first", "left", "go", "sleep", "undoing", "again"],
            ["first", "right", "go"],
        ],
    ),
    "undoing": Program(chains=[["one", "two", "three"]], undone=["one", "two", "three"], rolls_back=True),
}


# ---- workflows of single tests


@workflow(retry=1)
async def blocking(ctx: Context, seconds: float) -> str:
    """A step that ought to be a plain `def`: it blocks the loop of its worker."""
    return await ctx.step("block", block_the_loop, seconds)


async def block_the_loop(seconds: float) -> str:
    with ledger().body():
        time.sleep(seconds)
        return "done"


@workflow(retry=1)
async def deadly(ctx: Context) -> None:
    """A step that takes its worker with it."""
    await ctx.step("die", die)


async def die() -> None:
    with ledger().body():
        os._exit(17)


@workflow(retry=1)
async def chain(ctx: Context, length: int) -> list[str]:
    """Many steps, one after the other, each shorter than any drain."""
    return [
        await ctx.step(f"link{i}", work if i % 2 else work_in_thread, f"link{i}", 0.15) for i in range(length)
    ]


@workflow(retry=1, concurrency=[Concurrency(2, key="0"), Concurrency(5, scope="all-limited")])
async def limited(ctx: Context, job: tuple[str, int]) -> str:
    """At most two at once of a key, and five in all."""
    return await ctx.step(job[0], work, job[0], 0.05)


Fed = Event("fed", tuple[str, int])


async def count(items: list[tuple[str, int]]) -> list[int]:
    with ledger().body():
        await asyncio.sleep(0.02)
        return [number for _, number in items]


@workflow(retry=1, batch=Batch(5, every="400ms", key="0"))
async def gathered(ctx: Context, items: list[tuple[str, int]]) -> list[int]:
    return await ctx.step("count", count, items)


@workflow(retry=1, on=[Fed], batch=Batch(7, every="300ms", key="0"))
async def heard(ctx: Context, items: list[tuple[str, int]]) -> list[int]:
    return await ctx.step("count", count, items)


@workflow(retry=1)
async def feeder(ctx: Context, item: tuple[str, int]) -> list[int]:
    """Starts one that others join, and sends an event that is put together with others."""
    await ctx.step("pause", work, "pause", 0.01)
    await ctx.emit(Fed, item)
    return await ctx.run(gathered, [item])


@workflow(retry=1, debounce=Debounce("700ms", key="0"))
async def settled(ctx: Context, item: tuple[str, int]) -> int:
    return (await ctx.step("count", count, [item]))[0]


PACE = Throttle(20, per="1s", burst=3)


@workflow(retry=1, throttle=PACE)
async def paced(ctx: Context, number: int) -> int:
    await ctx.step("work", work, "work", 0.01)
    return number


Go = Signal("go", str)


@workflow(retry=1, rollback="on_failure")
async def undoing(ctx: Context, job: Job) -> None:
    await ctx.step("one").up(plain, "one").down(undo)
    await ctx.step("two", retry=QUICK).up(plain, "two").down(fails_once_to_undo)
    await ctx.step("three").up(plain, "three").down(undo)
    raise Fail("not so", code="refused")


@workflow(retry=1)
async def small(ctx: Context, job: Job) -> list[str]:
    """A little of everything; what it gives is the same each time."""
    results = [await ctx.step("first", plain, "first")]
    results += await ctx.gather(ctx.step("left", plain, "left"), ctx.step("right", plain_in_thread, "right"))
    results.append(await ctx.wait_for_signal(Go))
    await ctx.sleep(0.03)
    try:
        await ctx.run(undoing, job)
    except ExecutionFailed as failure:
        results.append(f"{failure.code}: {failure.message}")
    results.append(await ctx.step("again", retry=QUICK).up(fails_then_plain, "again"))
    return results


async def plain(label: str) -> str:
    with ledger().body():
        return label


def plain_in_thread(label: str) -> str:
    with ledger().body():
        return label


async def fails_then_plain(label: str) -> str:
    with ledger().body() as info:
        if info.attempt == 1:
            raise OSError(f"{label} failed")
        return label


async def fails_once_to_undo(token: str) -> None:
    with ledger().body():
        if current_step().attempt == 1:
            raise OSError("not yet")
