"""A worker: one process's part in running executions."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

from durable._version import __version__
from durable.clock import Clock
from durable.engine.branch import install
from durable.engine.host import Host, Stubs
from durable.engine.persist import persist
from durable.engine.transitions import NUDGE, Ended
from durable.flow_control import Limit
from durable.ids import Ids
from durable.presence import Presence, drain_mark
from durable.protocols import (
    Doorbell,
    DurableQueue,
    DurableStore,
    EventBus,
    Message,
    Posted,
    Wanted,
)
from durable.telemetry import Telemetry
from durable.worker.dispatcher import Dispatcher
from durable.worker.heart import Heart, MakePulse
from durable.worker.sweeper import Sweeper
from durable.workflow import Registry

log = logging.getLogger("durable.worker")

_FAREWELL_S = 4.0
"""How long leaving talks to the store, which may be away, once the drain is over."""
_HURRIED_S = 1.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works. Durations in milliseconds."""

    queues: Sequence[str]
    concurrency: int
    lease_ms: int
    drain_ms: int
    sweep_ms: int
    max_crashes: int
    most_parked: int = 2000
    """Waiting executions whose coroutine stays in memory; others are replayed when they go on."""
    forgetful: bool = False
    """Nothing stays in memory from one thing that is recorded to the next: each is followed by a replay. For tests."""


@final
class Worker:
    """Claims and runs executions of the workflows in its registry, from the queues of its settings."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: DurableStore,
        queue: DurableQueue,
        bus: EventBus,
        clock: Clock,
        ids: Ids,
        settings: WorkerSettings,
        look: Callable[[], object] | None,
        tell: Callable[[str, Ended | None], None],
        deps: object = None,
        limits: Mapping[str, Limit] | None = None,
        stubs: Stubs | None = None,
        telemetry: Telemetry | None = None,
        pulse: MakePulse = Heart,
    ) -> None:
        # The nonce tells apart workers that share a host name and a process id, as containers do.
        self.id = f"{socket.gethostname()}:{os.getpid()}:{ids.nonce()[:8]}"
        self._registry = registry
        self._store = store
        self._queue = queue
        self._bus = bus
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._look = look
        self._tell = tell
        self.deps = deps
        """What bodies get as `ctx.deps`."""
        self._limits = limits or {}
        self._stubs = stubs
        self._telemetry = telemetry
        self._make_pulse = pulse
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="durable.step")
        self._context = copy_context()
        self._nudges: set[asyncio.Task[None]] = set()
        self._started = False
        self._is_hurried = False
        self._farewell: asyncio.Timeout | None = None
        self.told_to_drain = asyncio.Event()
        """Somebody has asked that this worker takes nothing new: see `Operator.drain_worker`."""

    async def start(self) -> None:
        settings = self._settings
        workflows = frozenset(f"{info.name}@{info.version}" for info in self._registry)
        self.wanted = wanted = Wanted(tuple(settings.queues), workflows)
        host = Host(
            clock=self._clock,
            random=self._ids.random,
            threads=self._threads,
            deps=self.deps,
            max_crashes=settings.max_crashes,
            wake_at=self.wake_at,
            announce=self._announce,
            limits=self._limits,
            registry=self._registry,
            store=self._store,
            nudge=self._nudge,
            stubs=self._stubs,
            telemetry=self._telemetry,
            forgetful=settings.forgetful,
        )
        self.dispatcher = Dispatcher(
            worker_id=self.id,
            registry=self._registry,
            store=self._store,
            queue=self._queue,
            bus=self._bus,
            clock=self._clock,
            ids=self._ids,
            host=host,
            wanted=wanted,
            slots=settings.concurrency,
            most_parked=0 if settings.forgetful else settings.most_parked,
            tell=self._tell,
        )
        self._presence = Presence(
            version=__version__,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=tuple(settings.queues),
            workflows=sorted(workflows),
            slots=settings.concurrency,
            started_at=self._clock.now_ms(),
            lease_ms=settings.lease_ms,
        )
        self._heart = self._make_pulse(
            self._store,
            self.id,
            lease_ms=settings.lease_ms,
            info=lambda: self.presence().pack(),
            telemetry=self._telemetry,
        )
        self.sweeper = Sweeper(
            worker_id=self.id,
            registry=self._registry,
            ids=self._ids,
            store=self._store,
            queue=self._queue,
            clock=self._clock,
            capabilities=await self._store.capabilities(),
            dispatcher=self.dispatcher,
            interval_ms=settings.sweep_ms,
            lease_ms=settings.lease_ms,
            look=self._look,
            on_drain=self._on_drain,
            telemetry=self._telemetry,
        )
        self._uninstall = install(asyncio.get_running_loop())
        await self._heart.start()
        self.sweeper.loop.start()
        self.dispatcher.start()
        self._started = True

    async def stop(self, *, now: bool = False) -> None:
        """Drain, and give back what is left. Called again: nothing happens but that `now` ends the draining.

        A store that is away is not waited for: what could not be given back within 4 s, or within 1 s after a `now`,
        others take over when the lease has run out.
        """
        if now:
            self._hurry()
        if not self._started:
            return
        self._started = False
        await self.dispatcher.drain(self._settings.drain_ms / 1000)
        try:
            async with asyncio.timeout(_HURRIED_S if self._is_hurried else _FAREWELL_S) as self._farewell:
                await self.dispatcher.give_back()
                await self.sweeper.loop.stop()
                if self._nudges:
                    await asyncio.wait(self._nudges)
                if self.told_to_drain.is_set():
                    await persist(lambda: self._store.pause_queue(drain_mark(self.id), False))
                await self._heart.stop()
        except TimeoutError:
            log.warning(
                "worker %s leaves without a word: what it held is free when its lease runs out", self.id
            )
        await self._abandon()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _hurry(self) -> None:
        self._is_hurried = True
        self.dispatcher.hurry()
        farewell, latest = self._farewell, asyncio.get_running_loop().time() + _HURRIED_S
        if farewell is not None and not farewell.expired() and (farewell.when() or 0) > latest:
            farewell.reschedule(latest)

    async def _abandon(self) -> None:
        """Stop what has not stopped by itself, and store nothing of it."""
        self._heart.abandon()
        await self.dispatcher.abandon()
        await self.sweeper.loop.abandon()
        for nudge in self._nudges:
            nudge.cancel()
        self._uninstall()

    async def die(self) -> None:
        """Stop as if the process were gone: nothing is given back, no lease is ended. For tests."""
        self._started = False
        await self._abandon()

    def presence(self) -> Presence:
        """What this worker says of itself now. May be asked on any thread."""
        dispatcher = self.dispatcher
        return replace(
            self._presence, busy=dispatcher.active, draining=dispatcher.leaving, work=dispatcher.work()
        )

    @property
    def idle(self) -> bool:
        """No execution holds a slot and no sweep is running."""
        return self.dispatcher.active == 0 and self.sweeper.loop.idle and not self._nudges

    @property
    def progress(self) -> object:
        """Something that differs whenever this worker has done something."""
        return self.dispatcher.progress

    async def has_work(self) -> bool:
        """Whether an execution is ready for this worker now. It is rung, if so."""
        bells: list[Doorbell] = []
        for partition in range(self.sweeper.partitions):
            due = partial(self._store.due, partition, self.dispatcher.wanted, limit=100, again_ms=0)
            bells.extend(await persist(due))
        self._queue.ring(bells)
        return bool(bells)

    def wake_at(self, at_ms: int) -> None:
        """Something is due at that instant."""
        if self._started:
            self.sweeper.wake_at(at_ms)

    def fire_at(self, at_ms: int) -> None:
        """A schedule is due at that instant."""
        if self._started:
            self.sweeper.fire_at(at_ms)

    def _on_drain(self) -> None:
        log.info("worker %s was told to drain", self.id)
        self.told_to_drain.set()

    def _announce(self, doorbells: Sequence[Doorbell], touched: Sequence[str]) -> None:
        self.dispatcher.announce(doorbells, touched)

    def _nudge(self, execution_id: str) -> None:
        task: asyncio.Task[Any] = asyncio.create_task(
            self._post_nudge(execution_id), context=self._context.copy()
        )
        self._nudges.add(task)
        task.add_done_callback(self._nudges.discard)

    async def _post_nudge(self, execution_id: str) -> None:
        message = Message(self._ids.nonce(), *NUDGE)
        answer = await persist(lambda: self._store.post(execution_id, message))
        if isinstance(answer, Posted) and answer.doorbell is not None:
            self._queue.ring((answer.doorbell,))
