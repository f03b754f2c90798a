"""What nobody else would notice: timers that are due, workers that died, doorbells and hints that got lost."""

from __future__ import annotations

import logging
from typing import final

from durable.clock import Clock
from durable.protocols import (
    Capabilities,
    DurableQueue,
    DurableStore,
    EventBus,
    Live,
    Ticked,
    Wanted,
    WorkerInfo,
    execution_topic,
    work_topic,
)
from durable.worker.dispatcher import Dispatcher
from durable.worker.loop import Loop

log = logging.getLogger("durable.worker")

_LIMIT = 256


@final
class Sweeper:
    """Sweeps at an interval, and fires each timer that it knows of at its instant. Any number may run at once."""

    def __init__(
        self,
        *,
        worker_id: str,
        store: DurableStore,
        queue: DurableQueue,
        bus: EventBus,
        clock: Clock,
        capabilities: Capabilities,
        dispatcher: Dispatcher,
        wanted: Wanted,
        interval_ms: int,
        rings: bool,
    ) -> None:
        self._worker_id = worker_id
        self._store = store
        self._queue = queue
        self._bus = bus
        self._clock = clock
        self.partitions = capabilities.partitions
        self._dispatcher = dispatcher
        self._wanted = wanted
        self._interval_ms = interval_ms
        self._rings = rings
        """Whether the queue has to be told what is due; a store-backed one asks by itself."""
        self._live = Live({}, 0)
        self._swept_at = -interval_ms
        self.loop = Loop("sweep", self.turn, interval_ms=interval_ms, clock=clock)

    async def turn(self) -> None:
        """Fire what is due; and, at most once an interval, look for what was lost."""
        now = self._clock.now_ms()
        sweeping = now - self._swept_at >= self._interval_ms
        if sweeping:
            self._swept_at = now
            self._live = await self._known_live()
        for partition in range(self.partitions):
            await self._tick(partition, sweeping)
        if sweeping:
            self._dispatcher.forget_old()
            if seen := self._dispatcher.seen:  # hints are lossy: look for news of all that runs
                news = await self._store.peek(seen)
                self._dispatcher.hear({id: tuple(entries) for id, entries in news.items()})

    async def _known_live(self) -> Live:
        live = await self._store.live()
        # This process knows that it is alive, even where its heart is late.
        return Live({**live.workers, self._worker_id: WorkerInfo(self._worker_id, live.at)}, live.at)

    async def _tick(self, partition: int, sweeping: bool) -> None:
        more = True
        while more:
            ticked = await self._store.tick(partition, live=self._live, limit=_LIMIT)
            self._announce(ticked)
            more = ticked.more
        relaying = self.partitions > 1
        while relaying:
            relayed = await self._store.relay(partition, limit=_LIMIT)
            self._announce(relayed)
            relaying = relayed.more
        if self._rings:
            again_ms = self._interval_ms
            self._queue.ring(await self._store.due(partition, self._wanted, limit=_LIMIT, again_ms=again_ms))
        elif not sweeping:  # a delayed start or a retry may have come due: those have no timer
            self._bus.publish(work_topic(queue) for queue in self._wanted.queues)

    def _announce(self, ticked: Ticked) -> None:
        if ticked.doorbells:
            self._queue.ring(ticked.doorbells)
        if ticked.touched:
            self._bus.publish(execution_topic(id) for id in ticked.touched)
        if ticked.next_at is not None:
            self.loop.wake_at(ticked.next_at)
