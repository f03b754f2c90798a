"""`RabbitQueue`: doorbells for workers on many machines, over a broker that may lose them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Final, final

from typing_extensions import override

from durable.backends.rabbitmq.consumer import Consumer, Letter
from durable.backends.rabbitmq.location import Location
from durable.backends.rabbitmq.publisher import Publisher
from durable.backends.rabbitmq.topology import Topology
from durable.protocols import Delivery, Doorbell, DurableQueue, Wanted

_HOLD_S: Final = 0.1
_MOST_HOPS: Final = 10


@final
class RabbitQueue(DurableQueue):
    """Whoever waits in this process is served first, then the broker.

    What arrives here and is not taken within 0.1 s, because its worker has no free slot or is not one for it, is rung
    again for others; while nobody here waits, nothing is consumed.
    """

    def __init__(self, location: Location, namespace: str) -> None:
        topology = Topology(namespace, passive=location.passive, shown=location.shown)
        self._publisher = Publisher(location, topology, namespace)
        self._consumer = Consumer(location, topology, namespace, self._arrive)
        self._is_open = False
        self._at_hand: list[_Held] = []
        """Not received yet."""
        self._held: set[_Held] = set()
        """Received and not settled."""
        self._receivers: dict[_Receiver, None] = {}
        self._is_watched = False
        self._given_up = 0

    @override
    async def open(self) -> None:
        await self._publisher.open()
        try:
            await self._consumer.open()
        except BaseException:
            await self._publisher.close()
            raise
        self._is_open = True

    @override
    async def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        # What a letter brought goes back with its connection.
        self._publisher.put([held.bell for held in (*self._at_hand, *self._held) if held.letter is None])
        self._at_hand, self._held = [], set()
        await self._consumer.close()
        await self._publisher.close()

    @property
    def figures(self) -> dict[str, int]:
        """Doorbells confirmed and lost, letters received and malformed, doorbells that nobody wanted for so long that
        they were left to the sweep: since this queue was made."""
        publisher, consumer = self._publisher, self._consumer
        return {
            "sent": publisher.sent,
            "lost": publisher.lost,
            "received": consumer.received,
            "malformed": consumer.malformed,
            "given up": self._given_up,
        }

    # ---- ringing

    @override
    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        if not self._is_open:
            return
        for_others = [bell for bell in doorbells if not self._offer(bell)]
        if for_others:
            self._publisher.put(for_others)

    def _offer(self, bell: Doorbell) -> bool:
        """Give it to somebody in this process who waits for it."""
        for receiver in self._receivers:
            if receiver.room > 0 and receiver.wanted.wants(bell):
                receiver.room -= 1
                self._at_hand.append(_Held(bell, None))
                receiver.news.set()
                return True
        return False

    def _arrive(self, letter: Letter, bells: Sequence[Doorbell]) -> None:
        self._at_hand += [_Held(bell, letter) for bell in bells]
        for receiver in self._receivers:
            receiver.news.set()
        self._watch()

    # ---- receiving

    @override
    async def receive(self, wanted: Wanted, *, limit: int) -> Sequence[Delivery]:
        receiver = _Receiver(wanted, limit)
        self._receivers[receiver] = None
        self._consumer.want({queue for each in self._receivers for queue in each.wanted.queues})
        try:
            while not (taken := self._take(wanted, limit)):
                receiver.news.clear()
                await receiver.news.wait()
        finally:
            del self._receivers[receiver]
            self._watch()
        self._held.update(taken)
        return [Delivery(held.bell, held) for held in taken]

    def _take(self, wanted: Wanted, limit: int) -> list[_Held]:
        """Greater priority first, then what is ready for longest."""
        if not self._at_hand:
            return []
        suitable = sorted((held for held in self._at_hand if wanted.wants(held.bell)), key=_Held.rank)
        taken = suitable[:limit]
        if taken:
            chosen = set(taken)
            self._at_hand = [held for held in self._at_hand if held not in chosen]
        return taken

    @override
    def ack(self, delivery: Delivery) -> None:
        self._settle(delivery)

    @override
    def release(self, delivery: Delivery) -> None:
        if self._settle(delivery):
            self.ring((delivery.doorbell,))

    def _settle(self, delivery: Delivery) -> bool:
        """Whether it was held."""
        held = delivery.token
        if not isinstance(held, _Held) or held not in self._held:
            return False
        self._held.discard(held)
        self._let_go(held)
        return True

    def _let_go(self, held: _Held) -> None:
        if held.letter is not None:
            held.letter.settle_one(self._consumer.ack)

    @override
    async def dead_letters(self) -> int | None:
        return await self._consumer.dead_letters() if self._is_open else None

    # ---- what nobody takes

    def _watch(self) -> None:
        if not self._is_watched and self._is_open:
            self._is_watched = True
            asyncio.get_running_loop().call_later(_HOLD_S, self._look)

    def _look(self) -> None:
        self._is_watched = False
        if not self._is_open:
            return
        left = [held for held in self._at_hand if held.was_seen]
        self._at_hand = [held for held in self._at_hand if not held.was_seen]
        for held in self._at_hand:
            held.was_seen = True
        for held in left:
            self._ring_on(held)
            self._let_go(held)
        if not self._receivers:
            self._consumer.want(())
        if self._at_hand:
            self._watch()

    def _ring_on(self, held: _Held) -> None:
        """Let others have it; what went from one to the other for long is left to the sweep of who wants it."""
        hops = held.letter.hops + 1 if held.letter is not None else 1
        if hops <= _MOST_HOPS:
            self._publisher.put((held.bell,), hops)
        else:
            self._given_up += 1


_turns = count()


@final
class _Held:
    """A doorbell in this process, and the letter that brought it, if one did."""

    __slots__ = ("bell", "letter", "turn", "was_seen")

    def __init__(self, bell: Doorbell, letter: Letter | None) -> None:
        self.bell = bell
        self.letter = letter
        self.turn = next(_turns)
        self.was_seen = False
        """When it was looked for what nobody takes."""

    def rank(self) -> tuple[int, int, int]:
        return -self.bell.priority, self.bell.ready_at, self.turn


@final
class _Receiver:
    """Somebody who waits."""

    __slots__ = ("news", "room", "wanted")

    def __init__(self, wanted: Wanted, limit: int) -> None:
        self.wanted = wanted
        self.room = limit
        """How much more may be offered to it."""
        self.news = asyncio.Event()
