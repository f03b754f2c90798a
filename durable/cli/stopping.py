"""How a process that stays is told to stop: by signals, or by the end of its stdin."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, BinaryIO, Final, final

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)


@final
class Stop:
    """Counts how often the process was told to stop: once drains, twice stops, a third time exits on the spot."""

    def __init__(self, stop_now: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.asked = 0
        self._do_stop_now = stop_now
        self._stopping: asyncio.Task[None] | None = None

    @contextmanager
    def listening(self) -> Generator[None]:
        self.is_asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        before = {number: signal.signal(number, self._on_signal) for number in _STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1
        if self.asked == 1:
            self._loop.call_soon_threadsafe(self.is_asked.set)
        elif self.asked == 2:
            self._loop.call_soon_threadsafe(self._stop_now)
        else:  # perhaps the loop is blocked
            os._exit(128 + number)

    def _stop_now(self) -> None:
        self._stopping = self._loop.create_task(self._do_stop_now())

    def at_end_of(self, stream: BinaryIO) -> None:
        """Ask once, too, when this stream ends: who holds its other end is gone."""

        def read() -> None:
            while stream.read(4096):
                pass
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.is_asked.set)

        threading.Thread(target=read, name="durable.stdin", daemon=True).start()
