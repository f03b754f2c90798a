"""`Durable`: workflow definitions joined to a backend."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import replace
from datetime import datetime
from types import ModuleType, TracebackType
from typing import Any, Literal, Never, Self, TypeVar, Unpack, final, overload

from durable.backends import backend_for
from durable.backends.ready_queue import ReadyQueue
from durable.client import Client
from durable.clock import Clock, SystemClock
from durable.describe import WorkflowShape, describe
from durable.duration import Duration, to_instant_ms, to_ms
from durable.engine.host import Stubs
from durable.engine.rehearsal import Verdict, rehearse, unknown_workflow
from durable.errors import ConfigurationError, InvalidInput, NotRunning
from durable.flow_control import Limit, check_limits
from durable.handle import Handle
from durable.history import History
from durable.ids import Ids
from durable.models import Execution, Receipt, Schedule, WorkflowInfo
from durable.names import (
    check_key,
    check_name,
    check_namespace,
    check_own_name,
    check_priority,
    check_tags,
)
from durable.operator import Operator
from durable.presence import Presence
from durable.protocols import DurableQueue, DurableStore, EventBus
from durable.redact import redact_url
from durable.retry import Retry
from durable.schedules import Catchup, Overlap, ScheduleChanges, Schedules
from durable.signals import Event, Signal
from durable.telemetry import Listener, Telemetry
from durable.worker import Heart, MakePulse, Worker, WorkerSettings
from durable.workflow import AnyWorkflow, Registry, Workflow

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

_MOST_SENT = 100

KeyReuse = Literal["never", "when_closed"]
OpenDeps = Callable[[], AbstractAsyncContextManager[object]]


@final
class Durable:
    """Starts executions, tells them things, waits for them; and, with `worker=True`, runs them.

    Use it as a context manager: entering connects, migrates and begins to work; leaving drains.

    `store`, `queue` and `bus` are URLs, or objects of your own. Without a queue the store's own index of ready
    executions serves, without a bus the store's. `lease` is how long a worker that died keeps what it held; `sweep`
    how often lost doorbells and dead workers are looked for; `drain` how long leaving waits for what runs.
    `max_crashes` workers in a row may die of one execution before it is failed as poison. `limits` are those that
    steps name: `limits={"openai": Concurrency(5)}`, `@step(limit="openai")`. `telemetry` are functions that get to know
    what happens here, as the events of `durable.telemetry`. A `forgetful` one replays an execution after each thing
    that is recorded of it: for tests.

    Raises:
        ConfigurationError: the definitions contradict each other, or a URL means no backend that is installed.
        InvalidInput: a bad namespace, queue or duration.
    """

    def __init__(
        self,
        workflows: Iterable[AnyWorkflow | ModuleType] = (),
        *,
        store: str | DurableStore,
        queue: str | DurableQueue | None = None,
        bus: str | EventBus | None = None,
        namespace: str = "default",
        worker: bool = True,
        queues: Sequence[str] = ("default",),
        concurrency: int = 100,
        lease: Duration = "30s",
        drain: Duration = "30s",
        sweep: Duration = "5s",
        max_crashes: int = 5,
        deps: OpenDeps | None = None,
        limits: Mapping[str, Limit] | None = None,
        telemetry: Iterable[Listener] = (),
        clock: Clock | None = None,
        ids: Ids | None = None,
        stubs: Stubs | None = None,
        forgetful: bool = False,
        pulse: MakePulse = Heart,
    ) -> None:
        self._registry = Registry(workflows)
        self._namespace = check_namespace(namespace)
        self._clock = clock or SystemClock()
        self._ids = ids or Ids()
        self._store_or_url, self._queue_or_url, self._bus_or_url = store, queue, bus
        self._worker_wanted = worker
        self._deps = deps
        self._limits = check_limits(limits or {})
        self._listeners = tuple(telemetry)
        self._stubs = stubs
        self._pulse: MakePulse = pulse
        self._settings = WorkerSettings(
            queues=tuple(check_own_name(name, "queue") for name in queues),
            concurrency=_at_least_one("concurrency", concurrency),
            lease_ms=_positive(to_ms(lease, what="lease"), "lease"),
            drain_ms=to_ms(drain, what="drain"),
            sweep_ms=_positive(to_ms(sweep, what="sweep"), "sweep"),
            max_crashes=_at_least_one("max_crashes", max_crashes),
            forgetful=forgetful,
        )
        self._open_ports()
        self._exit: AsyncExitStack | None = None
        self._worker: Worker | None = None

    @classmethod
    def from_env(cls, workflows: Iterable[AnyWorkflow | ModuleType] = (), **settings: Any) -> Durable:
        """As the constructor, with what these name unless it is given: `DURABLE_STORE_URL`, `DURABLE_QUEUE_URL`,
        `DURABLE_BUS_URL`, `DURABLE_NAMESPACE`.

        Raises:
            ConfigurationError: no store is given, and `DURABLE_STORE_URL` is not set.
        """
        names = {"store": "STORE_URL", "queue": "QUEUE_URL", "bus": "BUS_URL", "namespace": "NAMESPACE"}
        found = {what: value for what, name in names.items() if (value := os.environ.get(f"DURABLE_{name}"))}
        if "store" not in found and "store" not in settings:
            raise ConfigurationError(
                "DURABLE_STORE_URL is not set", "set it to the URL of a store, such as sqlite:///durable.db"
            )
        options: dict[str, Any] = {**found, **settings}
        return cls(workflows, **options)

    def as_worker(
        self,
        queues: Sequence[str] | None = None,
        concurrency: int | None = None,
        telemetry: Iterable[Listener] = (),
    ) -> Durable:
        """A copy, not entered, that runs executions whatever `worker=` says here, and tells more listeners.

        Raises:
            InvalidInput: a bad queue or concurrency.
        """
        settings = self._settings
        if queues is not None:
            settings = replace(settings, queues=tuple(check_own_name(name, "queue") for name in queues))
        if concurrency is not None:
            settings = replace(settings, concurrency=_at_least_one("concurrency", concurrency))
        return self._copy(worker=True, settings=settings, listeners=telemetry)

    def as_sweeper(self) -> Durable:
        """A copy, not entered, that fires timers and schedules and notices workers that died, and runs nothing."""
        twin = self._copy(worker=True, settings=replace(self._settings, queues=(), concurrency=1))
        twin._deps = None
        return twin

    def as_client(self) -> Durable:
        """A copy, not entered, that runs nothing whatever `worker=` says here."""
        return self._copy(worker=False, settings=self._settings)

    # ---- the life of it

    async def __aenter__(self) -> Self:
        if self._exit is not None:
            raise NotRunning("this Durable is entered already", "enter it once, and share it")
        async with AsyncExitStack() as stack:
            await self._store.open()
            stack.push_async_callback(self._store.close)
            asked_at = self._clock.now_ms()
            self._clock.follow((await self._store.live()).at, asked_at)
            await self._bus.open()
            stack.push_async_callback(self._bus.close)
            await self._queue.open()
            stack.push_async_callback(self._queue.close)
            telemetry = Telemetry(self._listeners) if self._listeners else None
            self._client = Client(
                self._store, self._queue, self._bus, self._clock, self._ids, self._registry, telemetry
            )
            await self._client.subscribe()
            self._schedules = Schedules(self._store, self._client, self._registry, self._clock, self._ids)
            self.operator = Operator(
                self._store, self._queue, self._client, self._clock, self._ids, self._registry
            )
            """The verbs that can hurt."""
            if self._worker_wanted:
                deps = await stack.enter_async_context(self._deps()) if self._deps else None
                worker = Worker(
                    registry=self._registry,
                    store=self._store,
                    queue=self._queue,
                    bus=self._bus,
                    clock=self._clock,
                    ids=self._ids,
                    settings=self._settings,
                    look=self._queue.look if isinstance(self._queue, ReadyQueue) else None,
                    tell=self._client.heard,
                    deps=deps,
                    limits=self._limits,
                    stubs=self._stubs,
                    telemetry=telemetry,
                    pulse=self._pulse,
                )
                stack.push_async_callback(worker.stop)
                await worker.start()
                self._worker = worker
                self._client.on_timer.append(self._worker.wake_at)
                self._schedules.on_fire.append(self._worker.fire_at)
                self._client.local = self._worker.dispatcher
            await self._schedules.ensure_those_of(self._registry)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._exit = self._exit, None
        if stack is not None:
            await stack.aclose()
            self._client.close()
        self._worker = None

    async def stop(self) -> None:
        """End at once what a worker runs, as a second Ctrl-C does; others go on with it. Then leave the context."""
        if self._worker is not None:
            await self._worker.stop(now=True)

    # ---- starting

    @overload
    async def start(
        self,
        workflow: Workflow[None, Out],
        input: None = None,
        *,
        key: str | None = None,
        key_reuse: KeyReuse = "never",
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        tags: Mapping[str, str] | None = None,
        connection: object = None,
    ) -> Handle[Out]: ...
    @overload
    async def start(
        self,
        workflow: Workflow[In, Out],
        input: In,
        *,
        key: str | None = None,
        key_reuse: KeyReuse = "never",
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        tags: Mapping[str, str] | None = None,
        connection: object = None,
    ) -> Handle[Out]: ...
    async def start(
        self,
        workflow: AnyWorkflow,
        input: object = None,
        *,
        key: str | None = None,
        key_reuse: KeyReuse = "never",
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        tags: Mapping[str, str] | None = None,
        connection: object = None,
    ) -> Handle[Any]:
        """A handle of a new execution, which is stored when this returns.

        With a `key` there is at most one execution for (workflow, key): the same key again gives a handle of the
        same execution with `created=False`, also at the same moment from many places. `key_reuse="when_closed"`
        makes a new one once the last has ended. `delay` or `at` keep it from beginning earlier. `timeout` counts
        from now, across attempts. What is not given is as the workflow says.

        With a `connection` of the store's database, in a transaction of yours, it is stored if that commits, with all
        that you write there, and begins soon after. Its handle is good from then on.

        Raises:
            UnknownWorkflow: it is not registered here.
            InvalidInput: the input does not validate (the text names each field), or another argument is bad; the
                connection is in no transaction, or to another database.
            NotSerializable, PayloadTooLarge: the input cannot be stored.
            KeyConflict: the key was used with another input.
            ConfigurationError: there is a connection, and the store takes part in no transactions.
            StoreUnavailable: the store cannot be reached. Starting again with the same key is safe.
        """
        if key_reuse not in ("never", "when_closed"):
            raise InvalidInput(f"key_reuse must be 'never' or 'when_closed', not {key_reuse!r}")
        if delay is not None and at is not None:
            raise InvalidInput("delay and at were both given", "give one of them")
        known = self._registered(workflow)
        return await self._running().start(
            known,
            input,
            key=None if key is None else check_key(key),
            reuse_closed_key=key_reuse == "when_closed",
            queue=queue,
            priority=None if priority is None else check_priority(priority),
            retry=None if retry is None else Retry.of(retry, known.retry),
            timeout_ms=None if timeout is None else to_ms(timeout, what="timeout"),
            tags=None if tags is None else check_tags(tags),
            delay_ms=0 if delay is None else to_ms(delay, what="delay"),
            at_ms=None if at is None else to_instant_ms(at, what="at"),
            connection=connection,
        )

    @overload
    async def start_and_wait(
        self,
        workflow: Workflow[None, Out],
        input: None = None,
        *,
        timeout: Duration | None = None,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Out: ...
    @overload
    async def start_and_wait(
        self,
        workflow: Workflow[In, Out],
        input: In,
        *,
        timeout: Duration | None = None,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Out: ...
    async def start_and_wait(
        self,
        workflow: AnyWorkflow,
        input: Any = None,
        *,
        timeout: Duration | None = None,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Any:
        """Start it and give its result. `timeout` is how long to wait; the execution itself goes on after that.

        Raises: as `start` and `Handle.result`.
        """
        handle: Handle[Any] = await self.start(workflow, input, key=key, tags=tags)
        return await handle.result(timeout)

    # ---- executions by their id

    @overload
    def handle(self, execution_id: str, workflow: None = None) -> Handle[object]: ...
    @overload
    def handle(self, execution_id: str, workflow: Workflow[Never, Out]) -> Handle[Out]: ...
    def handle(self, execution_id: str, workflow: AnyWorkflow | None = None) -> Handle[Any]:
        """A handle of an execution that was started elsewhere. Nothing is looked up."""
        return Handle(self._running(), execution_id, workflow)

    async def wait(self, execution_id: str, timeout: Duration | None = None) -> object:
        """Its result, as `Handle.result` gives it; as plain JSON, where its workflow is not registered here."""
        client = self._running()
        execution = await client.status(execution_id)
        workflow = self._registry.get(execution.workflow, execution.version)
        return await Handle[object](client, execution_id, workflow).result(timeout)

    @overload
    async def signal(
        self,
        execution_id: str,
        signal: Signal[None],
        payload: None = None,
        *,
        key: str | None = None,
        connection: object = None,
    ) -> None: ...
    @overload
    async def signal(
        self,
        execution_id: str,
        signal: Signal[T],
        payload: T,
        *,
        key: str | None = None,
        connection: object = None,
    ) -> None: ...
    async def signal(
        self,
        execution_id: str,
        signal: Signal[Any],
        payload: object = None,
        *,
        key: str | None = None,
        connection: object = None,
    ) -> None:
        """Send a signal. See `Handle.signal`.

        Raises:
            ExecutionNotFound: there is no such execution.
        """
        await Handle[object](self._running(), execution_id).signal(
            signal, payload, key=key, connection=connection
        )

    # ---- schedules

    @overload
    async def schedule(
        self,
        workflow: Workflow[None, Out],
        input: None = None,
        *,
        at: datetime | None = None,
        delay: Duration | None = None,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Handle[Out]: ...
    @overload
    async def schedule(
        self,
        workflow: Workflow[In, Out],
        input: In,
        *,
        at: datetime | None = None,
        delay: Duration | None = None,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Handle[Out]: ...
    async def schedule(
        self,
        workflow: AnyWorkflow,
        input: Any = None,
        *,
        at: datetime | None = None,
        delay: Duration | None = None,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Handle[Any]:
        """Start it once, later: at an instant or after a delay, one of which is given. A handle as any other.

        Raises: as `start`; `InvalidInput` when neither or both of `at` and `delay` are given.
        """
        if (at is None) == (delay is None):
            raise InvalidInput("schedule() needs at= or delay=, one of them", "for now, use start()")
        started: Handle[Any] = await self.start(workflow, input, at=at, delay=delay, key=key, tags=tags)
        return started

    @overload
    async def ensure_schedule(
        self,
        workflow: Workflow[None, Any],
        input: None = None,
        *,
        id: str,
        cron: str | None = None,
        interval: Duration | None = None,
        tz: str = "UTC",
        catchup: Catchup = "latest",
        overlap: Overlap = "allow",
        jitter: Duration | None = None,
    ) -> Schedule: ...
    @overload
    async def ensure_schedule(
        self,
        workflow: Workflow[In, Any],
        input: In,
        *,
        id: str,
        cron: str | None = None,
        interval: Duration | None = None,
        tz: str = "UTC",
        catchup: Catchup = "latest",
        overlap: Overlap = "allow",
        jitter: Duration | None = None,
    ) -> Schedule: ...
    async def ensure_schedule(
        self,
        workflow: AnyWorkflow,
        input: Any = None,
        *,
        id: str,
        cron: str | None = None,
        interval: Duration | None = None,
        tz: str = "UTC",
        catchup: Catchup = "latest",
        overlap: Overlap = "allow",
        jitter: Duration | None = None,
    ) -> Schedule:
        """Let there be this schedule: call it on every boot. One that is there and unchanged goes on as it was; a
        change takes effect from now on and fires nothing at once; a paused one stays paused.

        It starts one execution at each instant of `cron` (in `tz`) or, from one `interval` from now on, at each
        interval, whose id is a function of the schedule and the instant. Of the instants that nobody was there to
        notice, `catchup` makes up for the "latest", for "none" (of those more than 10 s ago), or for "all". While an
        execution of it has not ended, `overlap` lets the next one start ("allow"), leaves it out ("skip"), or lets
        it wait ("queue"). `jitter` lets each begin up to that much later, the same for everybody who computes it.

        Raises:
            InvalidInput: a bad id, input, expression, zone or duration; or neither or both of `cron` and `interval`.
            ConfigurationError: the id is bound to another workflow.
            UnknownWorkflow: it is not registered here.
        """
        self._running()
        return await self._schedules.ensure(
            self._registered(workflow),
            input,
            id=id,
            cron=cron,
            interval=interval,
            tz=tz,
            catchup=catchup,
            overlap=overlap,
            jitter=jitter,
        )

    async def pause_schedule(self, id: str) -> None:
        """Let it start nothing until it is resumed; what it would have started is not made up for.

        Raises:
            ScheduleNotFound: there is none of this id. So do all that take one.
        """
        self._running()
        await self._schedules.pause(id)

    async def resume_schedule(self, id: str) -> None:
        """Let a paused one go on, with the next instant from now."""
        self._running()
        await self._schedules.resume(id)

    async def get_schedule(self, id: str) -> Schedule:
        """A schedule as it is now."""
        self._running()
        return await self._schedules.get(id)

    async def list_schedules(self) -> list[Schedule]:
        """All of them, by id; those that `on=` makes have ids such as `report:on:0`."""
        self._running()
        return await self._schedules.all()

    async def update_schedule(self, id: str, **changes: Unpack[ScheduleChanges]) -> Schedule:
        """Change what is given (`input`, `cron` or `interval`, `tz`, `catchup`, `overlap`, `jitter`), nothing else.

        Raises: as `ensure_schedule`; `UnknownWorkflow` when its workflow is not registered here.
        """
        self._running()
        return await self._schedules.update(id, changes)

    async def remove_schedule(self, id: str) -> None:
        """Forget it. What it has started goes on."""
        self._running()
        await self._schedules.remove(id)

    async def trigger_schedule(self, id: str) -> Handle[Any]:
        """Start an execution of it now, out of turn; a paused one too."""
        self._running()
        return await self._schedules.start_now(id)

    async def next_fires(self, id: str, number: int = 5) -> list[datetime]:
        """Its next instants (UTC), as if it were not paused."""
        self._running()
        return await self._schedules.next_fires(id, number)

    async def backfill_schedule(self, id: str, *, since: datetime, until: datetime) -> list[Handle[Any]]:
        """Start the executions of the instants from `since` to `until` (at most 1,000) that were not started yet."""
        self._running()
        return await self._schedules.backfill(id, since, until)

    # ---- events

    @overload
    async def send(
        self,
        event: Event[None],
        payload: None = None,
        *,
        id: str | None = None,
        connection: object = None,
    ) -> Receipt: ...
    @overload
    async def send(
        self, event: Event[T], payload: T, *, id: str | None = None, connection: object = None
    ) -> Receipt: ...
    async def send(
        self,
        event: Event[Any],
        payload: object = None,
        *,
        id: str | None = None,
        connection: object = None,
    ) -> Receipt:
        """Store an event, start what it starts and resume who waits for it; the receipt names them.

        An `id` counts once among the events of its name: a second one changes nothing and gets the first one's receipt,
        with `duplicate=True`. With a `connection` it is stored if your transaction commits (see `start`).

        Raises:
            InvalidInput: the payload does not validate, the id is hostile, or the connection takes no part.
            NotSerializable, PayloadTooLarge: the payload cannot be stored.
            ConfigurationError: it starts a workflow that decides by a function and is not registered here; or there is
                a connection, and the store takes part in no transactions.
            StoreUnavailable: the store cannot be reached. Sending it again with the same id is safe.
        """
        [receipt] = await self._running().send([(event, payload, id)], connection)
        return receipt

    async def send_many(
        self, events: Sequence[tuple[Event[Any], object] | tuple[Event[Any], object, str | None]]
    ) -> list[Receipt]:
        """Send up to 100 events, all or none: each with its payload and, if need be, its id. Their receipts, in
        order.

        Raises:
            InvalidInput: more than 100, or a payload or an id is bad.
        """
        if len(events) > _MOST_SENT:
            raise InvalidInput(f"{len(events)} events were sent at once", f"send at most {_MOST_SENT}")
        return await self._running().send(
            [(one[0], one[1], one[2] if len(one) > 2 else None) for one in events]
        )

    async def cancel(self, execution_id: str, reason: str = "", *, by: str = "") -> None:
        """Ask an execution to end as cancelled. See `Handle.cancel`."""
        await Handle[object](self._running(), execution_id).cancel(reason, by=by)

    async def status(self, execution_id: str) -> Execution:
        """Where an execution is now.

        Raises:
            ExecutionNotFound: there is no such execution.
        """
        check_name(execution_id, "the id of an execution")
        return await self._running().status(execution_id)

    # ---- what is registered

    def workflows(self) -> list[WorkflowInfo]:
        """What is registered here, with tags, versions and the JSON Schemas of inputs and outputs."""
        return self._registry.infos()

    def definitions(self) -> list[AnyWorkflow]:
        """The workflows themselves, by name and version."""
        return list(self._registry)

    def workflow(self, name: str, version: str | None = None) -> AnyWorkflow:
        """What is registered under a name: this version of it, or the highest.

        Raises:
            UnknownWorkflow: it is not registered here; the hint names the closest one that is.
        """
        return self._registry.find(name, version)

    @asynccontextmanager
    async def rehearsing(self) -> AsyncGenerator[Callable[[History], Awaitable[Verdict]]]:
        """A function that replays a history with what is registered here, runs no step and stores nothing.

        It needs no store. Bodies get the `deps` of the worker that runs here, or else ones that are opened for them.
        """
        async with AsyncExitStack() as stack:
            deps: object = None
            if self._worker is not None:
                deps = self._worker.deps
            elif self._deps is not None:
                deps = await stack.enter_async_context(self._deps())

            async def replay(history: History) -> Verdict:
                row = history.row
                workflow = self._registry.get(row.workflow, row.version)
                if workflow is None:
                    known = [other.version for other in self._registry if other.name == row.workflow]
                    return unknown_workflow(history, known)
                return await rehearse(workflow, history, deps=deps)

            yield replay

    def describe(self, workflow: AnyWorkflow) -> WorkflowShape:
        """What may happen in a workflow, read from its source: the same as `durable.describe(workflow)`."""
        return describe(workflow)

    # ---- within

    @property
    def store_url(self) -> str:
        """Where the executions are, without the secrets in it; of a store object its class."""
        store = self._store_or_url
        return redact_url(store) if isinstance(store, str) else type(store).__name__

    @property
    def settings(self) -> WorkerSettings:
        """How a worker works here."""
        return self._settings

    def presence(self) -> Presence | None:
        """What the worker of this process says of itself now; None: there is none. May be asked on any thread."""
        worker = self._worker
        return None if worker is None else worker.presence()

    def now_ms(self) -> int:
        """Milliseconds since the epoch, on the clock that follows the store's."""
        return self._clock.now_ms()

    @property
    def worker(self) -> Worker:
        """The worker of this process.

        Raises:
            NotRunning: it has none, or is not entered.
        """
        if self._worker is None:
            raise NotRunning("no worker runs here", "enter a Durable that has worker=True")
        return self._worker

    def _running(self) -> Client:
        if self._exit is None:
            raise NotRunning("this Durable is not entered")
        return self._client

    def _registered(self, workflow: AnyWorkflow) -> AnyWorkflow:
        return self._registry.find(workflow.name, workflow.version)

    def _copy(self, *, worker: bool, settings: WorkerSettings, listeners: Iterable[Listener] = ()) -> Durable:
        twin = copy(self)
        twin._listeners = (*self._listeners, *listeners)
        twin._worker_wanted, twin._settings = worker, settings
        twin._exit = twin._worker = None
        twin._open_ports()
        return twin

    def _open_ports(self) -> None:
        store, queue, bus = self._store_or_url, self._queue_or_url, self._bus_or_url
        url = store if isinstance(store, str) else None
        self._store: DurableStore = self._port("store", store)
        self._bus: EventBus = self._port("bus", url if bus is None and url is not None else bus)
        self._queue: DurableQueue = self._ready_queue() if queue is None else self._port("queue", queue)

    def _ready_queue(self) -> ReadyQueue:
        sweep_ms = self._settings.sweep_ms
        # The worker's sweeps have it look; its own polls are for those that fail.
        return ReadyQueue(self._store, self._bus, self._clock, poll_ms=2 * sweep_ms, again_ms=sweep_ms)

    def _port(self, what: Literal["store", "queue", "bus"], given: Any) -> Any:
        if not isinstance(given, str):
            return given
        backend = backend_for(given)
        opener = {"store": backend.open_store, "queue": backend.open_queue, "bus": backend.open_bus}[what]
        if opener is None:
            raise ConfigurationError(
                f"{given.partition('://')[0]}:// cannot be used as a {what}", "use another backend there"
            )
        return opener(given, namespace=self._namespace, clock=self._clock)


def _at_least_one(what: str, value: object) -> int:
    if not (isinstance(value, int) and value >= 1):
        raise InvalidInput(f"{what} must be a whole number of at least 1, not {value!r}")
    return value


def _positive(ms: int, what: str) -> int:
    if ms <= 0:
        raise InvalidInput(f"{what} must be longer than nothing")
    return ms
