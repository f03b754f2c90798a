"""Cancelling: in every state, with its reason, and with time to clean up."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from durable import (
    Context,
    Durable,
    ExecutionCancelled,
    ExecutionNotFound,
    Fail,
    Handle,
    Retry,
    Signal,
    current_step,
    workflow,
)
from tests.support import World, ends, reaches, steps, until

Go = Signal("go")
Number = Signal("number", int)


async def cancelled(handle: Handle[Any], reason: str) -> None:
    execution = await ends(handle)
    assert execution.status == "cancelled"
    with pytest.raises(ExecutionCancelled) as error:
        await handle.result(5)
    assert error.value.message == reason
    assert error.value.code == "cancelled"


@workflow
async def sleeping(ctx: Context) -> None:
    await ctx.sleep("1h")


@workflow
async def waiting(ctx: Context) -> None:
    await ctx.wait_for_signal(Go, timeout="1h")


@workflow
async def backing_off(ctx: Context) -> None:
    def fail() -> None:
        raise ConnectionError

    await ctx.step("fail", retry=Retry(5, base="1h")).up(fail)


@workflow(retry=Retry(5, base="1h"))
async def retrying(ctx: Context) -> None:
    raise ConnectionError


@workflow
async def with_child(ctx: Context) -> None:
    await ctx.run(waiting)


@pytest.mark.parametrize("fresh", [False, True], ids=["kept", "after a restart"])
@pytest.mark.parametrize(
    "cancelled_while", [sleeping, waiting, backing_off, retrying, with_child], ids=lambda w: w.name
)
async def test_an_execution_that_waits_is_cancelled_at_once(
    still_world: World, cancelled_while: Any, fresh: bool
) -> None:
    node = await still_world.node(cancelled_while, waiting)
    handle = await node.start(cancelled_while)
    await still_world.until_idle()
    if fresh:
        node = await still_world.restart()
        handle = node.handle(handle.id)
    await handle.cancel("fraud", by="ada")
    await cancelled(handle, "fraud")
    await still_world.advance("6h")
    assert (await handle.status()).status == "cancelled"
    [act] = [e for e in (await node.operator.get_execution_detail(handle.id)).audit if e.kind == "cancel"]
    assert act.details == {"reason": "fraud", "by": "ada"}


async def test_an_execution_that_nobody_began_is_cancelled_without_a_worker(world: World) -> None:
    client = await world.node(sleeping, worker=False)
    for handle in (await client.start(sleeping), await client.start(sleeping, delay="1d")):
        await handle.cancel("too late")
        await cancelled(handle, "too late")
        assert (await handle.status()).started_at is None


async def test_a_delayed_start_that_was_cancelled_never_runs(still_world: World) -> None:
    ran: list[int] = []

    @workflow
    async def later(ctx: Context) -> None:
        ran.append(1)

    node = await still_world.node(later)
    handle = await node.start(later, delay="1h")
    await handle.cancel("no")
    await still_world.advance("2h")
    await cancelled(handle, "no")
    assert ran == []


async def test_a_running_step_is_told_and_cancelled(world: World) -> None:
    begun, seen = asyncio.Event(), []

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(current_step().cancelled)
            raise

    @workflow
    async def busy(ctx: Context) -> None:
        await ctx.step("slow", slow)

    node = await world.node(busy)
    handle = await node.start(busy)
    await begun.wait()
    await handle.cancel("stop")
    await cancelled(handle, "stop")
    assert seen == [True]


async def test_a_step_in_a_thread_is_told_and_ends_by_itself(world: World) -> None:
    begun = threading.Event()

    def busy_loop() -> str:
        begun.set()
        for _ in range(500):
            if current_step().cancelled:
                return "stopped"
            threading.Event().wait(0.01)
        return "never told"

    @workflow
    async def busy(ctx: Context) -> str:
        return await ctx.step("slow", busy_loop)

    node = await world.node(busy)
    handle = await node.start(busy)
    await until(begun.is_set)
    await handle.cancel("stop")
    await cancelled(handle, "stop")


async def test_a_step_on_another_node_is_told(world: World) -> None:
    begun = asyncio.Event()

    async def slow() -> None:
        begun.set()
        await asyncio.Event().wait()

    @workflow
    async def busy(ctx: Context) -> None:
        await ctx.step("slow", slow)

    await world.node(busy)
    client: Durable = await world.node(busy, worker=False)
    handle = await client.start(busy)
    await begun.wait()
    await handle.cancel("from afar")
    await cancelled(handle, "from afar")


async def test_no_step_begins_after_a_cancel(world: World) -> None:
    ran: list[str] = []
    begun = asyncio.Event()

    async def slow() -> None:
        begun.set()
        await asyncio.Event().wait()

    @workflow
    async def busy(ctx: Context) -> None:
        await ctx.gather(ctx.step("slow", slow), ctx.step("other", retry=Retry(9, base="10ms")).up(failing))
        await ctx.step("next", ran.append, "next")

    async def failing() -> None:
        raise ConnectionError

    node = await world.node(busy)
    handle = await node.start(busy)
    await begun.wait()
    await handle.cancel("stop")
    await cancelled(handle, "stop")
    assert ran == []
    assert "next" not in await steps(node, handle)


# ---- the body


async def test_a_cancel_reaches_the_body_as_a_cancelled_error(world: World) -> None:
    seen: list[str] = []

    @workflow
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.wait_for_signal(Go)
        except asyncio.CancelledError:
            seen.append(await ctx.step("clean", lambda: "cleaned up"))
            raise

    node = await world.node(tidy)
    handle = await node.start(tidy)
    await reaches(handle, "waiting")
    await handle.cancel("stop")
    await cancelled(handle, "stop")
    assert seen == ["cleaned up"]
    assert "clean" in await steps(node, handle)


async def test_cleaning_up_goes_on_after_a_restart(world: World) -> None:
    ran: list[str] = []
    begun, release = asyncio.Event(), asyncio.Event()

    async def clean() -> None:
        begun.set()
        await release.wait()
        ran.append("clean")

    @workflow
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.step("work", ran.append, "work")
            await ctx.wait_for_signal(Go)
            await ctx.step("never", ran.append, "never")
        except asyncio.CancelledError:
            await ctx.step("first", ran.append, "first")
            await ctx.step("clean", clean)
            raise

    node = await world.node(tidy)
    handle = await node.start(tidy)
    await reaches(handle, "waiting")
    await handle.cancel("stop")
    await begun.wait()
    node = await world.restart()
    release.set()
    await cancelled(node.handle(handle.id), "stop")
    assert ran == ["work", "first", "clean"]


async def test_cleaning_up_may_wait_and_sleep(still_world: World) -> None:
    @workflow
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.sleep("1d")
        except asyncio.CancelledError:
            await ctx.sleep("1h")
            await ctx.step("clean", lambda: None)
            raise

    node = await still_world.node(tidy)
    handle = await node.start(tidy)
    await still_world.until_idle()
    await handle.cancel("stop")
    await still_world.until_idle()
    assert (await handle.status()).status == "sleeping"
    await still_world.advance("1h")
    await cancelled(handle, "stop")


async def test_a_body_may_roll_back_when_it_is_cancelled(world: World) -> None:
    undone: list[int] = []

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step("a").up(lambda: 1).down(undone.append)
        await ctx.step("b").up(lambda: 2).down(undone.append)
        try:
            await ctx.wait_for_signal(Go)
        except asyncio.CancelledError:
            await ctx.rollback()
            raise

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await handle.cancel("stop")
    await cancelled(handle, "stop")
    assert undone == [2, 1]


@pytest.mark.parametrize("how", ["returns", "raises", "fails"])
async def test_a_body_that_swallows_its_cancel_ends_as_cancelled_all_the_same(world: World, how: str) -> None:
    @workflow
    async def stubborn(ctx: Context) -> str:
        try:
            await ctx.wait_for_signal(Go)
        except asyncio.CancelledError:
            if how == "raises":
                raise ValueError("instead") from None
            if how == "fails":
                raise Fail("instead", code="other") from None
        return "never mind"

    node = await world.node(stubborn)
    handle = await node.start(stubborn)
    await reaches(handle, "waiting")
    await handle.cancel("stop")
    await cancelled(handle, "stop")


async def test_a_finally_of_the_body_may_do_durable_things_when_it_is_cancelled(world: World) -> None:
    ran: list[str] = []

    @workflow
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.wait_for_signal(Go)
        finally:
            await ctx.step("finally", ran.append, "finally")

    node = await world.node(tidy)
    handle = await node.start(tidy)
    await reaches(handle, "waiting")
    await handle.cancel("stop")
    await cancelled(handle, "stop")
    assert ran == ["finally"]


async def test_branches_are_cancelled_with_the_body(world: World) -> None:
    seen: list[str] = []

    @workflow
    async def order(ctx: Context) -> None:
        async def branch(name: str) -> None:
            try:
                await ctx.wait_for_signal(Go)
            except asyncio.CancelledError:
                seen.append(name)
                raise

        await ctx.gather(branch("a"), branch("b"))

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await handle.cancel("stop")
    await cancelled(handle, "stop")
    assert sorted(seen[-2:]) == ["a", "b"]


# ---- races and mistakes


async def test_the_first_reason_is_kept(world: World) -> None:
    client = await world.node(waiting, worker=False)
    node = await world.node(waiting)
    handle = await node.start(waiting)
    await reaches(handle, "waiting")
    await world.stop(node)
    await client.cancel(handle.id, "first")
    await client.cancel(handle.id, "second")
    node = await world.node(waiting)
    await cancelled(node.handle(handle.id), "first")


async def test_cancelling_what_has_ended_does_nothing(world: World) -> None:
    @workflow
    async def quick(ctx: Context) -> int:
        return 1

    node = await world.node(quick)
    handle = await node.start(quick)
    assert await handle.result(5) == 1
    await handle.cancel("too late")
    assert (await handle.status()).status == "completed"
    assert await handle.result(5) == 1


async def test_cancelling_nobody_is_an_error(world: World) -> None:
    node = await world.node(waiting)
    with pytest.raises(ExecutionNotFound):
        await node.cancel("nobody", "x")


async def test_after_a_cancel_a_signal_has_no_effect(world: World) -> None:
    node = await world.node(waiting)
    handle = await node.start(waiting)
    await reaches(handle, "waiting")
    await asyncio.gather(handle.cancel("stop"), handle.signal(Go), return_exceptions=True)
    assert (await ends(handle)).status in ("cancelled", "completed")


async def test_a_cancel_that_races_the_end_gives_one_final_state(world: World) -> None:
    @workflow
    async def one(ctx: Context) -> int:
        return await ctx.wait_for_signal(Number)

    async def trial(number: int) -> str:
        handle = await node.start(one)
        await handle.signal(Number, number)
        for _ in range(number % 12):
            await asyncio.sleep(0)
        await handle.cancel("late")
        ended = await ends(handle)
        later = await handle.status()
        assert (later.status, later.result, later.error) == (ended.status, ended.result, ended.error)
        assert ended.result == (number if ended.status == "completed" else None)
        return ended.status

    node = await world.node(one)
    outcomes = await asyncio.gather(*(trial(number) for number in range(60)))
    assert set(outcomes) <= {"completed", "cancelled"}


async def test_a_cancel_is_no_failure_that_is_tried_again(world: World) -> None:
    ran: list[int] = []

    @workflow(retry=Retry(5, base="1ms"))
    async def order(ctx: Context) -> None:
        ran.append(ctx.attempt)
        await ctx.wait_for_signal(Go)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await handle.cancel("stop")
    await cancelled(handle, "stop")
    assert set(ran) == {1}


async def test_a_hostile_reason_is_kept_as_text(world: World) -> None:
    reason = "<script>\x00'; DROP TABLE -- \u202e \ud83d" + "x" * 20_000
    node = await world.node(waiting)
    handle = await node.start(waiting)
    await reaches(handle, "waiting")
    await handle.cancel(reason)
    execution = await ends(handle)
    assert execution.error is not None
    assert execution.error.message.startswith("<script>\x00'; DROP TABLE -- \u202e ")


# ---- bail


async def test_bail_ends_as_cancelled_with_its_reason_and_no_retry(world: World) -> None:
    ran: list[int] = []

    @workflow
    async def order(ctx: Context) -> None:
        ran.append(1)
        try:
            ctx.bail("rejected by ada")
        except Exception:
            ran.append(2)

    node = await world.node(order)
    handle = await node.start(order)
    await cancelled(handle, "rejected by ada")
    assert (await handle.status()).attempt == 1
    assert ran == [1]


async def test_bail_from_a_branch(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        async def branch() -> None:
            await ctx.step("a", lambda: 1)
            ctx.bail("from a branch")

        await ctx.gather(branch(), ctx.wait_for_signal(Go))

    node = await world.node(order)
    await cancelled(await node.start(order), "from a branch")


async def test_bail_from_a_task_group(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        async def branch() -> None:
            await ctx.step("a", lambda: 1)
            ctx.bail("from a group")

        async with asyncio.TaskGroup() as group:
            group.create_task(branch())
            group.create_task(ctx.wait_for_signal(Go))

    node = await world.node(order)
    await cancelled(await node.start(order), "from a group")


async def test_bail_cancels_the_children(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> None:
        await ctx.start(waiting)
        ctx.bail("enough")

    node = await world.node(parent, waiting)
    await cancelled(await node.start(parent), "enough")
    (child,) = (await node.operator.list_executions(workflow="waiting")).items
    await cancelled(node.handle(child.id), "enough")
