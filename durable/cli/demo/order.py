"""The demo's workflow: charge the card, wait for an approval, ship."""

from __future__ import annotations

from dataclasses import dataclass

from durable import Context, Signal, current_step, step, workflow
from durable.cli.demo.ledger import write_down


@dataclass
class Order:
    id: str
    cents: int


@dataclass
class Receipt:
    charge: str
    approved_by: str
    parcel: str


Approved = Signal("approved", str)  # its payload: who approved


@step
async def charge(order: Order) -> str:
    write_down("charge", current_step().idempotency_key)  # stands for the call to a payment provider
    return f"charge-{order.id}"


@step
def ship(order: Order, approved_by: str) -> str:  # not async: it runs in a thread
    write_down("ship", current_step().idempotency_key)
    return f"parcel-{order.id}"


@workflow
async def fulfil_order(ctx: Context, order: Order) -> Receipt:
    charged = await ctx.step(charge, order)
    approved_by = await ctx.wait_for_signal(Approved)
    parcel = await ctx.step(ship, order, approved_by)
    return Receipt(charged, approved_by, parcel)
