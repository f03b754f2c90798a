"""`Node`: a server that is kept connected to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, final

from durable.backends.redis.link import Link
from durable.errors import DurableError, StoreUnavailable

logger = logging.getLogger("durable.redis")

_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 1.0
_STABLE_S: Final = 1.0
"""A connection that was lost sooner is not made again at once."""

Dial = Callable[[], Awaitable[Link]]


@final
class Node:
    """Holds the one connection to a server, and makes another when it is lost: one task, with jittered pauses.

    `dial` finds the server as well, so that a master that has moved is found again. `on_up` is called when there is
    a connection again, `on_trouble` when it was lost and after each attempt that failed.
    """

    def __init__(
        self,
        dial: Dial,
        *,
        name: str,
        on_up: Callable[[], object] | None = None,
        on_trouble: Callable[[], object] | None = None,
    ) -> None:
        self._dial = dial
        self._name = name
        self._on_up = on_up
        self._on_trouble = on_trouble
        self._random = Random()
        self._changed = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None
        self._failure: DurableError | None = None
        self._is_closed = False
        self._taken_at = -_STABLE_S
        self.link: Link | None = None
        """None while there is none."""

    async def open(self) -> None:
        """Connect. Raises: `StoreUnavailable` when that fails, and nothing goes on in the background then."""
        self._take(await self._dial())

    async def close(self) -> None:
        """Disconnect, when what is under way has been answered. Called twice: nothing happens."""
        self._is_closed = True
        self._changed.set()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        link, self.link = self.link, None
        if link is not None:
            await link.drain()
            link.abort("it was closed")

    async def wait(self, seconds: float) -> Link | None:
        """The connection, as soon as there is one; None when the node is closed.

        Raises: `StoreUnavailable` when there is none within `seconds`.
        """
        if self.link is None and self._connecting is None and not self._is_closed:
            self._reconnect()
        try:
            async with asyncio.timeout(seconds):
                while self.link is None and not self._is_closed:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise self._failure_to_tell() from error
        return self.link

    def suspect(self, link: Link, reason: str) -> None:
        """Look for the server anew: what `link` leads to is not the one."""
        if link is self.link:
            link.abort(reason)

    def _failure_to_tell(self) -> DurableError:
        failure = self._failure
        if failure is None:
            return StoreUnavailable(f"there is no connection to the Redis at {self._name}")
        return StoreUnavailable(str(failure), failure.hint)

    def _take(self, link: Link) -> None:
        if link.is_lost:
            raise StoreUnavailable(f"the Redis at {self._name} closed the connection again")
        self.link, self._failure = link, None
        self._taken_at = asyncio.get_running_loop().time()
        link.on_lost = self._on_lost
        self._changed.set()

    def _on_lost(self) -> None:
        self.link = None
        if not self._is_closed and self._connecting is None:
            logger.info("the connection to %s is lost; connecting again", self._name)
            self._reconnect()
            if self._on_trouble is not None:
                self._on_trouble()

    def _reconnect(self) -> None:
        self._connecting = asyncio.create_task(self._connect(), name=f"durable.redis.{self._name}")
        self._connecting.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if task.cancelled() or self._is_closed:
            return
        if self.link is None:  # lost again before this was called
            self._reconnect()
        elif self._on_up is not None:
            self._on_up()

    async def _connect(self) -> None:
        pause_s = _FIRST_PAUSE_S
        if asyncio.get_running_loop().time() < self._taken_at + _STABLE_S:
            await self._pause(pause_s)  # it answers, and drops us: this must not become a race
        while True:
            try:
                self._take(await self._dial())
            except DurableError as error:
                if self._failure is None:
                    logger.warning("%s; trying again until it answers", error)
                self._failure = error
            except Exception:
                logger.exception("connecting to %s failed in a way that is not foreseen", self._name)
            else:
                return
            if self._on_trouble is not None:
                self._on_trouble()
            await self._pause(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _pause(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.0))
