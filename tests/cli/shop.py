"""The application of these tests: copied as `app.py` into a directory of its own, where the command line finds it."""

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from durable import Context, Durable, Fail, Retry, Signal, step, workflow


@dataclass
class Order:
    id: str
    cents: int


Approved = Signal("approved", str)


@step
async def charge(order: Order) -> str:
    return f"charge-{order.id}"


@step
def ship(order: Order) -> str:
    return f"parcel-{order.id}"


@step
async def book() -> str:
    return "room 7"


@book.undo
async def unbook(room: str) -> None: ...


@workflow
async def booking(ctx: Context) -> None:
    await ctx.step(book)
    await ctx.wait_for_signal(Approved)


@workflow
async def fulfil(ctx: Context, order: Order) -> str:
    await ctx.step(charge, order)
    approver = await ctx.wait_for_signal(Approved)
    return f"{await ctx.step(ship, order)} by {approver}"


@workflow
async def echo(ctx: Context, order: Order) -> Order:
    return order


@workflow
async def declined(ctx: Context) -> None:
    raise Fail("card \x1b[31mdeclined", code="declined")


@workflow
async def fixable(ctx: Context) -> str:
    return await ctx.step("read", read)


def read() -> str:
    if not Path("fixed").exists():
        raise Fail("nobody has fixed it")
    return "fixed"


knocks: list[int] = []


@step(retry=Retry(3, base="1ms"))
async def knock() -> str:
    knocks.append(1)
    if len(knocks) < 3:
        raise ConnectionError(f"nobody home {len(knocks)}")
    return "come in"


@workflow
async def flaky(ctx: Context) -> str:
    return await ctx.step(knock)


def one() -> int:
    return 1


def two() -> int:
    return 2


@workflow(retry=Retry(attempts=2, base="1ms", jitter=0))
async def diverging(ctx: Context) -> None:
    await ctx.step("count", one if ctx.attempt == 1 else two)
    raise RuntimeError("again")


@workflow
async def unstorable(ctx: Context) -> None:
    await ctx.step("socket", object)


@workflow
async def parent(ctx: Context) -> str:
    return await ctx.run(child, "a")


@workflow
async def child(ctx: Context, name: str) -> str:
    await ctx.sleep("1ms")
    return await ctx.step("greet", f"hello {name}".title)


@workflow
async def slow(ctx: Context, seconds: float) -> str:
    await ctx.step("wait", asyncio.sleep, seconds)
    return "waited"


@workflow
async def stubborn(ctx: Context) -> None:
    await ctx.step("block", time.sleep, 60)


@workflow(queue="email")
async def send_email(ctx: Context) -> str:
    return "sent"


@workflow
async def napping(ctx: Context) -> None:
    await ctx.sleep("2s")


@workflow
async def logging_one(ctx: Context) -> None:
    await ctx.step("charge", logging.getLogger("shop").info, "charging the card")


durable = Durable(
    [
        flaky,
        booking,
        fulfil,
        echo,
        declined,
        fixable,
        diverging,
        unstorable,
        parent,
        child,
        slow,
        stubborn,
        send_email,
        logging_one,
        napping,
    ],
    store=os.environ.get("SHOP_STORE", "sqlite:///shop.db"),
    namespace=os.environ.get("SHOP_NAMESPACE", "default"),
    sweep="500ms",
    lease="2s",
)
