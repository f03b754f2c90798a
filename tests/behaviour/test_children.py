"""Children: executions that a workflow starts once, waits for, and takes down with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable import (
    CompensationFailed,
    Completed,
    Context,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionNotFound,
    Fail,
    Handle,
    InvalidInput,
    Retry,
    Signal,
    TimedOut,
    workflow,
)
from tests.support import World, ends, of, reaches, records, steps

Go = Signal("go")
Number = Signal("number", int)


@workflow
async def double(ctx: Context, number: int) -> int:
    return number * 2


@workflow
async def patient(ctx: Context) -> int:
    return await ctx.wait_for_signal(Number)


@workflow(retry=1)
async def failing(ctx: Context) -> None:
    raise Fail("no stock", code="no_stock", details={"sku": "a"})


@workflow(retry=1)
async def stuck(ctx: Context) -> None:
    def release(_: object) -> None:
        raise ConnectionError("warehouse")

    await ctx.step("reserve").up(lambda: 1).down(release)
    await ctx.rollback()


async def test_run_gives_the_result_of_a_child(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> int:
        return await ctx.run(double, 1) + await ctx.run(double, 10)

    node = await world.node(parent, double)
    handle = await node.start(parent)
    assert await handle.result(5) == 22
    children = (await node.operator.list_executions(workflow="double")).items
    assert {child.parent_id for child in children} == {handle.id}
    assert len({child.id for child in children}) == 2


async def test_a_child_is_started_once_however_often_its_parent_is_replayed(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> str:
        child = await ctx.start(patient)
        await ctx.wait_for_signal(Go)
        return child.id

    node = await world.node(parent, patient)
    handle = await node.start(parent)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    child_id = await node.handle(handle.id, parent).result(5)
    assert [e.id for e in (await node.operator.list_executions(workflow="patient")).items] == [child_id]


async def test_a_started_child_is_waited_for_later(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> int:
        child = await ctx.start(patient)
        await ctx.set_value("child", child.id)
        await ctx.wait_for_signal(Go)
        return await ctx.wait_for(child)

    node = await world.node(parent, patient)
    handle = await node.start(parent)
    await reaches(handle, "waiting")
    child_id = await handle.value("child")
    assert isinstance(child_id, str)
    await node.signal(child_id, Number, 5)
    await node.handle(child_id).result(5)
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, parent).result(5) == 5


async def test_a_handle_in_a_body_waits_for_a_result_too(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> int:
        child = await ctx.start(double, 4)
        return await child.result()

    node = await world.node(parent, double)
    assert await node.start_and_wait(parent, timeout=5) == 8


async def test_a_child_that_has_ended_is_no_reason_to_wait(world: World) -> None:
    @workflow
    async def parent(ctx: Context, child_id: str) -> int:
        return await ctx.wait_for(ctx.handle(child_id, double))

    node = await world.node(parent, double)
    child = await node.start(double, 3)
    await child.result(5)
    assert await node.start_and_wait(parent, child.id, timeout=5) == 6


async def test_a_wait_for_a_child_times_out_and_leaves_it_alone(still_world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> list[str]:
        child = await ctx.start(patient)
        outcomes = []
        for _ in range(2):
            match await ctx.wait_for(child, timeout="1h"):
                case Completed(value):
                    outcomes.append(f"completed with {value}")
                case TimedOut():
                    outcomes.append("timed out")
        return outcomes

    node = await still_world.node(parent, patient)
    handle = await node.start(parent)
    await still_world.advance("90m")
    (child,) = await of(node, "patient")
    assert child.status == "waiting"
    await node.signal(child.id, Number, 7)
    await still_world.until_idle()
    assert await handle.result(5) == ["timed out", "completed with 7"]


@pytest.mark.parametrize("way", ["run", "wait_for"])
async def test_a_failed_child_raises_in_its_parent(world: World, way: str) -> None:
    @workflow
    async def parent(ctx: Context) -> Any:
        try:
            if way == "run":
                await ctx.run(failing)
            else:
                await ctx.wait_for(await ctx.start(failing))
        except ExecutionFailed as error:
            return error.workflow, error.attempt, error.code, error.message, error.details

    node = await world.node(parent, failing)
    outcome = await node.start_and_wait(parent, timeout=5)
    assert list(outcome) == ["failing", 1, "no_stock", "no stock", {"sku": "a"}]


async def test_a_failed_child_raises_the_same_on_a_replay(world: World) -> None:
    seen: list[tuple[object, ...]] = []

    @workflow
    async def parent(ctx: Context) -> None:
        try:
            await ctx.run(failing)
        except ExecutionFailed as error:
            seen.append((error.execution_id, error.workflow, error.code, error.details, error.message))
        await ctx.wait_for_signal(Go)

    node = await world.node(parent, failing)
    handle = await node.start(parent)
    await records(node, handle, "go")
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    await node.handle(handle.id, parent).result(5)
    assert len(seen) >= 2
    assert len(set(map(repr, seen))) == 1


async def test_a_cancelled_child_raises_in_its_parent(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> str:
        try:
            await ctx.run(patient)
        except ExecutionCancelled as error:
            return error.message
        return "?"

    node = await world.node(parent, patient)
    handle = await node.start(parent)
    await reaches(handle, "waiting")
    (child,) = await of(node, "patient")
    await node.cancel(child.id, "no need")
    assert await handle.result(5) == "no need"


async def test_a_child_that_could_not_be_rolled_back_raises_in_its_parent(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> str:
        try:
            await ctx.run(stuck)
        except CompensationFailed as error:
            return error.message
        return "?"

    node = await world.node(parent, stuck)
    assert await node.start_and_wait(parent, timeout=5) == "warehouse"


async def test_a_failure_of_a_child_that_nobody_catches_fails_the_parent(world: World) -> None:
    @workflow(retry=1)
    async def parent(ctx: Context) -> None:
        await ctx.run(failing)

    node = await world.node(parent, failing)
    with pytest.raises(ExecutionFailed, match="no stock"):
        await node.start_and_wait(parent, timeout=5)


async def test_a_retried_parent_runs_a_failed_child_again_and_keeps_a_completed_one(world: World) -> None:
    ran: list[str] = []

    @workflow(retry=1)
    async def flaky(ctx: Context) -> str:
        ran.append("flaky")
        if ran.count("flaky") == 1:
            raise ConnectionError
        return "at last"

    @workflow
    async def steady(ctx: Context) -> str:
        return await ctx.step("steady", lambda: ran.append("steady") or "steady")

    @workflow(retry=Retry(3, base="1ms"))
    async def parent(ctx: Context) -> list[str]:
        return [await ctx.run(steady), await ctx.run(flaky)]

    node = await world.node(parent, flaky, steady)
    assert await node.start_and_wait(parent, timeout=5) == ["steady", "at last"]
    assert ran.count("steady") == 1
    assert ran.count("flaky") == 2


# ---- ids


async def test_the_same_name_again_is_another_child(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> list[int]:
        handles = [await ctx.start(double, n) for n in (1, 2)]
        named = await ctx.start(double, 3, id="third")
        return [await ctx.wait_for(handle) for handle in (*handles, named)]

    node = await world.node(parent, double)
    handle = await node.start(parent)
    assert await handle.result(5) == [2, 4, 6]
    recorded = [id for id, step in (await steps(node, handle)).items() if step.kind == "start"]
    assert recorded == ["double", "double#2", "third"]


async def test_children_side_by_side(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> list[int]:
        return list(await ctx.gather(*(ctx.run(double, n) for n in range(20))))

    node = await world.node(parent, double)
    assert await node.start_and_wait(parent, timeout=10) == [n * 2 for n in range(20)]


async def test_grandchildren(world: World) -> None:
    @workflow
    async def middle(ctx: Context, number: int) -> int:
        return await ctx.run(double, number) + 1

    @workflow
    async def parent(ctx: Context) -> int:
        return await ctx.run(middle, 5)

    node = await world.node(parent, middle, double)
    assert await node.start_and_wait(parent, timeout=5) == 11


# ---- cancelling


async def test_children_are_cancelled_with_their_parent_unless_detached(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> None:
        await ctx.start(patient, id="attached")
        await ctx.start(patient, id="detached", detached=True)
        await ctx.run(patient, id="awaited")

    node = await world.node(parent, patient)
    handle = await node.start(parent)
    await reaches(handle, "waiting")
    children = await of(node, "patient", 3)
    await handle.cancel("fraud")
    assert (await ends(handle)).status == "cancelled"
    for child in children:
        name = child.id.rpartition("/")[2]
        if name == "detached":
            assert (await node.status(child.id)).status in ("pending", "running", "waiting")
        else:
            ended = await ends(node.handle(child.id))
            assert ended.status == "cancelled"
            assert ended.error is not None
            assert ended.error.message == "fraud"


async def test_grandchildren_are_cancelled_too(world: World) -> None:
    @workflow
    async def middle(ctx: Context) -> int:
        return await ctx.run(patient)

    @workflow
    async def parent(ctx: Context) -> int:
        return await ctx.run(middle)

    node = await world.node(parent, middle, patient)
    handle = await node.start(parent)
    (grandchild,) = await of(node, "patient")
    await reaches(handle, "waiting")
    await handle.cancel("stop")
    assert (await ends(node.handle(grandchild.id))).status == "cancelled"


async def test_children_that_are_not_waited_for_live_on_when_their_parent_completes(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> str:
        return (await ctx.start(patient)).id

    node = await world.node(parent, patient)
    child_id = await node.start_and_wait(parent, timeout=5)
    child = node.handle(child_id, patient)
    await reaches(child, "waiting")
    await child.signal(Number, 1)
    assert await child.result(5) == 1


async def test_a_parent_cancels_its_child_by_its_handle(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> str:
        child = await ctx.start(patient)
        await child.cancel("changed my mind")
        try:
            await ctx.wait_for(child)
        except ExecutionCancelled as error:
            return error.message
        return "?"

    node = await world.node(parent, patient)
    assert await node.start_and_wait(parent, timeout=5) == "changed my mind"


async def test_a_parent_signals_its_child_once(world: World) -> None:
    @workflow
    async def summing(ctx: Context) -> list[object]:
        first = await ctx.wait_for_signal(Number)
        return [first, (await ctx.wait_for_signal(Number, timeout=0.05)).kind]

    @workflow
    async def parent(ctx: Context) -> Any:
        child = await ctx.start(summing)
        await child.signal(Number, 4)
        await ctx.wait_for_signal(Go)
        return await ctx.wait_for(child)

    node = await world.node(parent, summing)
    handle = await node.start(parent)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, parent).result(5) == [4, "timeout"]


# ---- mistakes


async def test_waiting_for_oneself_is_refused(world: World) -> None:
    @workflow
    async def lonely(ctx: Context) -> str:
        try:
            await ctx.wait_for(ctx.handle(ctx.execution_id, lonely))
        except InvalidInput as error:
            return str(error)
        return "?"

    node = await world.node(lonely)
    assert "itself" in await node.start_and_wait(lonely, timeout=5)


async def test_waiting_for_nobody_raises(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> str:
        try:
            await ctx.wait_for(ctx.handle("nobody", double))
        except ExecutionNotFound as error:
            return error.execution_id
        return "?"

    node = await world.node(parent, double)
    assert await node.start_and_wait(parent, timeout=5) == "nobody"


async def test_waiting_for_an_execution_of_another_workflow_raises(world: World) -> None:
    @workflow
    async def parent(ctx: Context, child_id: str) -> str:
        try:
            await ctx.wait_for(ctx.handle(child_id, patient))
        except InvalidInput as error:
            return str(error)
        return "?"

    node = await world.node(parent, double, patient)
    child = await node.start(double, 1)
    await child.result(5)
    text = await node.start_and_wait(parent, child.id, timeout=5)
    assert "patient" in text
    assert "double" in text


async def test_an_invalid_input_for_a_child_raises_and_starts_nothing(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> str:
        try:
            await ctx.run(double, "no number")  # type: ignore[arg-type]
        except InvalidInput:
            return "refused"
        return "?"

    node = await world.node(parent, double)
    assert await node.start_and_wait(parent, timeout=5) == "refused"
    assert (await node.operator.list_executions(workflow="double")).items == []


async def test_a_child_whose_workflow_this_node_lacks_is_run_by_one_that_has_it(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> int:
        return await ctx.run(double, 2)

    first = await world.node(parent)
    await world.node(double)
    handle: Handle[int] = await first.start(parent)
    assert await handle.result(5) == 4


async def test_many_parents_wait_for_one_execution(world: World) -> None:
    @workflow
    async def follower(ctx: Context, target: str) -> int:
        return await ctx.wait_for(ctx.handle(target, patient))

    node = await world.node(follower, patient)
    target = await node.start(patient)
    followers = [await node.start(follower, target.id) for _ in range(10)]
    for handle in followers:
        await reaches(handle, "waiting")
    await target.signal(Number, 9)
    assert await asyncio.gather(*(handle.result(5) for handle in followers)) == [9] * 10
