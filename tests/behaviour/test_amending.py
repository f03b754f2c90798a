"""Steps whose result a person gives: skipped or edited, and the body goes on with that."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from durable import (
    Context,
    Durable,
    ExecutionFailed,
    ExecutionNotFound,
    Handle,
    InvalidInput,
    NotSerializable,
    Retry,
    Signal,
    WrongStatus,
    step,
    workflow,
)
from durable.models import AuditEntry
from tests.support import World, ends, reaches, records, steps, until

Go = Signal("go")


@dataclass
class Charge:
    id: str
    cents: int


class Till:
    """What steps have done."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken = True

    async def charge(self, order: str) -> Charge:
        self.calls.append("charge")
        if self.broken:
            raise ConnectionError("no route")
        return Charge("real", 100)

    async def ship(self, charge: Charge) -> str:
        self.calls.append(f"ship {charge.id}")
        return f"shipped {charge.id} {charge.cents}"


def itself(number: int) -> int:
    return number


async def acts(node: Durable, handle: Handle[object]) -> list[AuditEntry]:
    detail = await node.operator.get_execution_detail(handle.id)
    return [entry for entry in detail.audit if entry.kind == "operator"]


async def test_a_failed_step_is_skipped_and_its_execution_goes_on(world: World) -> None:
    till = Till()

    @workflow(retry=1)
    async def order(ctx: Context, id: str) -> str:
        charge = await ctx.step("charge", till.charge, id)
        return await ctx.step("ship", till.ship, charge)

    node = await world.node(order)
    handle = await node.start(order, "42")
    assert (await ends(handle)).status == "failed"
    await node.operator.skip_step(handle.id, "charge", Charge("by hand", 7), by="ada")
    assert await handle.result(5) == "shipped by hand 7"
    assert till.calls == ["charge", "ship by hand"]
    record = (await steps(node, handle))["charge"]
    assert (record.status, record.result) == ("completed", {"id": "by hand", "cents": 7})
    (act,) = await acts(node, handle)
    assert act.name == "skip_step"
    assert (act.details["by"], act.details["step_id"]) == ("ada", "charge")
    assert act.details["value"] == {"id": "by hand", "cents": 7}
    assert "refused" not in act.details


async def test_a_step_that_is_to_be_tried_again_is_skipped(world: World) -> None:
    till = Till()

    @workflow
    async def order(ctx: Context) -> str:
        charge = await ctx.step("charge", retry=Retry(5, base="1h")).up(till.charge, "42")
        return await ctx.step("ship", till.ship, charge)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "retrying")
    await node.operator.skip_step(handle.id, "charge", {"id": "json", "cents": 1})
    assert await handle.result(5) == "shipped json 1"
    assert till.calls == ["charge", "ship json"]


async def test_a_step_is_skipped_between_two_attempts_of_the_run(world: World) -> None:
    till = Till()

    @workflow(retry=Retry(3, base="1h"))
    async def order(ctx: Context) -> str:
        charge = await ctx.step("charge", till.charge, "42")
        return await ctx.step("ship", till.ship, charge)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "retrying")
    await node.operator.skip_step(handle.id, "charge", Charge("given", 3))
    assert await handle.result(5) == "shipped given 3"
    assert till.calls == ["charge", "ship given"]
    assert (await steps(node, handle))["charge"].name == "charge"


async def test_a_step_that_hangs_is_cancelled_and_skipped_while_others_end(world: World) -> None:
    began, cut, may_end, ran = asyncio.Event(), asyncio.Event(), asyncio.Event(), [0, 0]

    async def hang() -> str:
        ran[0] += 1
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()
        return "never"

    async def steady() -> str:
        ran[1] += 1
        await may_end.wait()
        return "done"

    @workflow
    async def both(ctx: Context) -> list[str]:
        return list(await ctx.gather(ctx.step("hang", hang), ctx.step("steady", steady)))

    node = await world.node(both)
    handle = await node.start(both)
    await began.wait()
    await node.operator.skip_step(handle.id, "hang", "by hand")
    await cut.wait()
    may_end.set()
    assert await handle.result(5) == ["by hand", "done"]
    assert ran == [1, 1]


async def test_a_step_that_swallows_its_cancellation_is_skipped_all_the_same(world: World) -> None:
    began = asyncio.Event()

    async def stubborn() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "swallowed"
        return "?"

    @workflow
    async def one(ctx: Context) -> str:
        return await ctx.step("stubborn", stubborn)

    node = await world.node(one)
    handle = await node.start(one)
    await began.wait()
    await node.operator.skip_step(handle.id, "stubborn", "by hand")
    assert await handle.result(5) == "by hand"


async def test_a_sleep_is_skipped(world: World) -> None:
    @workflow
    async def nap(ctx: Context) -> str:
        await ctx.sleep("3d", id="cool-down")
        return "awake"

    node = await world.node(nap)
    handle = await node.start(nap)
    await reaches(handle, "sleeping")
    with pytest.raises(InvalidInput, match="nothing"):
        await node.operator.skip_step(handle.id, "cool-down", 1)
    await node.operator.skip_step(handle.id, "cool-down", None)
    assert await handle.result(5) == "awake"


async def test_a_compensation_that_fails_is_skipped_and_the_rollback_goes_on(world: World) -> None:
    undone: list[str] = []

    async def void(what: str) -> None:
        if what == "b":
            raise ConnectionError("still no route")
        undone.append(what)

    @workflow(rollback="on_failure", retry=1)
    async def order(ctx: Context) -> None:
        await ctx.step("a").up(lambda: "a").down(void)
        await ctx.step("b").up(lambda: "b").down(void)
        raise RuntimeError("no")

    node = await world.node(order)
    handle = await node.start(order)
    assert (await ends(handle)).status == "compensation_failed"
    op = node.operator
    with pytest.raises(InvalidInput, match="nothing"):
        await op.skip_step(handle.id, "rollback:b", "value")
    with pytest.raises(InvalidInput, match="completed"):
        await op.skip_step(handle.id, "a", "value")
    await op.skip_step(handle.id, "rollback:b", None, by="ada")
    with pytest.raises(ExecutionFailed, match="no"):
        await handle.result(5)
    assert undone == ["a"]


async def test_a_compensation_gets_the_edited_result(world: World) -> None:
    undone: list[int] = []

    async def void(number: int) -> None:
        if number == 1:
            raise ConnectionError("no such charge")
        undone.append(number)

    @workflow(rollback="on_failure", retry=1)
    async def order(ctx: Context) -> None:
        await ctx.step("charge").up(lambda: 1).down(void)
        await ctx.step("ship").up(lambda: 2).down(void)
        raise RuntimeError("no")

    node = await world.node(order)
    handle = await node.start(order)
    assert (await ends(handle)).status == "compensation_failed"
    await node.operator.edit_step_result(handle.id, "charge", 7)
    with pytest.raises(ExecutionFailed):
        await handle.result(5)
    assert undone == [2, 7]


async def test_an_edited_result_is_what_the_body_sees(world: World) -> None:
    seen: list[int] = []

    @workflow
    async def patient(ctx: Context) -> int:
        number = await ctx.step("number", lambda: 1)
        other = await ctx.step("other", lambda: 10)
        seen.append(number)
        await ctx.wait_for_signal(Go)
        return number + other

    node = await world.node(patient)
    handle = await node.start(patient)
    await reaches(handle, "waiting")
    await node.operator.edit_step_result(handle.id, "number", 5)
    await until(lambda: 5 in seen)
    await handle.signal(Go)
    assert await handle.result(5) == 15
    assert [record.id for record in (await steps(node, handle)).values()] == ["number", "other", "go"]


async def test_a_failed_execution_runs_again_with_the_edited_result(world: World) -> None:
    @workflow(retry=1)
    async def strict(ctx: Context) -> int:
        number = await ctx.step("number", lambda: -1)
        return await ctx.step("root", lambda: round(number**0.5) if number >= 0 else 1 // 0)

    node = await world.node(strict)
    handle = await node.start(strict)
    assert (await ends(handle)).status == "failed"
    await node.operator.edit_step_result(handle.id, "number", 49)
    assert await handle.result(5) == 7


async def test_edited_steps_keep_their_place_in_a_rollback(world: World) -> None:
    undone: list[int] = []

    @workflow
    async def order(ctx: Context) -> None:
        for number in (1, 2, 3):
            await ctx.step(f"s{number}").up(itself, number).down(undone.append)
        await ctx.wait_for_signal(Go)
        await ctx.rollback()

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await node.operator.edit_step_result(handle.id, "s1", 11)
    await handle.signal(Go)
    await handle.result(5)
    assert undone == [3, 2, 11]


async def test_a_value_that_does_not_fit_parks_the_execution_until_another_is_given(world: World) -> None:
    till = Till()

    @workflow(retry=1)
    async def order(ctx: Context) -> str:
        charge = await ctx.step("charge", till.charge, "42")
        return await ctx.step("ship", till.ship, charge)

    node = await world.node(order)
    handle = await node.start(order)
    assert (await ends(handle)).status == "failed"
    await node.operator.skip_step(handle.id, "charge", {"no": "charge"})
    parked = await reaches_again(handle, "parked")
    assert parked == "not_serializable"
    assert "step 'charge'" in await node.operator.explain(handle.id)
    await node.operator.edit_step_result(handle.id, "charge", Charge("mended", 2))
    assert await handle.result(5) == "shipped mended 2"


async def reaches_again(handle: Handle[object], status: str) -> str | None:
    """The code, when one that had ended has come to a status."""

    async def has_it() -> bool:
        return (await handle.status()).status == status

    await until(has_it)
    return (await handle.status()).code


async def test_what_cannot_be_amended_is_refused_before_anything_is_stored(world: World) -> None:
    @step
    async def work() -> int:
        return 1

    @workflow
    async def patient(ctx: Context) -> int:
        number = await ctx.step(work)
        await ctx.wait_for_signal(Go)
        return number

    node = await world.node(patient)
    handle = await node.start(patient)
    await reaches(handle, "waiting")
    op = node.operator
    with pytest.raises(InvalidInput, match="no step 'wrok'") as unknown:
        await op.skip_step(handle.id, "wrok", 1)
    assert "'work'" in unknown.value.hint
    with pytest.raises(InvalidInput, match="no step"):
        await op.edit_step_result(handle.id, "__attempt:1", 1)
    with pytest.raises(InvalidInput, match="completed") as completed:
        await op.skip_step(handle.id, "work", 1)
    assert "edit_step_result" in completed.value.hint
    with pytest.raises(InvalidInput, match="wait_for_signal") as wait:
        await op.skip_step(handle.id, "go", 1)
    assert "signal" in wait.value.hint
    with pytest.raises(InvalidInput, match="wait_for_signal"):
        await op.edit_step_result(handle.id, "go", 1)
    with pytest.raises(NotSerializable):
        await op.edit_step_result(handle.id, "work", object())
    with pytest.raises(InvalidInput):
        await op.edit_step_result(handle.id, "hostile\r\nid", 1)
    with pytest.raises(ExecutionNotFound):
        await op.edit_step_result("nobody", "work", 1)
    assert await acts(node, handle) == []
    await handle.signal(Go)
    await handle.result(5)
    with pytest.raises(WrongStatus, match="completed"):
        await op.edit_step_result(handle.id, "work", 1)


async def test_what_was_rolled_back_is_not_amended(world: World) -> None:
    @workflow(rollback="on_failure", retry=1)
    async def order(ctx: Context) -> None:
        await ctx.step("charge").up(lambda: 1).down(lambda number: None)
        await ctx.step("ship", lambda: 1 // 0)

    node = await world.node(order)
    handle = await node.start(order)
    assert (await ends(handle)).status == "failed"
    for act in (node.operator.skip_step, node.operator.edit_step_result):
        with pytest.raises(InvalidInput, match=r"rolled back|failed and has no result"):
            await act(handle.id, "ship", 1)


async def test_a_skip_that_comes_too_late_is_recorded_as_refused(world: World) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        began.set()
        await may_end.wait()
        return "itself"

    @workflow
    async def two(ctx: Context) -> list[str]:
        return [await ctx.step("slow", slow), await ctx.step("next", lambda: "next")]

    node = await world.node(two)
    handle = await node.start(two)
    await began.wait()
    await node.operator.skip_step(handle.id, "unheard-of", "x")
    may_end.set()
    assert await handle.result(5) == ["itself", "next"]
    (act,) = await acts(node, handle)
    assert act.details["refused"] is True


async def test_parents_are_told_of_a_child_that_a_skip_has_mended(world: World) -> None:
    till = Till()

    @workflow(retry=1)
    async def child(ctx: Context) -> str:
        return (await ctx.step("charge", retry=Retry(9, base="1h")).up(till.charge, "42")).id

    @workflow
    async def parent(ctx: Context) -> str:
        return await ctx.run(child, id="kid")

    node = await world.node(parent, child)
    handle = await node.start(parent)
    await records(node, handle, "kid")
    kid = node.handle(f"{handle.id}/kid", child)
    await reaches(kid, "retrying")
    await node.operator.skip_step(kid.id, "charge", Charge("mended", 1))
    assert await handle.result(5) == "mended"
