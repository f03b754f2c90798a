"""`Hints`: what the bus says of executions that are here, gathered into one look at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, final

from durable.protocols import EventBus, Subscription, execution_topic


@final
class Hints:
    """A hint says no more than that something may be new. A bus may hint everybody at once, and again very soon: all
    that comes in one turn of the loop, or during a look, is looked at together."""

    def __init__(
        self,
        bus: EventBus,
        *,
        is_news: Callable[[str], bool],
        look: Callable[[set[str]], Awaitable[None]],
        background: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._bus = bus
        self._is_news = is_news
        self._look = look
        self._background = background
        self._subscribed: dict[str, Subscription] = {}
        self._hinted: set[str] = set()
        self._is_looking = False

    async def subscribe(self, execution_id: str) -> None:
        if execution_id not in self._subscribed:
            topic = execution_topic(execution_id)
            hint: Callable[[], object] = lambda: self.hint(execution_id)  # noqa: E731
            self._subscribed[execution_id] = await self._bus.subscribe(topic, hint)

    def unsubscribe(self, execution_id: str) -> None:
        subscription = self._subscribed.pop(execution_id, None)
        if subscription is not None:
            subscription.close()

    def hint(self, execution_id: str) -> None:
        """Have a look at it soon."""
        if self._is_news(execution_id):
            self._hinted.add(execution_id)
            if not self._is_looking:
                self._is_looking = True
                self._background(self._look_on())

    async def _look_on(self) -> None:
        try:
            while self._hinted:
                hinted, self._hinted = self._hinted, set()
                await self._look(hinted)
        finally:
            self._is_looking = False
