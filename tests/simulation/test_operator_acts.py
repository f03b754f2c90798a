"""The acts of operators, with the worker killed before and after every write."""

from __future__ import annotations

from typing import Any

from durable import Context, Handle, Retry, Signal, workflow
from durable.testing import DurableEnv, crash_everywhere, simulate

Go = Signal("go", int)


async def give(number: int) -> int:
    return number


async def broken() -> int:
    raise ConnectionError("no route")


@workflow(retry=Retry(1))
async def order(ctx: Context) -> list[int]:
    reserved = await ctx.step("reserve", give, 1)
    charged = await ctx.step("charge", broken)
    shipped = await ctx.step("ship", give, 3)
    return [reserved, charged, shipped, await ctx.wait_for_signal(Go)]


async def mend(env: DurableEnv, handle: Handle[Any]) -> None:
    """Skip the broken step, pause, change what another one has returned, resume."""
    op = env.durable.operator
    await env.until_idle()
    assert (await handle.status()).status == "failed"
    await op.skip_step(handle.id, "charge", 2, by="ada")
    await env.until_idle()
    await op.pause(handle.id)
    await handle.signal(Go, 4)
    await env.until_idle()
    assert (await handle.status()).status == "paused"
    await op.edit_step_result(handle.id, "reserve", 10)
    await op.resume(handle.id)
    assert await handle.result("1h") == [10, 2, 3, 4]


async def test_skipping_pausing_and_editing_survive_a_crash_at_every_write() -> None:
    report = await crash_everywhere(order, drive=mend)
    assert report.runs > 20


async def test_a_rerun_from_a_step_survives_a_crash_at_every_write() -> None:
    ran: list[int] = []

    async def count(number: int) -> int:
        ran.append(number)
        return number

    @workflow(retry=Retry(1))
    async def two(ctx: Context) -> int:
        first = await ctx.step("first", count, 1)
        return first + await ctx.step("second", give, 2)

    async def again(env: DurableEnv, handle: Handle[Any]) -> None:
        assert await handle.result("1h") == 3
        before = len(ran)
        second = await env.durable.operator.rerun(handle.id, from_step="second", key="again")
        assert await second.result("1h") == 3
        assert len(ran) == before

    await crash_everywhere(two, drive=again)


async def test_acts_hold_under_chance_and_faults() -> None:
    await simulate(order, drive=mend, seeds=range(15))
