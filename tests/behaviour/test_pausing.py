"""Pausing: nothing new begins, nothing that comes is lost, and it goes on where it was."""

from __future__ import annotations

import asyncio

import pytest

from durable import (
    Concurrency,
    Context,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionNotFound,
    Retry,
    Signal,
    WrongStatus,
    workflow,
)
from tests.support import World, ends, reaches, records, until

Go = Signal("go", int)


@workflow
async def patient(ctx: Context) -> int:
    first = await ctx.wait_for_signal(Go)
    return first + await ctx.step("again", lambda: 1)


async def test_a_paused_execution_keeps_what_comes_until_it_is_resumed(world: World) -> None:
    node = await world.node(patient)
    handle = await node.start(patient)
    await reaches(handle, "waiting")
    op = node.operator
    await op.pause(handle.id, by="ada")
    await op.pause(handle.id)
    await reaches(handle, "paused")
    await op.pause(handle.id)
    assert "paused" in await op.explain(handle.id)
    await handle.signal(Go, 41)
    assert (await handle.status()).status == "paused"
    await op.resume(handle.id, by="bob")
    assert await handle.result(5) == 42
    acts = [
        (entry.name, entry.details["by"])
        for entry in (await op.get_execution_detail(handle.id)).audit
        if entry.kind == "operator"
    ]
    assert acts[0] == ("pause", "ada")
    assert acts[-1] == ("resume", "bob")
    for act in (op.pause, op.resume):
        with pytest.raises(WrongStatus, match="completed"):
            await act(handle.id)
        with pytest.raises(ExecutionNotFound):
            await act("nobody")


async def test_only_what_is_paused_is_resumed(world: World) -> None:
    node = await world.node(patient)
    handle = await node.start(patient)
    await reaches(handle, "waiting")
    with pytest.raises(WrongStatus, match="waiting"):
        await node.operator.resume(handle.id)
    await handle.signal(Go, 1)
    assert await handle.result(5) == 2


async def test_a_pause_lets_the_steps_that_run_end_and_no_other_begin(world: World) -> None:
    began, may_end, ran = asyncio.Event(), asyncio.Event(), list[str]()

    async def slow() -> str:
        ran.append("slow")
        began.set()
        await may_end.wait()
        return "slow"

    async def swift() -> str:
        ran.append("swift")
        return "swift"

    @workflow
    async def two(ctx: Context) -> list[str]:
        return [await ctx.step("slow", slow), await ctx.step("swift", swift)]

    node = await world.node(two)
    handle = await node.start(two)
    await began.wait()
    await node.operator.pause(handle.id)
    may_end.set()
    await reaches(handle, "paused")
    assert ran == ["slow"]
    await node.operator.resume(handle.id)
    assert await handle.result(5) == ["slow", "swift"]
    assert ran == ["slow", "swift"]


async def test_what_is_paused_during_its_last_step_ends_with_it(world: World) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def last() -> str:
        began.set()
        await may_end.wait()
        return "last"

    @workflow
    async def one(ctx: Context) -> str:
        return await ctx.step("last", last)

    node = await world.node(one)
    handle = await node.start(one)
    await began.wait()
    await node.operator.pause(handle.id)

    async def is_applied() -> bool:
        return await node.operator.unread_acts(handle.id) == []

    await until(is_applied)
    may_end.set()
    assert await handle.result(5) == "last"
    with pytest.raises(WrongStatus, match="completed"):
        await node.operator.resume(handle.id)


async def test_a_pause_and_a_resume_that_nobody_has_applied_yet_are_applied_in_order(world: World) -> None:
    client = await world.node(patient, worker=False)
    handle = await client.start(patient)
    op = client.operator
    await op.pause(handle.id)
    await op.resume(handle.id)
    await op.pause(handle.id)
    node = await world.node(patient)
    await reaches(handle, "paused")
    await node.operator.resume(handle.id)
    await handle.signal(Go, 1)
    assert await handle.result(5) == 2


async def test_a_pause_holds_over_a_restart_of_all_workers(world: World) -> None:
    node = await world.node(patient)
    handle = await node.start(patient)
    await reaches(handle, "waiting")
    await node.operator.pause(handle.id)
    await reaches(handle, "paused")
    again = await world.restart()
    handle = again.handle(handle.id, patient)
    await handle.signal(Go, 4)
    assert (await handle.status()).status == "paused"
    await again.operator.resume(handle.id)
    assert await handle.result(5) == 5


async def test_a_cancel_gets_through_to_what_is_paused(world: World) -> None:
    undone: list[str] = []

    @workflow(rollback="on_failure")
    async def order(ctx: Context) -> None:
        await ctx.step("a").up(lambda: "a").down(undone.append)
        await ctx.wait_for_signal(Go)

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await node.operator.pause(handle.id)
    await reaches(handle, "paused")
    await handle.cancel("enough")
    with pytest.raises(ExecutionCancelled, match="enough"):
        await handle.result(5)
    assert undone == ["a"]


async def test_other_acts_on_what_is_paused_leave_it_paused(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> int:
        number = await ctx.step("number", lambda: 1)
        await ctx.sleep("3d", id="nap")
        return number

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "sleeping")
    op = node.operator
    await op.pause(handle.id)
    await reaches(handle, "paused")
    await op.edit_step_result(handle.id, "number", 5)
    await op.skip_step(handle.id, "nap", None)
    await records(node, handle, "nap", "completed")
    await reaches(handle, "paused")
    await op.resume(handle.id)
    assert await handle.result(5) == 5


async def test_what_is_paused_can_be_failed_and_retried(world: World) -> None:
    node = await world.node(patient)
    handle = await node.start(patient)
    await reaches(handle, "waiting")
    op = node.operator
    await op.pause(handle.id)
    await reaches(handle, "paused")
    await op.force_fail(handle.id, "by hand")
    assert (await ends(handle)).status == "failed"
    await op.retry(handle.id)
    await handle.signal(Go, 1)
    assert await handle.result(5) == 2


async def test_a_timer_that_came_due_meanwhile_is_there_at_once(still_world: World) -> None:
    @workflow
    async def nap(ctx: Context) -> str:
        await ctx.sleep("1h")
        return "awake"

    node = await still_world.node(nap)
    handle = await node.start(nap)
    await still_world.until_idle()
    await node.operator.pause(handle.id)
    await still_world.advance("2h")
    assert (await handle.status()).status == "paused"
    await node.operator.resume(handle.id)
    assert await handle.result(5) == "awake"


async def test_a_runs_timeout_ends_it_while_it_is_paused(still_world: World) -> None:
    @workflow(timeout="1h")
    async def brief(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)

    node = await still_world.node(brief)
    handle = await node.start(brief)
    await still_world.until_idle()
    await node.operator.pause(handle.id)
    await still_world.advance("59m")
    assert (await handle.status()).status == "paused"
    await still_world.advance("2m")
    with pytest.raises(ExecutionFailed) as failed:
        await handle.result(5)
    assert failed.value.code == "timeout"


async def test_a_delayed_start_keeps_its_instant_over_a_pause(still_world: World) -> None:
    ran: list[int] = []

    async def work() -> int:
        ran.append(1)
        return 7

    @workflow
    async def later(ctx: Context) -> int:
        return await ctx.step("work", work)

    node = await still_world.node(later)
    handle = await node.start(later, delay="1h")
    await node.operator.pause(handle.id)
    await still_world.advance("10m")
    assert (await handle.status()).status == "paused"
    await node.operator.resume(handle.id)
    await still_world.advance("10m")
    assert ((await handle.status()).status, ran) == ("pending", [])
    await still_world.advance("41m")
    assert await handle.result(5) == 7


async def test_a_runs_backoff_is_kept_over_a_pause(still_world: World) -> None:
    ran: list[int] = []

    @workflow(retry=Retry(2, base="1h", jitter=0))
    async def flaky(ctx: Context) -> str:
        ran.append(1)
        if len(ran) == 1:
            raise ConnectionError
        return "at last"

    node = await still_world.node(flaky)
    handle = await node.start(flaky)
    await still_world.until_idle()
    await node.operator.pause(handle.id)
    await still_world.until_idle()
    assert (await handle.status()).status == "paused"
    await node.operator.resume(handle.id)
    await still_world.advance("30m")
    assert ((await handle.status()).status, ran) == ("retrying", [1])
    await still_world.advance("31m")
    assert await handle.result(5) == "at last"
    assert (await handle.status()).attempt == 2


async def test_an_attempt_that_fails_while_a_pause_waits_for_it_is_paused_before_the_next(
    still_world: World,
) -> None:
    began, may_end, ran = asyncio.Event(), asyncio.Event(), list[int]()

    async def breaks() -> None:
        ran.append(1)
        began.set()
        await may_end.wait()
        if len(ran) == 1:
            raise ConnectionError

    @workflow(retry=Retry(2, base="1h", jitter=0))
    async def flaky(ctx: Context) -> str:
        await ctx.step("breaks", breaks)
        return "at last"

    node = await still_world.node(flaky)
    handle = await node.start(flaky)
    await began.wait()
    await node.operator.pause(handle.id)
    await still_world.until_idle()
    may_end.set()
    await still_world.until_idle()
    assert (await handle.status()).status == "paused"
    await node.operator.resume(handle.id)
    await still_world.advance("61m")
    assert await handle.result(5) == "at last"


async def test_one_that_continues_as_new_stays_paused(world: World) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        began.set()
        await may_end.wait()

    @workflow
    async def chain(ctx: Context, number: int) -> int:
        await ctx.step("slow", slow)
        if number < 2:
            ctx.continue_as_new(number + 1)
        return number

    node = await world.node(chain)
    handle = await node.start(chain, 1)
    await began.wait()
    await node.operator.pause(handle.id)
    may_end.set()
    await reaches(handle, "paused")
    await node.operator.resume(handle.id)
    assert await handle.result(5) == 2


async def test_a_paused_execution_gives_its_slot_of_a_limit_to_others(world: World) -> None:
    @workflow(concurrency=Concurrency(1, hold="run"))
    async def one_at_a_time(ctx: Context) -> int:
        return await ctx.wait_for_signal(Go)

    node = await world.node(one_at_a_time)
    first = await node.start(one_at_a_time)
    await reaches(first, "waiting")
    second = await node.start(one_at_a_time)
    await node.operator.pause(second.id)
    await reaches(second, "paused")
    third = await node.start(one_at_a_time)
    await first.signal(Go, 1)
    await reaches(third, "waiting")
    await node.operator.resume(second.id)
    await third.signal(Go, 3)
    await reaches(second, "waiting")
    await second.signal(Go, 2)
    assert [await each.result(5) for each in (first, second, third)] == [1, 2, 3]


async def test_parents_hear_of_a_child_that_was_paused(world: World) -> None:
    @workflow
    async def parent(ctx: Context) -> int:
        return await ctx.run(patient, id="kid")

    node = await world.node(parent, patient)
    handle = await node.start(parent)
    await records(node, handle, "kid")
    kid = node.handle(f"{handle.id}/kid", patient)
    await reaches(kid, "waiting")
    await node.operator.pause(kid.id)
    await reaches(kid, "paused")
    await kid.signal(Go, 1)
    await node.operator.resume(kid.id)
    assert await handle.result(5) == 2


async def test_counts_and_lists_know_what_is_paused(world: World) -> None:
    node = await world.node(patient)
    handles = [await node.start(patient) for _ in range(2)]
    for handle in handles:
        await reaches(handle, "waiting")
    await node.operator.pause(handles[0].id)
    await reaches(handles[0], "paused")
    assert [each.id for each in (await node.operator.list_executions(status="paused")).items] == [
        handles[0].id
    ]

    async def is_counted() -> bool:
        return (await node.operator.counts())["paused"] == 1  # type: ignore[index]

    await until(is_counted)
