"""Plain Python in a body and in its steps: what people write, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from durable import (
    Context,
    ExecutionFailed,
    Fail,
    Handle,
    Received,
    Retry,
    Signal,
    StepFailed,
    TimedOut,
    current_step,
    workflow,
)
from tests.support import World, ends, reaches, records, steps, until

Go = Signal("go")
Choice = Signal("choice", int | str | list[int])

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


async def echo(value: Any) -> Any:
    return value


async def test_ids_follow_the_calls_and_not_the_awaits(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> list[int]:
        first = ctx.step("s", echo, 1)
        second = ctx.step("s", echo, 2)
        results = [await second, await first]
        await ctx.wait_for_signal(Go)
        return results

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == [2, 1]
    recorded = await steps(node, handle)
    assert (recorded["s"].result, recorded["s#2"].result) == (1, 2)


async def test_context_variables_reach_steps_in_the_loop_and_in_threads(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> list[str]:
        async def asynchronous() -> str:
            return request_id.get()

        request_id.set("r1")
        return [await ctx.step("async", asynchronous), await ctx.step("sync", lambda: request_id.get())]

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == ["r1", "r1"]
    assert request_id.get() == "none"


async def test_a_step_may_use_all_of_asyncio(world: World) -> None:
    async def busy() -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(echo(number)) for number in range(5)]
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(3)))
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return sum(task.result() for task in tasks) + len(current_step().step_id)

    @workflow
    async def order(ctx: Context) -> int:
        return await ctx.step("busy", busy)

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == 14


async def test_a_cancelled_error_of_a_steps_own_is_a_failure_of_the_step(world: World) -> None:
    """A step that awaits a task that somebody else cancelled is not being cancelled itself."""
    seen: list[str] = []

    async def unlucky() -> None:
        task = asyncio.ensure_future(asyncio.sleep(10))
        task.cancel()
        await task

    @workflow(retry=1)
    async def order(ctx: Context) -> str:
        try:
            await ctx.step("unlucky", unlucky)
        except (StepFailed, asyncio.CancelledError) as error:
            seen.append(type(error).__name__)
        await ctx.wait_for_signal(Go)
        return "went on"

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == "went on"
    assert len(set(seen)) == 1


async def test_a_step_that_a_timeout_of_the_body_cancels_is_cancelled_on_a_replay_too(world: World) -> None:
    ran: list[int] = []

    async def slow() -> None:
        ran.append(1)
        await asyncio.Event().wait()

    @workflow
    async def order(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.05):
                await ctx.step("slow", slow)
        except TimeoutError:
            outcome = "timed out"
        await ctx.wait_for_signal(Go)
        return outcome

    node = await world.node(order)
    handle = await node.start(order)
    await records(node, handle, "go")
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == "timed out"
    assert ran == [1]


async def test_an_error_of_one_branch_leaves_the_others_results_stored(world: World) -> None:
    ran: list[str] = []
    release = asyncio.Event()

    async def slow() -> str:
        await release.wait()
        ran.append("slow")
        return "slow"

    async def fail() -> None:
        release.set()
        raise ConnectionError

    @workflow(retry=Retry(2, base="1ms"))
    async def order(ctx: Context) -> str:
        if ctx.attempt == 2:
            return await ctx.step("slow", slow)
        await ctx.gather(ctx.step("slow", slow), ctx.step("fail", fail))
        return "?"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "slow"
    assert ran == ["slow"]


async def test_a_task_that_fails_unobserved_disturbs_nobody(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> str:
        async def doomed() -> None:
            raise ValueError("nobody looks")

        task = asyncio.create_task(doomed())
        await asyncio.wait([task])
        await ctx.step("a", echo, 1)
        assert isinstance(task.exception(), ValueError)
        return "done"

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "done"


async def test_locks_queues_and_events_between_branches_work(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> list[str]:
        lock, ready, lines = asyncio.Lock(), asyncio.Event(), []

        async def first() -> None:
            async with lock:
                lines.append(await ctx.step("first", echo, "first"))
                await ctx.wait_for_signal(Go)
            ready.set()

        async def second() -> None:
            await ready.wait()
            async with lock:
                lines.append(await ctx.step("second", echo, "second"))

        await asyncio.gather(second(), first())
        return lines

    node = await world.node(order)
    handle = await node.start(order)
    await records(node, handle, "#2/go")
    await handle.signal(Go)
    assert await handle.result(5) == ["first", "second"]


async def test_a_body_that_waits_for_an_event_of_its_own_next_to_a_signal_is_put_aside(world: World) -> None:
    """A branch that waits for another branch by an `asyncio.Event` can only be moved by that one."""

    @workflow
    async def order(ctx: Context) -> str:
        ready = asyncio.Event()

        async def waiter() -> str:
            await ready.wait()
            return "both"

        async def signalled() -> None:
            await ctx.wait_for_signal(Go)
            ready.set()

        outcome, _ = await asyncio.gather(waiter(), signalled())
        return outcome

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == "both"


async def test_a_union_payload_comes_as_what_it_was(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> list[Any]:
        return [await ctx.wait_for_signal(Choice) for _ in range(3)]

    node = await world.node(order)
    handle = await node.start(order)
    for value in (5, "5", [5]):
        await handle.signal(Choice, value)
    assert await handle.result(5) == [5, "5", [5]]


async def test_outcomes_of_waits_match_as_patterns(still_world: World) -> None:
    @workflow
    async def order(ctx: Context) -> list[str]:
        lines = []
        for _ in range(2):
            match await ctx.wait_for_signal(Choice, timeout="1m"):
                case Received(payload=int() as number, name=name):
                    lines.append(f"{name}={number}")
                case Received():
                    lines.append("other")
                case TimedOut():
                    lines.append("late")
        return lines

    node = await still_world.node(order)
    handle = await node.start(order)
    await handle.signal(Choice, 7)
    await still_world.advance("1m")
    assert await handle.result(5) == ["choice=7", "late"]


async def test_the_input_is_read_anew_on_every_replay(world: World) -> None:
    @workflow
    async def order(ctx: Context, items: list[int]) -> list[int]:
        items.append(len(items))
        await ctx.wait_for_signal(Go)
        items.append(len(items))
        return items

    node = await world.node(order)
    given = [10]
    handle = await node.start(order, given)
    await reaches(handle, "waiting")
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(5) == [10, 1, 2]
    assert given == [10]


async def test_five_hundred_branches(world: World) -> None:
    if world.forgetful:
        pytest.skip("it replays all of them after each of them")

    @workflow
    async def order(ctx: Context) -> int:
        async def branch(number: int) -> int:
            first = await ctx.step("first", echo, number)
            return first + await ctx.step("second", echo, 1)

        return sum(await asyncio.gather(*(branch(number) for number in range(500))))

    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(20) == sum(range(500)) + 500
    assert len(await steps(node, handle)) == 1000


async def test_a_thousand_steps_in_a_row(world: World) -> None:
    if world.forgetful:
        pytest.skip("it replays all of them after each of them")

    @workflow
    async def order(ctx: Context) -> int:
        total = 0
        for number in range(1000):
            total += await ctx.step("add", echo, number)
        await ctx.wait_for_signal(Go)
        return total

    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting", within=20)
    node = await world.restart()
    await node.signal(handle.id, Go)
    assert await node.handle(handle.id, order).result(20) == sum(range(1000))


async def test_errors_with_causes_groups_and_odd_arguments_fail_the_run_all_the_same(world: World) -> None:
    class Odd(Exception):
        def __init__(self, connection: object, *, code: int) -> None:
            super().__init__(connection)
            self.code = code

        def __str__(self) -> str:
            raise RuntimeError("no text")

    @workflow(retry=1)
    async def order(ctx: Context) -> None:
        async def fail() -> None:
            raise Odd(object(), code=5)

        await ctx.step("fail", fail)

    node = await world.node(order)
    execution = await ends(await node.start(order))
    assert execution.status == "failed"
    assert execution.error is not None
    assert "Odd" in str(execution.error)


async def test_a_fail_from_a_nested_function_of_the_body(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        async def check() -> None:
            try:
                await ctx.step("a", echo, 1)
            finally:
                await ctx.step("b", echo, 2)
            raise Fail("nested", code="nested")

        await check()

    node = await world.node(order)
    with pytest.raises(ExecutionFailed) as failed:
        await node.start_and_wait(order, timeout=5)
    assert (failed.value.code, failed.value.attempt) == ("nested", 1)


async def test_a_workflow_that_starts_executions_over_a_client_in_a_step(world: World) -> None:
    """What a body may not do itself, a step may."""
    clients: list[Any] = []

    @workflow
    async def other(ctx: Context) -> str:
        return "other"

    async def start() -> str:
        handle: Handle[str] = await clients[0].start(other, key=current_step().idempotency_key)
        return await handle.result(5)

    @workflow
    async def order(ctx: Context) -> str:
        return await ctx.step("start", start)

    clients.append(await world.node(order, other))
    assert await clients[0].start_and_wait(order, timeout=5) == "other"


async def test_two_durables_in_one_process_do_not_disturb_each_other(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> list[int]:
        return await asyncio.gather(*(ctx.step("s", echo, number) for number in range(3)))

    one = await world.node(order, namespace="one")
    two = await world.node(order, namespace="two")
    assert await one.start_and_wait(order, timeout=5) == [0, 1, 2]
    await world.stop(one)
    assert await two.start_and_wait(order, timeout=5) == [0, 1, 2]
    await world.stop(two)
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_recursion_by_children(world: World) -> None:
    @workflow
    async def factorial(ctx: Context, number: int) -> int:
        return 1 if number <= 1 else number * await ctx.run(factorial, number - 1)

    node = await world.node(factorial)
    assert await node.start_and_wait(factorial, 10, timeout=10) == 3628800


async def test_a_body_without_any_await_and_one_with_a_plain_sleep(world: World) -> None:
    @workflow
    async def instant(ctx: Context, number: int) -> int:
        return number + 1

    @workflow
    async def naps(ctx: Context) -> str:
        await asyncio.sleep(0.02)
        await ctx.step("a", echo, 1)
        await asyncio.sleep(0.02)
        return "rested"

    node = await world.node(instant, naps)
    assert await node.start_and_wait(instant, 1, timeout=5) == 2
    assert await node.start_and_wait(naps, timeout=5) == "rested"


async def test_many_executions_that_race_for_few_slots_all_end(world: World) -> None:
    @workflow
    async def order(ctx: Context, number: int) -> int:
        await ctx.sleep("1ms")
        await ctx.step("flaky", retry=Retry(3, base="1ms")).up(flaky)
        received = await ctx.wait_for_signal(Go, timeout="20s")
        return number if received.kind == "signal" else -1

    def flaky() -> None:
        if current_step().attempt == 1:
            raise ConnectionError

    node = await world.node(order, concurrency=3)
    handles = [await node.start(order, number) for number in range(40)]
    await asyncio.gather(*(handle.signal(Go) for handle in handles))
    assert await asyncio.gather(*(handle.result(15) for handle in handles)) == list(range(40))
    await until(lambda: node.worker.dispatcher.active == 0)
