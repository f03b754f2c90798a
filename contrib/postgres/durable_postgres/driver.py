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

    def is_closed(self) -> bool: ...

    def terminate(self) -> None: ...

    async def close(self, *, timeout: float | None = None) -> None: ...


class Dial(Protocol):
    """`asyncpg.connect`."""

    async def __call__(
        self, dsn: str, *, timeout: float, command_timeout: float, server_settings: dict[str, str]
    ) -> Connection: ...


_asyncpg: Final = cast("Any", asyncpg)

dial: Final = cast("Dial", _asyncpg.connect)

ServerError: Final = cast("type[Exception]", _asyncpg.PostgresError)
"""What the server has refused; `sqlstate` says why."""
DriverError: Final = cast("type[Exception]", _asyncpg.InterfaceError)
InternalError: Final = cast("type[Exception]", _asyncpg.InternalClientError)
BadValue: Final = cast("type[Exception]", _asyncpg.DataError)
"""A parameter that cannot be sent."""
