"""`SqliteBus`: hints between the processes that have one file open.

    publish ─▶ every subscriber of this process
    another process writes ─▶ seen by a store's writer, or by this bus ─▶ Hub ─▶ `ALL_TOPICS` in this process

So nothing is sent between processes: that the file has changed is the hint.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, final

from typing_extensions import override

from durable.backends.sqlite import preflight
from durable.backends.sqlite.connection import Use, connect, translate
from durable.backends.sqlite.hub import hub_of
from durable.clock import Clock, SystemClock, TimerHandle
from durable.errors import StoreUnavailable
from durable.protocols import ALL_TOPICS, EventBus, Subscription

logger = logging.getLogger(__name__)

_POLL_MS: Final = 10
_SLOW_POLL_MS: Final = 50
_SOON: Final = 100
"""Polls after a change until they become slow."""

Topics = dict[str, dict["_SqliteSubscription", None]]


@final
class SqliteBus(EventBus):
    """Those of one file and one namespace in this process share their subscribers.

    A store that is open in this process watches the file as a by-product, and knows its own writes; without one the
    bus watches, with a connection of its own.
    """

    def __init__(self, path: Path, namespace: str = "default", clock: Clock | None = None) -> None:
        self._path = Path(path).absolute()
        self._namespace = namespace
        self._clock = clock or SystemClock()
        self._topics: Topics = {}
        self._mine: dict[_SqliteSubscription, None] = {}
        self._db: sqlite3.Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: TimerHandle | None = None
        self._version: object = None
        self._quiet_polls = 0
        self._is_noticed = False

    @override
    async def open(self) -> None:
        if self._db is not None:
            return
        self._db = await asyncio.to_thread(self._connect)
        self._loop = asyncio.get_running_loop()
        self._topics = _shared.setdefault((self._path.resolve(), self._namespace), {})
        self._version = None
        hub_of(self._path).listen(self._notice)
        self._poll()

    @override
    async def close(self) -> None:
        for subscription in list(self._mine):
            subscription.close()
        db, self._db = self._db, None
        if db is not None:
            hub_of(self._path).unlisten(self._notice)
            if self._timer is not None:
                self._timer.cancel()
            await asyncio.to_thread(db.close)
            hub_of(self._path).leave()

    @override
    def publish(self, topics: Iterable[str]) -> None:
        for topic in topics:
            heard = self._topics.values() if topic == ALL_TOPICS else [self._topics.get(topic, {})]
            for subscription in [each for subscriptions in heard for each in subscriptions]:
                subscription.hint()

    @override
    async def subscribe(self, topic: str, handler: Callable[[], object]) -> Subscription:
        if self._db is None:
            raise StoreUnavailable("the bus is not open", "await bus.open() first")
        subscription = _SqliteSubscription(self, topic, handler)
        self._topics.setdefault(topic, {})[subscription] = None
        self._mine[subscription] = None
        return subscription

    def forget(self, subscription: _SqliteSubscription) -> None:
        if subscription not in self._mine:
            return
        del self._mine[subscription]
        subscribed = self._topics[subscription.topic]
        del subscribed[subscription]
        if not subscribed:
            del self._topics[subscription.topic]

    # -- watching the file

    def _connect(self) -> sqlite3.Connection:
        preflight.check_place(self._path)
        hub = hub_of(self._path)
        hub.enter()
        try:
            preflight.create(self._path)
            return connect(self._path, Use.READ)
        except BaseException as error:
            hub.leave()
            if isinstance(error, sqlite3.Error):
                raise translate(error) from error
            raise

    def _poll(self) -> None:
        if self._db is None:
            return
        self._quiet_polls += 1
        if self._mine and not hub_of(self._path).is_watched:
            with contextlib.suppress(sqlite3.Error):  # the file is busy, or gone: the next poll will tell
                (version,) = self._db.execute("PRAGMA data_version").fetchone()
                if version != self._version:
                    self._version, self._quiet_polls = version, 0
                    self._hint_everybody()
        wait = _POLL_MS if self._mine and self._quiet_polls < _SOON else _SLOW_POLL_MS
        self._timer = self._clock.call_at(self._clock.now_ms() + wait, self._poll, background=True)

    def _notice(self) -> None:
        """Called on the thread of a store that saw the write of another process."""
        if not self._is_noticed and self._loop is not None:
            self._is_noticed = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._hint_everybody)

    def _hint_everybody(self) -> None:
        self._is_noticed = False
        for subscription in list(self._mine):
            subscription.hint()


_shared: Final[dict[tuple[Path, str], Topics]] = {}
"""By file and namespace."""


@final
class _SqliteSubscription(Subscription):
    def __init__(self, bus: SqliteBus, topic: str, handler: Callable[[], object]) -> None:
        self.topic = topic
        self._bus = bus
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._is_open = True

    def hint(self) -> None:
        """Call the handler, on the loop that it belongs to."""
        if self._loop is _running_loop():
            self._call()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        if self._is_open:
            try:
                self._handler()
            except Exception:
                logger.exception("a handler of %s raised", self.topic)

    @override
    def close(self) -> None:
        self._is_open = False
        self._bus.forget(self)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None
