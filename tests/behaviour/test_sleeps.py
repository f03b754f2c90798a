"""Sleeps and timers: at their own instant, whatever happens to the process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from durable import Context, InvalidInput, Signal, workflow
from durable.testing import DurableEnv
from tests.support import World, reaches

Go = Signal("go")


@workflow
async def nap(ctx: Context, duration: str) -> datetime:
    await ctx.sleep(duration)
    return ctx.now()


async def test_a_sleep_ends_at_its_instant(still_world: World) -> None:
    begin = still_world.clock.now_ms()
    node = await still_world.node(nap)
    handle = await node.start(nap, "3d")
    await still_world.until_idle()
    execution = await handle.status()
    assert execution.status == "sleeping"
    assert execution.wake_at == datetime.fromtimestamp(begin / 1000, UTC) + timedelta(days=3)
    await still_world.advance("71h")
    assert (await handle.status()).status == "sleeping"
    await still_world.advance("1h")
    woke = await handle.result(5)
    assert woke == execution.wake_at


async def test_a_sleep_keeps_its_deadline_across_restarts(still_world: World) -> None:
    await (await still_world.node(nap)).start(nap, "10h", key="k")
    for _ in range(9):
        await still_world.advance("1h")
        await still_world.restart()
    node = await still_world.restart()
    handle = await node.start(nap, "10h", key="k")
    await still_world.advance("59m")
    assert (await handle.status()).status == "sleeping"
    await still_world.advance("1m")
    assert (await handle.status()).status == "completed"


async def test_a_sleep_keeps_its_deadline_when_the_code_changes(still_world: World) -> None:
    def version(duration: str):
        @workflow(name="nap")
        async def nap(ctx: Context) -> str:
            await ctx.sleep(duration)
            return duration

        return nap

    handle = await (await still_world.node(version("1h"))).start(version("1h"))
    await still_world.until_idle()
    node = await still_world.restart(version("10d"))
    await still_world.advance("1h")
    assert await node.handle(handle.id, version("10d")).result(5) == "10d"


async def test_a_sleep_that_ended_while_nobody_ran_ends_when_somebody_does(still_world: World) -> None:
    client = await still_world.node(nap, worker=False)
    node = await still_world.node(nap)
    handle = await client.start(nap, "2d")
    await still_world.until_idle()
    await still_world.stop(node)
    await still_world.advance("5d")
    assert (await handle.status()).status == "sleeping"
    await still_world.node(nap)
    await still_world.until_idle()
    assert (await handle.status()).status == "completed"


async def test_a_sleep_that_is_woken_early_sleeps_on_to_its_first_deadline(still_world: World) -> None:
    node = await still_world.node(nap)
    handle = await node.start(nap, "2h")
    await still_world.advance("1h")
    await handle.signal(Go)
    await still_world.until_idle()
    assert (await handle.status()).status == "sleeping"
    await still_world.advance("59m")
    assert (await handle.status()).status == "sleeping"
    await still_world.advance("1m")
    assert (await handle.status()).status == "completed"


async def test_a_sleep_until_an_instant_knows_its_zone(still_world: World) -> None:
    @workflow
    async def until(ctx: Context, when: datetime) -> None:
        await ctx.sleep_until(when)

    now = datetime.fromtimestamp(still_world.clock.now_ms() / 1000, UTC)
    there = timezone(timedelta(hours=-5))
    node = await still_world.node(until)
    handle = await node.start(until, (now + timedelta(hours=2)).astimezone(there))
    await still_world.advance("119m")
    assert (await handle.status()).status == "sleeping"
    await still_world.advance("1m")
    assert (await handle.status()).status == "completed"


async def test_a_sleep_until_the_past_and_of_nothing_ends_at_once(world: World) -> None:
    @workflow
    async def until(ctx: Context) -> str:
        await ctx.sleep_until(datetime(2020, 1, 1, tzinfo=UTC))
        await ctx.sleep(0)
        return "awake"

    node = await world.node(until)
    assert await node.start_and_wait(until, timeout=5) == "awake"


async def test_a_naive_instant_is_refused(world: World) -> None:
    @workflow
    async def until(ctx: Context) -> str:
        with pytest.raises(InvalidInput, match="zone"):
            await ctx.sleep_until(datetime(2020, 1, 1))  # noqa: DTZ001
        return "refused"

    node = await world.node(until)
    assert await node.start_and_wait(until, timeout=5) == "refused"


@pytest.mark.parametrize("duration", ["", "3", "3 parsecs", "-1s", -1, float("nan"), "1e999s", None, True])
async def test_what_is_no_duration_is_refused(world: World, duration: object) -> None:
    @workflow(retry=1)
    async def bad(ctx: Context) -> str:
        with pytest.raises(InvalidInput):
            await ctx.sleep(duration)  # type: ignore[arg-type]
        return "refused"

    node = await world.node(bad)
    assert await node.start_and_wait(bad, timeout=5) == "refused"


async def test_sleeping_holds_no_slot(still_world: World) -> None:
    node = await still_world.node(nap, concurrency=1)
    handles = [await node.start(nap, "1d") for _ in range(20)]
    await still_world.until_idle()
    assert {(await handle.status()).status for handle in handles} == {"sleeping"}
    await still_world.advance("1d")
    assert {(await handle.status()).status for handle in handles} == {"completed"}


async def test_a_very_long_sleep_neither_fires_early_nor_overflows(still_world: World) -> None:
    node = await still_world.node(nap)
    handle = await node.start(nap, "5000d")
    await still_world.advance("4999d")
    assert (await handle.status()).status == "sleeping"
    await still_world.advance("1d")
    assert (await handle.status()).status == "completed"


async def test_two_workers_and_one_due_timer_make_one_resume(world: World) -> None:
    resumed: list[str] = []

    @workflow
    async def short(ctx: Context) -> None:
        await ctx.sleep(0.03)
        await ctx.step("resumed", resumed.append, "once")

    nodes = [await world.node(short, sweep=0.02) for _ in range(3)]
    handles = [await nodes[0].start(short) for _ in range(10)]
    await asyncio.gather(*(handle.result(5) for handle in handles))
    assert resumed == ["once"] * 10


async def test_a_real_sleep_is_not_early(world: World) -> None:
    node = await world.node(nap)
    handle = await node.start(nap, "120ms")
    execution = await reaches(handle, "sleeping", "completed")
    await handle.result(5)
    execution = await handle.status()
    assert execution.finished_at is not None
    assert execution.finished_at - execution.created_at >= timedelta(milliseconds=120)


async def test_a_delayed_start_sleeps_from_when_it_began(still_world: World) -> None:
    node = await still_world.node(nap)
    handle = await node.start(nap, "1h", delay="1d")
    await still_world.advance("1d")
    assert (await handle.status()).status == "sleeping"
    await still_world.advance("59m")
    assert (await handle.status()).status == "sleeping"
    await still_world.advance("1m")
    assert (await handle.status()).status == "completed"


# ---- DurableEnv


async def test_a_week_passes_in_milliseconds() -> None:
    @workflow
    async def reminders(ctx: Context) -> list[datetime]:
        instants = []
        for _ in range(7):
            await ctx.sleep("1d")
            instants.append(ctx.now())
        return instants

    start = datetime(2024, 3, 1, 9, tzinfo=UTC)
    async with DurableEnv(workflows=[reminders], start=start) as env:
        handle = await env.durable.start(reminders)
        await env.advance("7d")
        assert env.now() == start + timedelta(days=7)
        assert await handle.result(1) == [start + timedelta(days=day) for day in range(1, 8)]


async def test_stubs_and_failures_stand_in_for_steps() -> None:
    async def charge(amount: int) -> str:
        raise AssertionError("the real one must not run")

    @workflow(retry=1)
    async def order(ctx: Context) -> list[str]:
        return [
            await ctx.step("charge", retry=3).up(charge, 1),
            await ctx.step("charge", charge, 2),
        ]

    async with DurableEnv(workflows=[order]) as env:
        env.stub("charge", lambda amount: f"ch_{amount}")
        env.fail("charge", ConnectionError("no route"), times=2)
        handle = await env.durable.start(order)
        await env.advance("10s")
        assert await handle.result(1) == ["ch_1", "ch_2"]


async def test_near_timers_are_kept_in_mind_however_many_far_ones_there_are(world: World) -> None:
    @workflow
    async def nothing(ctx: Context) -> None: ...

    sweeper = (await world.node(nothing)).worker.sweeper
    now = sweeper._clock.now_ms()
    for number in range(30_000):
        sweeper.wake_at(now + 86_400_000 + number)
    sweeper.wake_at(now + 60_000)
    assert sweeper._timers[0] == now + 60_000
    assert len(sweeper._timers) <= 10_000
