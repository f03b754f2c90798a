"""`RedisBus`: hints between processes, over Redis publish/subscribe.

    publish ─▶ every subscriber of this bus, at once
        └─ at the end of the loop's turn: one message with all topics ─▶ channel of the namespace ─▶ the other buses

There is one channel, subscribed to once: a topic costs no round trip, however short the subscriptions to it live. Each
process hears all hints of its namespace, and looks each up in a table. Messages are as many as there are turns of the
publishers' loops, not as there are hints.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from random import Random
from typing import Final, final

from typing_extensions import override

from durable.backends.redis.connect import Dialler
from durable.backends.redis.link import Link, Manners, pack
from durable.backends.redis.location import Location
from durable.backends.redis.node import Node
from durable.backends.redis.replies import Lost, Reply, ReplyError, translate
from durable.errors import StoreUnavailable
from durable.protocols import ALL_TOPICS, EventBus, Subscription

logger = logging.getLogger("durable.redis")

_SILENCE_S: Final = 2.0
_PING_S: Final = 2.0
_MOST_IN_A_MESSAGE: Final = 500
_MOST_PENDING: Final = 10_000
"""Hints that are kept while there is no connection; above it, one takes the place of all: `ALL_TOPICS`."""


@final
class RedisBus(EventBus):
    """Subscribers of this bus are reached also while Redis is away; others then hear later, or not at all.

    When the connection is back, whoever subscribed is hinted: it may have missed something.
    """

    def __init__(self, location: Location, namespace: str = "default") -> None:
        self._location = location
        self._channel = f"{namespace}:{location.database}:hints"
        self._me = f"{Random().getrandbits(64):016x}"
        self._topics: dict[str, dict[_RedisSubscription, None]] = {}
        self._pending: dict[str, None] = {}
        self._node: Node | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_connected(self) -> bool:
        return self._node is not None and self._node.link is not None

    @property
    def pending(self) -> int:
        """Hints that have not gone out to others yet."""
        return len(self._pending)

    @override
    async def open(self) -> None:
        if self._node is not None:
            return
        manners = Manners(on_push=self._hear, silence_s=_SILENCE_S, ping_s=_PING_S)
        dialler = Dialler(self._location, manners)

        async def dial() -> Link:
            return await self._listen(await dialler.anyone())

        node = Node(dial, name=f"{self._location.shown} (hints)", on_up=self._catch_up)
        await node.open()
        self._node, self._loop = node, asyncio.get_running_loop()

    @override
    async def close(self) -> None:
        for subscription in [each for subscribed in self._topics.values() for each in subscribed]:
            subscription.close()
        self._flush()  # what was published in this turn of the loop, by a script that starts something and leaves
        self._pending.clear()
        node, self._node = self._node, None
        if node is not None:
            await node.close()

    @override
    def publish(self, topics: Iterable[str]) -> None:
        loop = self._loop
        if self._node is None or loop is None:
            return
        if loop is not _running_loop():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self.publish, list(topics))
            return
        for topic in topics:
            if not self._pending:
                loop.call_soon(self._flush)
            elif len(self._pending) > _MOST_PENDING:
                self._pending = {ALL_TOPICS: None}
            self._pending[topic] = None
            self._hint(topic)

    @override
    async def subscribe(self, topic: str, handler: Callable[[], object]) -> Subscription:
        if self._node is None:
            raise StoreUnavailable("the bus is not open", "await bus.open() first")
        subscription = _RedisSubscription(self, topic, handler)
        self._topics.setdefault(topic, {})[subscription] = None
        return subscription

    def forget(self, subscription: _RedisSubscription) -> None:
        subscribed = self._topics.get(subscription.topic, {})
        if subscribed.pop(subscription, subscription) is None and not subscribed:
            del self._topics[subscription.topic]

    def _hint(self, topic: str) -> None:
        heard = self._topics.values() if topic == ALL_TOPICS else (self._topics.get(topic, {}),)
        for subscription in [each for subscriptions in heard for each in subscriptions]:
            subscription.hint()

    # -- to others

    def _flush(self) -> None:
        link = self._node.link if self._node is not None else None
        if link is None or not self._pending:
            return  # what is pending goes out when there is a connection
        topics = [ALL_TOPICS] if ALL_TOPICS in self._pending else list(self._pending)
        self._pending.clear()
        for start in range(0, len(topics), _MOST_IN_A_MESSAGE):
            message = "\n".join((self._me, *topics[start : start + _MOST_IN_A_MESSAGE]))
            _ = link.send(pack(("PUBLISH", self._channel, message)))  # nobody asks who has heard it

    # -- from others

    async def _listen(self, link: Link) -> Link:
        link.tell(pack(("SUBSCRIBE", self._channel)))
        # The server pushes that we are subscribed, and then answers this; or it answers that we may not.
        answer = await link.send(pack(("PING",)))
        if isinstance(answer, ReplyError):
            link.abort("it was refused")
            raise translate(answer, self._location.shown)
        if isinstance(answer, Lost):
            raise StoreUnavailable(f"the connection to the Redis at {self._location.shown} is lost: {answer}")
        return link

    def _hear(self, push: list[Reply]) -> None:
        match push:
            case [b"message", bytes(), bytes(message)]:
                sender, *topics = message.decode(errors="replace").split("\n")
                if sender != self._me:
                    for topic in topics:
                        self._hint(topic)
            case _:
                pass

    def _catch_up(self) -> None:
        self._hint(ALL_TOPICS)
        self._flush()


@final
class _RedisSubscription(Subscription):
    def __init__(self, bus: RedisBus, topic: str, handler: Callable[[], object]) -> None:
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
