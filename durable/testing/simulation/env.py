"""What `drive` gets: the world of a simulation, as a test sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, final

from typing_extensions import override

from durable.app import Durable
from durable.clock import Clock
from durable.duration import Duration, to_instant_ms
from durable.handle import Handle
from durable.testing.env import DurableEnv
from durable.testing.stubs import StepStubs


@final
class SimulatedEnv(DurableEnv):
    """A `DurableEnv` whose workers come and go, and whose time moves by itself when nothing else can happen."""

    def __init__(
        self, durable: Durable, clock: Clock, stubs: StepStubs, idle: Callable[[], asyncio.Future[None]]
    ) -> None:
        self.durable = durable
        self.clock = clock
        self._stubs = stubs
        self._idle = idle

    @override
    async def until_idle(self) -> None:
        """Come back when nothing is ready or runs any more: every execution waits, or has ended. A step that waits for
        the test counts as idle after a minute of this world's time."""
        await self._idle()

    @override
    async def advance(self, duration: Duration) -> None:
        await self.until_idle()  # which takes time here, when a worker has died
        await super().advance(duration)

    @override
    async def advance_to(self, when: datetime) -> None:
        target = to_instant_ms(when, what="when")
        await self.until_idle()
        await asyncio.sleep((target - self.clock.now_ms()) / 1000)
        await self.until_idle()


Drive = Callable[[DurableEnv, Handle[Any]], Coroutine[Any, Any, object]]
"""The outside world of one execution: it sends the signals, and lets time pass."""
