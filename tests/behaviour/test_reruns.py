"""Reruns: a new execution like another one, from its start or from one of its steps."""

from __future__ import annotations

import pytest

from durable import (
    Concurrency,
    Context,
    ExecutionFailed,
    ExecutionNotFound,
    InvalidInput,
    KeyConflict,
    Signal,
    workflow,
)
from tests.support import World, ends, reaches, records, steps

Go = Signal("go", int)


class Ledger:
    """What steps have done, and whether the last one is broken."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken = True

    async def do(self, what: str) -> str:
        self.calls.append(what)
        return f"{what} done"

    async def fragile(self, what: str) -> str:
        self.calls.append(what)
        if self.broken:
            raise ConnectionError("no route")
        return f"{what} done"


async def test_a_rerun_begins_anew_with_the_same_input_and_tells_whom_it_repeats(world: World) -> None:
    ledger = Ledger()

    @workflow(version="7", queue="default", priority=3, tags={"kind": "order"}, timeout="1h")
    async def order(ctx: Context, id: str) -> str:
        return await ctx.step("ship", ledger.do, id)

    node = await world.node(order)
    first = await node.start(order, "42", tags={"tenant": "t"})
    await first.result(5)
    second = await node.operator.rerun(first.id, by="ada")
    assert second.id != first.id
    assert await second.result(5) == "42 done"
    assert ledger.calls == ["42", "42"]
    one, two = await first.status(), await second.status()
    assert (two.rerun_of, two.rerun_from, two.parent_id) == (first.id, None, first.id)
    assert one.rerun_of is None
    for same in ("workflow", "version", "queue", "priority", "tags", "input"):
        assert getattr(two, same) == getattr(one, same)
    created = (await node.operator.get_execution_detail(second.id)).audit[0]
    assert (created.kind, created.details["rerun_of"], created.details["by"]) == ("created", first.id, "ada")
    found = (await node.operator.list_executions(parent_id=first.id)).items
    assert [each.id for each in found] == [second.id]


async def test_a_rerun_from_a_step_copies_what_was_recorded_before_it(world: World) -> None:
    ledger = Ledger()

    @workflow(retry=1)
    async def order(ctx: Context, id: str) -> list[object]:
        drawn = [str(ctx.uuid4()), ctx.random.random()]
        reserved = await ctx.step("reserve", ledger.do, f"reserve {id}")
        await ctx.set_value("progress", 0.5)
        signalled = await ctx.wait_for_signal(Go)
        shipped = await ctx.step("ship", ledger.fragile, "ship")
        return [*drawn, reserved, signalled, shipped]

    node = await world.node(order)
    first = await node.start(order, "42")
    await reaches(first, "waiting")
    await first.signal(Go, 5)
    assert (await ends(first)).status == "failed"
    ledger.broken = False
    second = await node.operator.rerun(first.id, from_step="ship")
    result = await second.result(5)
    assert ledger.calls == ["reserve 42", "ship", "ship"]
    assert isinstance(result, list)
    assert result[2:] == ["reserve 42 done", 5, "ship done"]
    assert await second.value("progress") == 0.5
    assert (await first.status()).status == "failed"
    await node.operator.retry(first.id)
    assert (await first.result(5)) == result, "chance gives the same in both"
    copied = await steps(node, second)
    assert copied["reserve"].result == "reserve 42 done"
    assert (await second.status()).rerun_from == "ship"


async def test_a_rerun_may_have_another_input(world: World) -> None:
    ledger = Ledger()

    @workflow
    async def order(ctx: Context, cents: int) -> list[str]:
        kept = await ctx.step("kept", ledger.do, f"kept {cents}")
        return [kept, await ctx.step("again", ledger.do, f"again {cents}")]

    node = await world.node(order)
    first = await node.start(order, 1)
    await first.result(5)
    second = await node.operator.rerun(first.id, from_step="again", input=2)
    assert await second.result(5) == ["kept 1 done", "again 2 done"]
    assert (await second.status()).input == 2
    with pytest.raises(InvalidInput, match="input of workflow order"):
        await node.operator.rerun(first.id, input="many")


async def test_children_are_kept_and_are_not_cancelled_with_the_rerun(world: World) -> None:
    @workflow
    async def kid(ctx: Context) -> int:
        return await ctx.wait_for_signal(Go)

    @workflow
    async def parent(ctx: Context) -> int:
        child = await ctx.start(kid, id="kid")
        await ctx.step("between", lambda: 1)
        return await ctx.wait_for(child)

    node = await world.node(parent, kid)
    first = await node.start(parent)
    await records(node, first, "wait_for")
    second = await node.operator.rerun(first.id, from_step="between")
    third = await node.operator.rerun(first.id, from_step="between")
    await records(node, second, "wait_for")
    await records(node, third, "wait_for")
    await second.cancel("not this one")
    assert (await ends(second)).status == "cancelled"
    child = node.handle(f"{first.id}/kid", kid)
    assert (await child.status()).status == "waiting"
    await child.signal(Go, 9)
    assert [await first.result(5), await third.result(5)] == [9, 9]


async def test_a_failure_that_the_body_has_caught_is_copied(world: World) -> None:
    ledger = Ledger()

    @workflow
    async def order(ctx: Context) -> list[str]:
        try:
            await ctx.step("fragile", ledger.fragile, "fragile")
        except ConnectionError:
            seen = "caught"
        else:
            seen = "fine"
        return [seen, await ctx.step("ship", ledger.do, "ship")]

    node = await world.node(order)
    first = await node.start(order)
    await first.result(5)
    ledger.broken = False
    second = await node.operator.rerun(first.id, from_step="ship")
    assert await second.result(5) == ["caught", "ship done"]


async def test_a_rerun_of_a_rerun_is_one_too(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        drawn = str(ctx.uuid4())
        await ctx.step("a", lambda: 1)
        await ctx.step("b", lambda: 2)
        return drawn

    node = await world.node(order)
    first = await node.start(order)
    drawn = await first.result(5)
    second = await node.operator.rerun(first.id, from_step="b")
    await second.result(5)
    third = await node.operator.rerun(second.id, from_step="b")
    fourth = await node.operator.rerun(second.id)
    assert [await second.result(5), await third.result(5)] == [drawn, drawn]
    assert await fourth.result(5) != drawn
    assert (await third.status()).rerun_of == second.id


async def test_what_was_undone_is_not_copied(world: World) -> None:
    @workflow(rollback="on_failure", retry=1)
    async def order(ctx: Context) -> None:
        await ctx.step("first", lambda: 0)
        await ctx.step("charge").up(lambda: 1).down(lambda number: None)
        await ctx.step("ship", lambda: 1 // 0)

    node = await world.node(order)
    handle = await node.start(order)
    assert (await ends(handle)).status == "failed"
    with pytest.raises(InvalidInput, match="charge, which comes before ship, was undone") as undone:
        await node.operator.rerun(handle.id, from_step="ship")
    assert "charge" in undone.value.hint
    again = await node.operator.rerun(handle.id, from_step="charge")
    with pytest.raises(ExecutionFailed):
        await again.result(5)


async def test_a_rerun_keeps_to_the_limits_of_its_workflow(world: World) -> None:
    @workflow(concurrency=Concurrency(1, key="tenant", hold="run"))
    async def order(ctx: Context, input: dict[str, str]) -> int:
        return await ctx.wait_for_signal(Go)

    node = await world.node(order)
    first = await node.start(order, {"tenant": "a"})
    await reaches(first, "waiting")
    same = await node.operator.rerun(first.id)
    other = await node.operator.rerun(first.id, input={"tenant": "b"})
    await reaches(other, "waiting")
    assert (await same.status()).status == "pending"
    await first.signal(Go, 1)
    await reaches(same, "waiting")
    client = await world.node(worker=False)
    with pytest.raises(InvalidInput, match="not known here"):
        await client.operator.rerun(first.id)


async def test_a_client_that_knows_no_workflow_can_rerun(world: World) -> None:
    @workflow
    async def order(ctx: Context, number: int) -> int:
        return number

    node = await world.node(order)
    first = await node.start(order, 1)
    await first.result(5)
    client = await world.node(worker=False)
    assert await (await client.operator.rerun(first.id)).result(5) == 1
    assert await (await client.operator.rerun(first.id, input=2)).result(5) == 2
    odd = await client.operator.rerun(first.id, input="odd")
    await reaches(odd, "parked")


async def test_a_rerun_with_a_key_is_made_once(world: World) -> None:
    @workflow
    async def order(ctx: Context, number: int) -> int:
        return number

    node = await world.node(order)
    first = await node.start(order, 1)
    one = await node.operator.rerun(first.id, key="again")
    two = await node.operator.rerun(first.id, key="again")
    assert (one.id, one.created, two.created) == (two.id, True, False)
    with pytest.raises(KeyConflict):
        await node.operator.rerun(first.id, input=2, key="again")


async def test_a_rerun_of_nobody_or_from_nowhere_is_refused(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step("charge", lambda: 1)

    node = await world.node(order)
    first = await node.start(order)
    await first.result(5)
    with pytest.raises(ExecutionNotFound):
        await node.operator.rerun("nobody")
    with pytest.raises(InvalidInput, match="no step 'chrage'") as unknown:
        await node.operator.rerun(first.id, from_step="chrage")
    assert "'charge'" in unknown.value.hint
    with pytest.raises(InvalidInput, match="no step"):
        await node.operator.rerun(first.id, from_step="__attempt:1")
    assert len((await node.operator.list_executions()).items) == 1
