"""Time in a simulation: a clock on its loop, and a pulse that needs no thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import final

from typing_extensions import override

from durable.clock import Clock, TimerHandle
from durable.errors import DurableError
from durable.protocols import DurableStore
from durable.telemetry import Telemetry
from durable.testing.simulation.loop import SimulationLoop
from durable.worker import Pulse

log = logging.getLogger("durable.worker")

START_MS = 1_767_225_600_000
"""When every simulation begins: 2026-01-01."""
_BEATS_PER_LEASE = 5


@final
class SimulatedClock(Clock):
    """The loop's time, on a clock that is `ahead_ms` until it is told to follow another."""

    def __init__(self, loop: SimulationLoop, ahead_ms: int = 0) -> None:
        self._loop = loop
        self._offset = START_MS + ahead_ms

    @override
    def now_ms(self) -> int:
        return self._offset + int(self._loop.time() * 1000)

    @override
    def call_at(
        self, when_ms: int, callback: Callable[[], object], *, background: bool = False
    ) -> TimerHandle:
        now = self.now_ms()
        if background:
            return self._loop.call_in_background(self.loop_time(max(when_ms, now)), callback)
        if when_ms <= now:
            return self._loop.call_soon(callback)
        return self._loop.call_at(self.loop_time(when_ms), callback)

    @override
    def follow(self, now_ms: int, asked_at_ms: int) -> None:
        self._offset += max(now_ms - self.now_ms(), 0) - max(asked_at_ms - now_ms, 0)

    def loop_time(self, when_ms: int) -> float:
        """The loop's time at which this clock shows `when_ms`, and never a little before."""
        seconds = (when_ms - self._offset) / 1000
        return seconds if int(seconds * 1000) >= when_ms - self._offset else seconds + 1e-6


@final
class LoopPulse(Pulse):
    """Beats five times a lease, on the loop."""

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
        self._timer: asyncio.TimerHandle | None = None

    @override
    async def start(self) -> None:
        self._store.beat(self._worker, ttl_ms=self._lease_ms, info=self._info())
        self._plan()

    @override
    async def stop(self) -> None:
        self.abandon()
        try:
            self._store.beat(self._worker, ttl_ms=0)
        except DurableError as error:
            log.warning("the lease of %s runs out by itself: %s", self._worker, error)

    @override
    def abandon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._plan()
        try:
            self._store.beat(self._worker, ttl_ms=self._lease_ms, info=self._info())
        except DurableError as error:
            log.warning("worker %s could not renew its lease: %s", self._worker, error)

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        pause = self._lease_ms / 1000 / _BEATS_PER_LEASE
        self._timer = loop.call_in_background(loop.time() + pause, self._beat)
