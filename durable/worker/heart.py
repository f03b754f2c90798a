"""The heart of a worker process: a thread that holds its lease, whatever the event loop is doing."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, final

from typing_extensions import override

from durable.errors import DurableError
from durable.protocols import DurableStore
from durable.telemetry import LeaseMissed, LeaseRenewed, LoopBlocked, Telemetry

log = logging.getLogger("durable.worker")

_BEATS_PER_LEASE = 5
_BLOCKED_WARNING = 1.0
_MOST_BLOCKED_LEASES = 10


class Pulse(Protocol):
    """What holds a worker's lease."""

    async def start(self) -> None:
        """Hold the lease before anything is claimed.

        Raises:
            StoreUnavailable: the lease cannot be taken.
        """
        ...

    async def stop(self) -> None:
        """End the lease: what is still held may be claimed by others at once. Called twice: nothing happens."""
        ...

    def abandon(self) -> None:
        """Stop beating, and let the lease run out."""
        ...


class MakePulse(Protocol):
    """Makes the pulse of one worker: a lease of `lease_ms`, and `info()`, which is asked on any thread at each beat."""

    def __call__(
        self,
        store: DurableStore,
        worker: str,
        *,
        lease_ms: int,
        info: Callable[[], bytes],
        telemetry: Telemetry | None = None,
    ) -> Pulse: ...


@final
class Heart(Pulse):
    """Beats five times a lease, from a thread of its own, until it is stopped.

    It also watches the loop: one that does not answer for a second is named in the log with what blocks it, once
    per occasion. After ten leases of that it stops beating, so that others take over what this process holds.
    """

    def __init__(
        self,
        store: DurableStore,
        worker: str,
        *,
        lease_ms: int,
        info: Callable[[], bytes],
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = store
        self._worker = worker
        self._lease_ms = lease_ms
        self._info = info
        self._telemetry = telemetry
        self._stopped = threading.Event()
        self._is_abandoned = False
        self._ended = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._warned = False

    @override
    async def start(self) -> None:
        await asyncio.to_thread(self._beat)
        loop = asyncio.get_running_loop()
        loop_thread = threading.get_ident()
        self._thread = threading.Thread(
            target=self._run, args=(loop, loop_thread), name=f"durable.heart.{self._worker}", daemon=True
        )
        self._thread.start()

    @override
    async def stop(self) -> None:
        if self._thread is not None:
            self._stopped.set()
            await self._ended.wait()
            self._thread = None

    @override
    def abandon(self) -> None:
        self._is_abandoned = True
        self._stopped.set()

    def _beat(self) -> None:
        self._store.beat(self._worker, ttl_ms=self._lease_ms, info=self._info())
        if self._telemetry is not None:
            self._telemetry(LeaseRenewed(self._worker))

    def _run(self, loop: asyncio.AbstractEventLoop, loop_thread: int) -> None:
        self._beat_on(loop, loop_thread)
        if not self._is_abandoned:
            # On this thread, a daemon: a store that does not answer keeps nobody from leaving.
            try:
                self._store.beat(self._worker, ttl_ms=0)
            except DurableError as error:
                if not self._is_abandoned:
                    log.warning("the lease of %s runs out by itself: %s", self._worker, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._ended.set)

    def _beat_on(self, loop: asyncio.AbstractEventLoop, loop_thread: int) -> None:
        pause = self._lease_ms / 1000 / _BEATS_PER_LEASE
        asked, answered = 0.0, threading.Event()
        answered.set()
        while not self._stopped.wait(pause):
            blocked = 0.0 if answered.is_set() else time.monotonic() - asked
            if blocked < _MOST_BLOCKED_LEASES * self._lease_ms / 1000:
                try:
                    self._beat()
                except DurableError as error:
                    if not self._stopped.is_set():
                        log.warning("worker %s could not renew its lease: %s", self._worker, error)
                        if self._telemetry is not None:
                            self._telemetry(LeaseMissed(self._worker, error))
            if blocked > _BLOCKED_WARNING and not self._warned:
                self._warn(loop_thread)
                if self._telemetry is not None:
                    self._telemetry(LoopBlocked(self._worker, blocked))
            if answered.is_set():
                asked, self._warned = time.monotonic(), False
                answered.clear()
                try:
                    loop.call_soon_threadsafe(answered.set)
                except RuntimeError:  # the loop is closed
                    return

    def _warn(self, loop_thread: int) -> None:
        self._warned = True
        frame = sys._current_frames().get(loop_thread)  # pyright: ignore[reportPrivateUsage] no other way to see its stack
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        log.warning(
            "the event loop of worker %s is blocked; a sync step belongs in a plain `def`:\n%s",
            self._worker,
            stack,
        )
