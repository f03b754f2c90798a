"""`Pool`: connections to one PostgreSQL, opened when they are needed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, final

from durable.errors import StoreUnavailable
from durable_postgres.driver import Connection, dial
from durable_postgres.errors import FAILURES, translate
from durable_postgres.location import Location

_DIAL_S: Final = 5.0
_CLOSE_S: Final = 2.0
_SETTINGS: Final = {
    "application_name": "durable",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "60000",
}


async def connect(location: Location, *, patience_s: float | None) -> Connection:
    """A connection whose statements take at most `patience_s`, if that is given, and wait for a lock for 5 seconds.

    Raises: `StoreUnavailable`.
    """
    limits = (
        {}
        if patience_s is None
        else {"statement_timeout": str(int(patience_s * 1000)), "lock_timeout": "5000"}
    )
    try:
        return await dial(
            location.url,
            timeout=_DIAL_S,
            command_timeout=None if patience_s is None else patience_s + 1,
            server_settings=_SETTINGS | limits,
        )
    except (*FAILURES, ValueError) as error:
        ours = translate(error)
        raise StoreUnavailable(f"no connection to {location.shown}: {ours}", ours.hint) from error


@final
class Pool:
    """Connections that are used again, most recently used first.

    Belongs to the event loop and the process that made it.
    """

    def __init__(self, location: Location, *, patience_s: float | None) -> None:
        self._location = location
        self._patience_s = patience_s
        self._idle: list[Connection] = []
        self._is_closed = False
        self._pid = os.getpid()

    async def take(self) -> tuple[Connection, bool]:
        """One for the caller alone, in no transaction, which is to be given back; and whether it is new.

        Raises: `StoreUnavailable`: there is none to be had; nothing was sent.
        """
        if self._pid != os.getpid():
            raise StoreUnavailable(
                "the store was open when this process was forked", "fork first and open it then"
            )
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection, False
        return await connect(self._location, patience_s=self._patience_s), True

    async def give_back(self, connection: Connection) -> None:
        if self._is_closed:
            await _close(connection)
        elif not connection.is_closed():
            self._idle.append(connection)

    async def close(self) -> None:
        """Close the idle ones now, and the others when they are given back."""
        self._is_closed = True
        while self._idle:
            await _close(self._idle.pop())


@final
class Share:
    """The right to use so many connections of a pool at one time, whatever others do."""

    def __init__(self, pool: Pool, size: int) -> None:
        self.size = size
        self._pool = pool
        self._free = asyncio.Semaphore(size)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """As `Pool.take`; given back at the end."""
        async with self._free:
            connection, _ = await self._pool.take()
            try:
                yield connection
            finally:
                await self._pool.give_back(connection)


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=_CLOSE_S)
    except FAILURES:
        connection.terminate()
