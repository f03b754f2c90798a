# pyright: strict
"""Mistakes that authors make. Both checkers must find each line that is marked, and no other."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, assert_never

from durable import (
    Batch,
    Branch,
    Concurrency,
    Context,
    Cron,
    Debounce,
    Durable,
    Event,
    Handle,
    On,
    RateLimit,
    Received,
    Signal,
    Throttle,
    TimedOut,
    Workflow,
    step,
    workflow,
)
from durable.workflow import Registry


@dataclass
class Order:
    id: str
    items: list[str]


@dataclass
class Receipt:
    text: str


@dataclass
class Approval:
    by: str


@dataclass
class Deps:
    url: str


Approved = Signal("approved", Approval)
Ping = Signal("ping")
Paid = Event("paid", Receipt)


@step(retry=3)
async def reserve(items: list[str], *, rush: bool = False) -> Receipt:
    return Receipt(f"{items}{rush}")


@step
def count(text: str) -> int:
    return len(text)


@step
async def pack(order: Order) -> Receipt:
    return Receipt(order.id)


async def void(receipt: Receipt) -> None: ...


async def length(text: str) -> int:
    return len(text)


async def ship() -> Receipt:
    return Receipt("shipped")


@workflow
async def fulfil(ctx: Context, order: Order) -> Receipt:
    return Receipt(order.id)


@workflow
async def nightly(ctx: Context) -> int:
    return 1


# Definitions


@reserve.undo  # error
async def undo_wrong_type(count: int) -> None: ...


@count.undo  # error
def undo_wrong_type_of_sync(text: str) -> None: ...


@pack.undo  # error
def undo_without_parameter() -> None: ...


@step(retry="3")  # error
async def wrong_retry() -> None: ...


@step(timeout=[3])  # error
async def wrong_timeout() -> None: ...


@workflow  # error
async def two_inputs(ctx: Context, order: Order, count: int) -> None: ...


@workflow  # error
def not_async(ctx: Context, order: Order) -> None: ...


@workflow  # error
async def no_context(order: Order) -> None: ...


@workflow(rollback="always")  # error
async def wrong_rollback(ctx: Context) -> None: ...


@workflow(attempts=3)  # error
async def unknown_option(ctx: Context) -> None: ...


@workflow(tags={"priority": 3})  # error
async def wrong_tags(ctx: Context) -> None: ...


@workflow(on=["paid"])  # error
async def started_by_a_text(ctx: Context) -> None: ...


@workflow(on=[Approved])  # error
async def started_by_a_signal(ctx: Context, approval: Approval) -> None: ...


@workflow(cancel_on=[Paid])  # error
async def cancelled_by_all(ctx: Context, order: Order) -> None: ...


@workflow(concurrency=2)  # error
async def wrong_concurrency(ctx: Context) -> None: ...


@workflow(throttle=RateLimit(1, per="1s"))  # error
async def wrong_throttle(ctx: Context) -> None: ...


@workflow(batch=Debounce("1s"))  # error
async def wrong_batch(ctx: Context, orders: list[Order]) -> None: ...


@workflow(on_failure=fulfil)  # error
async def wrong_on_failure(ctx: Context) -> None: ...


@step(limit=Concurrency(2))  # error
async def wrong_limit() -> None: ...


wrong_words = Concurrency(1, when_full="wait", hold="run")  # error
wrong_hold = Concurrency(1, hold="always")  # error
wrong_span = Throttle(1, per=None)  # error
wrong_size = Batch("3", every="1s")  # error
no_span = Batch(3)  # error
wrong_path = Concurrency(1, key=["tenant"])  # error
wrong_match = On(Paid, match={"order_id": 3})  # error
wrong_limits = Durable(store="memory://", limits={"openai": 5})  # error

wrong_payload_type = Signal("wrong", 3)  # error
wrong_workflow: Workflow[str, Receipt] = fulfil  # error
wrong_registry = Registry([length])  # error


async def called_directly(ctx: Context, order: Order) -> None:
    await fulfil(ctx, order)  # error


# Steps


def insert(connection: sqlite3.Connection, text: str) -> int:
    return connection.execute("INSERT INTO texts VALUES (?)", (text,)).rowcount


def nothing() -> None: ...


async def steps(ctx: Context, order: Order) -> None:
    await ctx.step("length", length, 3)  # error
    await ctx.step("length", length)  # error
    await ctx.step("length", length, "x", "y")  # error
    await ctx.step("length", length, txt="x")  # error
    await ctx.step("length", length("x"))  # error
    await ctx.step(reserve, "shoes")  # error
    await ctx.step(reserve, order.items, rush="yes")  # error
    await ctx.step(count, 3)  # error
    await ctx.step(length, "x")  # error
    wrong_result: str = await ctx.step("length", length, "x")  # error
    wrong_result_of_step: int = await ctx.step(reserve, order.items)  # error
    await ctx.step("length", retries=3)  # error
    await ctx.step("length", retry=3)  # error
    await ctx.step("length", retry=3).up(length, 3)  # error
    await ctx.transaction("insert", insert)  # error
    await ctx.transaction("insert", insert, 3)  # error
    await ctx.transaction("insert", insert, "x", twice=True)  # error
    await ctx.transaction(insert, "x")  # error
    await ctx.transaction("nothing", nothing)  # error
    wrong_result_of_insert: str = await ctx.transaction("insert", insert, "x")  # error
    await ctx.step("reserve").up(reserve, order.items).down(length)  # error
    await ctx.step("length").up(length, "x").down(void)  # error
    await ctx.step("length").up(length, "x").down(lambda charged: charged.upper())  # error
    await ctx.map("length", length, [1, 2])  # error
    await ctx.map("reserve", reserve, order.items)  # error
    await ctx.map("length", length, order.items, limit="5")  # error
    wrong_map: list[str] = await ctx.map("length", length, order.items)  # error
    wrong_gather: tuple[int, int] = await ctx.gather(ctx.step("a", length, "x"), ship())  # error
    _, _, _ = await ctx.gather(ctx.step("a", length, "x"), ship())  # error
    print(wrong_result, wrong_result_of_step, wrong_result_of_insert, wrong_map, wrong_gather)


async def forgotten(ctx: Context, order: Order, handle: Handle[Receipt]) -> None:
    ctx.step("length", length, "x")  # error
    ctx.step(reserve, order.items)  # error
    ctx.step(count, "x")  # error
    ctx.step("length").up(length, "x").down(print)  # error
    ctx.sleep("3d")  # error
    ctx.wait_for_signal(Approved)  # error
    ctx.wait_for_signal(Approved, timeout="3d")  # error
    ctx.wait_for_any(Approved, Ping)  # error
    ctx.switch("route", order.id, {"a": ship})  # error
    ctx.gather(ship(), ship())  # error
    ctx.map("length", length, order.items)  # error
    ctx.start(fulfil, order)  # error
    ctx.run(fulfil, order)  # error
    ctx.emit(Paid, Receipt(""))  # error
    ctx.rollback()  # error
    handle.signal(Ping)  # error
    handle.result()  # error
    receipt = ctx.step(reserve, order.items)
    print(receipt.text)  # error


# Branches and waits


async def branches(ctx: Context, order: Order) -> Receipt:
    wrong: Receipt = await ctx.switch("route", order.id, {"a": ship, "b": lambda: length("x")})  # error
    default: int = await ctx.switch("route", "a", {"a": lambda: length("x")}, default=ship)  # error
    await ctx.switch("route", order.id, {1: ship})  # error
    await ctx.switch("route", order.id, {"a": length})  # error
    await ctx.switch("size", order.id, [Branch("big", lambda text: text > 500, ship)])  # error
    await ctx.switch("size", 3, [Branch("big", str.isupper, ship)])  # error
    await ctx.switch("size", 3, [Branch("big", lambda n: n > 500, length)])  # error
    print(wrong, default)
    return await ctx.switch("size", 3, [Branch("big", lambda n: n > 500, lambda: length("x"))])  # error


async def waits(ctx: Context) -> str:
    outcome = await ctx.wait_for_signal(Approved, timeout="3d")
    print(outcome.payload)  # error
    match outcome:
        case Received(approval):
            print(approval.reason)  # error
        case _:
            assert_never(outcome)  # error
    print((await ctx.wait_for_signal(Approved)).payload)  # error
    await ctx.wait_for_signal(Paid)  # error
    await ctx.wait_for_signal("approved")  # error
    first = await ctx.wait_for_any(Approved, Ping)
    print(first.payload.by)  # error
    await ctx.sleep("3d", "nap")  # error
    await ctx.sleep(None)  # error
    await ctx.sleep_until("tomorrow")  # error
    second = await ctx.wait_for_any(Approved, Ping, timeout="3d")
    if isinstance(second, TimedOut):
        return second.name  # error
    return second.payload  # error


async def events(ctx: Context) -> None:
    outcome = await ctx.wait_for_event(Paid, timeout="7d")
    print(outcome.payload)  # error
    print((await ctx.wait_for_event(Paid)).payload)  # error
    print((await ctx.wait_for_event(Paid)).amount)  # error
    await ctx.wait_for_event(Approved)  # error
    await ctx.wait_for_event("paid")  # error
    await ctx.wait_for_event(Paid, match="order_id")  # error
    await ctx.wait_for_event(Paid, {"order_id": 1})  # error
    ctx.wait_for_event(Paid)  # error


async def schedules(durable: Durable, order: Order) -> None:
    await durable.send(Paid, "paid")  # error
    await durable.send(Paid)  # error
    await durable.send(Approved, Approval("ada"))  # error
    await durable.send("paid", Receipt(""))  # error
    durable.send(Paid, Receipt(""))  # error
    await durable.ensure_schedule(fulfil, order, cron="@daily")  # error
    await durable.ensure_schedule(fulfil, id="s", cron="@daily")  # error
    await durable.ensure_schedule(fulfil, Receipt(""), id="s", cron="@daily")  # error
    await durable.ensure_schedule(nightly, order, id="s", cron="@daily")  # error
    await durable.ensure_schedule(nightly, id="s", cron=Cron("@daily"))  # error
    await durable.ensure_schedule(nightly, id="s", cron="@daily", catchup="some")  # error
    await durable.ensure_schedule(nightly, id="s", cron="@daily", overlap="crash")  # error
    durable.ensure_schedule(nightly, id="s", cron="@daily")  # error
    await durable.schedule(fulfil, "order-1", delay="1h")  # error
    await durable.schedule(fulfil, order, at="tomorrow")  # error
    wrong_handle: Handle[int] = await durable.schedule(fulfil, order, delay="1h")  # error
    await durable.update_schedule("s", zone="UTC")  # error
    await durable.backfill_schedule("s", since="1d")  # error
    await durable.operator.set_limit("report/concurrency", "3")  # error
    print(wrong_handle)


# Children, events and the outside


async def children(ctx: Context[Deps], order: Order) -> Receipt:
    await ctx.run(fulfil, "order-1")  # error
    await ctx.run(fulfil)  # error
    await ctx.run(nightly, order)  # error
    await ctx.start(fulfil, Receipt(""))  # error
    await ctx.start(length, "x")  # error
    wrong_result: int = await ctx.run(fulfil, order)  # error
    child = await ctx.start(fulfil, order)
    wrong_child: Handle[int] = child  # error
    outcome = await ctx.wait_for(child, timeout="1h")
    print(outcome.value, wrong_result, wrong_child)  # error
    print((await ctx.wait_for(child)).value)  # error
    await ctx.emit(Paid, "paid")  # error
    await ctx.emit(Paid)  # error
    await ctx.emit(Approved, Approval("ada"))  # error
    print(ctx.deps.database)  # error
    async with ctx.saga():
        pass
    return await ctx.wait_for(ctx.handle("nightly-1", nightly))  # error


async def client(durable: Durable, order: Order) -> None:
    await durable.start(fulfil, "order-1")  # error
    await durable.start(fulfil)  # error
    await durable.start(nightly, order)  # error
    await durable.start(fulfil, order, delays="1h")  # error
    wrong_handle: Handle[int] = await durable.start(fulfil, order)  # error
    wrong_result: int = await durable.start_and_wait(fulfil, order)  # error
    await durable.signal("order-1", Approved, "yes")  # error
    await durable.signal("order-1", Approved)  # error
    await durable.signal("order-1", Ping, 3)  # error
    durable.start(fulfil, order)  # error
    durable.signal("order-1", Ping)  # error
    print(wrong_handle, wrong_result)


async def handles(handle: Handle[Receipt], ctx: Context) -> None:
    await handle.signal(Approved, "yes")  # error
    await handle.signal(Approved)  # error
    await handle.signal(Ping, 3)  # error
    await handle.signal(Paid, Receipt(""))  # error
    wrong_result: str = await handle.result(timeout="30s")  # error
    print(wrong_result, ctx.deps.url)  # error
    needs_deps(ctx)  # error


def needs_deps(ctx: Context[Deps]) -> Coroutine[Any, Any, None]:
    return asyncio.sleep(0, print(ctx.deps.url))
