"""`Heart`: leases, held over a connection of their own from whichever thread calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Final, final

from durable.errors import StoreUnavailable
from durable_postgres.driver import Connection
from durable_postgres.errors import FAILURES, translate
from durable_postgres.location import Location
from durable_postgres.pool import connect

_PATIENCE_S: Final = 2.0
"""A beat that comes late is worth no more than the next one."""
_ENDED: Final = "the store is closed"
_BEAT: Final = "SELECT durable.beat($1, $2, $3, $4)"


@final
class Heart:
    """A loop of its own, which runs for as long as a beat takes, on the thread of the caller: a loop that is busy or
    blocked elsewhere does not cost a lease."""

    def __init__(self, location: Location, ns: int) -> None:
        self._location = location
        self._ns = ns
        self._lock = threading.Lock()
        self._runner: asyncio.Runner | None = None
        self._connection: Connection | None = None
        self._is_closed = False
        self._beating: asyncio.Task[None] | None = None

    def beat(self, worker: str, ttl_ms: int, info: bytes) -> None:
        """Raises: `StoreUnavailable`."""
        self._run(lambda: self._beat(worker, ttl_ms, info))

    def close(self) -> None:
        """A beat that is under way ends here. Not from a thread whose loop runs. Called twice: nothing happens."""
        self._is_closed = True
        beating = self._beating
        if beating is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended, and its loop is closed
                beating.get_loop().call_soon_threadsafe(beating.cancel)
        with self._lock:
            if self._runner is not None:
                self._runner.run(self._disconnect())
                self._runner.close()
                self._runner = None

    def _run(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        with self._lock:
            if self._runner is None and not self._is_closed:
                self._runner = asyncio.Runner()
            if self._runner is None:
                raise StoreUnavailable(_ENDED, "await store.open() first")
            try:
                self._runner.run(self._until_closed(work))
            except asyncio.CancelledError as error:
                raise StoreUnavailable(_ENDED, "await store.open() first") from error

    async def _until_closed(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        self._beating = asyncio.current_task()
        try:
            if self._is_closed:  # `close` came too early to see this task
                raise asyncio.CancelledError
            await work()
        finally:
            self._beating = None

    async def _beat(self, worker: str, ttl_ms: int, info: bytes) -> None:
        for is_last in (False, True):  # its connection may have been cut since the beat before, unnoticed
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._location, patience_s=_PATIENCE_S)
            try:
                await self._connection.fetch(_BEAT, self._ns, worker, ttl_ms, info)
                return
            except FAILURES as error:
                self._connection.terminate()
                if is_last:
                    raise StoreUnavailable(f"a beat was not answered: {translate(error)}") from error

    async def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
