"""What happens in the tests of the dashboard."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from durable import Context, Cron, Fail, Received, Retry, Signal, TimedOut, current_step, step, workflow


@dataclass
class Order:
    id: str
    cents: int


@dataclass
class Approval:
    by: str
    approved: bool
    note: str = ""


Approved = Signal("approved", Approval)
Ping = Signal("ping")
Level = Signal("level", int)


@step
async def reserve(order: Order) -> str:
    return f"reserved-{order.id}"


@reserve.undo
async def release(reservation: str) -> None: ...


@step(retry=Retry(attempts=3, base="1ms", jitter=0))
async def charge(order: Order) -> str:
    if current_step().attempt < 2:
        raise TimeoutError("the provider did not answer")
    return f"charge-{order.id}"


@workflow
async def notify(ctx: Context, who: str) -> str:
    return await ctx.step("mail", f"mail to {who}".title)


@workflow(name="fulfil-order", tags={"category": "orders"}, rollback="on_failure")
async def fulfil(ctx: Context, order: Order) -> str:
    await ctx.step(reserve, order)
    await ctx.step(charge, order)
    match await ctx.wait_for_signal(Approved, timeout="3d"):
        case TimedOut():
            raise Fail("nobody approved it", code="late")
        case Received(answer):
            if not answer.approved:
                raise Fail(f"rejected by {answer.by}", code="rejected")
    return await ctx.run(notify, order.id, id="notify")


@workflow
async def quick(ctx: Context, text: str) -> str:
    return await ctx.step("upper", text.upper)


@workflow
async def broken(ctx: Context, text: str) -> str:
    raise Fail(text, code="broken", details={"text": text})


@workflow
async def pinged(ctx: Context) -> str:
    await ctx.wait_for_signal(Ping)
    return f"level {await ctx.wait_for_signal(Level)}"


@workflow
async def steps(ctx: Context, count: int) -> int:
    for number in range(count):
        await ctx.step("tick", asyncio.sleep, 0, number)
        await ctx.wait_for_signal(Ping)
    return count


@workflow(retry=1)
async def stuck(ctx: Context) -> str:
    return await ctx.step("unreachable", _shout, "nobody is there")


@workflow(on=[Cron("0 9 * * *", tz="Europe/London")])
async def nightly(ctx: Context) -> None: ...


@workflow(name="hostile", retry=1)
async def hostile(ctx: Context, texts: list[str]) -> str:
    """Puts what it is given wherever a body can put something."""
    for text in texts:
        await ctx.note(text, by=text)
        await ctx.step("say", lambda text=text: {text: text})
        with suppress(RuntimeError):
            await ctx.step("shout", _shout, text)
    await ctx.wait_for_signal(Level)
    return ""


def _shout(text: str) -> str:
    raise RuntimeError(text)


WORKFLOWS = [fulfil, notify, quick, broken, pinged, steps, nightly, stuck, hostile]
