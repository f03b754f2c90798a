"""A shop: orders start workflows, the payment provider tells of payments, and large orders wait for a person.

`uvicorn shop:app` serves it; `python shop.py` plays a customer, the provider and ada, who works there.
"""

import os
import secrets
import time
from dataclasses import dataclass
from html import escape
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from durable import Context, Durable, Event, Fail, Signal, TimedOut, workflow
from durable.dashboard import dashboard
from durable_fastapi import (
    DurableDep,
    StandardWebhooks,
    Webhooks,
    add_problems,
    lifespan,
    mount_behind,
    signed_in,
)


@dataclass
class Order:
    id: str
    customer: str
    cents: int


@dataclass
class Payment:
    order_id: str


@dataclass
class Decision:
    approved: bool
    by: str


Paid = Event("payment.received", Payment)
Decided = Signal("decided", Decision)


async def ship(order: Order) -> str:
    return f"parcel-{order.id}"


@workflow
async def fulfil_order(ctx: Context, order: Order) -> str:
    paid = await ctx.wait_for_event(Paid, match={"order_id": order.id}, timeout="7d")
    if isinstance(paid, TimedOut):
        raise Fail(f"nobody has paid order {order.id}", code="not_paid")
    if order.cents >= 100_000:
        await ctx.set_value("asks", f"order {order.id}: {order.cents / 100:.2f} for {order.customer}")
        decision = await ctx.wait_for_signal(Decided)
        await ctx.set_value("asks", None)
        if not decision.approved:
            raise Fail(f"{decision.by} did not approve order {order.id}", code="not_approved")
    return await ctx.step("ship", ship, order)


PASSWORDS = {"ada": os.environ.get("ADAS_PASSWORD", "lovelace")}
provider = StandardWebhooks(
    os.environ.get("PROVIDER_SECRET", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
)

durable = Durable([fulfil_order], store="sqlite:///shop.db")
app = FastAPI(lifespan=lifespan(durable))
add_problems(app)

hooks = Webhooks("provider", provider)
hooks.send("/payments", Paid)
app.include_router(hooks.router, prefix="/hooks")


@app.post("/orders", status_code=202)
async def place(order: Order, durable: DurableDep) -> str:
    return (await durable.start(fulfil_order, order, key=order.id)).id


@app.get("/orders/{execution_id}")
async def look(execution_id: str, durable: DurableDep) -> str:
    return (await durable.status(execution_id)).status


@app.get("/orders/{execution_id}/parcel")
async def parcel(execution_id: str, durable: DurableDep) -> str:
    return await durable.handle(execution_id, fulfil_order).result("10s")


def employee(given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> str:
    """The application's own sign-in."""
    wanted = PASSWORDS.get(given.username, "")
    if not wanted or not secrets.compare_digest(given.password.encode(), wanted.encode()):
        raise HTTPException(401, headers={"WWW-Authenticate": "Basic"})
    return given.username


def own_page(request: Request) -> None:
    """Browsers send passwords along whichever page asks: only ours may."""
    if request.headers.get("sec-fetch-site") not in {None, "same-origin"}:
        raise HTTPException(403)


Employee = Annotated[str, Depends(employee)]

mount_behind(app, "/durable", dashboard(durable, auth=signed_in), user=employee)


@app.get("/approvals", response_class=HTMLResponse)
async def approvals(who: Employee, durable: DurableDep) -> str:
    """The page on which people approve what waits for them."""
    rows: list[str] = []
    for execution in (
        await durable.operator.list_executions(status="waiting", workflow="fulfil_order")
    ).items:
        asked = await durable.handle(execution.id).value("asks")
        if asked is not None:
            to = f"approvals/{execution.id}"
            rows.append(
                f"<li>{escape(str(asked))} <form method=post>"
                f"<button formaction='{to}/approve'>Approve</button>"
                f"<button formaction='{to}/reject'>Reject</button></form></li>"
            )
    return f"<!doctype html><title>Approvals</title><h1>{escape(who)}, please decide</h1><ul>{''.join(rows)}</ul>"


@app.post("/approvals/{execution_id}/{verb}", dependencies=[Depends(own_page)])
async def decide(execution_id: str, verb: str, who: Employee, durable: DurableDep) -> RedirectResponse:
    if verb not in {"approve", "reject"}:
        raise HTTPException(404)
    # With one key the first decision counts, whoever presses twice.
    await durable.signal(execution_id, Decided, Decision(verb == "approve", who), key="decision")
    return RedirectResponse("/approvals", 303)


def main() -> None:
    from fastapi.testclient import TestClient

    ada = ("ada", "lovelace")
    with TestClient(app) as client:
        placed = client.post("/orders", json={"id": "42", "customer": "grace", "cents": 120_000})
        print("placed:", placed.status_code)
        body = b'{"order_id": "42"}'
        headers = provider.sign("msg_1", body, time.time())
        for _ in "12":
            print("the provider tells:", client.post("/hooks/payments", content=body, headers=headers).json())
        print("without a signature:", client.post("/hooks/payments", content=body).json()["title"])
        print("without a password:", client.get("/approvals").json()["title"])
        while "order 42: 1200.00 for grace" not in client.get("/approvals", auth=ada).text:
            time.sleep(0.05)  # until the order waits for her
        decided = client.post(f"/approvals/{placed.json()}/approve", auth=ada, follow_redirects=False)
        print("ada approves:", decided.status_code)
        print(
            "the dashboard:",
            client.get("/durable/").status_code,
            client.get("/durable/", auth=ada).status_code,
        )
        print("shipped:", client.get(f"/orders/{placed.json()}/parcel").json())


if __name__ == "__main__":
    main()
