"""Orders in a table of their own, and the workflows that fulfil them, in one PostgreSQL.

DATABASE_URL=postgresql://postgres:postgres@localhost/shop python orders.py
"""

import asyncio
import os

import asyncpg

from durable import Context, Durable, workflow


async def book(connection: asyncpg.Connection, order: int, state: str) -> None:
    await connection.execute("UPDATE orders SET state = $2 WHERE id = $1", order, state)


@workflow
async def fulfil(ctx: Context, order: int) -> str:
    charge = await ctx.step("charge", lambda: f"charge of order {order}")
    await ctx.transaction("charged", book, order, "charged")
    await ctx.sleep("100ms")
    await ctx.transaction("shipped", book, order, "shipped")
    return f"order {order} is shipped, after the {charge}"


async def main() -> None:
    url = os.environ["DATABASE_URL"]
    async with Durable([fulfil], store=url) as durable, asyncpg.create_pool(url, min_size=1) as pool:
        await pool.execute("CREATE TABLE IF NOT EXISTS orders (id serial PRIMARY KEY, what text, state text)")

        async with pool.acquire() as connection, connection.transaction():
            insert = "INSERT INTO orders (what, state) VALUES ($1, 'new') RETURNING id"
            order = await connection.fetchval(insert, "tea")
            handle = await durable.start(fulfil, order, connection=connection)

        print(await handle.result(timeout="10s"))
        print(await pool.fetchval("SELECT state FROM orders WHERE id = $1", order))


if __name__ == "__main__":
    asyncio.run(main())
