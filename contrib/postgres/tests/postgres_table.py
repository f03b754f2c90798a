"""A user's own table beside the store's schema, for the contract of transactions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg


class PostgresTable:
    """Implements `UserTable`."""

    def __init__(self, url: str, elsewhere: str) -> None:
        self._url = url
        self._elsewhere = elsewhere

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[object]:
        async with session(self._url) as db:
            yield db

    @asynccontextmanager
    async def elsewhere(self) -> AsyncGenerator[object]:
        async with session(self._elsewhere) as db:
            yield db

    async def begin(self, connection: object) -> None:
        await _db(connection).execute("BEGIN")

    async def commit(self, connection: object) -> None:
        await _db(connection).execute("COMMIT")

    async def rollback(self, connection: object) -> None:
        await _db(connection).execute("ROLLBACK")

    async def insert(self, connection: object, text: str) -> None:
        await _db(connection).execute("INSERT INTO texts VALUES ($1)", text)

    async def rows(self) -> list[str]:
        async with session(self._url) as db:
            return [row["text"] for row in await db.fetch("SELECT text FROM texts ORDER BY text")]


@asynccontextmanager
async def table(url: str, elsewhere: str) -> AsyncGenerator[PostgresTable]:
    """A new one, which is dropped afterwards."""
    async with session(url) as db:
        await db.execute("CREATE TABLE texts (text text NOT NULL)")
        yield PostgresTable(url, elsewhere)
        await db.execute("DROP TABLE texts")


@asynccontextmanager
async def session(url: str) -> AsyncGenerator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def _db(connection: object) -> Any:
    return cast("Any", connection)
