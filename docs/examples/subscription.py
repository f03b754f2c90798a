"""A subscription that lives for years: a charge each month, and a change of plan or an end at any time."""

import asyncio
from dataclasses import dataclass, replace

from durable import Context, Received, Signal, TimedOut, workflow
from durable.testing import DurableEnv


@dataclass(frozen=True)
class Subscription:
    customer: str
    plan: str
    months: int = 0


ChangePlan = Signal("change-plan", str)
End = Signal("end")


async def charge(customer: str, plan: str) -> None:
    print(f"charging {customer} for {plan}")


@workflow
async def subscribe(ctx: Context, subscription: Subscription) -> int:
    await ctx.step("charge", charge, subscription.customer, subscription.plan)
    await ctx.set_value("months", subscription.months + 1)
    month_end = ctx.now().timestamp() + 30 * 24 * 3600
    while True:
        left = max(0, month_end - ctx.now().timestamp())
        match await ctx.wait_for_any(ChangePlan, End, timeout=left):
            case Received(str(plan)):
                subscription = replace(subscription, plan=plan)
            case Received():
                return subscription.months + 1
            case TimedOut():
                # The same execution goes on with an empty history, so that it stays small.
                ctx.continue_as_new(replace(subscription, months=subscription.months + 1))


async def main() -> None:
    async with DurableEnv([subscribe]) as env:
        handle = await env.durable.start(subscribe, Subscription("ada", "basic"))
        await env.advance("10d")
        await handle.signal(ChangePlan, "pro")
        await env.advance("60d")
        print("months so far:", await handle.value("months"))
        await handle.signal(End)
        print("months in all:", await handle.result(timeout="10s"))


if __name__ == "__main__":
    asyncio.run(main())
