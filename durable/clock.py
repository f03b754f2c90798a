"""Time, injected.

Nothing in `durable` asks the machine what time it is except through a `Clock`, so that a week of virtual time
passes in milliseconds and a simulation replays to the byte. Instants are integer milliseconds since the Unix epoch
(UTC) inside the library and aware `datetime`s in public.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Protocol, final

stopwatch = time.perf_counter
"""Seconds, from anywhere: for measuring how long something took, and for nothing that decides. (A loop's own time may
stand still within a turn.)"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(ms: int) -> datetime:
    """The aware UTC instant of `ms` milliseconds since the epoch."""
    return _EPOCH + timedelta(milliseconds=ms)


class TimerHandle(Protocol):
    """What `Clock.call_at` returns: a way to take the call back."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """A source of time and of wake-ups."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch. Goes back only when the clock that it follows did."""
        ...

    def call_at(
        self, when_ms: int, callback: Callable[[], object], *, background: bool = False
    ) -> TimerHandle:
        """Call `callback` on the running loop at or after `when_ms`, never before.

        A `background` call is housekeeping (a sweep, a poll): a virtual clock does not stop at it.
        """
        ...

    def follow(self, now_ms: int, asked_at_ms: int) -> None:
        """Go by another clock (the store's, which alone decides what is due) that showed `now_ms` at some time between
        `asked_at_ms` on this one and now. The correction is the least that is certain (Cristian 1989)."""
        ...


@final
class SystemClock:
    """The machine's clock. The wall clock is read once; then time is monotonic, but for what `follow` mends."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now_ms(self) -> int:
        return int((self._offset + time.monotonic()) * 1000)

    def follow(self, now_ms: int, asked_at_ms: int) -> None:
        behind, ahead = now_ms - self.now_ms(), asked_at_ms - now_ms
        self._offset += (max(behind, 0) - max(ahead, 0)) / 1000

    def call_at(
        self, when_ms: int, callback: Callable[[], object], *, background: bool = False
    ) -> TimerHandle:
        loop = asyncio.get_running_loop()
        # One millisecond more, because `now_ms` rounds down: a timer is never early.
        left_ms = when_ms - self.now_ms()
        return loop.call_later((left_ms + 1) / 1000 if left_ms > 0 else 0, callback)


@final
class VirtualClock:
    """A clock that stands still until `advance_to`, which runs every due call at its own instant, in order."""

    def __init__(self, start_ms: int) -> None:
        self._now = start_ms
        self._order = count()
        self._calls: list[tuple[int, int, _VirtualCall]] = []

    def now_ms(self) -> int:
        return self._now

    def call_at(
        self, when_ms: int, callback: Callable[[], object], *, background: bool = False
    ) -> TimerHandle:
        call = _VirtualCall(callback, background)
        if when_ms <= self._now and not background:
            return asyncio.get_running_loop().call_soon(callback)
        heapq.heappush(self._calls, (when_ms, next(self._order), call))
        return call

    def follow(self, now_ms: int, asked_at_ms: int) -> None:
        """Nothing happens: whoever moves this clock moves the store's."""

    def next_at(self) -> int | None:
        """The instant of the next call that is not housekeeping, or None."""
        while self._calls and self._calls[0][2].callback is None:
            heapq.heappop(self._calls)
        return min(
            (when for when, _, call in self._calls if call.callback and not call.background), default=None
        )

    def advance_to(self, when_ms: int) -> None:
        """Move to `when_ms` and run what is due by then. The clock never moves back."""
        self._now = max(self._now, when_ms)
        while self._calls and self._calls[0][0] <= self._now:
            callback = heapq.heappop(self._calls)[2].callback
            if callback is not None:
                callback()


@final
class _VirtualCall:
    __slots__ = ("background", "callback")

    def __init__(self, callback: Callable[[], object], background: bool) -> None:
        self.callback: Callable[[], object] | None = callback
        self.background = background

    def cancel(self) -> None:
        self.callback = None
