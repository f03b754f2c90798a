"""`Pool`: connections to one PostgreSQL, opened when they are needed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, final

from durable.errors import ConfigurationError, StoreUnavailable
from durable_postgres.driver import Connection, dial
from durable_postgres.errors import FAILURES, translate
from durable_postgres.location import Location

_DIAL_S: Final = 5.0
_CLOSE_S: Final = 2.0
_SETTINGS: Final = {
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "60000",
}
_SET: Final = (
    "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS setting (name, value)"
)
_PID: Final = "SELECT pg_backend_pid()"
_LOOKS: Final = 5


async def connect(location: Location, *, patience_s: float | None) -> Connection:
    """A connection whose statements take at most `patience_s`, if that is given, and wait for a lock for 5 seconds.

    Raises: `StoreUnavailable`.
    """
    try:
        connection = await dial(
            location.url,
            timeout=_DIAL_S,
            command_timeout=None if patience_s is None else patience_s + 1,
            server_settings={"application_name": "durable"},
        )
    except (*FAILURES, ValueError) as error:
        raise _unreachable(location, error) from error
    try:
        await set_up(connection, patience_s=patience_s)
    except BaseException as error:
        connection.terminate()
        if isinstance(error, FAILURES):
            raise _unreachable(location, error) from error
        raise
    return connection


async def set_up(connection: Connection, *, patience_s: float | None) -> None:
    """What `connect` does with a session, and has to be done again after a reset. By a statement: a pooler between us
    and the server lets few settings through with which a session could begin."""
    limits = (
        {}
        if patience_s is None
        else {"statement_timeout": str(int(patience_s * 1000)), "lock_timeout": "5000"}
    )
    settings = _SETTINGS | limits
    await connection.fetch(_SET, [*settings], [*settings.values()])


async def check_sessions(location: Location, connection: Connection) -> None:
    """See that a connection is a session, as far as can be told: that no pooler lends it another one for each
    transaction, where nothing that is listened to is heard, and settings get lost.

    Raises: `ConfigurationError`, `StoreUnavailable`.
    """
    if await connection.fetch(_PID) == [(connection.get_server_pid(),)]:
        return  # there is no pooler
    other = await connect(location, patience_s=_DIAL_S)
    try:
        for _ in range(_LOOKS):
            if await connection.fetch(_PID) == await other.fetch(_PID):
                raise ConfigurationError(
                    f"{location.shown} leads to a pooler that shares its sessions: two connections have one",
                    "let it pool by session (pool_mode=session of PgBouncer), or name the server itself",
                )
    except FAILURES as error:
        raise _unreachable(location, error) from error
    finally:
        await _close(other)


def _unreachable(location: Location, error: BaseException) -> StoreUnavailable:
    ours = translate(error)
    return StoreUnavailable(f"no connection to {location.shown}: {ours}", ours.hint)


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
