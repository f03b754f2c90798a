"""An order workflow whose executions are kept in PostgreSQL.

DATABASE_URL=postgresql://postgres:postgres@localhost/shop python orders.py
"""

import asyncio
import os

from durable import Context, Durable, workflow


@workflow
async def fulfil(ctx: Context, order: str) -> str:
    charge = await ctx.step("charge", lambda: f"charge of {order}")
    await ctx.sleep("100ms")
    return await ctx.step("ship", lambda: f"{order} is shipped, after the {charge}")


async def main() -> None:
    async with Durable([fulfil], store=os.environ["DATABASE_URL"]) as durable:
        handle = await durable.start(fulfil, "order-7", key="order-7")
        print(await durable.wait(handle.id, timeout="10s"))


if __name__ == "__main__":
    asyncio.run(main())
