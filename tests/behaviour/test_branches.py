"""Several things at once: ids that do not depend on timing, and no work that is done twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable import Context, ExecutionFailed, Retry, Signal, TimedOut, current_step, workflow
from tests.support import World, ends, reaches, records, steps, until

Go = Signal("go")
Number = Signal("number", int)


async def double(number: int) -> int:
    return number * 2


async def test_gather_gives_results_in_the_order_of_its_branches(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> tuple[int, int, int]:
        return await ctx.gather(ctx.step("a", double, 1), ctx.step("b", double, 2), ctx.step("a", double, 3))

    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(5) == (2, 4, 6)
    assert sorted(await steps(node, handle)) == ["a", "a#2", "b"]


async def test_gathered_steps_run_side_by_side(world: World) -> None:
    both = asyncio.Barrier(2)

    async def meet() -> bool:
        await both.wait()
        return True

    @workflow
    async def order(ctx: Context) -> list[bool]:
        return list(await ctx.gather(ctx.step("a", meet), ctx.step("b", meet)))

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == [True, True]


async def test_after_a_restart_only_what_was_unfinished_runs_again(world: World) -> None:
    ran: list[str] = []
    stuck, release = asyncio.Event(), asyncio.Event()

    async def quick() -> str:
        ran.append("quick")
        return "quick"

    async def slow() -> str:
        ran.append("slow")
        stuck.set()
        await release.wait()
        return "slow"

    @workflow
    async def order(ctx: Context) -> list[str]:
        return list(await ctx.gather(ctx.step("quick", quick), ctx.step("slow", slow)))

    node = await world.node(order)
    handle = await node.start(order)
    await stuck.wait()
    await records(node, handle, "quick")
    release.set()
    node = await world.restart()
    assert await node.handle(handle.id, order).result(5) == ["quick", "slow"]
    assert ran.count("quick") == 1


@pytest.mark.parametrize("how", ["gather", "TaskGroup", "create_task"])
async def test_plain_asyncio_is_safe_to_use(world: World, how: str) -> None:
    ran: list[str] = []

    async def did(what: str) -> str:
        ran.append(what)
        return what

    async def branch(ctx: Context, name: str) -> str:
        first = await ctx.step("first", did, f"{name}1")
        number = await ctx.wait_for_signal(Number)
        return first + await ctx.step("second", did, f"{name}2") + str(number)

    @workflow
    async def order(ctx: Context) -> list[str]:
        match how:
            case "gather":
                return await asyncio.gather(branch(ctx, "a"), branch(ctx, "b"))
            case "TaskGroup":
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(branch(ctx, name)) for name in "ab"]
                return [task.result() for task in tasks]
            case _:
                tasks = [asyncio.create_task(branch(ctx, name)) for name in "ab"]
                return [await task for task in tasks]

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await handle.signal(Number, 1)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Number, 2)
    results = await node.handle(handle.id, order).result(5)
    assert sorted(result[:4] for result in results) == ["a1a2", "b1b2"]
    assert sorted(result[4] for result in results) == ["1", "2"]
    assert sorted(ran) == ["a1", "a2", "b1", "b2"]


async def test_branches_within_branches_keep_their_ids_whatever_their_timing(still_world: World) -> None:
    ran: list[str] = []

    async def did(what: str) -> str:
        ran.append(what)
        return what

    async def leaf(ctx: Context, name: str, pause: int) -> str:
        await ctx.sleep(pause)
        return await ctx.step("leaf", did, name)

    async def branch(ctx: Context, name: str, pause: int) -> str:
        inner = await asyncio.gather(leaf(ctx, f"{name}x", pause), leaf(ctx, f"{name}y", 10 - pause))
        return await ctx.step("joined", did, "+".join(inner))

    @workflow
    async def tree(ctx: Context) -> list[str]:
        return await asyncio.gather(branch(ctx, "a", 3), branch(ctx, "b", 8))

    node = await still_world.node(tree)
    handle = await node.start(tree)
    for _ in range(10):
        await still_world.advance(1)
        node = await still_world.restart()
    await still_world.until_idle()
    assert await node.handle(handle.id, tree).result(5) == ["ax+ay", "bx+by"]
    assert sorted(ran) == ["ax", "ax+ay", "ay", "bx", "bx+by", "by"]


async def test_one_failing_branch_of_gather_fails_it_with_its_error(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        try:
            await ctx.gather(ctx.step("good", double, 1), ctx.step("bad", lambda: 1 // 0))
        except ZeroDivisionError:
            return "failed"
        return "?"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "failed"


async def test_gather_returns_exceptions_when_asked(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> list[str]:
        outcomes = await ctx.gather(
            ctx.step("good", double, 1), ctx.step("bad", lambda: 1 // 0), return_exceptions=True
        )
        return [type(outcome).__name__ for outcome in outcomes]

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == ["int", "ZeroDivisionError"]


async def test_a_branch_that_fails_twice_and_is_retried_costs_the_others_nothing(world: World) -> None:
    ran: dict[str, int] = {"a": 0, "b": 0, "c": 0}

    async def work(name: str) -> str:
        ran[name] += 1
        if name == "b" and current_step().attempt < 3:
            raise ConnectionError
        return name

    @workflow
    async def order(ctx: Context) -> list[str]:
        quick = Retry(5, base="1ms")
        return list(await ctx.gather(*(ctx.step(name, retry=quick).up(work, name) for name in "abc")))

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == ["a", "b", "c"]
    assert ran == {"a": 1, "b": 3, "c": 1}


async def test_a_failing_task_group_cancels_its_siblings_the_same_way_on_a_replay(world: World) -> None:
    seen: list[str] = []
    begun = asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def fail() -> None:
        await begun.wait()
        raise ConnectionError

    async def patient(ctx: Context) -> None:
        try:
            await ctx.step("endless", endless)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def waiting(ctx: Context) -> None:
        await ctx.wait_for_signal(Number)

    @workflow
    async def order(ctx: Context) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(patient(ctx))
                group.create_task(waiting(ctx))
                group.create_task(ctx.step("fail", fail))
        except* ConnectionError:
            pass
        await ctx.wait_for_signal(Go)
        return "went on"

    handle = await (await world.node(order)).start(order)
    await reaches(handle, "waiting")
    await until(lambda: seen)
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == "went on"


async def test_an_error_group_that_nobody_catches_fails_the_run(world: World) -> None:
    async def fail() -> None:
        raise ConnectionError("no route")

    @workflow(retry=1)
    async def order(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step("fail", fail))

    node = await world.node(order)
    with pytest.raises(ExecutionFailed, match="ExceptionGroup"):
        await node.start_and_wait(order, timeout=5)


async def test_asyncio_timeout_around_a_wait_cancels_it_the_same_way_on_a_replay(world: World) -> None:
    if world.forgetful:
        pytest.skip("asyncio's timers are gone with what is put aside: give the wait a timeout")
    ran: list[str] = []

    @workflow
    async def order(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.05):
                await ctx.wait_for_signal(Number)
        except TimeoutError:
            await ctx.step("note", lambda: ran.append("timed out"))
        await ctx.wait_for_signal(Go)
        return "went on"

    node = await world.node(order)
    handle = await node.start(order)
    await until(lambda: ran)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == "went on"
    assert ran == ["timed out"]


async def test_waits_in_branches_end_in_the_order_of_what_they_wait_for(still_world: World) -> None:
    @workflow
    async def race(ctx: Context) -> list[str]:
        order: list[str] = []

        async def one(name: str, seconds: int) -> None:
            await ctx.sleep(seconds)
            order.append(name)

        await asyncio.gather(one("late", 20), one("early", 10), one("middle", 15))
        await ctx.wait_for_signal(Go)
        return order

    node = await still_world.node(race)
    handle = await node.start(race)
    await still_world.advance(20)
    node = await still_world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, race).result(5) == ["early", "middle", "late"]


async def test_the_first_of_two_branches_decides_the_same_way_on_every_replay(still_world: World) -> None:
    @workflow
    async def race(ctx: Context) -> str:
        tasks = {asyncio.create_task(ctx.sleep(20)): "slow", asyncio.create_task(ctx.sleep(10)): "fast"}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        winner = tasks[done.pop()]
        await ctx.wait_for_signal(Go)
        return winner

    node = await still_world.node(race)
    handle = await node.start(race)
    await still_world.advance(30)
    node = await still_world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, race).result(5) == "fast"


async def test_a_signal_and_a_timer_side_by_side(still_world: World) -> None:
    @workflow
    async def order(ctx: Context) -> tuple[str, str]:
        async def reminder() -> str:
            await ctx.sleep("1d")
            return await ctx.step("remind", lambda: "reminded")

        outcome, reminded = await ctx.gather(ctx.wait_for_signal(Go, timeout="2d"), reminder())
        return "timeout" if isinstance(outcome, TimedOut) else "signal", reminded

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("1d")
    assert (await handle.status()).status == "waiting"
    await still_world.advance("1d")
    assert await handle.result(5) == ("timeout", "reminded")


async def test_a_task_that_the_body_leaves_behind_does_not_outlive_it(world: World) -> None:
    ran: list[str] = []

    @workflow
    async def careless(ctx: Context) -> str:
        async def background() -> None:
            await ctx.wait_for_signal(Go)
            ran.append("background")

        task = asyncio.create_task(background())
        assert task
        return await ctx.step("a", lambda: "done")

    node = await world.node(careless)
    handle = await node.start(careless)
    assert await handle.result(5) == "done"
    assert ran == []


async def test_a_step_that_is_still_running_at_the_end_of_the_body_finishes_first(world: World) -> None:
    finished: list[str] = []
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await release.wait()
        finished.append("slow")
        return "slow"

    @workflow
    async def careless(ctx: Context) -> str:
        task = asyncio.create_task(ctx.step("slow", slow))
        await ctx.step("wait", begun.wait)
        release.set()
        assert task
        return "done"

    node = await world.node(careless)
    handle = await node.start(careless)
    assert await handle.result(5) == "done"
    assert finished == ["slow"]
    assert (await steps(node, handle))["slow"].status == "completed"


async def test_nothing_else_is_needed_when_a_body_awaits_something_of_its_own(world: World) -> None:
    """A body should not do this (it is lost on a replay), but nothing hangs for it."""

    @workflow
    async def mixed(ctx: Context) -> int:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        loop.call_later(0.05, future.set_result, 1)
        first, second = await asyncio.gather(future, ctx.step("double", double, 2))
        return first + second

    node = await world.node(mixed)
    assert await node.start_and_wait(mixed, timeout=5) == 5


# ---- map


async def test_map_gives_results_in_the_order_of_the_items(world: World) -> None:
    @workflow
    async def thumbs(ctx: Context, items: list[int]) -> list[int]:
        return await ctx.map("thumb", double, items, limit=2)

    node = await world.node(thumbs)
    handle = await node.start(thumbs, [3, 1, 2])
    assert await handle.result(5) == [6, 2, 4]
    assert sorted(await steps(node, handle)) == ["thumb[0]", "thumb[1]", "thumb[2]"]


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3, 3), (None, 10), (50, 10)])
async def test_map_runs_at_most_as_many_as_its_limit(world: World, limit: int | None, most: int) -> None:
    running = peak = 0

    async def work(item: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.01)
        running -= 1
        return item

    @workflow
    async def thumbs(ctx: Context) -> list[int]:
        return await ctx.map("thumb", work, range(10), limit)

    node = await world.node(thumbs)
    assert await node.start_and_wait(thumbs, timeout=5) == list(range(10))
    assert peak == most


async def test_map_of_nothing_is_nothing(world: World) -> None:
    @workflow
    async def thumbs(ctx: Context) -> list[int]:
        return await ctx.map("thumb", double, [])

    node = await world.node(thumbs)
    assert await node.start_and_wait(thumbs, timeout=5) == []


async def test_a_second_map_of_one_name_has_checkpoints_of_its_own(world: World) -> None:
    @workflow
    async def thumbs(ctx: Context) -> list[int]:
        first = await ctx.map("thumb", double, [1, 2])
        return first + await ctx.map("thumb", double, [3])

    node = await world.node(thumbs)
    handle = await node.start(thumbs)
    assert await handle.result(5) == [2, 4, 6]
    assert len(await steps(node, handle)) == 3


async def test_an_item_that_failed_runs_again_alone_when_the_run_is_retried(world: World) -> None:
    ran: list[int] = []

    async def work(item: int) -> int:
        ran.append(item)
        if item == 2 and ran.count(2) == 1:
            raise ConnectionError
        return item

    @workflow(retry=Retry(3, base="1ms"))
    async def thumbs(ctx: Context) -> list[int]:
        return await ctx.map("thumb", work, [1, 2, 3], limit=1)

    node = await world.node(thumbs)
    assert await node.start_and_wait(thumbs, timeout=5) == [1, 2, 3]
    assert ran == [1, 2, 2, 3]


async def test_map_retries_a_decorated_step_by_its_policy(world: World) -> None:
    from durable import step

    @step(retry=Retry(3, base="1ms"))
    async def flaky(item: int) -> int:
        if current_step().attempt < 3:
            raise ConnectionError
        return item

    @workflow(retry=1)
    async def thumbs(ctx: Context) -> list[int]:
        return await ctx.map("thumb", flaky, [1, 2])

    node = await world.node(thumbs)
    assert await node.start_and_wait(thumbs, timeout=5) == [1, 2]


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_one_is_refused(world: World, limit: int) -> None:
    @workflow(retry=1)
    async def thumbs(ctx: Context) -> None:
        await ctx.map("thumb", double, [1], limit=limit)

    node = await world.node(thumbs)
    handle = await node.start(thumbs)
    execution = await ends(handle)
    assert execution.error is not None
    assert execution.error.error_type.endswith("InvalidInput")


async def test_ctx_is_refused_in_a_step_and_outside_of_the_body(world: World) -> None:
    held: list[Any] = []

    @workflow(retry=1)
    async def leaky(ctx: Context) -> str:
        held.append(ctx)

        async def nested() -> None:
            await ctx.sleep(1)

        await ctx.step("nested", nested)
        return "?"

    node = await world.node(leaky)
    handle = await node.start(leaky)
    execution = await ends(handle)
    assert execution.error is not None
    assert "inside a step" in execution.error.message
    with pytest.raises(Exception, match="outside its workflow"):
        await held[0].sleep(1)
