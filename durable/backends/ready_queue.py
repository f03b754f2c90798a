"""`ReadyQueue`: the queue of a backend without a broker. The store's ready index is the queue.

ring ──▶ desk of this process ────────────────────────────▶ receive
  └──▶ bus ──▶ desk of another process ── due ──▶ store ──▶ receive
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Final, final

from typing_extensions import override

from durable.clock import Clock
from durable.protocols import (
    Delivery,
    Doorbell,
    DurableQueue,
    DurableStore,
    EventBus,
    Subscription,
    Wanted,
    work_topic,
)

_KEPT: Final = 256
"""Doorbells on a desk. When more are rung the store's index is the better list: complete, and in order."""
_DESKS: Final = 8
_BREATH_MS: Final = 50
_BORROWED_MS: Final = 500


@final
class ReadyQueue(DurableQueue):
    """Delivers doorbells of this process at once, those of others by a hint, and lost ones by a poll.

    The store is asked by a `receive` when a hint said so, when `poll_ms` have passed since it was asked, or
    when it is known to hold more; never for an execution that it has rung within `again_ms`.
    """

    def __init__(
        self,
        store: DurableStore,
        bus: EventBus,
        clock: Clock,
        *,
        poll_ms: int = 5_000,
        again_ms: int = 5_000,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._poll_ms = poll_ms
        self._again_ms = again_ms
        self._partitions = 1
        self._desks: list[_Desk] = []
        self._held: dict[object, Doorbell] = {}
        """By token: what was delivered and not settled."""
        self._subscriptions: dict[str, Subscription] = {}
        self._is_hinting = False

    @override
    async def open(self) -> None:
        self._partitions = (await self._store.capabilities()).partitions

    @override
    async def close(self) -> None:
        for subscription in self._subscriptions.values():
            subscription.close()
        self._subscriptions.clear()
        held, self._held = self._held, {}
        self.ring(list(held.values()))

    @override
    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        for bell in doorbells:
            for desk in self._desks:
                if desk.wanted.wants(bell):
                    desk.ring(bell)
        self._hint(doorbells)

    def look(self) -> None:
        """Have each `receive` that waits ask the store again: something may have come due."""
        for desk in self._desks:
            desk.ask_at = 0
            desk.wake()

    @override
    async def receive(self, wanted: Wanted, *, limit: int) -> Sequence[Delivery]:
        await self._subscribe(wanted.queues)
        desk = self._desk(wanted)
        desk.widest = max(desk.widest, limit)
        while True:
            if desk.must_ask(self._clock.now_ms()):
                await self._ask(desk, limit)
            elif desk.is_empty:
                await self._wait(desk)
            if bells := desk.take(limit):
                deliveries = [Delivery(bell, token=object()) for bell in bells]
                self._held |= {delivery.token: delivery.doorbell for delivery in deliveries}
                return deliveries

    @override
    def ack(self, delivery: Delivery) -> None:
        self._held.pop(delivery.token, None)

    @override
    def release(self, delivery: Delivery) -> None:
        bell = self._held.pop(delivery.token, None)
        if bell is not None:
            # Not this instant: a worker that takes it again, and again has no use for it, would spin.
            at = self._clock.now_ms() + _BREATH_MS
            self._clock.call_at(at, partial(self._offer_again, bell), background=True)

    @override
    async def dead_letters(self) -> int | None:
        return None

    def _offer_again(self, bell: Doorbell) -> None:
        """Not as `ring` does, which leaves to the store what it has in order: the store has rung this one, perhaps,
        and is quiet about it for `again_ms`."""
        for desk in self._desks:
            if desk.wanted.wants(bell):
                desk.put(bell)
                desk.wake()
        self._hint([bell])

    def _hint(self, doorbells: Sequence[Doorbell]) -> None:
        self._is_hinting = True
        self._bus.publish(dict.fromkeys(work_topic(bell.queue) for bell in doorbells))
        self._is_hinting = False

    def _hear(self, queue: str) -> None:
        if self._is_hinting:
            return  # by this queue: its desks know already
        for desk in self._desks:
            if queue in desk.wanted.queues:
                desk.ask_at = 0
                desk.wake()

    async def _subscribe(self, queues: Sequence[str]) -> None:
        for queue in queues:
            if queue not in self._subscriptions:
                subscription = await self._bus.subscribe(work_topic(queue), partial(self._hear, queue))
                if self._subscriptions.setdefault(queue, subscription) is not subscription:
                    subscription.close()  # another receive was quicker
                else:
                    self._hear(queue)  # hints before this one were missed, after `close` and `open` for one

    def _desk(self, wanted: Wanted) -> _Desk:
        for desk in self._desks:
            if desk.wanted == wanted:
                return desk
        if len(self._desks) >= _DESKS:
            self._desks = [desk for desk in self._desks if desk.waiting]
        desk = _Desk(wanted)
        self._desks.append(desk)
        return desk

    async def _ask(self, desk: _Desk, limit: int) -> None:
        """Fetch from the store, a little ahead, so that a backlog does not cost a write for each execution."""
        desk.ask_at = self._clock.now_ms() + self._poll_ms
        desk.store_has_more = False
        try:
            bells, has_more = await self._due(desk.wanted, limit + desk.widest // 4)
        except BaseException:
            desk.ask_at = 0
            raise
        desk.store_has_more |= has_more
        for bell in bells:
            desk.put(bell)
        desk.wake()

    async def _due(self, wanted: Wanted, limit: int) -> tuple[list[Doorbell], bool]:
        """`limit` doorbells or a few more, the first of all partitions among them, and whether there are more."""
        # Each partition, for its first may be the first of all. What is too many is soon rung for others again.
        share = -(-limit // self._partitions)
        again_ms = self._again_ms if self._partitions == 1 else min(self._again_ms, _BORROWED_MS)
        partitions = range(self._partitions)
        asked = [self._store.due(each, wanted, limit=share, again_ms=again_ms) for each in partitions]
        if len(asked) == 1:
            bells = await asked[0]
            return list(bells), len(bells) >= share
        # At once, so that a store can put them into one round trip; and none is left running when one fails.
        answers = await asyncio.gather(*asked, return_exceptions=True)
        found: list[Doorbell] = []
        has_more = False
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            found += answer
            has_more |= len(answer) >= share
        return found, has_more

    async def _wait(self, desk: _Desk) -> None:
        news = asyncio.Event()
        desk.waiting[news] = None
        poll = self._clock.call_at(desk.ask_at, news.set, background=True)
        try:
            await news.wait()
        finally:
            poll.cancel()
            del desk.waiting[news]


@final
class _Desk:
    """Doorbells at hand for those who want the same, and what is known about the store's."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.widest = 0
        """The most free slots that a receiver had."""
        self.waiting: dict[asyncio.Event, None] = {}
        self.ask_at = 0
        """When the store is to be asked, unless it has more."""
        self.store_has_more = False
        """What is rung then is left to the store, which gives it in the right order."""
        self._bells: list[tuple[int, int, int, Doorbell]] = []
        self._ids: set[str] = set()
        self._turns = count()

    @property
    def is_empty(self) -> bool:
        return not self._bells

    def must_ask(self, now: int) -> bool:
        return self.is_empty if self.store_has_more else now >= self.ask_at

    def ring(self, bell: Doorbell) -> None:
        if len(self._bells) >= _KEPT:
            self.store_has_more = True
        if not self.store_has_more:
            self.put(bell)
            self.wake()

    def put(self, bell: Doorbell) -> None:
        if bell.id not in self._ids:
            self._ids.add(bell.id)
            heappush(self._bells, (-bell.priority, bell.ready_at, next(self._turns), bell))

    def take(self, limit: int) -> list[Doorbell]:
        """Greater priority first, then what is ready for longest."""
        taken: list[Doorbell] = []
        while self._bells and len(taken) < limit:
            *_, bell = heappop(self._bells)
            self._ids.remove(bell.id)
            taken.append(bell)
        return taken

    def wake(self) -> None:
        for news in self.waiting:
            news.set()
