"""`Latch`: what one task waits for, again and again, for the price of a future."""

from __future__ import annotations

import asyncio
from typing import final


@final
class Latch:
    """Set by anybody, waited for by one."""

    __slots__ = ("_is_set", "_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Let it come back who waits, or the next who does. Called twice: once counts."""
        self._is_set = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """Come back when it is set, also if that was before, and unset it."""
        if not self._is_set:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._is_set = False
