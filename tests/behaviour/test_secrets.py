"""What executions carry is shown to nobody by the way: not by a log, an error's text or a `repr`.

Each of these values is looked for by `tests.canary` in all that its test logs, raises and prints.
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from durable import (
    Context,
    ExecutionFailed,
    InvalidInput,
    KeyConflict,
    Retry,
    Signal,
    current_step,
    workflow,
)
from tests.canary import PAYLOAD
from tests.support import World, reaches

Paid = Signal("paid", str)
Amount = Signal("amount", int)


class Card(BaseModel):
    number: str
    cents: int = 0


@workflow
async def order(ctx: Context, card: Card) -> str:
    charged = await ctx.step("charge", retry=Retry(2, base="1ms")).up(charge, card.number)
    return charged + await ctx.wait_for_signal(Paid)


def charge(number: str) -> str:
    if current_step().attempt == 1:
        raise ConnectionError("the bank is away")
    return number


async def test_inputs_results_and_signals_are_shown_nowhere(world: World) -> None:
    node = await world.node(order)
    handle = await node.start(order, Card(number=PAYLOAD))
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Paid, PAYLOAD)
    again = node.handle(handle.id, order)
    assert await again.result(10) == PAYLOAD + PAYLOAD  # so they were carried
    assert PAYLOAD not in f"{handle!r} {node!r} {node.operator!r} {order!r} {Paid!r} {world.store()!r}"


async def test_a_failure_shows_what_its_error_says_and_no_argument(world: World) -> None:
    @workflow(retry=Retry(3, base="1ms"))
    async def failing(ctx: Context, number: str) -> str:
        return await ctx.step("charge", no_bank, number)

    def no_bank(number: str) -> str:
        raise ConnectionError("the bank is away")

    node = await world.node(failing)
    handle = await node.start(failing, PAYLOAD)
    with pytest.raises(ExecutionFailed, match="the bank is away"):
        await handle.result(10)


@pytest.mark.parametrize("card", [PAYLOAD, {"number": [PAYLOAD]}, {"number": "1", "cents": PAYLOAD}])
async def test_an_input_that_does_not_validate_is_not_shown(world: World, card: Any) -> None:
    node = await world.node(order)
    with pytest.raises(InvalidInput):
        await node.start(order, card)


async def test_a_signal_that_does_not_validate_is_not_shown(world: World) -> None:
    @workflow
    async def counting(ctx: Context) -> int:
        return await ctx.wait_for_signal(Amount)

    node = await world.node(counting)
    handle = await node.start(counting)
    with pytest.raises(InvalidInput):
        await handle.signal(Amount, PAYLOAD)  # type: ignore[arg-type]


async def test_another_input_for_a_key_is_not_shown(world: World) -> None:
    node = await world.node(order)
    await node.start(order, Card(number=PAYLOAD), key="k")
    with pytest.raises(KeyConflict):
        await node.start(order, Card(number=f"{PAYLOAD} too"), key="k")


async def test_a_result_that_cannot_be_stored_is_not_shown(world: World) -> None:
    class Odd:
        def __repr__(self) -> str:
            return PAYLOAD

    @workflow
    async def odd(ctx: Context) -> object:
        return await ctx.step("odd", lambda: {"card": Odd()})

    node = await world.node(odd)
    handle = await node.start(odd)
    assert "Odd" in str((await reaches(handle, "parked")).error)


async def test_a_result_that_is_too_large_is_not_shown(world: World) -> None:
    @workflow
    async def large(ctx: Context) -> object:
        return await ctx.step("large", lambda: PAYLOAD * 1_000_000)

    node = await world.node(large)
    handle = await node.start(large)
    assert "large" in str((await reaches(handle, "parked")).error)


async def test_a_replay_that_does_not_fit_shows_no_record(world: World) -> None:
    @workflow(name="changing")
    async def before(ctx: Context, number: str) -> str:
        paid = await ctx.step("charge", lambda: number)
        return paid + await ctx.wait_for_signal(Paid)

    @workflow(name="changing")
    async def after(ctx: Context, number: str) -> str:
        await ctx.sleep("1ms", id="charge")
        return await ctx.wait_for_signal(Paid)

    node = await world.node(before)
    handle = await node.start(before, PAYLOAD)
    await reaches(handle, "waiting")
    node = await world.restart(after)
    await node.signal(handle.id, Paid, PAYLOAD)
    await reaches(node.handle(handle.id, after), "parked")
