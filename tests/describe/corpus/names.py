"""Where names come from."""

from __future__ import annotations

import os

from durable import Context, Signal, workflow
from tests.describe.corpus.parts import PREFIX, Names, work


@workflow
async def constants(ctx: Context) -> None:
    """
    start -> order -> charge-card -> order-sent -> order-paid -> end
    """
    await ctx.step(PREFIX, work)
    await ctx.step(Names.CHARGE, work)
    await ctx.step(PREFIX + "-sent", work)
    await ctx.step(f"{PREFIX}-paid", work)


@workflow
async def patterns(ctx: Context, n: int) -> None:
    """
    start -> order-{n} -> item-{str(n)} -> end
    """
    await ctx.step(f"{PREFIX}-{n}", work)
    await ctx.step("item-" + str(n), work)


@workflow
async def only_known_when_it_runs(ctx: Context, name: str) -> None:
    """
    start -> dynamic -> dynamic#2 -> dynamic#3 -> route -> dynamic#4 -> end
    """
    await ctx.step(name, work)
    await ctx.step(os.environ["STEP"], work)
    await ctx.wait_for_signal(Signal(name))
    await ctx.switch("route", name, dict(zip(name, name, strict=True)))


@workflow
async def one_of_two(ctx: Context, n: int) -> None:
    """
    start -> decision
    decision -even-> even
    decision -odd-> odd
    even -> end
    odd -> end
    """
    name = "even" if n % 2 == 0 else "odd"
    await ctx.step(name, work)


@workflow
async def assigned_on_two_ways(ctx: Context, n: int) -> None:
    """
    start -> decision
    decision -some-> some
    decision -none-> none
    some -> end
    none -> end
    """
    if n:
        name = "some"
    else:
        name = "none"
    await ctx.step(name, work)


@workflow
async def a_local_signal(ctx: Context) -> None:
    """
    start -> go -> end
    """
    go = Signal("go")
    await ctx.wait_for_signal(go)


@workflow
async def named_like_the_structure(ctx: Context, n: int) -> None:
    """
    start#2 -> start -> decision#2
    decision#2 -true-> decision
    decision#2 -false-> end
    decision -> end
    end -> end#2
    """
    await ctx.step("start", work)
    if n:
        await ctx.step("decision", work)
    await ctx.step("end", work)
