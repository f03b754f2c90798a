"""One life cycle for everything that a process does again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import final

from durable.clock import Clock, TimerHandle
from durable.errors import DurableError

log = logging.getLogger("durable.worker")


@final
class Loop:
    """Runs `turn` at least every `interval_ms`, and at once when it is woken or an instant that it was told comes.

    A turn that raises is logged, and the next one comes after the interval. `stop` lets a turn that is running end.
    """

    def __init__(
        self, name: str, turn: Callable[[], Awaitable[None]], *, interval_ms: int, clock: Clock
    ) -> None:
        self._name = name
        self._turn = turn
        self._interval_ms = interval_ms
        self._clock = clock
        self._woken = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._due_at: int | None = None
        self._timer: TimerHandle | None = None
        self._turning = False

    @property
    def idle(self) -> bool:
        """No turn is running or about to run."""
        return not self._turning and not self._woken.is_set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"durable.{self._name}")

    def wake(self) -> None:
        """Take the next turn now."""
        self._woken.set()

    def wake_at(self, at_ms: int) -> None:
        """Take a turn at that instant, too."""
        if self._due_at is not None and self._due_at <= at_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_at = at_ms
        self._timer = self._clock.call_at(at_ms, self._on_due)

    async def stop(self) -> None:
        """Come back when the last turn has ended. Called twice: nothing happens."""
        self._stopping = True
        self._woken.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def abandon(self) -> None:
        """Stop here and now, in the middle of a turn if there is one."""
        if self._task is not None:
            self._task.cancel()
        await self.stop()

    def _on_due(self) -> None:
        self._due_at = self._timer = None
        self._woken.set()

    async def _run(self) -> None:
        while not self._stopping:
            self._woken.clear()
            self._turning = True
            try:
                await self._turn()
            except DurableError as error:
                log.warning("the %s loop goes on after an error: %s", self._name, error)
            except Exception:
                log.exception("the %s loop failed, and goes on", self._name)
            finally:
                self._turning = False
            if not self._woken.is_set():  # `stop` wakes it too
                at = self._clock.now_ms() + self._interval_ms
                timer = self._clock.call_at(at, self._woken.set, background=True)
                await self._woken.wait()
                timer.cancel()
