"""Functions and objects that are given the context."""

from __future__ import annotations

from functools import partial
from typing import Any

from durable import Context, workflow
from tests.describe.corpus import parts
from tests.describe.corpus.parts import (
    Checkout,
    Desk,
    audited,
    countdown,
    even,
    handlers,
    locked,
    pay,
    service,
    twice,
    work,
)


@workflow
async def followed(ctx: Context, n: int) -> None:
    """
    start -> authorize -> capture -> authorize#2 -> capture#2 -> end
    """
    await pay(ctx, n)
    await parts.pay(ctx=ctx, amount=n)


@workflow
async def followed_with_a_name(ctx: Context) -> None:
    """
    start -> mail -> mail#2 -> call -> call#2 -> end
    """
    await twice(ctx, "mail")
    await twice(ctx, name="call")


@workflow
async def recursive(ctx: Context) -> None:
    """
    start -> tick
    tick -> decision
    decision -true, again-> tick
    decision -true-> liftoff
    decision -false-> liftoff
    liftoff -> end
    """
    await countdown(ctx, 3)
    await ctx.step("liftoff", work)


@workflow
async def mutually_recursive(ctx: Context) -> None:
    """
    start -> even -> decision
    decision -true-> odd
    decision -false-> end
    odd -> decision#2
    decision#2 -true-> even#2
    decision#2 -false-> end
    even#2 -> decision#3
    decision#3 -true, again-> odd
    decision#3 -true-> end
    decision#3 -false-> end
    """
    await even(ctx, 5)


@workflow
async def inner_functions(ctx: Context, n: int) -> None:
    """
    start -> first -> second -> end
    """

    async def inner(name: str) -> None:
        await ctx.step(name, work)

    again = lambda: inner("second")  # noqa: E731
    await inner("first")
    await again()


@workflow
async def methods(ctx: Context) -> None:
    """
    start -> web.pay -> confirm -> approved -> settle -> invoice -> end
    """
    checkout = Checkout(ctx, "web")
    await checkout.pay()
    await Desk(ctx).ask()
    await service.settle(ctx)
    await ctx.step(service.invoice, 3)


@workflow
async def aliased(ctx: Context) -> None:
    """
    start -> one -> two -> three -> end
    """
    c = ctx
    step, other = c.step, c
    await step("one", work)
    await other.step("two", work)
    await getattr(ctx, "step")("three", work)  # noqa: B009


@workflow
async def partially(ctx: Context) -> None:
    """
    start -> authorize -> capture -> end
    """
    go = partial(pay, ctx)
    await go(3)


@workflow
async def looked_up(ctx: Context, kind: str) -> None:
    """
    start -> decision
    decision -pay-> authorize
    decision -countdown-> tick
    authorize -> capture -> end
    tick -> decision#2
    decision#2 -true, again-> tick
    decision#2 -true-> end
    decision#2 -false-> end
    """
    await handlers[kind](ctx, 1)


@workflow
async def managed(ctx: Context) -> None:
    """
    start -> lock -> inside
    inside -> unlock
    inside -raises-> unlock
    unlock -> end
    unlock -raises-> end
    """
    async with locked(ctx, "door"):
        await ctx.step("inside", work)


@workflow
@audited
async def wrapped(ctx: Context, n: int) -> None:
    """
    start -> note -> within -> end
    """
    await ctx.step("within", work, n)


@workflow
async def out_of_sight(ctx: Context, anything: Any) -> None:
    """
    start -> dynamic -> after -> end
    """
    await anything.go(ctx)
    await ctx.step("after", work)


@workflow
async def annotated(ctx: Context, anything: Any) -> None:
    """
    start -> mine -> end
    """
    mine: Context = anything.ctx
    await mine.step("mine", work)
