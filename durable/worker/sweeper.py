"""What nobody else would notice: timers that are due, workers that died, doorbells and hints that got lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from heapq import heappop, heappush
from typing import Any, final

from durable.clock import Clock, stopwatch
from durable.ids import Ids
from durable.presence import drain_mark
from durable.protocols import (
    Capabilities,
    DurableQueue,
    DurableStore,
    Ticked,
)
from durable.schedules import fire
from durable.telemetry import SweepMade, Telemetry
from durable.worker.dispatcher import Dispatcher
from durable.worker.leases import Leases
from durable.worker.loop import Loop
from durable.workflow import Registry

log = logging.getLogger("durable.worker")

_LIMIT = 256
_SPACING_MS = 100
_BREATH_MS = 10
_MOST_TIMERS = 10_000
_MOST_TOLD = 10_000


@final
class Sweeper:
    """Sweeps at an interval, and fires each timer that it knows of at its instant. Any number may run at once."""

    def __init__(
        self,
        *,
        worker_id: str,
        registry: Registry,
        ids: Ids,
        store: DurableStore,
        queue: DurableQueue,
        clock: Clock,
        capabilities: Capabilities,
        dispatcher: Dispatcher,
        interval_ms: int,
        lease_ms: int,
        look: Callable[[], object] | None,
        on_drain: Callable[[], object],
        telemetry: Telemetry | None,
    ) -> None:
        self._registry = registry
        self._ids = ids
        self._store = store
        self._queue = queue
        self._clock = clock
        self.partitions = capabilities.partitions
        self._dispatcher = dispatcher
        self._interval_ms = interval_ms
        self._drain_mark = drain_mark(worker_id)
        self._on_drain = on_drain
        self._telemetry = telemetry
        self._look = look
        """Has the store-backed queue ask the store; None: a queue that has to be told what is due."""
        self._spacing_ms = _SPACING_MS if capabilities.shared else 0
        self._breath_ms = _BREATH_MS if capabilities.shared else 0
        """Between turns: each asks every partition, and costs as much for one timer as for hundreds."""
        self._turned_at = 0
        self._leases = Leases(worker_id, lease_ms=lease_ms, interval_ms=interval_ms)
        self._swept_at = -interval_ms
        self._fires_at: int | None = None
        """When the next schedule is due, as far as is known."""
        self._timers: list[int] = []
        """A heap of the instants at which something is due that this process has stored."""
        self._told: dict[str, int] = {}
        """Since when executions are ready for which ticks have just rung: the store's look at what is ready, which
        cannot know, rings for each of them as well."""
        self.loop = Loop("sweep", self.turn, interval_ms=interval_ms, clock=clock)

    def wake_at(self, at_ms: int) -> None:
        """This process has stored something that is due at that instant: be there in time."""
        heappush(self._timers, at_ms)
        if len(self._timers) > _MOST_TIMERS:
            # The latest are left to the ticks, which say when the next is due: far ones must not crowd out near ones.
            self._timers = sorted(set(self._timers))[: _MOST_TIMERS // 2]
        self._wake_for(at_ms)

    def _wake_for(self, at_ms: int) -> None:
        self.loop.wake_at(max(at_ms, self._turned_at + self._breath_ms))

    def fire_at(self, at_ms: int) -> None:
        """A schedule is due at that instant."""
        if self._fires_at is None or at_ms < self._fires_at:
            self._fires_at = at_ms
            self.loop.wake_at(at_ms)

    async def turn(self) -> None:
        """Fire what is due; and, at most once an interval, look for what was lost."""
        now = self._clock.now_ms()
        while self._timers and self._timers[0] <= now:
            heappop(self._timers)
        # Also when the clock was put back, as the store's was: it may be hours to the next sweep otherwise.
        sweeping = not self._swept_at <= now < self._swept_at + self._interval_ms
        # All at once, and first of all the queue's look (a delayed start or a retry may have come due: those have no
        # timer), so that a store can put them into one round trip. The leases that a tick goes by are those of the
        # sweep before: a look at them that is old is as safe as a fresh one, and one sweep later at most.
        if self._look is not None:
            self._look()
        partitions = range(self.partitions)
        work = [self._tick(partition) for partition in partitions]
        if self._look is None:
            work += [self._ring(partition) for partition in partitions]
        if sweeping and self.partitions > 1:
            work += [self._relay(partition) for partition in partitions]
        if sweeping or (self._fires_at is not None and self._fires_at <= now):
            work.append(self._fire())
        if sweeping:
            self._swept_at = now
            self._dispatcher.forget_old()
            self._dispatcher.look_after_claims()
            work += [self._look_at_leases(), self._look_for_news(), self._look_at_queues()]
        tell, error_type = self._telemetry, None
        began = 0.0 if tell is None else stopwatch()
        try:
            await _together(work)
        except Exception as error:
            error_type = type(error).__name__
            raise
        finally:
            if tell is not None:
                tell(SweepMade(stopwatch() - began, error_type))
            self._turned_at = self._clock.now_ms()
            if self._timers:
                self._wake_for(self._timers[0])
            if self._fires_at is not None:
                self._wake_for(self._fires_at)

    async def _look_at_leases(self) -> None:
        asked_at = self._clock.now_ms()
        live = await self._store.live()
        self._clock.follow(live.at, asked_at)
        self._leases.look(live)

    async def _look_for_news(self) -> None:
        if seen := self._dispatcher.seen:  # hints are lossy: look for news of all that runs
            news = await self._store.peek(seen)
            self._dispatcher.hear({id: tuple(entries) for id, entries in news.items()})

    async def _look_at_queues(self) -> None:
        paused = await self._store.paused_queues()
        if self._drain_mark in paused and self._dispatcher.take_no_more():
            self._on_drain()
        if self._dispatcher.pause(paused) and self._look is not None:
            self._look()

    async def _tick(self, partition: int) -> None:
        more = True
        while more:
            ticked = await self._store.tick(partition, live=self._leases.live, limit=_LIMIT)
            self._announce(ticked)
            more = ticked.more

    async def _fire(self) -> None:
        """Start what schedules are to start."""
        due = await self._store.due_schedules(limit=_LIMIT)
        self._fires_at = None
        if due.next_at is not None:
            self.fire_at(due.next_at)
        for row in due.rows:
            try:
                fired = await fire(self._store, row, self._registry, due.now, self._ids.nonce())
            except Exception:  # functions of the workflow may have decided, and this is one schedule of many
                log.exception("schedule %s cannot be fired; it is tried again at the next sweep", row.id)
                continue
            if fired is None:
                continue
            self._queue.ring(fired.saved.doorbells)
            if fired.saved.next_at is not None:
                self.wake_at(fired.saved.next_at)
            if fired.next_at is not None:
                self.fire_at(fired.next_at)

    async def _relay(self, partition: int) -> None:
        more = True
        while more:
            relayed = await self._store.relay(partition, limit=_LIMIT)
            self._announce(relayed)
            more = relayed.more

    async def _ring(self, partition: int) -> None:
        due = self._store.due(partition, self._dispatcher.wanted, limit=_LIMIT, again_ms=self._interval_ms)
        self._queue.ring([bell for bell in await due if self._told.pop(bell.id, None) != bell.ready_at])

    def _announce(self, ticked: Ticked) -> None:
        if ticked.doorbells or ticked.touched:
            self._dispatcher.announce(ticked.doorbells, ticked.touched)
        if ticked.doorbells and self._look is None:
            if len(self._told) > _MOST_TOLD:
                self._told.clear()
            self._told |= {bell.id: bell.ready_at for bell in ticked.doorbells}
        if ticked.next_at is not None:
            # It may be another worker's timer, and that one wakes for it in time: look for what it has left undone.
            self.loop.wake_at(max(ticked.next_at, self._clock.now_ms() + self._spacing_ms))


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all of it at once, and raise the first error when all has ended."""
    if len(work) == 1:
        await work[0]
        return
    for answer in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
