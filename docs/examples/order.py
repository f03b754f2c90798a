"""An order: charge the card, wait up to three days for an approval, ship. What was charged is refunded if it fails."""

import asyncio
from dataclasses import dataclass

from durable import Context, Durable, Fail, Received, Signal, TimedOut, current_step, step, workflow


@dataclass
class Order:
    id: str
    cents: int


Approved = Signal("approved", str)  # its payload: who approved


@step(retry=5, timeout="10s")
async def charge(order: Order) -> str:
    key = current_step().idempotency_key  # the same in every repeat: hand it to the payment provider
    print(f"charging {order.cents} cents, once for {key.rpartition(':')[2]!r}")
    return f"charge-{order.id}"


@charge.undo
async def refund(charge_id: str) -> None:
    print(f"refunding {charge_id}")


def ship(order_id: str, approver: str) -> str:  # not async: it runs in a thread
    print(f"shipping, approved by {approver}")
    return f"parcel-{order_id}"


@workflow(rollback="on_failure")
async def fulfil_order(ctx: Context, order: Order) -> str:
    await ctx.step(charge, order)
    match await ctx.wait_for_signal(Approved, timeout="3d"):
        case Received(approver):
            return await ctx.step("ship", ship, order.id, approver)
        case TimedOut():
            raise Fail("nobody approved the order", code="not_approved")


durable = Durable([fulfil_order], store="sqlite:///orders.db")


async def main() -> None:
    async with durable:
        order = Order("42", cents=1999)
        handle = await durable.start(fulfil_order, order, key=f"order:{order.id}")
        await handle.signal(Approved, "ada", key="ada")
        print(await handle.result(timeout="30s"))


if __name__ == "__main__":
    asyncio.run(main())
