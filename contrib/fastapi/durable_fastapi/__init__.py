"""A FastAPI application with durable workflows.

lifespan, DurableDep              the application's `Durable`                     lifespan
add_problems                      errors as problem details (RFC 9457)            problems
Webhooks, StandardWebhooks        deliveries that send events and signals         webhooks, signatures
mount_behind, signed_in           another application behind one's own sign-in    mounting

durable = Durable([fulfil_order], store="sqlite:///shop.db")
app = FastAPI(lifespan=lifespan(durable))
add_problems(app)

@app.post("/orders", status_code=202)
async def order(order: Order, durable: DurableDep) -> str:
    return (await durable.start(fulfil_order, order, key=order.id)).id
"""

from durable_fastapi.lifespan import DurableDep, get_durable, lifespan
from durable_fastapi.mounting import mount_behind, signed_in
from durable_fastapi.problems import Problem, add_problems
from durable_fastapi.signatures import BadSignature, Signatures, StandardWebhooks
from durable_fastapi.webhooks import Webhooks

__all__ = [
    "BadSignature",
    "DurableDep",
    "Problem",
    "Signatures",
    "StandardWebhooks",
    "Webhooks",
    "add_problems",
    "get_durable",
    "lifespan",
    "mount_behind",
    "signed_in",
]
