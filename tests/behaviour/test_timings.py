"""Where the time went: in steps, in waits, between them; and how each try of a step ended."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from durable import Context, Retry, Signal, workflow
from durable.errors import InvalidInput
from tests.support import World, ends, reaches, steps

Go = Signal("go")


async def test_each_try_of_a_step_is_kept_with_its_error(world: World) -> None:
    tried: list[int] = []

    async def flaky() -> str:
        tried.append(1)
        if len(tried) < 4:
            raise ConnectionError(f"no route {len(tried)}")
        return "at last"

    @workflow
    async def order(ctx: Context) -> str:
        return await ctx.step("charge", retry=Retry(5, base="1ms")).up(flaky)

    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(5) == "at last"
    record = (await steps(node, handle))["charge"]
    assert (record.status, record.attempts) == ("completed", 4)
    assert [each.number for each in record.tries] == [1, 2, 3]
    assert [each.error.message for each in record.tries] == [f"no route {n}" for n in (1, 2, 3)]
    assert {each.error.error_type for each in record.tries} == {"ConnectionError"}
    assert all(each.started_at <= each.finished_at for each in record.tries)


async def test_of_many_tries_the_first_and_the_last_are_kept(world: World) -> None:
    tried: list[int] = []

    async def broken() -> str:
        tried.append(1)
        raise ConnectionError(f"{len(tried)} {'x' * 2000}")

    @workflow(retry=1)
    async def order(ctx: Context) -> str:
        return await ctx.step("charge", retry=Retry(30, base="1ms", cap="1ms")).up(broken)

    node = await world.node(order)
    handle = await node.start(order)
    await ends(handle, within=20)
    record = (await steps(node, handle))["charge"]
    numbers = [each.number for each in record.tries]
    assert (len(numbers), numbers[0], numbers[-1]) == (20, 1, 29)
    assert max(len(each.error.message) for each in record.tries) <= 500


async def test_the_time_of_an_execution_is_your_code_or_waiting_or_the_rest(still_world: World) -> None:
    may_end = asyncio.Event()

    async def slow() -> None:
        await may_end.wait()

    tried: list[int] = []

    async def flaky() -> None:
        tried.append(1)
        if len(tried) == 1:
            raise ConnectionError

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step("slow", slow)
        await ctx.sleep("1h")
        await ctx.step("flaky", retry=Retry(2, base="10m", jitter=0)).up(flaky)
        await ctx.wait_for_signal(Go)

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("5m")
    may_end.set()
    await still_world.advance("1h")
    await still_world.advance("10m")
    await still_world.advance("30m")
    await handle.signal(Go)
    await handle.result(5)
    detail = await node.operator.get_execution_detail(handle.id)
    timings = detail.timings
    assert timings.total == timedelta(minutes=105)
    assert timings.your_code == timedelta(minutes=5)
    assert timings.waiting == timedelta(minutes=100)
    assert timings.overhead == timedelta()
    assert timings.durable == timedelta(minutes=100)
    records = {record.id: record for record in detail.steps}
    assert records["slow"].running == timedelta(minutes=5)
    assert records["sleep"].waiting == timedelta(hours=1)
    flaky_ = records["flaky"]
    assert (flaky_.running, flaky_.waiting) == (timedelta(), timedelta(minutes=10))
    assert records["go"].waiting == timedelta(minutes=30)


async def test_a_step_that_nobody_could_begin_was_queued(still_world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)
        await ctx.step("work", lambda: 1)

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.until_idle()
    client = await still_world.node(worker=False)
    await still_world.stop(node)
    await client.handle(handle.id, order).signal(Go)
    await still_world.advance("20m")
    again = await still_world.node(order)
    handle = again.handle(handle.id, order)
    await still_world.until_idle()
    await handle.result(5)
    detail = await again.operator.get_execution_detail(handle.id)
    work = next(record for record in detail.steps if record.id == "work")
    assert work.queued == timedelta(minutes=20)
    assert detail.timings.overhead == timedelta(minutes=20)


async def test_steps_side_by_side_count_once(still_world: World) -> None:
    may_end = asyncio.Event()

    async def slow() -> None:
        await may_end.wait()

    @workflow
    async def both(ctx: Context) -> None:
        await ctx.gather(ctx.step("a", slow), ctx.step("b", slow))

    node = await still_world.node(both)
    handle = await node.start(both)
    await still_world.advance("5m")
    may_end.set()
    await still_world.until_idle()
    await handle.result(5)
    detail = await node.operator.get_execution_detail(handle.id)
    assert detail.timings.your_code == timedelta(minutes=5)
    assert [record.queued for record in detail.steps] == [timedelta(), timedelta()]


async def test_what_still_runs_or_waits_counts_up_to_now(still_world: World) -> None:
    @workflow
    async def patient(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)

    node = await still_world.node(patient)
    handle = await node.start(patient, delay="10m")
    await still_world.advance("5m")
    waiting = (await node.operator.get_execution_detail(handle.id)).timings
    assert (waiting.total, waiting.waiting) == (timedelta(minutes=5), timedelta(minutes=5))
    await still_world.advance("10m")
    waiting = (await node.operator.get_execution_detail(handle.id)).timings
    assert waiting.total == timedelta(minutes=15)
    await reaches(handle, "waiting")
    with pytest.raises(InvalidInput):
        await node.operator.skip_step(handle.id, "__tries:go", 1)
