"""`DurableQueue`: doorbells that say "execution x is ready", and carry no state.

The store's ready index is the truth. A doorbell that is lost costs the delay until the next sweep, one that comes
twice costs a claim that is refused. So a queue may lose, repeat and reorder; it should not, because that is slow.

    create / post / tick ──▶ ring ──▶ receive ──▶ claim in the store ──▶ ack
                                         └──────▶ no free slot ────────▶ release
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from durable.protocols.answers import Doorbell, Wanted


@dataclass(frozen=True, slots=True)
class Delivery:
    """One doorbell in this worker's hand, until it is acked or released."""

    doorbell: Doorbell
    token: object = None
    """What the backend needs to settle it."""


class DurableQueue(Protocol):
    """Distributes doorbells to workers."""

    async def open(self) -> None:
        """Connect, and declare what must exist. Called again after `close`, it connects again.

        Raises: `QueueUnavailable` when the broker refuses this configuration for good (a wrong password, a queue
        that exists with other arguments). A broker that is merely away is no error: it is reconnected to.
        """
        ...

    async def close(self) -> None:
        """Give back what was delivered and not acked, and disconnect. Called twice: nothing happens."""
        ...

    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        """Announce ready executions. Returns at once, never raises; a doorbell may get lost."""
        ...

    async def receive(self, wanted: Wanted, *, limit: int) -> Sequence[Delivery]:
        """At least one and at most `limit` doorbells for what this worker runs, waiting until there is one.

        `limit` is the number of free slots: no worker holds doorbells that another one could serve. Cancelling the
        call loses nothing that the store would not ring again.
        """
        ...

    def ack(self, delivery: Delivery) -> None:
        """The claim is stored, or there is nothing to claim: forget this doorbell. Called twice: nothing happens."""
        ...

    def release(self, delivery: Delivery) -> None:
        """This worker does not take it: offer it to others, now. Called twice: nothing happens."""
        ...

    async def dead_letters(self) -> int | None:
        """How many messages were put aside that nobody could take, for people to look at.

        None: nothing is put aside here, or it cannot be said now. Never raises, and answers within a second.
        """
        ...
