"""`Publisher`: letters on their way to the broker. Nobody waits for it, and what it loses the sweep rings again."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, final

from aiormq.abc import AbstractChannel
from aiormq.exceptions import PublishError
from pamqp.commands import Basic

from durable.backends.rabbitmq.driver import driving_context
from durable.backends.rabbitmq.letter import MOST_BELLS, encode
from durable.backends.rabbitmq.link import Link, is_mine
from durable.backends.rabbitmq.location import Location
from durable.backends.rabbitmq.topology import Topology, band_of
from durable.errors import QueueUnavailable
from durable.protocols import Doorbell

log = logging.getLogger("durable.rabbitmq")

_PUBLISH_S: Final = 2.0
_MOST_WAITING: Final = 10_000
_MOST_IN_FLIGHT: Final = 100
_BREAK_S: Final = 3.0
_PERSISTENT: Final = 2

Destination = tuple[str, str]
"""A queue and its band."""


@final
class Publisher:
    """Gathers what is rung in one turn of the loop, and sends it with confirms, over a connection of its own: a broker
    that is short of memory stops those who publish, and only those."""

    def __init__(self, location: Location, topology: Topology, namespace: str) -> None:
        self._namespace = namespace
        self._topology = topology
        self._link = Link(location, "publishing", set_up=self._set_up, confirms=True)
        self._waiting: dict[tuple[Destination, int], list[Doorbell]] = defaultdict(list)
        """By destination, and by how often they were rung on."""
        self._number = 0
        self._declared: set[Destination] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self._broken_until = 0.0
        self._is_scheduled = False
        self.sent = 0
        """Doorbells that the broker has confirmed."""
        self.lost = 0
        """Doorbells that it has not, or that were not sent."""

    async def open(self) -> None:
        """Raises: `QueueUnavailable` as `Link.open`."""
        await self._link.open()

    async def close(self) -> None:
        """Send what is waiting, within the time of one letter, and disconnect."""
        self._send()
        if self._sending:
            await asyncio.wait(self._sending, timeout=_PUBLISH_S)
        await self._link.close()
        for task in tuple(self._sending):
            task.cancel()
        if self._sending:
            await asyncio.wait(self._sending)

    def put(self, bells: Sequence[Doorbell], hops: int = 0) -> None:
        """Send them soon. Returns at once."""
        if self._number + len(bells) > _MOST_WAITING:
            self._lose(len(bells), "too many are waiting")
            return
        for bell in bells:
            self._waiting[(bell.queue, band_of(bell.priority)), hops].append(bell)
        self._number += len(bells)
        if self._number and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._send)

    # ---- sending

    async def _set_up(self, channel: AbstractChannel) -> None:
        self._declared = set()
        await self._topology.declare_exchanges(channel)

    def _send(self) -> None:
        self._is_scheduled = False
        waiting, self._waiting = self._waiting, defaultdict(list)
        self._number = 0
        channel = self._link.channel
        is_broken = asyncio.get_running_loop().time() < self._broken_until
        for (destination, hops), bells in waiting.items():
            for start in range(0, len(bells), MOST_BELLS):
                letter = bells[start : start + MOST_BELLS]
                if channel is None or is_broken or len(self._sending) >= _MOST_IN_FLIGHT:
                    self._lose(len(letter), "the broker is away or busy")
                    continue
                task = asyncio.create_task(
                    self._publish(channel, destination, letter, hops), context=driving_context()
                )
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _publish(
        self, channel: AbstractChannel, destination: Destination, bells: Sequence[Doorbell], hops: int
    ) -> None:
        body = encode(self._namespace, destination[0], bells, hops)
        try:
            async with asyncio.timeout(_PUBLISH_S):
                if destination not in self._declared:
                    await self._topology.declare_queue(channel, *destination)
                    self._declared.add(destination)
                try:
                    await self._basic_publish(channel, destination, body)
                except PublishError:  # it was returned: its queue has been deleted since
                    await self._topology.declare_queue(channel, *destination)
                    await self._basic_publish(channel, destination, body)
        except Exception as error:  # noqa: BLE001 whatever it is, the sweep rings again
            if isinstance(
                error, TimeoutError | QueueUnavailable
            ):  # an alarm, or a broker that is held: do not pile up
                self._broken_until = asyncio.get_running_loop().time() + _BREAK_S
            self._lose(len(bells), str(error) or type(error).__name__)
        except asyncio.CancelledError as error:
            if is_mine(error):
                raise
            self._lose(len(bells), "the connection was lost")
        else:
            self.sent += len(bells)

    async def _basic_publish(self, channel: AbstractChannel, destination: Destination, body: bytes) -> None:
        await channel.basic_publish(
            body,
            exchange=self._topology.exchange,
            routing_key=self._topology.key(*destination),
            mandatory=True,
            properties=Basic.Properties(content_type="application/json", delivery_mode=_PERSISTENT),
        )

    def _lose(self, number: int, why: str) -> None:
        if self.lost == 0 or (self.lost + number) // 1000 > self.lost // 1000:
            log.warning("doorbells do not reach the broker (%s); the sweep rings them again", why)
        self.lost += number
