"""`Consumer`: letters from the broker, while somebody here wants them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final, final

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from durable.backends.rabbitmq.letter import MalformedLetter, decode
from durable.backends.rabbitmq.link import FAILURES, Link, is_mine
from durable.backends.rabbitmq.location import Location
from durable.backends.rabbitmq.publisher import Destination
from durable.backends.rabbitmq.topology import BANDS, Topology
from durable.errors import QueueUnavailable
from durable.protocols import Doorbell

log = logging.getLogger("durable.rabbitmq")

_PREFETCH: Final = 4
"""Letters of each queue and band that may be in hand: what nobody here takes is soon rung again for others."""
_CHECK_S: Final = 5.0
_CALL_S: Final = 2.0


@final
class Letter:
    """What a message brought. It is acknowledged when each of its doorbells is settled."""

    __slots__ = ("_channel", "_open", "_tag", "hops")

    def __init__(self, channel: AbstractChannel, tag: int, number: int, hops: int) -> None:
        self.hops = hops
        """How often its doorbells were rung on by somebody who had no use for them."""
        self._channel = channel
        self._tag = tag
        self._open = number

    def settle_one(self, acks: Callable[[AbstractChannel, int], object]) -> None:
        self._open -= 1
        if self._open == 0:
            acks(self._channel, self._tag)


@final
class Consumer:
    """Consumes the queues that are wanted, and none while nothing is."""

    def __init__(
        self,
        location: Location,
        topology: Topology,
        namespace: str,
        deliver: Callable[[Letter, Sequence[Doorbell]], object],
    ) -> None:
        self._namespace = namespace
        self._topology = topology
        self._deliver = deliver
        self._woken = asyncio.Event()
        self._link = Link(location, "consuming", set_up=self._set_up, on_up=self._on_up)
        self._wanted: Collection[str] = ()
        self._tags: dict[Destination, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._acks: set[asyncio.Task[None]] = set()
        self._received_before = -1
        self.received = 0
        """Letters."""
        self.malformed = 0
        """Letters that were none of ours, and are with the dead ones now."""

    async def open(self) -> None:
        """Raises: `QueueUnavailable` as `Link.open`."""
        await self._link.open()
        self._task = asyncio.create_task(self._tend(), name="durable.rabbitmq.tend")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        if self._acks:
            await asyncio.wait(self._acks, timeout=_CALL_S)
        await self._link.close()

    def want(self, queues: Collection[str]) -> None:
        """Consume these queues from now on, and no others."""
        if set(queues) != set(self._wanted):
            self._wanted = tuple(queues)
            self._woken.set()

    def ack(self, channel: AbstractChannel, tag: int) -> None:
        """Returns at once. On a connection that is gone it means nothing: the broker gives the letter to others."""
        task = asyncio.create_task(self._ack(channel, tag))
        self._acks.add(task)
        task.add_done_callback(self._acks.discard)

    async def _ack(self, channel: AbstractChannel, tag: int) -> None:
        try:
            await channel.basic_ack(tag, wait=False)
        except FAILURES as error:
            if is_mine(error):
                raise

    # ---- consuming

    async def _set_up(self, channel: AbstractChannel) -> None:
        self._tags = {}
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled)
        await self._topology.declare_exchanges(channel)
        await channel.basic_qos(prefetch_count=_PREFETCH)

    def _on_up(self) -> None:
        self._woken.set()

    async def _on_cancelled(self, frame: Basic.Cancel) -> None:
        """The broker says that a queue is gone."""
        self._tags = {where: tag for where, tag in self._tags.items() if tag != frame.consumer_tag}
        self._woken.set()

    async def _tend(self) -> None:
        while True:
            self._woken.clear()
            channel = self._link.channel
            if channel is not None:
                try:
                    async with asyncio.timeout(2 * _CALL_S):
                        await self._consume(channel)
                except QueueUnavailable as error:
                    log.error("%s. %s", error, error.hint)
                    self._link.rebuild("a queue cannot be used")
                    await asyncio.sleep(_CALL_S)
                except FAILURES as error:
                    if is_mine(error):
                        raise
                    self._link.rebuild(f"it does not consume: {type(error).__name__}")
            try:
                async with asyncio.timeout(_CHECK_S):
                    await self._woken.wait()
            except TimeoutError:
                await self._check()

    async def _consume(self, channel: AbstractChannel) -> None:
        for where, tag in list(self._tags.items()):
            if where[0] not in self._wanted:
                del self._tags[where]
                await channel.basic_cancel(tag)
        for queue in self._wanted:
            for band in BANDS:
                if (queue, band) not in self._tags:
                    await self._topology.declare_queue(channel, queue, band)
                    answer = await channel.basic_consume(self._topology.name(queue, band), self._on_message)
                    assert answer.consumer_tag is not None
                    self._tags[queue, band] = answer.consumer_tag

    async def _on_message(self, message: DeliveredMessage) -> None:
        channel, tag = message.channel, message.delivery_tag
        assert tag is not None
        self.received += 1
        try:
            bells, hops = decode(self._namespace, message.body)
        except MalformedLetter as error:
            self.malformed += 1
            log.warning("a message on %s is not ours: %s", message.routing_key, error)
            try:
                await channel.basic_reject(tag, requeue=False)
            except FAILURES as failure:
                if is_mine(failure):
                    raise
            return
        self._deliver(Letter(channel, tag, len(bells), hops), bells)

    async def _check(self) -> None:
        """A consumer may be connected and dead: letters wait there, somebody waits here, and nothing comes."""
        channel, before = self._link.channel, self._received_before
        self._received_before = self.received
        if channel is None or not self._tags:
            return
        try:
            async with asyncio.timeout(_CALL_S):
                waiting = 0
                for where in list(self._tags):
                    declared = await channel.queue_declare(self._topology.name(*where), passive=True)
                    waiting += declared.message_count or 0
        except FAILURES as error:
            if is_mine(error):
                raise
            self._link.rebuild(f"a check failed: {type(error).__name__}")
            return
        if waiting and self.received == before:
            self._link.rebuild(f"{waiting} letters wait, and none comes")
