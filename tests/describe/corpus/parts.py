"""What the workflows of the corpus are made of."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from durable import Context, Event, Signal, step, workflow

Approved = Signal("approved", str)
Rejected = Signal("rejected", str)
Ping = Signal("ping")
Paid = Event("payment.received", int)
PREFIX = "order"
PATIENCE = "3d"


class Names(StrEnum):
    CHARGE = "charge-card"


def work(*values: object) -> int:
    raise AssertionError("describe must not run a step")


@step(retry=5, timeout="30s")
async def charge(amount: int) -> str:
    raise AssertionError("describe must not run a step")


@charge.undo
async def refund(charge_id: str) -> None:
    raise AssertionError("describe must not run a compensation")


@step(name="reserve-stock")
def reserve(amount: int) -> int:
    raise AssertionError("describe must not run a step")


@workflow
async def shipping(ctx: Context, amount: int) -> int:
    return await ctx.step("ship", work, amount)


async def pay(ctx: Context, amount: int) -> None:
    """A function that is given the context."""
    await ctx.step("authorize", work, amount)
    await ctx.step("capture", work, amount)


async def twice(ctx: Context, name: str) -> None:
    await ctx.step(name, work)
    await ctx.step(name, work)


async def countdown(ctx: Context, left: int) -> None:
    await ctx.step("tick", work, left)
    if left:
        await countdown(ctx, left - 1)


async def even(ctx: Context, n: int) -> None:
    await ctx.step("even", work)
    if n:
        await odd(ctx, n - 1)


async def odd(ctx: Context, n: int) -> None:
    await ctx.step("odd", work)
    if n:
        await even(ctx, n - 1)


@asynccontextmanager
async def locked(ctx: Context, name: str) -> AsyncIterator[str]:
    await ctx.step("lock", work, name)
    try:
        yield name
    finally:
        await ctx.step("unlock", work, name)


async def pages(ctx: Context) -> AsyncIterator[int]:
    page = 0
    while page < 10:
        yield await ctx.step("fetch", work, page)
        page += 1


def audited(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A decorator that does something durable itself."""

    @functools.wraps(fn)
    async def wrapper(ctx: Context, *args: object, **kwargs: object) -> object:
        await ctx.note("begins")
        return await fn(ctx, *args, **kwargs)

    return wrapper


class Checkout:
    """An object that has the context."""

    def __init__(self, ctx: Context, prefix: str) -> None:
        self.ctx = ctx
        self.prefix = prefix

    async def pay(self) -> None:
        await self.ctx.step(f"{self.prefix}.pay", work)
        await self._confirm()

    async def _confirm(self) -> None:
        await self.ctx.step("confirm", work)


@dataclass
class Desk:
    """A dataclass that has the context."""

    ctx: Context

    async def ask(self) -> str:
        return await self.ctx.wait_for_signal(Approved)


class Service:
    """An object without a context, whose method is given one."""

    async def settle(self, ctx: Context) -> None:
        await ctx.step("settle", work)

    @step
    def invoice(self, amount: int) -> int:
        raise AssertionError("describe must not run a step")


service = Service()
handlers: dict[str, Callable[[Context, int], Awaitable[None]]] = {"pay": pay, "count": countdown}
