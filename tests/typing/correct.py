# pyright: strict
"""What authors write, and the types they get. Both checkers must find nothing here."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Literal, assert_never, assert_type
from uuid import UUID

from durable import (
    Batch,
    Branch,
    Completed,
    Concurrency,
    Context,
    Cron,
    Debounce,
    Durable,
    Event,
    Every,
    Execution,
    Failure,
    Handle,
    On,
    RateLimit,
    Received,
    Retry,
    Schedule,
    Signal,
    Step,
    StepInfo,
    Throttle,
    TimedOut,
    Workflow,
    WorkflowShape,
    current_step,
    describe,
    step,
    workflow,
)
from durable.builder import Up
from durable.models import Cause, LimitInfo, QueueInfo, Receipt as Sent
from durable.workflow import AnyWorkflow, Registry


@dataclass
class Order:
    id: str
    items: list[str]
    total: Decimal
    tier: Literal["premium", "standard"]


class RushOrder(Order): ...


@dataclass
class Receipt:
    text: str


@dataclass
class Approval:
    by: str


@dataclass
class Rejection:
    reason: str


@dataclass
class Deps:
    url: str


Approved = Signal("approved", Approval)
Rejected = Signal("rejected", Rejection)
Decided = Signal("decided", Approval | Rejection)
Maybe = Signal("maybe", Approval | None)
Notes = Signal("notes", list[str])
Ping = Signal("ping")
Paid = Event("payment.received", Decimal)
Tick = Event("tick")

assert_type(Approved, Signal[Approval])
assert_type(Decided, Signal[Approval | Rejection])
assert_type(Maybe, Signal[Approval | None])
assert_type(Notes, Signal[list[str]])
assert_type(Ping, Signal[None])
assert_type(Paid, Event[Decimal])
assert_type(Tick, Event[None])
assert_type(Approved.name, str)


@step
async def reserve(items: list[str], *, rush: bool = False) -> Receipt:
    return Receipt(f"{items}{rush}")


@reserve.undo
async def release(receipt: Receipt) -> None: ...


@step(name="charge.card", retry=Retry(attempts=5, on=(ConnectionError,)), timeout="30s")
def charge(order_id: str, amount: Decimal = Decimal(0)) -> int:
    assert_type(current_step(), StepInfo)
    assert_type(current_step().cancelled, bool)
    return len(order_id) + int(amount)


@charge.undo
def refund(charged: int) -> None: ...


@step(retry=3, timeout=timedelta(seconds=2))
async def audit() -> None: ...


assert_type(reserve.name, str)
assert_type(reserve.retry, Retry | None)
assert_type(charge("a"), int)


class Payments:
    @step
    async def pay(self, amount: int) -> str:
        return str(amount)

    @step(name="pay-now")
    def pay_now(self, amount: int) -> str:
        return str(amount)


async def void(receipt: Receipt) -> None: ...


async def length(text: str) -> int:
    return len(text)


def width(text: str) -> int:
    return len(text)


def insert(connection: sqlite3.Connection, text: str, *, times: int = 1) -> int:
    return connection.execute("INSERT INTO texts VALUES (?)", (text * times,)).rowcount


async def insert_soon(connection: sqlite3.Connection, text: str) -> Receipt:
    return Receipt(text)


@step(retry=3)
async def insert_step(connection: sqlite3.Connection) -> str:
    return ""


async def premium() -> Receipt:
    return Receipt("premium")


async def standard() -> Receipt:
    return Receipt("standard")


def sync_branch() -> Receipt:
    return Receipt("sync")


@workflow
async def fulfil(ctx: Context, order: Order) -> Receipt:
    return Receipt(order.id)


@workflow
async def nightly(ctx: Context) -> int:
    return 1


@workflow(
    name="with-options",
    version="2",
    queue="fulfilment",
    retry=Retry(attempts=3),
    timeout="1h",
    priority=5,
    tags={"category": "orders"},
    rollback="on_failure",
)
async def with_options(ctx: Context[Deps], order: Order) -> Receipt:
    assert_type(ctx.deps, Deps)
    assert_type(ctx.deps.url, str)
    return Receipt(ctx.deps.url)


@workflow(name="nightly-2", retry=5)
async def nightly_with_options(ctx: Context[Deps]) -> int | None:
    return None


@workflow
async def optional_input(ctx: Context, order: Order | None = None) -> str:
    return ""


@workflow
async def tell(ctx: Context, failure: Failure) -> None:
    assert_type(failure.step_id, str | None)
    assert_type(failure.input, object)


@workflow(
    on=[
        Paid,
        On(Paid, when={"currency": "EUR"}),
        On(Paid, when=lambda paid: paid > 5),
        Cron("@daily"),
        Every("30s"),
    ],
    cancel_on=[On(Tick, match={"id": "order.id"})],
    concurrency=[
        Concurrency(2, key="tenant.id"),
        Concurrency(5, scope="all", when_full="cancel_new", hold="run"),
    ],
    throttle=Throttle(10, per="1m", key=lambda paid: paid, burst=2),
    priority="urgency",
    on_failure=tell,
)
async def limited(ctx: Context, paid: Decimal | None) -> int:
    for cause in ctx.events:
        assert_type(cause, Cause)
    return 1


@workflow(concurrency=Concurrency(1), rate_limit=RateLimit(1, per=timedelta(hours=4), key="id"))
async def limited_by_one(ctx: Context, order: Order) -> int:
    return 1


@workflow(debounce=Debounce("30s", key="id", max_wait="5m"), priority=lambda order: len(order.items))
async def settled(ctx: Context, order: Order) -> int:
    return 1


@workflow(batch=Batch(100, every="5s", key="id"))
async def together(ctx: Context, orders: list[Order]) -> int:
    return len(orders)


@step(limit="openai", retry=3)
async def ask(question: str) -> str:
    return question


assert_type(limited, Workflow[Decimal | None, int])
assert_type(together, Workflow[list[Order], int])
assert_type(settled, Workflow[Order, int])
limits: dict[str, Concurrency | Throttle] = {"openai": Concurrency(5), "mail": Throttle(10, per="1s")}

assert_type(fulfil, Workflow[Order, Receipt])
assert_type(nightly, Workflow[None, int])
assert_type(with_options, Workflow[Order, Receipt])
assert_type(nightly_with_options, Workflow[None, int | None])
assert_type(optional_input, Workflow[Order | None, str])
assert_type(fulfil.tags, Mapping[str, str])

registry = Registry([fulfil, nightly, with_options, nightly_with_options, optional_input, asyncio])
assert_type(registry.find("fulfil"), AnyWorkflow)


@workflow
async def steps(ctx: Context, order: Order) -> Receipt:
    assert_type(await ctx.step(reserve, order.items), Receipt)
    assert_type(await ctx.step(reserve, order.items, rush=True), Receipt)
    assert_type(await ctx.step(charge, order.id, amount=order.total), int)
    assert_type(await ctx.step(audit), None)
    assert_type(await ctx.step("len", length, "text"), int)
    assert_type(await ctx.step("width", width, text="text"), int)
    assert_type(await ctx.step("reserve-again", reserve, order.items), Receipt)
    assert_type(await ctx.step("charge-again", charge, order.id), int)
    assert_type(await ctx.step("lambda", lambda: order.id), str)
    assert_type(await ctx.step("async-lambda", lambda: length(order.id)), int)
    assert_type(await ctx.step("partial", partial(length, "text")), int)
    assert_type(await ctx.step("method", order.id.upper), str)
    assert_type(await ctx.step(Payments().pay, 3), str)
    assert_type(await ctx.step(Payments().pay_now, 3), str)
    assert_type(await ctx.step("len", retry=3, timeout="10s").up(length, "x"), int)
    assert_type(await ctx.step("len").up(width, "x"), int)
    assert_type(await ctx.step("void", retry=Retry(2)).up(reserve, order.items).down(void), Receipt)
    assert_type(await ctx.step("void").up(width, "x").down(refund), int)
    assert_type(await ctx.step("void").up(width, "x").down(lambda charged: print(charged + 1)), int)
    assert_type(ctx.step("len").up(length, "x"), Up[int])
    assert_type(await ctx.transaction("insert", insert, "x", times=2), int)
    assert_type(await ctx.transaction("soon", insert_soon, text="x"), Receipt)
    assert_type(await ctx.transaction("step", insert_step), str)
    later: Coroutine[Any, Any, int] = ctx.step("len", length, "x")
    assert_type(await later, int)
    return await ctx.step(reserve, order.items)


@workflow
async def branches(ctx: Context, order: Order) -> Receipt:
    a, b = await ctx.gather(ctx.step("a", length, "x"), ctx.step(reserve, order.items))
    assert_type(a, int)
    assert_type(b, Receipt)
    one = ctx.step("one", length, "x")
    assert_type(await ctx.gather(one, ctx.sleep("1s"), premium()), tuple[int, None, Receipt])
    up = ctx.step("up").up(length, "x")
    down = ctx.step("down").up(reserve, order.items).down(void)
    assert_type(await ctx.gather(up, down), tuple[int, Receipt])
    assert_type(await asyncio.gather(ctx.step("c").up(length, "x"), one), tuple[int, int])
    assert_type(await ctx.gather(*[ctx.step("many", length, text) for text in order.items]), list[int])
    assert_type(await ctx.gather(one, one, one, one, one, one), tuple[int, int, int, int, int, int])
    assert_type(await ctx.gather(one, one, return_exceptions=True), list[int | BaseException])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ctx.step("task").up(length, "x"))
    assert_type(task.result(), int)
    assert_type(await ctx.map("thumb", length, order.items, limit=5), list[int])
    assert_type(await ctx.map("thumb", width, order.items), list[int])
    assert_type(await ctx.map("thumb", lambda text: text + "!", order.items), list[str])
    assert_type(await ctx.map("charge", charge, order.items), list[int])
    assert_type(await ctx.map("reserve", reserve, [order.items]), list[Receipt])

    assert_type(
        await ctx.switch("route", order.tier, {"premium": premium, "standard": standard}, default=premium),
        Receipt,
    )
    assert_type(await ctx.switch("route", order.id, {"a": premium, "b": standard}), Receipt)
    assert_type(await ctx.switch("sync", order.id, {"a": sync_branch}, default=sync_branch), Receipt)
    assert_type(await ctx.switch("flag", order.total > 5, {True: premium, False: standard}), Receipt)
    assert_type(
        await ctx.switch("lambda", order.tier, {"premium": lambda: ctx.step("len", length, "x")}), int
    )
    assert_type(
        await ctx.switch(
            "size",
            order.total,
            [Branch("big", lambda total: total > 500, premium), Branch("small", lambda _: True, standard)],
        ),
        Receipt,
    )
    assert_type(
        await ctx.switch("size", 3, [Branch("one", lambda n: n.bit_length() > 1, sync_branch)]), Receipt
    )
    assert_type(
        await ctx.switch("size", order, [Branch("any", lambda o: o.id == "x", premium)], default=standard),
        Receipt,
    )
    return b


@workflow
async def waits(ctx: Context, order: Order) -> Receipt:
    assert_type(await ctx.wait_for_signal(Approved), Approval)
    assert_type(await ctx.wait_for_signal(Decided), Approval | Rejection)
    assert_type(await ctx.wait_for_signal(Ping), None)
    outcome = await ctx.wait_for_signal(Approved, timeout="3d", id="approval")
    assert_type(outcome, Received[Approval] | TimedOut)
    match outcome:
        case Received(approval):
            assert_type(approval, Approval)
        case TimedOut():
            assert_type(outcome, TimedOut)
        case _:
            assert_never(outcome)
    if outcome.kind == "timeout":
        assert_type(outcome, TimedOut)
    else:
        assert_type(outcome, Received[Approval])
        assert_type(outcome.payload, Approval)
        assert_type(outcome.kind, Literal["signal", "event"])
    first = await ctx.wait_for_any(Approved, Rejected, timeout="3d")
    assert_type(first, Received[Approval] | Received[Rejection] | TimedOut)
    match first:
        case TimedOut():
            pass
        case Received(payload):
            assert_type(payload, Approval | Rejection)
            match payload:
                case Approval():
                    pass
                case Rejection():
                    pass
                case _:
                    assert_never(payload)
    assert_type(await ctx.wait_for_any(Approved, Rejected), Received[Approval] | Received[Rejection])
    assert_type(
        await ctx.wait_for_any(Approved, Rejected, Ping),
        Received[Approval] | Received[Rejection] | Received[None],
    )
    assert_type(
        await ctx.wait_for_any(Approved, Rejected, Ping, Notes, timeout=timedelta(days=1)),
        Received[Approval] | Received[Rejection] | Received[None] | Received[list[str]] | TimedOut,
    )
    assert_type(await ctx.wait_for_any(*[Approved, Approved]), Received[Approval])
    assert_type(await ctx.sleep("3d"), None)
    assert_type(await ctx.sleep_until(ctx.now() + timedelta(days=1), id="tomorrow"), None)
    return Receipt("")


@workflow
async def events(ctx: Context, order: Order) -> Receipt:
    assert_type(await ctx.wait_for_event(Paid), Decimal)
    assert_type(await ctx.wait_for_event(Tick, match={"order.id": order.id}, lookback="0s", id="tick"), None)
    outcome = await ctx.wait_for_event(Paid, match={"order_id": order.id}, timeout="7d")
    assert_type(outcome, Received[Decimal] | TimedOut)
    match outcome:
        case Received(amount, name):
            assert_type(amount, Decimal)
            assert_type(name, str)
        case TimedOut():
            pass
        case _:
            assert_never(outcome)
    assert_type(await ctx.step(ask, "why"), str)
    return Receipt("")


@workflow
async def children(ctx: Context[Deps], order: Order) -> Receipt:
    child = await ctx.start(fulfil, order, id="child", detached=True)
    assert_type(child, Handle[Receipt])
    assert_type(await ctx.start(nightly), Handle[int])
    assert_type(await ctx.start(optional_input), Handle[str])
    assert_type(await ctx.run(fulfil, RushOrder("1", [], Decimal(1), "premium")), Receipt)
    assert_type(await ctx.run(nightly), int)
    assert_type(await ctx.run(with_options, order, id="other"), Receipt)
    assert_type(await ctx.wait_for(child), Receipt)
    outcome = await ctx.wait_for(child, timeout="1h")
    assert_type(outcome, Completed[Receipt] | TimedOut)
    match outcome:
        case Completed(receipt):
            assert_type(receipt, Receipt)
        case TimedOut():
            pass
        case _:
            assert_never(outcome)
    if outcome.kind == "completed":
        assert_type(outcome.value, Receipt)
    elsewhere = ctx.handle("order-1", fulfil)
    assert_type(elsewhere, Handle[Receipt])
    assert_type(ctx.handle("order-1"), Handle[object])
    await elsewhere.signal(Approved, Approval("ada"))
    assert_type(await elsewhere.result(), Receipt)
    return await ctx.wait_for(child)


@workflow
async def rest(ctx: Context, order: Order) -> Receipt:
    await ctx.emit(Paid, Decimal(1), id="paid")
    await ctx.emit(Tick)
    await ctx.note("checked by hand", by="ada", text="note", self=1)
    await ctx.set_value("progress", 0.4)
    await ctx.rollback()
    async with ctx.saga() as nothing:
        assert_type(nothing, None)
        receipt = await ctx.step(reserve, order.items)
    assert_type(ctx.patched("validate-card"), bool)
    assert_type(ctx.now(), datetime)
    assert_type(ctx.uuid4(), UUID)
    assert_type(ctx.random, random.Random)
    assert_type(ctx.log, logging.LoggerAdapter[logging.Logger])
    assert_type(ctx.execution_id, str)
    assert_type(ctx.workflow_name, str)
    assert_type(ctx.version, str)
    assert_type(ctx.attempt, int)
    assert_type(ctx.tags, Mapping[str, str])
    assert_type(ctx.is_replaying, bool)
    assert_type(ctx.deps, object)
    if order.tier == "premium":
        later: str = ctx.continue_as_new(order)
    elif order.items:
        later = receipt.text
    else:
        ctx.bail("nothing to do")
    return Receipt(later)


async def saga_returns(ctx: Context, order: Order) -> Receipt:
    async with ctx.saga():
        return await ctx.step(reserve, order.items)


async def helper(ctx: Context) -> None: ...


async def client(durable: Durable, order: Order) -> None:
    shape = describe(fulfil)
    assert_type(shape, WorkflowShape)
    assert_type(durable.describe(nightly), WorkflowShape)
    assert_type(shape.nodes[0].timeout, str | None)
    assert_type(shape.to_json(), str)
    handle = await durable.start(fulfil, order, key="order:1", delay="1h", retry=3, tags={"a": "b"})
    assert_type(handle, Handle[Receipt])
    assert_type(await durable.start(nightly), Handle[int])
    assert_type(await durable.start(optional_input), Handle[str])
    assert_type(await durable.start_and_wait(fulfil, order, timeout="30s"), Receipt)
    assert_type(await durable.start_and_wait(nightly), int)
    assert_type(durable.handle("order-1", with_options), Handle[Receipt])
    assert_type(durable.handle("order-1"), Handle[object])
    await durable.signal("order-1", Approved, Approval("ada"), key="k")
    await durable.signal("order-1", Ping)
    await durable.signal("order-1", Decided, Rejection("no"))


async def sending(durable: Durable) -> None:
    receipt = await durable.send(Paid, Decimal(1), id="payment-1")
    assert_type(receipt, Sent)
    assert_type(receipt.duplicate, bool)
    assert_type(await durable.send(Tick), Sent)
    assert_type(await durable.send_many([(Paid, Decimal(1), "payment-2"), (Tick, None)]), list[Sent])


async def schedules(durable: Durable, order: Order) -> None:
    schedule = await durable.ensure_schedule(
        fulfil,
        order,
        id="daily",
        cron="0 3 * * *",
        tz="Europe/London",
        catchup="all",
        overlap="skip",
        jitter="10s",
    )
    assert_type(schedule, Schedule)
    assert_type(schedule.next_fire_at, datetime | None)
    assert_type(await durable.ensure_schedule(nightly, id="nightly", interval=timedelta(hours=1)), Schedule)
    assert_type(await durable.schedule(fulfil, order, at=datetime.now().astimezone()), Handle[Receipt])
    assert_type(await durable.schedule(nightly, delay="1h", key="k", tags={"a": "b"}), Handle[int])
    assert_type(await durable.get_schedule("daily"), Schedule)
    assert_type(await durable.list_schedules(), list[Schedule])
    assert_type(await durable.update_schedule("daily", input=order, interval="1h"), Schedule)
    assert_type(await durable.next_fires("daily", 3), list[datetime])
    await durable.pause_schedule("daily")
    await durable.resume_schedule("daily")
    await durable.trigger_schedule("daily")
    await durable.backfill_schedule("daily", since=now(), until=now())
    await durable.remove_schedule("daily")
    for queue in await durable.operator.queues():
        assert_type(queue, QueueInfo)
    for limit in await durable.operator.held_limits():
        assert_type(limit, LimitInfo)
    await durable.operator.set_limit("limited/concurrency", 3)
    await durable.operator.set_limit("limited/concurrency", None)
    Durable([limited], store="memory://", limits=limits)


def now() -> datetime:
    return datetime.now().astimezone()


async def handles(handle: Handle[Receipt], with_deps: Context[Deps]) -> None:
    assert_type(handle.id, str)
    assert_type(handle.created, bool)
    assert_type(handle.workflow, AnyWorkflow | None)
    assert_type(await handle.result(), Receipt)
    assert_type(await handle.result(timeout="30s"), Receipt)
    assert_type(await handle.wait(5), Receipt)
    assert_type(await handle.signal(Approved, Approval("ada"), key="k"), None)
    assert_type(await handle.signal(Ping), None)
    assert_type(await handle.signal(Decided, Rejection("no")), None)
    assert_type(await handle.signal(Maybe, None), None)
    assert_type(await handle.cancel("fraud"), None)
    assert_type(await handle.cancel(), None)
    assert_type(await handle.cancel("fraud", by="ada"), None)
    assert_type(await handle.status(), Execution)
    assert_type(await handle.value("progress"), object)
    anything: Handle[object] = handle
    await anything.result()
    await helper(with_deps)
    any_length: Step[[str], Coroutine[Any, Any, object]] = step(length)
    await any_length("x")
    await release(Receipt(""))
