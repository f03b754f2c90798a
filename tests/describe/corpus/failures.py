"""When something is raised."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from durable import Context, ExecutionFailed, workflow
from tests.describe.corpus.parts import charge, shipping, work


@workflow
async def caught(ctx: Context) -> None:
    """
    start -> risky
    risky -> second
    risky -raises-> decision
    second -> well
    second -raises-> decision
    well -> after
    decision -ValueError-> mend
    decision -(KeyError, ExecutionFailed), raise again-> end
    mend -> after
    after -> end
    """
    try:
        await ctx.step("risky", work)
        await ctx.step("second", work)
    except ValueError:
        await ctx.step("mend", work)
    except (KeyError, ExecutionFailed):
        raise
    else:
        await ctx.step("well", work)
    await ctx.step("after", work)


@workflow
async def at_last(ctx: Context) -> None:
    """
    start -> risky
    risky -> clean
    risky -raises-> clean
    clean -> after
    clean -raises-> end
    after -> end
    """
    try:
        await ctx.step("risky", work)
    finally:
        await ctx.step("clean", work)
    await ctx.step("after", work)


@workflow
async def returns_through_finally(ctx: Context, n: int) -> int:
    """
    start -> decision
    decision -false-> work
    decision -true-> note
    work -> note
    work -raises-> note
    note -> end
    note -raises-> end
    """
    try:
        if n:
            return 1
        await ctx.step("work", work)
    finally:
        await ctx.note("bye")
    return 0


@workflow
async def cancelled(ctx: Context) -> None:
    """
    start -> sleep
    sleep -raises-> decision
    sleep -> end
    decision -asyncio.CancelledError-> rollback
    rollback -raise again-> end
    """
    try:
        await ctx.sleep("1d")
    except asyncio.CancelledError:
        await ctx.rollback()
        raise


@workflow
async def saga(ctx: Context) -> None:
    """
    start -> charge
    charge -> shipping
    charge -raises-> rollback
    shipping -raises-> rollback
    shipping -> after
    rollback -raise again-> end
    after -> end
    """
    async with ctx.saga():
        await ctx.step(charge, 1)
        await ctx.run(shipping, 1)
    await ctx.step("after", work)


@workflow
async def bailing_out_of_a_saga(ctx: Context, n: int) -> None:
    """
    start -> charge
    charge -> decision
    charge -raises-> rollback
    decision -true, bail-> rollback
    decision -false-> after
    rollback -raise again-> end
    rollback -bail-> end
    after -> end
    """
    async with ctx.saga():
        await ctx.step(charge, 1)
        if n > 3:
            ctx.bail("enough")
    await ctx.step("after", work)


@workflow(rollback="on_failure")
async def rolled_back(ctx: Context, n: int) -> None:
    """
    start -> charge -> decision
    decision -false-> end
    decision -true, raise ValueError('too much')-> rollback
    rollback -> end
    """
    await ctx.step(charge, n)
    if n > 3:
        raise ValueError("too much")


@workflow
async def suppressed(ctx: Context) -> None:
    """
    start -> risky
    risky -raises-> after
    risky -raise ValueError-> after
    after -> end
    """
    with suppress(ValueError):
        await ctx.step("risky", work)
        raise ValueError
    await ctx.step("after", work)


@workflow
async def in_time(ctx: Context) -> None:
    """
    start -> slow -> end
    """
    async with asyncio.timeout(5):
        await ctx.step("slow", work)
