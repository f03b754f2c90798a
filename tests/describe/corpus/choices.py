"""One way or another."""

from __future__ import annotations

from durable import Branch, Context, Fail, Received, TimedOut, workflow
from tests.describe.corpus.parts import PATIENCE, Approved, Rejected, work


@workflow
async def if_else(ctx: Context, n: int) -> None:
    """
    start -> decision
    decision -true-> big
    decision -false-> decision#2
    big -> after
    decision#2 -true-> medium
    decision#2 -false-> small
    medium -> after
    small -> after
    after -> end
    """
    if n > 3:
        await ctx.step("big", work)
    elif n > 2:
        await ctx.step("medium", work)
    else:
        await ctx.step("small", work)
    await ctx.step("after", work)


@workflow
async def early_return(ctx: Context, n: int) -> int:
    """
    start -> decision
    decision -false-> work
    decision -true-> end
    work -> end
    """
    if not n:
        return 0
    await ctx.step("work", work)
    return 1


@workflow
async def refused(ctx: Context, n: int) -> None:
    """
    start -> decision
    decision -false-> work
    decision -true, raise Fail('negative', code='negative')-> end
    work -> end
    """
    if n < 0:
        raise Fail("negative", code="negative")
    await ctx.step("work", work)


@workflow
async def conditional_expression(ctx: Context, n: int) -> int:
    """
    start -> decision
    decision -true-> yes
    decision -false-> no
    yes -> end
    no -> end
    """
    return await (ctx.step("yes", work) if n else ctx.step("no", work))


@workflow
async def and_then(ctx: Context, n: int) -> bool:
    """
    start -> decision
    decision -true-> check
    decision -false-> end
    check -> end
    """
    return bool(n and await ctx.step("check", work))


@workflow
async def matched(ctx: Context) -> str:
    """
    start -> approved
    approved -received-> decision
    approved -timeout-> decision
    decision -Received(name)-> ship
    decision -TimedOut()-> remind
    ship -> end
    remind -> end
    """
    match await ctx.wait_for_signal(Approved, timeout=PATIENCE):
        case Received(name):
            await ctx.step("ship", work, name)
            return "shipped"
        case TimedOut():
            await ctx.step("remind", work)
    return "reminded"


@workflow
async def either_signal(ctx: Context) -> None:
    """
    start -> wait_for_any
    wait_for_any -received-> decision
    wait_for_any -timeout-> decision
    decision -Received(name=Approved.name)-> ship
    decision -Received() if outcome.payload-> refund
    decision -_, bail-> end
    ship -> end
    refund -> end
    """
    outcome = await ctx.wait_for_any(Approved, Rejected, timeout=90)
    match outcome:
        case Received(name=Approved.name):
            await ctx.step("ship", work)
        case Received() if outcome.payload:
            await ctx.step("refund", work)
        case _:
            ctx.bail("nobody answered")


@workflow
async def switched(ctx: Context, tier: str) -> str:
    """
    start -> route
    route -> route/premium
    route -> route/standard
    route -> route/default
    route/premium -> express -> end
    route/standard -> sleep -> end
    route/default -> end
    """

    async def express() -> str:
        await ctx.step("express", work)
        return "express"

    return await ctx.switch(
        "route", tier, {"premium": express, "standard": lambda: ctx.sleep("1d")}, default=lambda: "pick-up"
    )


@workflow
async def switched_by_predicate(ctx: Context, total: int) -> None:
    """
    start -> size
    size -> size/big
    size -> size/small
    size/big -> review -> end
    size/small -> ship -> end
    """

    async def review() -> None:
        await ctx.step("review", work)

    async def ship() -> None:
        await ctx.step("ship", work)

    branches = [Branch("big", lambda t: t > 500, review), Branch("small", lambda _: True, ship)]
    await ctx.switch("size", total, branches)


@workflow
async def patched(ctx: Context) -> None:
    """
    start -> patched:validate-card
    patched:validate-card -true-> validate
    patched:validate-card -false-> charge
    validate -> charge
    charge -> end
    """
    if ctx.patched("validate-card"):
        await ctx.step("validate", work)
    await ctx.step("charge", work)


@workflow
async def not_patched(ctx: Context) -> None:
    """
    start -> patched:new-way
    patched:new-way -false-> old
    patched:new-way -true-> new
    old -> end
    new -> end
    """
    if not ctx.patched("new-way"):
        await ctx.step("old", work)
        return
    await ctx.step("new", work)
