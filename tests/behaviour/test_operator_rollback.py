"""An operator's rollback: what was completed is undone, whatever the workflow says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from durable import Context, Durable, Failure, Handle, InvalidInput, WrongStatus, step, workflow
from durable.testing import DurableEnv, crash_everywhere
from durable.workflow import AnyWorkflow
from tests.behaviour.test_compensation import Go, Ledger, is_over
from tests.support import World, ends, reaches, until


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


class Journey:
    """Without a rollback of its own: by a flight to a hotel, and on from there."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.follows = "wait"

    @property
    def workflow(self) -> AnyWorkflow:
        @workflow(name="journey", retry=1)
        async def journey(ctx: Context) -> None:
            await self._ledger.call(ctx, "flight")
            await self._ledger.call(ctx, "hotel")
            match self.follows:
                case "fail":
                    raise ConnectionError("no route")
                case "step":
                    await ctx.step("hang", self._hang)
                case "sleep":
                    await ctx.sleep("1h", id="go")
                case _:
                    await ctx.wait_for_signal(Go)
            await self._ledger.call(ctx, "car")

        return journey

    async def _hang(self) -> None:
        self._ledger.lines.append("hang")
        await asyncio.sleep(60)


UNDONE = ["do flight", "do hotel", "undo hotel", "undo flight"]


async def rollbacks(node: Durable, handle: Handle[Any]) -> list[Mapping[str, object]]:
    """What the audit says of them."""
    audit = (await node.operator.get_execution_detail(handle.id)).audit
    return [entry.details for entry in audit if (entry.kind, entry.name) == ("operator", "rollback")]


@pytest.mark.parametrize("follows", ["wait", "pause", "step"])
async def test_what_an_operator_rolls_back_ends_as_cancelled(
    world: World, ledger: Ledger, follows: str
) -> None:
    journey = Journey(ledger)
    journey.follows = follows
    node = await world.node(journey.workflow)
    handle = await node.start(journey.workflow)
    if follows == "step":
        await until(lambda: "hang" in ledger.lines)
        ledger.lines.remove("hang")
    else:
        await reaches(handle, "waiting")
    if follows == "pause":
        await node.operator.pause(handle.id)
        await reaches(handle, "paused")
    await node.operator.rollback(handle.id, "they stay at home", by="ada")
    execution = await ends(handle)
    assert (execution.status, execution.code) == ("cancelled", "cancelled")
    assert execution.error is not None
    assert execution.error.message == "they stay at home"
    assert ledger.lines == UNDONE
    [details] = await rollbacks(node, handle)
    assert (details["by"], details["reason"]) == ("ada", "they stay at home")
    assert "refused" not in details


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_what_ended_without_a_rollback_can_be_rolled_back_once(
    world: World, ledger: Ledger, end: str
) -> None:
    journey = Journey(ledger)
    journey.follows = "fail" if end == "failed" else "wait"
    node = await world.node(journey.workflow)
    handle = await node.start(journey.workflow)
    if end == "cancelled":
        await reaches(handle, "waiting")
        await handle.cancel("enough")
    ended = await ends(handle)
    await node.operator.rollback(handle.id, by="ada")
    await until(lambda: ledger.lines == UNDONE)
    again = await ends(handle)
    assert (again.status, again.error, again.code) == (end, ended.error, ended.code)
    with pytest.raises(InvalidInput, match="was rolled back"):
        await node.operator.rollback(handle.id)
    assert ledger.lines == UNDONE


@pytest.mark.parametrize("is_broken", [False, True])
async def test_a_failure_that_is_rolled_back_is_told_once_and_a_compensation_that_fails_then_as_well(
    one_index_world: World, ledger: Ledger, is_broken: bool
) -> None:
    told: list[str] = []

    @workflow
    async def mourn(ctx: Context, failure: Failure) -> None:
        told.append(failure.message)

    @workflow(retry=1, on_failure=mourn)
    async def order(ctx: Context) -> None:
        await ledger.call(ctx, "a")
        raise ConnectionError("no route")

    if is_broken:
        ledger.broken.add("a")
    node = await one_index_world.node(order, mourn)
    handle = await node.start(order)
    await until(lambda: told == ["no route"])
    await node.operator.rollback(handle.id)
    await until(lambda: len(ledger.lines) == 2)
    ended = await ends(handle)
    if is_broken:
        await until(lambda: told == ["no route", "a"])
    else:
        assert ended.status == "failed"
        assert len((await node.operator.list_executions(workflow="mourn")).items) == 1


async def test_a_rollback_that_an_operator_asks_for_stops_at_what_cannot_be_undone(
    world: World, ledger: Ledger
) -> None:
    journey = Journey(ledger)
    ledger.broken.add("flight")
    node = await world.node(journey.workflow)
    handle = await node.start(journey.workflow)
    await reaches(handle, "waiting")
    await node.operator.rollback(handle.id, "enough")
    await reaches(handle, "compensation_failed")
    with pytest.raises(WrongStatus):
        await node.operator.rollback(handle.id)
    ledger.broken.clear()
    await node.operator.retry_rollback(handle.id)
    assert (await is_over(handle)).status == "cancelled"
    assert ledger.lines == ["do flight", "do hotel", "undo hotel", "cannot undo flight", "undo flight"]


async def test_what_is_parked_is_rolled_back_once_its_code_fits(world: World, ledger: Ledger) -> None:
    journey = Journey(ledger)
    node = await world.node(journey.workflow)
    handle = await node.start(journey.workflow)
    await reaches(handle, "waiting")
    journey.follows = "sleep"
    node = await world.restart(journey.workflow)
    handle = node.handle(handle.id, journey.workflow)
    await node.operator.rollback(handle.id, "enough")
    await reaches(handle, "parked")
    assert ledger.lines == ["do flight", "do hotel"]
    journey.follows = "wait"
    node = await world.restart(journey.workflow)
    handle = node.handle(handle.id, journey.workflow)
    await node.operator.retry(handle.id)
    execution = await ends(handle)
    assert (execution.status, execution.error and execution.error.message) == ("cancelled", "enough")
    assert ledger.lines == UNDONE


async def test_what_is_over_or_completed_is_not_rolled_back(world: World) -> None:
    @workflow
    async def quick(ctx: Context) -> None: ...

    node = await world.node(quick)
    handle = await node.start(quick)
    await ends(handle)
    with pytest.raises(WrongStatus, match="rollback does not apply"):
        await node.operator.rollback(handle.id)


@step
async def book(what: str) -> str:
    return what


@book.undo
async def unbook(what: str) -> None: ...


@workflow
async def trip(ctx: Context) -> None:
    await ctx.step(book, "flight")
    await ctx.step(book, "hotel")
    await ctx.wait_for_signal(Go)


async def give_up(env: DurableEnv, handle: Handle[None]) -> None:
    await env.until_idle()
    await env.durable.operator.rollback(handle.id, "enough")


async def test_an_operators_rollback_survives_a_crash_at_every_write() -> None:
    report = await crash_everywhere(trip, workflows=[trip], drive=give_up)
    assert report.writes > 4
