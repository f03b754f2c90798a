"""`MemoryBus`: hints within one process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, final

from typing_extensions import override

from durable.protocols import ALL_TOPICS, EventBus, Subscription

logger = logging.getLogger(__name__)

Topics = dict[str, dict["_MemorySubscription", None]]


@final
class MemoryBus(EventBus):
    """Calls each handler before `publish` returns.

    A bus without a `name` has subscribers of its own. Those with one name and one namespace share theirs;
    they belong on one event loop.
    """

    def __init__(self, namespace: str = "default", *, name: str = "") -> None:
        self._topics: Topics = _shared.setdefault((name, namespace), {}) if name else {}
        self._mine: dict[_MemorySubscription, None] = {}

    @override
    async def open(self) -> None:
        pass

    @override
    async def close(self) -> None:
        for subscription in list(self._mine):
            subscription.close()

    @override
    def publish(self, topics: Iterable[str]) -> None:
        for topic in topics:
            heard = self._topics.values() if topic == ALL_TOPICS else [self._topics.get(topic, {})]
            for subscription in [each for subscriptions in heard for each in subscriptions]:
                subscription.hint()

    @override
    async def subscribe(self, topic: str, handler: Callable[[], object]) -> Subscription:
        subscription = _MemorySubscription(self._topics, self._mine, topic, handler)
        self._topics.setdefault(topic, {})[subscription] = None
        self._mine[subscription] = None
        return subscription


_shared: Final[dict[tuple[str, str], Topics]] = {}
"""By name and namespace."""


@final
class _MemorySubscription(Subscription):
    def __init__(
        self, topics: Topics, mine: dict[_MemorySubscription, None], topic: str, handler: Callable[[], object]
    ) -> None:
        self._topics = topics
        self._mine = mine
        self._topic = topic
        self._handler = handler

    def hint(self) -> None:
        """Call the handler, unless it was closed by one that was called before it."""
        if self in self._mine:
            try:
                self._handler()
            except Exception:
                logger.exception("a handler of %s raised", self._topic)

    @override
    def close(self) -> None:
        if self._mine.pop(self, self) is self:
            return
        subscribed = self._topics[self._topic]
        del subscribed[self]
        if not subscribed:
            del self._topics[self._topic]
