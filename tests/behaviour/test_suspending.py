"""Putting an execution aside: the body notices nothing that it could get wrong."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from durable import Context, ReplayMismatch, Signal, workflow
from tests.support import World, ends, reaches, steps, until

Go = Signal("go")


async def suspended_and_resumed(world: World, *workflows: Any) -> Any:
    """Start the first, put it aside at its wait, bring it back, signal it: its result."""
    node = await world.node(*workflows)
    handle = await node.start(workflows[0])
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    return await node.handle(handle.id, workflows[0]).result(5)


async def test_except_exception_around_a_wait_catches_nothing(world: World) -> None:
    caught: list[str] = []

    @workflow
    async def careful(ctx: Context) -> str:
        try:
            await ctx.wait_for_signal(Go)
        except Exception as error:
            caught.append(repr(error))
        return "went on"

    assert await suspended_and_resumed(world, careful) == "went on"
    assert caught == []


async def test_except_base_exception_around_a_wait_does_nothing_durable(world: World) -> None:
    """A body that catches even that is put aside all the same, at its next use of ctx."""
    ran: list[str] = []

    @workflow
    async def greedy(ctx: Context) -> str:
        try:
            await ctx.wait_for_signal(Go)
        except BaseException:
            await ctx.step("caught", ran.append, "caught")
            raise
        return "went on"

    assert await suspended_and_resumed(world, greedy) == "went on"
    assert ran == []


async def test_a_body_that_swallows_everything_is_put_aside_all_the_same(world: World) -> None:
    ran: list[str] = []
    rounds: list[int] = []

    @workflow
    async def greedy(ctx: Context) -> str:
        for number in range(1000):
            rounds.append(number)
            try:
                await ctx.wait_for_signal(Go)
                return "went on"
            except BaseException:
                with suppress(BaseException):
                    await ctx.step("caught", ran.append, "caught")
                with suppress(BaseException):
                    await ctx.sleep(1)
        return "in an endless loop"

    assert await suspended_and_resumed(world, greedy) == "went on"
    assert ran == []
    assert max(rounds) < 999


async def test_finally_blocks_run_and_write_nothing(world: World) -> None:
    ran: list[str] = []
    finals: list[str] = []

    @workflow
    async def tidy(ctx: Context) -> str:
        try:
            await ctx.wait_for_signal(Go)
        finally:
            finals.append("ran")
            await ctx.step("finally", ran.append, "step")
            await ctx.set_value("done", True)
            await ctx.note("done")
        return "went on"

    node = await world.node(tidy)
    handle = await node.start(tidy)
    await reaches(handle, "waiting")
    node = await world.restart()
    assert len(finals) >= 1
    assert ran == []
    assert list(await steps(node, handle)) == ["go"]
    assert await node.handle(handle.id).value("done") is None
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, tidy).result(5) == "went on"
    assert ran == ["step"]


async def test_a_finally_that_awaits_things_of_its_own_is_ended(world: World) -> None:
    @workflow
    async def slow_to_leave(ctx: Context) -> str:
        try:
            await ctx.wait_for_signal(Go)
        finally:
            await asyncio.sleep(0)
            with suppress(BaseException):
                await asyncio.sleep(100 if ctx.is_replaying else 0)
        return "went on"

    assert await suspended_and_resumed(world, slow_to_leave) == "went on"


async def test_async_context_managers_are_left(world: World) -> None:
    lines: list[str] = []

    @asynccontextmanager
    async def connection() -> AsyncIterator[str]:
        lines.append("open")
        try:
            yield "connection"
        finally:
            lines.append("close")

    @contextmanager
    def lock() -> Any:
        lines.append("lock")
        try:
            yield
        finally:
            lines.append("unlock")

    @workflow
    async def managed(ctx: Context) -> str:
        async with connection():
            with lock():
                await ctx.wait_for_signal(Go)
        return "went on"

    assert await suspended_and_resumed(world, managed) == "went on"
    assert lines.count("open") == lines.count("close")
    assert lines.count("lock") == lines.count("unlock")


async def test_branches_in_a_task_group_are_put_aside_quietly(world: World) -> None:
    caught: list[str] = []

    @workflow
    async def grouped(ctx: Context) -> str:
        async def branch() -> None:
            try:
                await ctx.wait_for_signal(Go)
            except Exception as error:
                caught.append(repr(error))

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(branch())
                group.create_task(ctx.sleep("1ms"))
        except Exception as error:
            caught.append(repr(error))
        return "went on"

    assert await suspended_and_resumed(world, grouped) == "went on"
    assert caught == []


@pytest.mark.parametrize("how", ["gather", "TaskGroup", "shield", "wait_for", "timeout"])
async def test_waits_inside_asyncios_own_tools_are_put_aside_quietly(world: World, how: str) -> None:
    caught: list[str] = []

    @workflow
    async def careful(ctx: Context) -> str:
        wait = ctx.wait_for_signal(Go)
        try:
            match how:
                case "gather":
                    await asyncio.gather(wait)
                case "TaskGroup":
                    async with asyncio.TaskGroup() as group:
                        group.create_task(wait)
                case "shield":
                    await asyncio.shield(wait)
                case "wait_for":
                    await asyncio.wait_for(wait, 1000)
                case _:
                    async with asyncio.timeout(1000):
                        await wait
        except Exception as error:
            caught.append(repr(error))
            raise
        return "went on"

    assert await suspended_and_resumed(world, careful) == "went on"
    assert caught == []


async def test_being_put_aside_is_no_failure_and_no_attempt(world: World) -> None:
    @workflow(retry=1)
    async def order(ctx: Context) -> int:
        for _ in range(3):
            await ctx.wait_for_signal(Go)
        return ctx.attempt

    node = await world.node(order)
    handle = await node.start(order)
    for _ in range(3):
        await reaches(handle, "waiting")
        node = await world.restart()
        handle = node.handle(handle.id, order)
        await handle.signal(Go)
    assert await handle.result(5) == 1


async def test_a_step_that_a_stopping_worker_interrupts_costs_no_try(world: World) -> None:
    from durable import current_step

    begun, release, seen = asyncio.Event(), asyncio.Event(), []

    async def slow() -> int:
        begun.set()
        try:
            await release.wait()
        except asyncio.CancelledError:
            seen.append(current_step().cancelled)
            raise
        return current_step().attempt

    @workflow(retry=1)
    async def order(ctx: Context) -> tuple[int, int]:
        return await ctx.step("slow", slow), ctx.attempt

    node = await world.node(order)
    handle = await node.start(order)
    await begun.wait()
    node = await world.restart()
    release.set()
    assert await node.handle(handle.id, order).result(5) == (1, 1)
    assert len(seen) == 1


async def test_a_body_that_catches_the_interruption_of_its_step_writes_nothing(world: World) -> None:
    begun, release, ran = asyncio.Event(), asyncio.Event(), []

    async def slow() -> str:
        begun.set()
        await release.wait()
        return "slow"

    @workflow
    async def greedy(ctx: Context) -> str:
        try:
            return await ctx.step("slow", slow)
        except BaseException:
            await ctx.step("caught", ran.append, "caught")
            return "caught"

    node = await world.node(greedy)
    handle = await node.start(greedy)
    await begun.wait()
    node = await world.restart()
    release.set()
    assert await node.handle(handle.id, greedy).result(5) == "slow"
    assert ran == []


async def test_a_mismatch_is_nothing_that_a_body_can_catch(world: World) -> None:
    caught: list[str] = []
    changed = [False]

    @workflow
    async def order(ctx: Context) -> str:
        try:
            if changed[0]:
                await ctx.sleep(1, id="a")
            else:
                await ctx.step("a", lambda: 1)
        except ReplayMismatch:
            caught.append("mismatch")
        except Exception:
            caught.append("exception")
        await ctx.wait_for_signal(Go)
        return "?"

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    changed[0] = True
    node = await world.restart()
    await node.signal(handle.id, Go)
    await reaches(node.handle(handle.id), "parked")
    assert caught == []


async def test_what_is_put_aside_is_collected(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        async with ctx.saga():
            await ctx.gather(ctx.wait_for_signal(Go), ctx.sleep("1h"))

    node = await world.node(order)
    handles = [await node.start(order) for _ in range(5)]
    for handle in handles:
        await reaches(handle, "waiting")
    await world.stop(node)
    gc.collect()
    left = [
        t for t in asyncio.all_tasks() if "durable" in repr(t.get_coro()) or "order" in repr(t.get_coro())
    ]
    assert left == []


async def test_a_generator_around_a_wait_is_closed(world: World) -> None:
    closed: list[str] = []

    async def ticks(ctx: Context) -> AsyncIterator[int]:
        try:
            for number in range(3):
                await ctx.wait_for_signal(Go)
                yield number
        finally:
            closed.append("closed")

    @workflow
    async def order(ctx: Context) -> list[int]:
        return [number async for number in ticks(ctx)]

    node = await world.node(order)
    handle = await node.start(order)
    await handle.signal(Go)
    await handle.signal(Go)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == [0, 1, 2]


async def test_two_thousand_and_more_wait_at_once(world: World) -> None:
    """More than a worker keeps in memory."""
    if not world.url.startswith("memory"):
        pytest.skip("a matter of the worker alone")

    @workflow
    async def order(ctx: Context, number: int) -> int:
        await ctx.wait_for_signal(Go)
        return number

    node = await world.node(order)
    handles = [await node.start(order, number) for number in range(2100)]
    await reaches(handles[-1], "waiting")
    for handle in handles[:50] + handles[-50:]:
        await handle.signal(Go)
    assert await handles[0].result(5) == 0
    assert await handles[-1].result(5) == 2099


async def test_an_execution_without_a_wait_is_never_put_aside(world: World) -> None:
    if world.forgetful:
        pytest.skip("it puts aside after each step, on purpose")
    begun: list[int] = []

    @workflow
    async def order(ctx: Context) -> int:
        begun.append(1)
        for number in range(20):
            await ctx.step("work", lambda number=number: number)
        return len(begun)

    node = await world.node(order)
    handle = await node.start(order)
    assert (await ends(handle)).status == "completed"
    await until(lambda: begun)
    assert len(begun) == 1
