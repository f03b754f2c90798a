"""What the tests of PostgreSQL share: a database whose clock stands still."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from durable_postgres import PostgresStore

STAND_STILL = """
    CREATE TABLE durable.test_clock (now bigint NOT NULL);
    INSERT INTO durable.test_clock VALUES (1700000000000);
    CREATE OR REPLACE FUNCTION durable.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
        SELECT now FROM durable.test_clock
    $$;
"""


@dataclass(frozen=True, slots=True)
class StillDatabase:
    """All functions of the store read the time in one of them, and here that reads it in a table."""

    url: str

    async def pass_time(self, ms: int) -> None:
        async with self.clock() as pass_time:
            await pass_time(ms)

    @asynccontextmanager
    async def clock(self) -> AsyncGenerator[Callable[[int], Awaitable[None]]]:
        """`pass_time` for whoever needs it often: on one connection."""
        connection = await asyncpg.connect(self.url)

        async def pass_time(ms: int) -> None:
            await connection.execute("UPDATE durable.test_clock SET now = now + $1", ms)

        try:
            yield pass_time
        finally:
            await connection.close()


async def stop_the_clock(url: str) -> None:
    store = PostgresStore(url)
    await store.open()
    await store.close()
    connection = await asyncpg.connect(url)
    await connection.execute(STAND_STILL)
    await connection.close()
