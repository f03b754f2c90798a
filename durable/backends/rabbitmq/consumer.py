"""`Consumer`: letters from the broker, while somebody here wants them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Final, final

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from durable.backends.rabbitmq.driver import driving, driving_context
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
_CHECK_S: Final = 1.0
_DEAD_S: Final = 0.5
"""A letter that waits for so long while none is in hand is not going to come."""
_MISSING_S: Final = 1.0
_CALL_S: Final = 2.0
_ASK_S: Final = 0.5


@final
class _Tap:
    """What comes from one queue and band, on the present channel."""

    __slots__ = ("checked", "in_hand", "received", "tag")

    def __init__(self) -> None:
        self.tag = ""
        self.received = 0
        self.checked = -1
        """What had been received when the last check began."""
        self.in_hand = 0
        """Letters that are not settled."""


@final
class Letter:
    """What a message brought. It is acknowledged when each of its doorbells is settled."""

    __slots__ = ("_channel", "_open", "_tag", "_tap", "hops")

    def __init__(self, channel: AbstractChannel, tap: _Tap, tag: int, number: int, hops: int) -> None:
        self.hops = hops
        """How often its doorbells were rung on by somebody who had no use for them."""
        self._channel = channel
        self._tap = tap
        self._tag = tag
        self._open = number

    def settle_one(self, acks: Callable[[AbstractChannel, int], object]) -> None:
        self._open -= 1
        if self._open == 0:
            self._tap.in_hand -= 1
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
        self._taps: dict[Destination, _Tap] = {}
        self._said = ""
        self._task: asyncio.Task[None] | None = None
        self._acks: set[asyncio.Task[None]] = set()
        self.received = 0
        """Letters."""
        self.malformed = 0
        """Letters that were none of ours, and are with the dead ones now."""

    async def open(self) -> None:
        """Raises: `QueueUnavailable` as `Link.open`."""
        await self._link.open()
        self._task = asyncio.create_task(
            self._tend(), name="durable.rabbitmq.tend", context=driving_context()
        )

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
        task = asyncio.create_task(self._ack(channel, tag), context=driving_context())
        self._acks.add(task)
        task.add_done_callback(self._acks.discard)

    async def _ack(self, channel: AbstractChannel, tag: int) -> None:
        try:
            await channel.basic_ack(tag, wait=False)
        except FAILURES as error:
            if is_mine(error):
                raise

    async def dead_letters(self) -> int | None:
        """As `DurableQueue.dead_letters`."""
        channel = self._link.channel
        if channel is None:
            return None
        try:
            with driving():
                async with asyncio.timeout(_ASK_S):
                    declared = await channel.queue_declare(self._topology.dead, passive=True)
        except FAILURES as error:
            if is_mine(error):
                raise
            return None
        return declared.message_count

    # ---- consuming

    async def _set_up(self, channel: AbstractChannel) -> None:
        self._taps = {}
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled)
        await self._topology.declare_exchanges(channel)
        await channel.basic_qos(prefetch_count=_PREFETCH)

    def _on_up(self) -> None:
        self._woken.set()

    async def _on_cancelled(self, frame: Basic.Cancel) -> None:
        """The broker says that a queue is gone."""
        self._taps = {where: tap for where, tap in self._taps.items() if tap.tag != frame.consumer_tag}
        self._woken.set()

    async def _tend(self) -> None:
        while True:
            self._woken.clear()
            channel = self._link.channel
            if channel is not None:
                try:
                    async with asyncio.timeout(2 * _CALL_S):
                        await self._consume(channel)
                    self._said = ""
                except QueueUnavailable as error:
                    self._complain(error)
                    self._link.rebuild()
                    await asyncio.sleep(_MISSING_S)
                except FAILURES as error:
                    if is_mine(error):
                        raise
                    self._link.rebuild(f"it does not consume: {type(error).__name__}")
            if not await self._is_woken_within(_CHECK_S):
                await self._check()

    def _complain(self, error: QueueUnavailable) -> None:
        if str(error) != self._said:
            self._said = str(error)
            log.error("%s; it is tried again until it succeeds. %s", error, error.hint)

    async def _consume(self, channel: AbstractChannel) -> None:
        for where, tap in list(self._taps.items()):
            if where[0] not in self._wanted:
                del self._taps[where]
                await channel.basic_cancel(tap.tag)
        for queue in self._wanted:
            for band in BANDS:
                if (queue, band) not in self._taps:
                    await self._topology.declare_queue(channel, queue, band)
                    tap = _Tap()
                    answer = await channel.basic_consume(
                        self._topology.name(queue, band), partial(self._on_message, tap)
                    )
                    assert answer.consumer_tag is not None
                    tap.tag = answer.consumer_tag
                    self._taps[queue, band] = tap

    async def _on_message(self, tap: _Tap, message: DeliveredMessage) -> None:
        channel, tag = message.channel, message.delivery_tag
        assert tag is not None
        self.received += 1
        tap.received += 1
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
        tap.in_hand += 1
        self._deliver(Letter(channel, tap, tag, len(bells), hops), bells)

    # ---- what the broker does not say

    async def _check(self) -> None:
        """A consumer may be connected and dead: one whose queue was deleted and declared again is not always told.

        Letters wait there then, and none comes, though there is room for one.
        """
        channel = self._link.channel
        if channel is None:
            return
        for tap in self._taps.values():
            tap.checked = tap.received
        try:
            suspects = await self._with_letters(channel, list(self._taps))
            if not suspects or await self._is_woken_within(_DEAD_S):
                return
            dead = await self._with_letters(channel, suspects)
        except FAILURES as error:
            if is_mine(error):
                raise
            self._link.rebuild(f"a check failed: {type(error).__name__}")
            return
        if dead:
            self._link.rebuild("letters wait, and none comes")

    async def _with_letters(
        self, channel: AbstractChannel, places: Iterable[Destination]
    ) -> list[Destination]:
        """Those in which letters wait, though more could be in hand, and none has come since the check began."""
        found: list[Destination] = []
        async with asyncio.timeout(_CALL_S):
            for where in places:
                declared = await channel.queue_declare(self._topology.name(*where), passive=True)
                tap = self._taps.get(where)
                has_room = tap is not None and tap.in_hand < _PREFETCH and tap.received == tap.checked
                if has_room and declared.message_count:
                    found.append(where)
        return found

    async def _is_woken_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True
