"""A user's own table in the store's file, for the contract of transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import cast


class SqliteTable:
    """Implements `UserTable`. The store must have made the file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with closing(connect(file)) as db:
            db.execute("CREATE TABLE texts (text TEXT NOT NULL)")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[object]:
        with closing(connect(self._file)) as db:
            yield db

    @asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[object]:
        with closing(sqlite3.connect(":memory:")) as db:
            yield db

    async def begin(self, connection: object) -> None:
        _db(connection).execute("BEGIN IMMEDIATE")

    async def commit(self, connection: object) -> None:
        _db(connection).commit()

    async def rollback(self, connection: object) -> None:
        _db(connection).rollback()

    async def insert(self, connection: object, text: str) -> None:
        _db(connection).execute("INSERT INTO texts VALUES (?)", (text,))

    async def rows(self) -> list[str]:
        with closing(connect(self._file)) as db:
            return [text for (text,) in db.execute("SELECT text FROM texts ORDER BY text")]


def connect(file: Path) -> sqlite3.Connection:
    """As a user of the file does."""
    db = sqlite3.connect(file)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    return db


def _db(connection: object) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection)
