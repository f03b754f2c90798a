"""What must exist on the broker, and the creation of it: nothing that a broker from 3.10 on does not have."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final, final

from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from durable.errors import QueueUnavailable

BANDS: Final = ("p2", "p1", "p0")
"""Greater priority, none, less: each a queue, because quorum queues know no priorities on every version."""


_BRACKETS: Final = str.maketrans("[]", "@,")
"""AMQP clients take no brackets; `@` and `,` are in no name of ours."""
_LONGEST: Final = 255


def band_of(priority: int) -> str:
    return "p1" if priority == 0 else "p2" if priority > 0 else "p0"


@final
class Topology:
    """The exchanges and queues of one namespace."""

    def __init__(self, namespace: str, *, passive: bool, shown: str) -> None:
        self._passive = passive
        self._shown = shown
        # No namespace has a colon, so none of these names is within another namespace. What begins with `amq.` is the
        # broker's own.
        self._prefix = f":{namespace}" if namespace.startswith("amq.") else namespace
        self.exchange = f"{self._prefix}:work"
        self.dead = f"{self._prefix}:dead"
        self._dead_letters = f"{self._prefix}:dlx"

    def name(self, queue: str, band: str) -> str:
        name = f"{self._prefix}:q:{queue.translate(_BRACKETS)}:{band}"
        if len(name) <= _LONGEST:
            return name
        return f"{self._prefix}:q:+{sha256(queue.encode()).hexdigest()}:{band}"

    def key(self, queue: str, band: str) -> str:
        """What routes a letter there."""
        return self.name(queue, band)

    async def declare_exchanges(self, channel: AbstractChannel) -> None:
        """Raises: `QueueUnavailable` when they exist otherwise, or when we may not declare them."""
        await self._exchange(channel, self.exchange, "direct")
        await self._exchange(channel, self._dead_letters, "fanout")
        await self._queue(channel, self.dead, {"x-queue-type": "quorum", "x-max-length": 100_000})
        if not self._passive:
            await channel.queue_bind(self.dead, self._dead_letters)

    async def declare_queue(self, channel: AbstractChannel, queue: str, band: str) -> None:
        """Raises as `declare_exchanges`."""
        name = self.name(queue, band)
        await self._queue(
            channel,
            name,
            {
                "x-queue-type": "quorum",
                "x-delivery-limit": 20,
                "x-dead-letter-exchange": self._dead_letters,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
                "x-max-length": 1_000_000,
            },
        )
        if not self._passive:
            await channel.queue_bind(name, self.exchange, routing_key=self.key(queue, band))

    async def _exchange(self, channel: AbstractChannel, name: str, kind: str) -> None:
        try:
            await channel.exchange_declare(
                name, exchange_type=kind, durable=not self._passive, passive=self._passive
            )
        except ChannelClosed as error:
            raise self._explained(f"exchange {name}", error) from error

    async def _queue(self, channel: AbstractChannel, name: str, arguments: dict[str, Any]) -> None:
        try:
            await channel.queue_declare(
                name,
                durable=not self._passive,
                passive=self._passive,
                arguments=None if self._passive else arguments,
            )
        except ChannelClosed as error:
            raise self._explained(f"queue {name}", error) from error

    def _explained(self, what: str, error: ChannelClosed) -> QueueUnavailable:
        said = str(error)
        if isinstance(error, ChannelPreconditionFailed):
            return QueueUnavailable(
                f"{what} of {self._shown} exists with other settings: {said}",
                "delete it (what was in it is rung again from the store), or use ?declare=passive to take it as it is",
            )
        if isinstance(error, ChannelNotFoundEntity):
            return QueueUnavailable(
                f"{what} of {self._shown} does not exist", "create it, or leave out ?declare=passive"
            )
        if isinstance(error, ChannelAccessRefused):
            return QueueUnavailable(
                f"{what} of {self._shown} may not be declared by this user: {said}",
                "give it the permission to configure, or create it and use ?declare=passive",
            )
        return QueueUnavailable(f"{what} of {self._shown} cannot be used: {said}", "look at the broker's log")
