"""`Lane`: what a turn of the event loop asks for goes to the server together, in one statement and one transaction.

    submit ──▶ waiting ──▶ a free connection: serve(group) ──▶ futures

A request that comes alone goes alone, at once. While all connections are busy requests pile up, and the next
group is the greater. Who waits may be cancelled at any time: the future is dropped, and the request goes through.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

from durable.errors import StoreUnavailable
from durable_postgres.driver import Row
from durable_postgres.requests import Request

MOST: Final = 100
_LARGEST: Final = 4 * 1024 * 1024
"""Bytes of payload above which nothing more joins a group."""

Waiting = tuple[Request, "asyncio.Future[Row]"]
Serve = Callable[[Sequence[Waiting]], Awaitable[None]]
"""Sees to it that each future is settled, if not when it returns then without holding up others."""


@final
class Lane:
    def __init__(self, serve: Serve, *, width: int) -> None:
        """`width`: so many groups are under way at one time."""
        self._serve = serve
        self._width = width
        self._waiting: deque[Waiting] = deque()
        self._serving: set[asyncio.Task[None]] = set()
        self._is_called = False
        self._is_closing = False
        self._loop = asyncio.get_running_loop()

    def submit(self, request: Request) -> asyncio.Future[Row]:
        """Raises: `StoreUnavailable` when the lane is closed."""
        if self._is_closing:
            raise StoreUnavailable("the store is closed", "open it first, and close it last")
        future: asyncio.Future[Row] = self._loop.create_future()
        self._waiting.append((request, future))
        if not self._is_called and len(self._serving) < self._width:
            self._is_called = True
            self._loop.call_soon(self._start)
        return future

    async def close(self) -> None:
        """Serve what was submitted, and end. Called twice: nothing happens."""
        self._is_closing = True
        while self._waiting or self._serving:
            self._start()
            await asyncio.wait(self._serving)

    def _start(self) -> None:
        self._is_called = False
        while self._waiting and len(self._serving) < self._width:
            task = self._loop.create_task(self._run(self._group()))
            self._serving.add(task)
            task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        self._start()

    def _group(self) -> list[Waiting]:
        group: list[Waiting] = []
        size = 0
        while self._waiting and len(group) < MOST and size < _LARGEST:
            group.append(self._waiting.popleft())
            size += group[-1][0].size
        return group

    async def _run(self, group: Sequence[Waiting]) -> None:
        try:
            await self._serve(group)
        except BaseException:  # the loop ends, and cancels all its tasks
            for _, future in group:
                future.cancel()
            raise
