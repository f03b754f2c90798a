"""A user's own table in PostgreSQL, for the rig of transactions: see `tests.crash.transacting`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from durable.errors import StoreUnavailable

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


class PostgresSide:
    def __init__(self, url: str) -> None:
        self._url = url

    async def create(self) -> None:
        async with self.connect() as db:
            await db.execute("CREATE TABLE user_rows (execution text, step text, try text)")

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Any]:
        """Whatever fails on it is known as what the rig passes over: callers try again with another row."""
        try:
            connection: Any = await asyncpg.connect(self._url)
            try:
                yield connection
            finally:
                await connection.close(timeout=5)
        except FAILURES as error:
            raise StoreUnavailable(f"PostgreSQL: {error}") from error

    async def begin(self, connection: Any) -> None:
        await connection.execute("BEGIN")

    async def commit(self, connection: Any) -> None:
        await connection.execute("COMMIT")

    async def insert(self, connection: Any, row: tuple[str, str, str]) -> None:
        await connection.execute("INSERT INTO user_rows VALUES ($1, $2, $3)", *row)

    async def rows(self) -> list[tuple[str, str, str]]:
        async with self.connect() as db:
            return [tuple(row) for row in await db.fetch("SELECT * FROM user_rows")]


def user_side(url: str) -> PostgresSide:
    return PostgresSide(url)
