"""Machines disagree about the time. What is due is decided by the store's clock, and every worker goes by it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durable import Context, workflow
from durable.clock import SystemClock
from tests.support import CountingStore, World, reaches, until

HOUR = 3600


@workflow
async def nap(ctx: Context) -> None:
    await ctx.step("before", lambda: None)
    await ctx.sleep("30m")


@pytest.mark.parametrize("hours", [-1, 1])
async def test_who_enters_goes_by_the_clock_of_the_store_at_once(world: World, hours: int) -> None:
    clock = SystemClock()
    clock._offset += hours * HOUR
    await world.node(nap, store=world.store(), clock=clock, worker=False)
    assert abs(clock.now_ms() - world.clock.now_ms()) < 1_000


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_worker_whose_clock_is_wrong_sleeps_as_long_as_others(world: World, hours: int) -> None:
    clock = SystemClock()
    clock._offset += hours * HOUR
    await world.node(nap, store=world.store(), clock=clock)
    client = await world.node(nap, worker=False)
    execution = await reaches(await client.start(nap), "sleeping")
    assert execution.wake_at is not None
    slept = execution.wake_at - execution.created_at
    assert abs(slept - timedelta(minutes=30)) < timedelta(seconds=10)


async def test_a_clock_that_goes_wrong_is_put_right_by_the_next_sweep_and_sweeps_go_on(world: World) -> None:
    clock, store = SystemClock(), CountingStore(world.store())
    await world.node(nap, store=store, clock=clock, sweep=0.05)
    clock._offset += HOUR
    await until(lambda: abs(clock.now_ms() - world.clock.now_ms()) < 1_000)
    store.reset()
    await until(lambda: store.calls["live"] >= 2)
