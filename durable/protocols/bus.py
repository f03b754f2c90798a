"""`EventBus`: hints between processes, any of which may be lost.

A hint says "look at the store again", never what has happened there. Whoever waits for something subscribes first,
then reads the store, then waits for a hint *or* for a short poll interval: with every hint lost all still works, later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

ALL_TOPICS = "*"
"""A hint under this topic reaches every subscriber: "something changed, it is not known what"."""


def execution_topic(execution_id: str) -> str:
    """The topic that is hinted when something came for an execution, or it ended."""
    return f"x:{execution_id}"


def work_topic(queue: str) -> str:
    """The topic that is hinted when an execution of `queue` became ready to be claimed."""
    return f"work:{queue}"


class Subscription(Protocol):
    """One handler on one topic."""

    def close(self) -> None:
        """Stop calling the handler. Called twice: nothing happens."""
        ...


class EventBus(Protocol):
    """Lossy, unordered, at any number of copies."""

    async def open(self) -> None:
        """Connect. Called again after `close`, it connects again.

        Raises: `StoreUnavailable` when there is nothing to connect to.
        """
        ...

    async def close(self) -> None:
        """Forget every subscription and disconnect. Called twice: nothing happens."""
        ...

    def publish(self, topics: Iterable[str]) -> None:
        """Hint each topic, to this process and to others. Returns at once, never raises; a hint may get lost."""
        ...

    async def subscribe(self, topic: str, handler: Callable[[], object]) -> Subscription:
        """Call `handler` on this loop for each hint of `topic`, and of `ALL_TOPICS`, from now on.

        When this returns, a hint that is published later is not lost for being early. A handler that raises is
        logged and disturbs neither the publisher nor other handlers. When this raises, nothing is left subscribed.
        """
        ...
