"""One thing after the other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from durable import Context, workflow
from tests.describe.corpus.parts import Approved, Paid, Ping, charge, reserve, shipping, work


@workflow
async def nothing(ctx: Context) -> int:
    """
    start -> end
    """
    return 1


@workflow
async def steps_in_a_row(ctx: Context, amount: int) -> None:
    """
    start -> reserve-stock -> charge -> ship -> end
    """
    await ctx.step(reserve, amount)
    await ctx.step(charge, amount)
    await ctx.step("ship", work, amount)


@workflow
async def one_name_twice(ctx: Context) -> None:
    """
    start -> mail -> mail#2 -> sleep -> sleep#2 -> new-year -> end
    """
    await ctx.step("mail", work)
    await ctx.step("mail", work)
    await ctx.sleep("1h")
    await ctx.sleep(timedelta(days=2))
    await ctx.sleep_until(datetime(2030, 1, 1, tzinfo=UTC), id="new-year")


@workflow
async def up_and_down(ctx: Context) -> None:
    """
    start -> label -> plain -> end
    """
    await ctx.step("label", retry=3, timeout="10s").up(work, 1).down(print)
    await ctx.step("plain").up(work, 1)


@workflow
async def in_transactions(ctx: Context) -> None:
    """
    start -> reserve -> charge -> end
    """
    await ctx.transaction("reserve", work, 1)
    await ctx.transaction("charge", charge)


@workflow
async def said_once(ctx: Context) -> None:
    """
    start -> note -> value:progress -> emit:payment.received -> again -> rollback -> end
    """
    await ctx.note("checked by hand", by="ada")
    await ctx.set_value("progress", 0.5)
    await ctx.emit(Paid, 5)
    await ctx.emit(Paid, 5, id="again")
    await ctx.rollback()


@workflow
async def children(ctx: Context) -> None:
    """
    start -> shipping -> second -> signal:ping -> wait_for -> wait_for#2
    wait_for#2 -completed-> cancel
    wait_for#2 -timeout-> cancel
    cancel -> end
    """
    await ctx.run(shipping, 1)
    handle = await ctx.start(shipping, 2, id="second")
    await handle.signal(Ping)
    await ctx.wait_for(handle)
    other = ctx.handle("elsewhere", shipping)
    await other.result("1h")
    await other.cancel("late")


@workflow
async def waits(ctx: Context) -> str:
    """
    start -> ping -> approval -> end
    """
    await ctx.wait_for_signal(Ping)
    return await ctx.wait_for_signal(Approved, id="approval")


@workflow
async def nested_calls(ctx: Context) -> int:
    """
    start -> inner -> outer -> end
    """
    return await ctx.step("outer", work, await ctx.step("inner", work))


@workflow
async def awaited_later(ctx: Context) -> None:
    """
    start -> second -> first -> end
    """
    first = ctx.step("first", work)
    await ctx.step("second", work)
    await first


@workflow
async def ends_anew(ctx: Context, n: int) -> None:
    """
    start -> count
    count -continue as new-> end
    """
    await ctx.step("count", work, n)
    ctx.continue_as_new(n + 1)


@workflow
async def gives_up(ctx: Context) -> None:
    """
    start -> look
    look -bail-> end
    """
    await ctx.step("look", work)
    ctx.bail("not needed")


@workflow
async def nothing_durable_in_it(ctx: Context, items: list[int]) -> int:
    """
    start -> save -> end
    """
    total = 0
    for item in items:
        if item > 3:
            total += item
        elif item < 0:
            continue
        try:
            total += 1
        except ValueError:
            total = 0
    await ctx.step("save", work, total)
    return total or 0
