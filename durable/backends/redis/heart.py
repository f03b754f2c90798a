"""`Heart`: leases, held over a connection of their own from whichever thread calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Final, final

from durable.backends.redis import scripts
from durable.backends.redis.connect import connect
from durable.backends.redis.location import Location
from durable.backends.redis.wire import RedisWire
from durable.errors import OutcomeUnknown, StoreUnavailable

_PATIENCE_S: Final = 2.0
"""A beat that comes late is worth no more than the next one."""
_ENDED: Final = "the store is closed"


@final
class Heart:
    """A loop of its own, which runs for as long as a beat takes, on the thread of the caller.

    So a loop that is busy or blocked elsewhere does not cost a lease, and every way to find the server (a cluster,
    Sentinels, TLS) is the same as for all else.
    """

    def __init__(self, location: Location, keys: tuple[str, str]) -> None:
        self._location = location
        self._keys = keys
        self._lock = threading.Lock()
        self._runner: asyncio.Runner | None = None
        self._wire: RedisWire | None = None
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
        if self._wire is None:
            self._wire = await connect(self._location, patience_s=_PATIENCE_S)
        for is_last in (False, True):  # its connection may have been cut since the beat before, unnoticed
            try:
                await self._wire.run(scripts.BEAT, self._keys, (worker, ttl_ms, info), op_id=worker)
                return
            except OutcomeUnknown as error:
                if is_last:
                    raise StoreUnavailable(f"a beat was not answered: {error.reason}") from error

    async def _disconnect(self) -> None:
        if self._wire is not None:
            await self._wire.close()
            self._wire = None
