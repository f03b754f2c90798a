"""Events: sent once, to everyone whom they concern."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from durable import (
    Batch,
    Concurrency,
    ConfigurationError,
    Context,
    Event,
    ExecutionStatus,
    InvalidInput,
    On,
    Received,
    TimedOut,
    workflow,
)
from tests.support import World, ends, of, reaches, steps


class Payment(BaseModel):
    order_id: int | str
    amount: float = 0
    customer: dict[str, Any] = {}


Paid = Event("payment.received", Payment)
Refunded = Event("payment.refunded", Payment)
Cancelled = Event("order.cancelled", Payment)
Ping = Event("ping")


@workflow(on=[Paid])
async def bill(ctx: Context, payment: Payment) -> list[object]:
    return [payment.order_id, [cause.id for cause in ctx.events]]


@workflow(on=[On(Paid, when={"customer.vip": True}), Refunded])
async def gift(ctx: Context, payment: Payment) -> str:
    return f"gift for {payment.order_id}"


@workflow
async def awaits(ctx: Context, order_id: int | str) -> float | str:
    match await ctx.wait_for_event(Paid, match={"order_id": order_id}, timeout="7d"):
        case Received(payment, name) as received:
            assert (name, received.kind) == ("payment.received", "event")
            return payment.amount
        case TimedOut(kind):
            return kind


def paid(order_id: int | str = 1, amount: float = 0, **customer: object) -> Payment:
    return Payment(order_id=order_id, amount=amount, customer=customer)


# ---- starting


async def test_every_subscribed_workflow_gets_its_own_execution(world: World) -> None:
    node = await world.node(bill, gift)
    receipt = await node.send(Paid, paid(7, vip=True))
    assert not receipt.duplicate
    results = [await node.handle(id).result(10) for id in receipt.execution_ids]
    assert results == [[7, [receipt.id]], "gift for 7"]


async def test_an_event_that_nobody_asked_for_is_stored_and_starts_nothing(world: World) -> None:
    node = await world.node(bill)
    receipt = await node.send(Ping)
    assert list(receipt.execution_ids) == []
    assert (await node.send(Ping, id=receipt.id)).duplicate


async def test_when_decides_over_the_payload(world: World) -> None:
    @workflow(on=[On(Paid, when=lambda payment: payment.amount > 100)])
    async def big(ctx: Context, payment: Payment) -> float:
        return payment.amount

    node = await world.node(gift, big)
    assert len((await node.send(Paid, paid(vip=1))).execution_ids) == 0  # True is not 1
    assert len((await node.send(Paid, paid(vip=True))).execution_ids) == 1
    [started] = (await node.send(Paid, paid(amount=101))).execution_ids
    assert await node.handle(started).result(10) == 101


async def test_what_is_missing_in_the_payload_equals_nothing_not_even_none(world: World) -> None:
    @workflow(on=[On(Paid, when={"customer.city": None})])
    async def homeless(ctx: Context, payment: Payment) -> None: ...

    node = await world.node(homeless)
    assert list((await node.send(Paid, paid())).execution_ids) == []
    assert list((await node.send(Paid, paid(city={"name": None}))).execution_ids) == []
    assert len((await node.send(Paid, paid(city=None))).execution_ids) == 1


async def test_functions_that_decide_see_what_their_workflow_declares_whoever_sends(world: World) -> None:
    @workflow(
        on=[On(Paid, when=lambda payment: payment.amount > 100)],
        concurrency=Concurrency(1, key=lambda payment: payment.order_id),
        priority=lambda payment: int(payment.amount),
    )
    async def big(ctx: Context, payment: Payment) -> float:
        return payment.amount

    node = await world.node(big)
    untyped = Event("payment.received", dict[str, Any])
    [started] = (await node.send(untyped, {"order_id": 1, "amount": 101})).execution_ids
    assert await node.handle(started).result(10) == 101
    assert (await node.status(started)).priority == 101
    assert list((await node.send(untyped, {"order_id": 1, "amount": 99})).execution_ids) == []


async def test_a_node_without_the_workflow_starts_it_all_the_same(world: World) -> None:
    await world.node(gift)
    sender = await world.node(worker=False)
    [started] = (await sender.send(Paid, paid(3, vip=True))).execution_ids
    assert await sender.handle(started).result(10) == "gift for 3"


async def test_a_node_without_the_function_that_decides_says_so(world: World) -> None:
    @workflow(on=[On(Paid, when=lambda payment: True)])
    async def secret(ctx: Context, payment: Payment) -> None: ...

    await world.node(secret)
    sender = await world.node(worker=False)
    with pytest.raises(ConfigurationError, match="secret"):
        await sender.send(Paid, paid(), id="e")


async def test_the_same_id_counts_once_also_at_the_same_moment(world: World) -> None:
    nodes = [await world.node(bill) for _ in range(2)]
    receipts = await asyncio.gather(*[nodes[n % 2].send(Paid, paid(n), id="once") for n in range(20)])
    assert [receipt.duplicate for receipt in receipts].count(False) == 1
    assert len({tuple(receipt.execution_ids) for receipt in receipts}) == 1
    [started] = receipts[0].execution_ids
    await nodes[0].handle(started).result(10)
    assert len(await of(nodes[0], "bill")) == 1


async def test_many_are_sent_all_or_none(world: World) -> None:
    node = await world.node(bill)
    receipts = await node.send_many([(Paid, paid(n), f"e{n}") for n in range(20)])
    assert [receipt.id for receipt in receipts] == [f"e{n}" for n in range(20)]
    with pytest.raises(InvalidInput, match="101"):
        await node.send_many([(Paid, paid(n), None) for n in range(101)])
    with pytest.raises(InvalidInput):
        await node.send_many([(Paid, paid(1), "new"), (Paid, {"wrong": 1}, None)])
    assert not (await node.send(Paid, paid(1), id="new")).duplicate
    assert len(await of(node, "bill", 21)) == 21


async def test_events_that_no_workflow_asks_for_any_more_start_nothing(world: World) -> None:
    @workflow(name="bill", version="2")
    async def bill2(ctx: Context, payment: Payment) -> None: ...

    node = await world.node(bill)
    node = await world.restart(bill2)
    assert list((await node.send(Paid, paid())).execution_ids) == []


async def test_a_batch_collects_events_and_knows_them(still_world: World) -> None:
    @workflow(on=[Paid], batch=Batch(3, every="1h"))
    async def collect(ctx: Context, payments: list[Payment]) -> list[object]:
        return [[payment.order_id for payment in payments], [cause.id for cause in ctx.events]]

    node = await still_world.node(collect, sweep=3600)
    receipts = [await node.send(Paid, paid(n), id=f"e{n}") for n in range(3)]
    assert len({tuple(receipt.execution_ids) for receipt in receipts}) == 1
    await still_world.until_idle()
    [collected] = receipts[0].execution_ids
    assert await node.handle(collected).result(1) == [[0, 1, 2], ["e0", "e1", "e2"]]


# ---- waiting


async def test_only_those_wait_to_an_end_whom_it_concerns(world: World) -> None:
    node = await world.node(awaits)
    handles = [await node.start(awaits, order) for order in (7, 7, "7", 8)]
    for handle in handles:
        await reaches(handle, "waiting")
    receipt = await node.send(Paid, paid(7, 5))
    assert set(receipt.execution_ids) == {handles[0].id, handles[1].id}
    assert [await handle.result(10) for handle in handles[:2]] == [5, 5]
    await node.send(Paid, paid("7", 6))
    assert await handles[2].result(10) == 6
    assert (await handles[3].status()).status is ExecutionStatus.WAITING


async def test_one_event_starts_and_resumes(world: World) -> None:
    node = await world.node(awaits, bill)
    handle = await node.start(awaits, 7)
    await reaches(handle, "waiting")
    receipt = await node.send(Paid, paid(7, 5))
    assert len(receipt.execution_ids) == 2
    assert await handle.result(10) == 5


async def test_an_event_that_came_since_the_execution_began_counts(world: World) -> None:
    node = await world.node(awaits, worker=False)
    await node.send(Paid, paid(7, 4))
    await asyncio.sleep(0.01)  # instants are milliseconds
    handle = await node.start(awaits, 7)
    await node.send(Paid, paid(8, 5))
    await node.send(Paid, paid(7, 6))
    await world.node(awaits)
    assert await handle.result(10) == 6


async def test_looking_back_is_as_long_as_one_says(still_world: World) -> None:
    @workflow
    async def looks(ctx: Context, back: str | None) -> float | str:
        await ctx.sleep("1h")
        outcome = await ctx.wait_for_event(Paid, lookback=back, timeout="1s")
        return outcome.payload.amount if isinstance(outcome, Received) else outcome.kind

    node = await still_world.node(looks, sweep=3600)
    await node.send(Paid, paid(amount=1))
    await still_world.advance("1m")
    backs = (None, "0s", "10m", "50m", "2h")
    handles = [await node.start(looks, back) for back in backs]
    await still_world.advance("20m")
    await node.send(Paid, paid(amount=2))
    await still_world.advance("2h")
    assert [await handle.result(1) for handle in handles] == [2, "timeout", "timeout", 2, 1]


async def test_each_event_is_received_by_one_wait_of_an_execution(world: World) -> None:
    @workflow
    async def three(ctx: Context) -> list[float]:
        return [(await ctx.wait_for_event(Paid)).amount for _ in range(3)]

    node = await world.node(three)
    handle = await node.start(three)
    for amount in range(3):
        await node.send(Paid, paid(amount=amount))
    assert await handle.result(10) == [0, 1, 2]
    assert list(await steps(node, handle)) == ["payment.received", "payment.received#2", "payment.received#3"]


async def test_what_started_an_execution_is_no_news_to_it(world: World) -> None:
    @workflow(on=[Paid])
    async def again(ctx: Context, payment: Payment) -> float:
        return (await ctx.wait_for_event(Paid, match={"order_id": payment.order_id})).amount

    node = await world.node(again)
    [started] = (await node.send(Paid, paid(1, 1))).execution_ids
    await reaches(node.handle(started), "waiting")
    await node.send(Paid, paid(1, 2))
    assert await node.handle(started).result(10) == 2


async def test_a_timeout_ends_the_wait_once_and_a_later_event_does_nothing(still_world: World) -> None:
    node = await still_world.node(awaits, sweep=3600)
    handle = await node.start(awaits, 7)
    await still_world.advance("7d")
    assert await handle.result(1) == "timeout"
    assert list((await node.send(Paid, paid(7))).execution_ids) == []


async def test_an_event_in_the_instant_of_the_wait_is_not_missed(world: World) -> None:
    node = await world.node(awaits)
    other = await world.node(worker=False)
    for order in range(20):
        handle = await node.start(awaits, order)
        await asyncio.sleep(order / 5000)
        await other.send(Paid, paid(order, order))
        assert await handle.result(10) == order


async def test_an_event_of_a_match_that_is_new_to_its_sender_is_not_missed(world: World) -> None:
    @workflow
    async def by_customer(ctx: Context, country: str) -> float:
        payment = await ctx.wait_for_event(Paid, match={"customer.country": country})
        return payment.amount

    node = await world.node(by_customer)
    handles = [await node.start(by_customer, country) for country in ("pe", "is")]
    for handle in handles:
        await reaches(handle, "waiting")
    await node.send(Paid, paid(amount=2, country="is"))
    assert await handles[1].result(10) == 2
    assert (await handles[0].status()).status is ExecutionStatus.WAITING


async def test_a_wait_for_an_event_survives_a_restart(world: World) -> None:
    node = await world.node(awaits)
    handle = await node.start(awaits, 7)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.send(Paid, paid(7, 3))
    assert await node.handle(handle.id, awaits).result(10) == 3


async def test_a_wait_that_the_body_gives_up_hears_no_more(world: World) -> None:
    @workflow
    async def gives_up(ctx: Context) -> str:
        impatient = asyncio.create_task(ctx.wait_for_event(Paid, timeout="1d"))
        await ctx.step("something", asyncio.sleep, 0.01)
        impatient.cancel()
        return f"{(await ctx.wait_for_event(Refunded)).order_id}"

    node = await world.node(gives_up)
    handle = await node.start(gives_up)
    await reaches(handle, "waiting")
    assert list((await node.send(Paid, paid("p"))).execution_ids) == []
    await node.send(Refunded, paid("r"))
    assert await handle.result(10) == "r"


async def test_whoever_answers_needs_no_execution_id_where_the_name_says_whom_it_concerns(
    world: World,
) -> None:
    def approval(order_id: str) -> Event[str]:
        return Event(f"approval:{order_id}", str)

    @workflow
    async def asks(ctx: Context, order_id: str) -> str:
        return await ctx.wait_for_event(approval(order_id))

    node = await world.node(asks)
    handles = [await node.start(asks, order_id) for order_id in ("a/1", "a/2")]
    for handle in handles:
        await reaches(handle, "waiting")
    other = await world.node(worker=False)
    for order_id in ("a/2", "a/1"):
        await other.send(approval(order_id), f"yes to {order_id}")
    assert [await handle.result(10) for handle in handles] == ["yes to a/1", "yes to a/2"]


# ---- keeping them


async def test_events_are_kept_until_an_operator_deletes_those_that_are_old(still_world: World) -> None:
    @workflow
    async def looks(ctx: Context) -> float | str:
        outcome = await ctx.wait_for_event(Paid, lookback="90d", timeout="1s")
        return outcome.payload.amount if isinstance(outcome, Received) else outcome.kind

    node = await still_world.node(looks, bill, sweep=3600)
    [billed] = (await node.send(Paid, paid(amount=1), id="old")).execution_ids
    await still_world.advance("31d")
    await node.send(Paid, paid(amount=2), id="recent")
    assert await node.operator.prune_events("60d") == 0
    assert await node.operator.prune_events() == 1
    handle = await node.start(looks)
    await still_world.until_idle()
    assert await handle.result(1) == 2
    assert (await node.status(billed)).status is ExecutionStatus.COMPLETED
    assert (await node.send(Paid, paid(), id="recent")).duplicate
    assert not (await node.send(Paid, paid(), id="old")).duplicate


# ---- sending from a body


async def test_emit_sends_once_however_often_the_workflow_replays(world: World) -> None:
    @workflow
    async def emits(ctx: Context) -> None:
        await ctx.emit(Paid, paid(7, 1, vip=True))
        await ctx.sleep(0.05)
        await ctx.emit(Paid, paid(7, 2))

    node = await world.node(emits, bill, gift, awaits)
    waiting = await node.start(awaits, 7)
    await reaches(waiting, "waiting")
    await node.start_and_wait(emits, timeout=10)
    assert await waiting.result(10) == 1
    for execution in await of(node, "bill", 2):
        await ends(node.handle(execution.id))
    assert len(await of(node, "bill", 2)) == 2
    assert len(await of(node, "gift", 1)) == 1


# ---- cancelling


async def test_an_event_cancels_those_whose_input_it_matches(world: World) -> None:
    @workflow(cancel_on=[On(Cancelled, match={"order_id": "order_id"})])
    async def order(ctx: Context, payment: Payment) -> None:
        await ctx.wait_for_event(Paid, match={"order_id": "never"})

    node = await world.node(order)
    handles = [await node.start(order, paid(n)) for n in (1, 2)]
    delayed = await node.start(order, paid(2), delay="1h")
    for handle in handles:
        await reaches(handle, "waiting")
    await node.send(Cancelled, paid(2))
    assert (await ends(handles[1])).status is ExecutionStatus.CANCELLED
    assert (await ends(delayed)).status is ExecutionStatus.CANCELLED
    assert (await handles[0].status()).status is ExecutionStatus.WAITING


# ---- bad input


async def test_a_payload_that_does_not_validate_is_refused_before_it_is_stored(world: World) -> None:
    node = await world.node(bill)
    with pytest.raises(InvalidInput):
        await node.send(Paid, {"amount": 1}, id="e")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        await node.send(Paid, paid(), id="} {")
    assert not (await node.send(Paid, paid(), id="e")).duplicate


@pytest.mark.parametrize("match", [{"": 1}, {"a..b": 1}, {"order_id": object()}])
async def test_a_bad_match_fails_the_body(world: World, match: dict[str, object]) -> None:
    @workflow(retry=1)
    async def bad(ctx: Context) -> None:
        await ctx.wait_for_event(Paid, match=match)

    node = await world.node(bad)
    assert "InvalidInput" in str((await ends(await node.start(bad))).error)
