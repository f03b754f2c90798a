"""What is used of asyncpg, with types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

import asyncpg  # type: ignore[import-untyped]  # it brings no types, and its stubs follow it too slowly

Row = Sequence[Any]
"""The columns of a row, or the fields of a composite value."""


class Statement(Protocol):
    """A statement that the server has read and not planned yet."""

    async def fetch(self, *args: object, timeout: float | None = None) -> list[Row]: ...


class Connection(Protocol):
    """One connection. One statement at a time; each is a transaction of its own, unless one was begun."""

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Row]: ...

    async def prepare(self, query: str, *, timeout: float | None = None) -> Statement: ...

    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> Row | None: ...

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str: ...

    async def add_listener(
        self, channel: str, callback: Callable[[Connection, int, str, str], None]
    ) -> None: ...

    def add_termination_listener(self, callback: Callable[[Connection], None]) -> None: ...

    def get_server_pid(self) -> int: ...

    def is_closed(self) -> bool: ...

    def is_in_transaction(self) -> bool: ...

    def transaction(self) -> Transaction: ...

    async def fetchval(self, query: str, *args: object, timeout: float | None = None) -> Any: ...

    async def reset(self, *, timeout: float | None = None) -> None: ...

    def terminate(self) -> None: ...

    async def close(self, *, timeout: float | None = None) -> None: ...


class Transaction(Protocol):
    """`asyncpg.transaction.Transaction`, in which those that are begun later are savepoints."""

    async def start(self) -> None: ...


class Dial(Protocol):
    """`asyncpg.connect`."""

    async def __call__(
        self, dsn: str, *, timeout: float, command_timeout: float | None, server_settings: dict[str, str]
    ) -> Connection: ...


_asyncpg: Final = cast("Any", asyncpg)

dial: Final = cast("Dial", _asyncpg.connect)

ServerError: Final = cast("type[Exception]", _asyncpg.PostgresError)
"""What the server has refused; `sqlstate` says why."""
DriverError: Final = cast("type[Exception]", _asyncpg.InterfaceError)
InternalError: Final = cast("type[Exception]", _asyncpg.InternalClientError)
BadValue: Final = cast("type[Exception]", _asyncpg.DataError)
"""A parameter that cannot be sent."""


def is_connection(thing: object) -> bool:
    """It is one of `asyncpg.connect`, or one that a pool has lent."""
    return isinstance(thing, _asyncpg.Connection)


def lend(connection: Connection) -> Connection:
    """The same connection for somebody else, until it is taken back: what an `asyncpg.Pool` gives, without a pool."""
    lent = _asyncpg.pool.PoolConnectionProxy(None, connection)
    _private(connection)._set_proxy(None)  # or it would look for the pool
    return cast("Connection", lent)


def take_back(lent: Connection) -> Connection:
    """Whose transaction goes on. What was lent, and all that was made with it, raises `DriverError` from now on."""
    connection = _private(lent)._detach()
    connection._on_release()
    connection._top_xact = None  # it is ended by a statement
    return cast("Connection", connection)


def _private(connection: Connection) -> Any:
    """asyncpg lends only what is in a pool of its own, which commits nothing and so cannot take back before that."""
    return connection
