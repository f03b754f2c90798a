"""`PostgresBus`: hints between processes, over LISTEN and NOTIFY.

    publish ─▶ every subscriber of this bus, at once
        └─ at the end of the loop's turn: a notification with all topics ─▶ channel of the namespace ─▶ the other buses

There is one channel, and one connection that listens and notifies. Notifications are sent in transactions of their own
and never in one that writes, unless that is a user's: a transaction that notifies makes all others that do so wait
while it commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from random import Random
from typing import Final, final

from typing_extensions import override

from durable.errors import StoreUnavailable
from durable.protocols import ALL_TOPICS, EventBus, Subscription
from durable_postgres.driver import Connection
from durable_postgres.errors import FAILURES
from durable_postgres.location import Location
from durable_postgres.pool import check_sessions, connect
from durable_postgres.texts import given, stored

logger = logging.getLogger("durable.postgres")

_NOTIFY: Final = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"
_PING: Final = "SELECT 1"
_LARGEST: Final = 7_900
"""Bytes of a notification; PostgreSQL takes less than 8,000."""
_MOST_PENDING: Final = 10_000
"""Hints that are kept while there is no connection; above it, one takes the place of all: `ALL_TOPICS`."""
_SILENCE_S: Final = 5.0
"""So long nothing is sent; then it is seen whether the connection lives."""
_PATIENCE_S: Final = 5.0
_RETRY_S: Final = (0.05, 2.0)


def channel_of(namespace: str) -> str:
    """Where the buses of a namespace listen."""
    return f"durable:{sha256(namespace.encode()).hexdigest()[:40]}"


@final
class PostgresBus(EventBus):
    """Subscribers of this bus are reached also while PostgreSQL is away; others then hear later, or not at all.

    When the connection is back, whoever subscribed is hinted: it may have missed something.
    """

    def __init__(self, url: str, namespace: str = "default") -> None:
        self._location = Location.parse(url)
        self._channel = channel_of(namespace)
        self._me = f"{Random().getrandbits(64):016x}"
        self._topics: dict[str, dict[_PostgresSubscription, None]] = {}
        self._pending: dict[str, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @override
    async def open(self) -> None:
        if self._task is not None:
            return
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        connection = await self._listen(self._wake)
        try:
            await check_sessions(self._location, connection)
        except BaseException:
            connection.terminate()
            raise
        self._task = self._loop.create_task(self._run(connection))

    @override
    async def close(self) -> None:
        for subscription in [each for subscribed in self._topics.values() for each in subscribed]:
            subscription.close()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._pending.clear()

    @override
    def publish(self, topics: Iterable[str]) -> None:
        loop = self._loop
        if self._task is None or loop is None:
            return
        if loop is not _running_loop():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self.publish, list(topics))
            return
        for topic in topics:
            if len(self._pending) > _MOST_PENDING:
                self._pending = {ALL_TOPICS: None}
            self._pending[topic] = None
            self._wake.set()
            self._hint(topic)

    @override
    async def subscribe(self, topic: str, handler: Callable[[], object]) -> Subscription:
        if self._task is None:
            raise StoreUnavailable("the bus is not open", "await bus.open() first")
        subscription = _PostgresSubscription(self, topic, handler)
        self._topics.setdefault(topic, {})[subscription] = None
        return subscription

    def forget(self, subscription: _PostgresSubscription) -> None:
        subscribed = self._topics.get(subscription.topic, {})
        if subscribed.pop(subscription, subscription) is None and not subscribed:
            del self._topics[subscription.topic]

    def _hint(self, topic: str) -> None:
        heard = self._topics.values() if topic == ALL_TOPICS else (self._topics.get(topic, {}),)
        for subscription in [each for subscriptions in heard for each in subscriptions]:
            subscription.hint()

    # -- the connection

    async def _run(self, connection: Connection) -> None:
        try:
            while True:
                await self._serve(connection)
                connection.terminate()
                connection = await self._listen_again()
                self._hint(ALL_TOPICS)
        finally:
            # What was published in this turn of the loop, by a script that starts something and leaves.
            with contextlib.suppress(*FAILURES):
                await self._flush(connection)
                await connection.close(timeout=1)
            connection.terminate()

    async def _serve(self, connection: Connection) -> None:
        """Notify and listen, until the connection is lost."""
        while not connection.is_closed():
            try:
                async with asyncio.timeout(_SILENCE_S):
                    await self._wake.wait()
            except TimeoutError:
                self._wake.set()
            self._wake.clear()
            try:
                if self._pending:
                    await self._flush(connection)
                else:
                    await connection.fetch(_PING)
            except FAILURES:
                return

    async def _flush(self, connection: Connection) -> None:
        topics = [ALL_TOPICS] if ALL_TOPICS in self._pending else list(self._pending)
        self._pending.clear()
        if topics:
            await connection.fetch(_NOTIFY, self._channel, list(_payloads(self._me, topics)))

    async def _listen(self, lost: asyncio.Event) -> Connection:
        connection = await connect(self._location, patience_s=_PATIENCE_S)
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(self._channel, self._hear)
        except FAILURES as error:
            connection.terminate()
            raise StoreUnavailable(f"no connection to {self._location.shown}: {error}") from error
        return connection

    async def _listen_again(self) -> Connection:
        logger.warning("the connection for hints to %s is lost", self._location.shown)
        pause, longest = _RETRY_S
        while True:
            try:
                connection = await self._listen(self._wake)
            except StoreUnavailable:
                await asyncio.sleep(Random().uniform(pause / 2, pause))
                pause = min(2 * pause, longest)
            else:
                logger.info("the connection for hints to %s is back", self._location.shown)
                return connection

    def _hear(self, connection: Connection, pid: int, channel: str, payload: str) -> None:
        sender, *topics = payload.split("\n")
        if sender != self._me:
            for topic in topics:
                self._hint(given(topic))


def _payloads(sender: str, topics: Iterable[str]) -> Iterator[str]:
    """Notifications that are not too large; a topic that is takes the place of all."""
    lines, size = [sender], len(sender)
    for topic in topics:
        line = stored(topic)
        line_size = len(line.encode()) + 1
        if len(sender) + line_size > _LARGEST:
            line, line_size = ALL_TOPICS, 2
        if size + line_size > _LARGEST:
            yield "\n".join(lines)
            lines, size = [sender], len(sender)
        lines.append(line)
        size += line_size
    yield "\n".join(lines)


@final
class _PostgresSubscription(Subscription):
    def __init__(self, bus: PostgresBus, topic: str, handler: Callable[[], object]) -> None:
        self.topic = topic
        self._bus = bus
        self._handler = handler
        self._is_open = True

    def hint(self) -> None:
        """Call the handler, unless it was closed by one that was called before it."""
        if self._is_open:
            try:
                self._handler()
            except Exception:
                logger.exception("a handler of %s raised", self.topic)

    @override
    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._bus.forget(self)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None
