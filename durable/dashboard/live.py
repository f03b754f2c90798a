"""What changes on a page that somebody looks at, as server-sent events.

One loop renders a page for all who look at the same one, at most four times a second. An event's id is a digest of what
it shows: whoever comes back with the id of the last one gets what is different now, or nothing; so nothing is missed,
whatever happened in between, on whichever process the answer comes from.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, final

from durable.errors import DurableError, NotRunning

log = logging.getLogger("durable.dashboard")

INTERVAL_S: Final = 0.25
_WORK_SHARE: Final = 5
_TAKEN_TOGETHER: Final = 3
_MOST_STREAMS: Final = 1_000
_LONGEST_S: Final = 900.0
"""After which a stream ends, and the browser comes back and shows again who it is."""


@dataclass(frozen=True, slots=True)
class Update:
    id: str
    html: str


@final
class Feeds:
    """The pages that are looked at."""

    def __init__(self) -> None:
        self._feeds: dict[str, _Feed] = {}
        self._streams = 0

    @property
    def full(self) -> bool:
        """As many look as may."""
        return self._streams >= _MOST_STREAMS

    @property
    def streams(self) -> int:
        return self._streams

    async def follow(
        self, key: str, render: Callable[[], Awaitable[str]], last_id: str | None
    ) -> AsyncIterator[Update]:
        """What is to be seen now, unless it has the id `last_id`, and every change of it."""
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = _Feed(render)
        self._streams += 1
        feed.enter()
        ends_at = time.monotonic() + _LONGEST_S
        try:
            while (left := ends_at - time.monotonic()) > 0:
                update = await feed.newer_than(last_id, within=left)
                if update is None:
                    return
                last_id = update.id
                yield update
        finally:
            self._streams -= 1
            if feed.leave() and self._feeds.get(key) is feed:
                del self._feeds[key]


@final
class Pace:
    """How long to rest before a page is made again.

    One that takes long to make is made less often: it costs a sixth of the time at most. That it took long now and then
    says nothing about the page: something else kept the machine busy, and whoever looks would wait for it twice.
    """

    def __init__(self) -> None:
        self._took = deque([0.0] * _TAKEN_TOGETHER, maxlen=_TAKEN_TOGETHER)

    def rest_s(self, took: float) -> float:
        """After it took so many seconds."""
        self._took.append(took)
        return max(INTERVAL_S, _WORK_SHARE * min(self._took))


@final
class _Feed:
    """One page, made again and again while somebody looks."""

    def __init__(self, render: Callable[[], Awaitable[str]]) -> None:
        self._render = render
        self._latest: Update | None = None
        self._changed = asyncio.Condition()
        self._followers = 0
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    def enter(self) -> None:
        self._followers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="durable.dashboard.feed")

    def leave(self) -> bool:
        """One looks no more; was it the last?"""
        self._followers -= 1
        if self._followers == 0 and self._task is not None:
            self._task.cancel()
        return self._followers == 0

    async def newer_than(self, last_id: str | None, *, within: float) -> Update | None:
        """What is to be seen when it is something else; None: nothing more will come, or not in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(
                    lambda: self._is_over or (self._latest is not None and self._latest.id != last_id)
                )
                return None if self._is_over else self._latest
        return None

    async def _run(self) -> None:
        pace = Pace()
        while not self._is_over:
            began = time.monotonic()
            try:
                html = await self._render()
                update = Update(blake2b(html.encode(), digest_size=12).hexdigest(), html)
            except NotRunning:
                update, self._is_over = None, True
            except DurableError as error:
                log.debug("a page could not be made: %s", error)
                update = None  # the store is away, or the execution was pruned: what is shown stays
            except Exception:
                log.exception("a page could not be made")
                update = None
            if self._is_over or (update is not None and update != self._latest):
                async with self._changed:
                    self._latest = update
                    self._changed.notify_all()
            await asyncio.sleep(pace.rest_s(time.monotonic() - began))
