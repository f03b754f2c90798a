"""The client: starts executions, tells them things and waits for them. It runs no user code."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar, final

from durable.clock import Clock, TimerHandle, to_datetime
from durable.codec import load_error, plain
from durable.engine.latch import Latch
from durable.engine.options import new_execution
from durable.engine.persist import persist
from durable.engine.reruns import rerun_of
from durable.engine.subscriptions import compose, subscribers_of, to_change
from durable.engine.telling import emitted, starting
from durable.engine.transitions import Ended, cancel_data
from durable.errors import (
    CompensationFailed,
    ExecutionCancelled,
    ExecutionClosed,
    ExecutionFailed,
    ExecutionNotFound,
    KeyConflict,
    NotRunning,
    WaitTimeout,
)
from durable.flow_control import merged
from durable.handle import Handle
from durable.ids import Ids
from durable.models import ErrorRecord, Execution, ExecutionStatus, Receipt
from durable.names import check_actor, check_name
from durable.protocols import (
    Close,
    Created,
    Doorbell,
    DurableQueue,
    DurableStore,
    EventBus,
    ExecutionRow,
    Exists,
    Joined,
    Message,
    MessageKind,
    NewExecution,
    NotPosted,
    Plan,
    Posted,
    Reach,
    Sent,
    State,
    Writes,
    execution_topic,
    keyed_id,
    transactional,
)
from durable.retry import Retry
from durable.signals import Event, Signal
from durable.telemetry import ExecutionStarted, Telemetry
from durable.workflow import AnyWorkflow, Registry

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds for which a call is repeated while the store is away."""
_NOT_BEGUN = (ExecutionStatus.PENDING, ExecutionStatus.RETRYING)
_FIRST_POLL, _LONGEST_POLL = 0.25, 2.0
_POLLS_PER_S = 250
"""For all that is waited for here together. Polls are for lost hints: thousands that wait must not live on them."""


class LocalWorker(Protocol):
    """The worker of this process, which may go on at once with what the client makes ready."""

    @property
    def has_room(self) -> bool: ...

    def expect(self, bell: Doorbell) -> bool:
        """Claim an execution, if there is a free slot: it is being created."""
        ...

    def expect_parked(self, execution_id: str) -> bool:
        """The same for one that is kept in memory: a message for it is being posted."""
        ...

    def holds(self, execution_id: str) -> bool:
        """Whether an execution runs here, or is being claimed. When that is over `Client.heard` is told."""
        ...


@final
class Client:
    """What every node can do. Implements `durable.handle.Remote`."""

    def __init__(
        self,
        store: DurableStore,
        queue: DurableQueue,
        bus: EventBus,
        clock: Clock,
        ids: Ids,
        registry: Registry | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = store
        self._registry = registry or Registry()
        self._queue = queue
        self._bus = bus
        self._clock = clock
        self._ids = ids
        self._telemetry = telemetry
        self._closed = False
        self._waiters: dict[str, dict[_Waiter, None]] = {}
        """By execution: who waits for its result."""
        self._waiting = 0
        self.local: LocalWorker | None = None
        """None: no worker, or it is leaving."""
        self.on_timer: list[Any] = []
        """Called with each instant that a call of ours has made a timer of."""

    def close(self) -> None:
        """From now on every call raises `NotRunning`, instead of asking a store that is closed."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise NotRunning("the Durable that this handle came from has been left")

    # ---- starting

    async def start(
        self,
        workflow: AnyWorkflow,
        input: object,
        *,
        key: str | None = None,
        reuse_closed_key: bool = False,
        queue: str | None = None,
        priority: int | None = None,
        retry: Retry | None = None,
        timeout_ms: int | None = None,
        tags: Mapping[str, str] | None = None,
        delay_ms: int = 0,
        at_ms: int | None = None,
        connection: object = None,
    ) -> Handle[Any]:
        schema = workflow.input_schema
        what = f"the input of workflow {workflow.name}"
        value = schema.validate(input, what)
        data = schema.dump(value, what)
        spec = new_execution(
            lambda: self.new_id(workflow.name, key, reuse_closed_key),
            workflow,
            value,
            data,
            key=key,
            reuse_closed_key=reuse_closed_key,
            queue=queue,
            priority=priority,
            retry=retry,
            timeout_ms=timeout_ms,
            tags=tags,
            delay_ms=delay_ms,
            at_ms=at_ms,
        )
        return await self.begin(spec, workflow, connection)

    async def begin(
        self, spec: NewExecution, workflow: AnyWorkflow | None, connection: object = None
    ) -> Handle[Any]:
        """Store a new execution, and have it claimed."""
        tell = self._telemetry
        if tell is None:
            return await self._begin(spec, workflow, connection)
        spec, event = starting(spec, tell)
        try:
            handle = await self._begin(spec, workflow, connection)
        except BaseException as error:
            tell(ExecutionStarted(event, spec.id, created=False, error=error))
            raise
        tell(ExecutionStarted(event, handle.id, handle.created))
        return handle

    async def _begin(
        self, spec: NewExecution, workflow: AnyWorkflow | None, connection: object
    ) -> Handle[Any]:
        op_id = self._ids.nonce()
        answer: Created | Joined | Exists
        if connection is not None:  # its workers hear of it when the transaction commits, which we do not see
            answer = await (await self._writes(connection, "start")).create(spec, op_id=op_id)
        else:
            create = persist(lambda: self._store.create(spec, op_id=op_id), patience=PATIENCE)
            bell = Doorbell(spec.id, spec.workflow, spec.version, spec.queue, spec.priority)
            if spec.delay_ms or spec.at_ms is not None or spec.gates or spec.join is not None:
                answer = await create
            else:
                answer = await self._followed(create, lambda local: local.expect(bell))
        if isinstance(answer, Created):
            if answer.doorbell is None:
                self.note_timer(answer.available_at)
            if spec.timeout_ms is not None:
                self.note_timer(self._clock.now_ms() + spec.timeout_ms)
            if connection is None:
                if answer.doorbell is not None:
                    self._ring(answer.doorbell)
                self._announce_all(answer)
            return Handle(self, answer.id, workflow, created=True)
        if isinstance(answer, Joined):
            if answer.doorbell is not None and connection is None:
                self._ring(answer.doorbell)
            return Handle(self, answer.id, workflow, created=False)
        if workflow is None or answer.same_input:
            return Handle(self, answer.id, workflow, created=False)
        if not await self._is_input(answer.id, workflow, spec.input):
            raise KeyConflict(spec.key or answer.id, spec.workflow, answer.id)
        return Handle(self, answer.id, workflow, created=False)

    async def _writes(self, connection: object, verb: str) -> Writes:
        """The store's verbs in a caller's transaction."""
        self._check_open()
        store = await transactional(self._store, f"{verb}(connection=...)")
        return await store.enlist(connection)

    async def _is_input(self, execution_id: str, workflow: AnyWorkflow, data: bytes) -> bool:
        """Whether an execution has an equal input, written in another way (a set, a dict in another order)."""
        row = await persist(lambda: self._store.get(execution_id), patience=PATIENCE)
        if row is None:
            return False  # it was created in the same transaction, which only that can see
        return bool(workflow.input_schema.load(row.input) == workflow.input_schema.load(data))

    def new_id(self, workflow: str, key: str | None, reuse: bool = False) -> str:
        """The id of an execution that is to be created."""
        if key is None:
            return self._ids.execution_id()
        return keyed_id(workflow, key, self._ids.execution_id()[:8] if reuse else "")

    def note_timer(self, at_ms: int) -> None:
        """Something is due at that instant."""
        for listener in self.on_timer:
            listener(at_ms)

    # ---- events

    async def send(
        self, sent: Sequence[tuple[Event[Any], object, str | None]], connection: object = None
    ) -> list[Receipt]:
        self._check_open()
        checked: list[tuple[Event[Any], str, bytes]] = []
        for event, payload, id in sent:
            what = f"the payload of event {event.name}"
            value = event.schema.validate(payload, what)
            event_id = self._ids.execution_id() if id is None else check_name(id, "the id of an event")
            checked.append((event, event_id, event.schema.dump(value, what)))
        names = sorted({event.name for event, *_ in checked})
        plans = dict(zip(names, await asyncio.gather(*map(self._plan, names)), strict=True))
        emits = [
            emitted(compose(event, event_id, data, plans[event.name], self._registry), self._telemetry)
            for event, event_id, data in checked
        ]
        op_id = self._ids.nonce()
        if connection is None:
            answer = await persist(lambda: self._store.send(emits, op_id=op_id), patience=PATIENCE)
            self._announce_all(answer)
        else:
            answer = await (await self._writes(connection, "send")).send(emits, op_id=op_id)
        return [
            Receipt(emit.id, tuple(receipt.execution_ids), receipt.duplicate)
            for emit, receipt in zip(emits, answer.receipts, strict=True)
        ]

    async def _plan(self, event: str) -> Plan:
        return await persist(lambda: self._store.plan(event), patience=PATIENCE)

    async def subscribe(self) -> None:
        """Let the store know what is started by events here."""
        declared = subscribers_of(self._registry)
        add, remove = to_change(declared, await self._store.subscribers(), self._registry)
        if add or remove:
            await persist(lambda: self._store.subscribe(add, remove), patience=PATIENCE)

    # ---- telling

    async def signal(
        self,
        execution_id: str,
        signal: Signal[Any],
        payload: object,
        *,
        key: str | None,
        connection: object = None,
    ) -> None:
        schema = signal.schema
        what = f"the payload of signal {signal.name}"
        data = schema.dump(schema.validate(payload, what), what)
        message_id = self._ids.nonce() if key is None else f"signal:{signal.name}:{key}"
        message = Message(message_id, MessageKind.SIGNAL, signal.name, data)
        if connection is None:
            answer = await self.post(execution_id, message)
        else:
            answer = await (await self._writes(connection, "signal")).post(execution_id, message)
            if isinstance(answer, NotPosted) and answer.state is None:
                raise ExecutionNotFound(execution_id)
        if isinstance(answer, NotPosted) and not answer.duplicate:
            raise ExecutionClosed(execution_id, (await self._row(execution_id)).status)

    async def cancel(self, execution_id: str, reason: str, *, by: str = "") -> None:
        data = cancel_data(reason, check_actor(by))
        message = Message(self._ids.nonce(), MessageKind.CANCEL, "cancel", data, Reach.BLOCKED)
        await self.post(execution_id, message)

    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        """Post, and tell whoever should know.

        Raises:
            ExecutionNotFound: there is no such execution.
        """
        self._check_open()
        check_name(execution_id, "the id of an execution")
        post = persist(lambda: self._store.post(execution_id, message), patience=PATIENCE)
        answer = await self._followed(post, lambda local: local.expect_parked(execution_id))
        if isinstance(answer, NotPosted):
            if answer.state is None:
                raise ExecutionNotFound(execution_id)
            return answer
        if answer.doorbell is None or self._ring(answer.doorbell):
            self._bus.publish((execution_topic(execution_id),))  # for the worker that has it in memory
        for bell in answer.doorbells:
            self._ring(bell)
        if answer.next_at is not None:
            self.note_timer(answer.next_at)
        return answer

    # ---- this process's own worker

    async def _followed(self, write: Coroutine[Any, Any, T], expects: Callable[[LocalWorker], bool]) -> T:
        """Make a write, with the claim of what it makes ready right behind it if this process has a worker for it."""
        if self.local is None or not self.local.has_room:
            return await write
        # Two tasks that begin one after the other in the next turn of the loop. They belong to no workflow's body.
        task = asyncio.create_task(write, context=contextvars.Context())
        expects(self.local)
        return await task

    def _announce_all(self, answer: Created | Sent) -> None:
        """Ring and hint what a write of ours has done to others."""
        for bell in answer.doorbells:
            self._ring(bell)
        if answer.touched:
            self._bus.publish(execution_topic(execution_id) for execution_id in answer.touched)
        if answer.next_at is not None:
            self.note_timer(answer.next_at)

    def _ring(self, bell: Doorbell) -> bool:
        """Ring it, unless this process's worker is claiming it already."""
        if self.local is not None and self.local.holds(bell.id):
            return False
        self._queue.ring((bell,))
        return True

    # ---- waiting and reading

    async def result(self, execution_id: str, workflow: AnyWorkflow | None, *, timeout_ms: int | None) -> Any:
        self._check_open()
        check_name(execution_id, "the id of an execution")
        loop = asyncio.get_running_loop()
        deadline = None if timeout_ms is None else loop.time() + timeout_ms / 1000
        waiter = _Waiter(loop)
        poll = _FIRST_POLL
        subscription = await self._bus.subscribe(execution_topic(execution_id), waiter.wake)
        self._waiters.setdefault(execution_id, {})[waiter] = None
        self._waiting += 1
        try:
            while True:  # subscribe, then read, then wait for a hint or the next poll: no end is missed
                left = None if deadline is None else deadline - loop.time()
                is_late = left is not None and left <= 0
                # What runs here is not over, and its worker says when it is: hints of anything else need no look.
                if waiter.must_look or is_late or not self._runs_here(execution_id):
                    row = await self._row(execution_id)
                    if row.status.final:
                        return _outcome(
                            Ended(row, Close(row.status, row.result, row.error, row.code)), workflow
                        )
                    if is_late:
                        raise WaitTimeout(execution_id, (timeout_ms or 0) / 1000, _why(row))
                pause = max(poll, self._waiting / _POLLS_PER_S) * self._ids.random.uniform(0.8, 1.2)
                await waiter.wait(self._clock, round(pause * 1000), left)
                if waiter.ended is not None:
                    return _outcome(waiter.ended, workflow)
                poll = min(poll * 2, _LONGEST_POLL)
        finally:
            self._waiting -= 1
            subscription.close()
            del self._waiters[execution_id][waiter]
            if not self._waiters[execution_id]:
                del self._waiters[execution_id]

    def _runs_here(self, execution_id: str) -> bool:
        return self.local is not None and self.local.holds(execution_id)

    def heard(self, execution_id: str, ended: Ended | None) -> None:
        """This process's worker has ended an execution, or holds it no more."""
        for waiter in self._waiters.get(execution_id, ()):
            waiter.ended = waiter.ended or ended
            waiter.wake()

    async def status(self, execution_id: str) -> Execution:
        return execution_of(await self._row(execution_id))

    async def value(self, execution_id: str, name: str) -> object:
        self._check_open()
        data = await self._store.value(execution_id, name)
        if data is None:
            await self._row(execution_id)
            return None
        return plain(data)

    async def _row(self, execution_id: str) -> ExecutionRow:
        self._check_open()
        check_name(execution_id, "the id of an execution")
        row = await persist(lambda: self._store.get(execution_id), patience=PATIENCE)
        if row is None:
            raise ExecutionNotFound(execution_id)
        return row


@final
class _Waiter:
    """Somebody who waits for a result, for the price of a future and a timer or two."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.ended: Ended | None = None
        self.must_look = False
        """It waited for long: whatever is known here may be old."""
        self._woken = Latch(loop)
        self.wake = self._woken.set

    def _look(self) -> None:
        self.must_look = True
        self.wake()

    async def wait(self, clock: Clock, poll_ms: int, seconds: float | None) -> None:
        """Come back when it is woken, also while nobody waited, when it is time to look, or after so many seconds."""
        self.must_look = False
        timers: list[TimerHandle] = [clock.call_at(clock.now_ms() + poll_ms, self._look, background=True)]
        if seconds is not None:
            timers.append(self._loop.call_later(seconds, self.wake))
        try:
            await self._woken.wait()
        finally:
            for timer in timers:
                timer.cancel()


def _outcome(ended: Ended, workflow: AnyWorkflow | None) -> object:
    row, end = ended
    if end.status is ExecutionStatus.COMPLETED:
        data = end.result or b"null"
        return workflow.output_schema.load(data) if workflow else plain(data)
    error = load_error(end.error) if end.error else ErrorRecord("", "")
    kind = {
        ExecutionStatus.CANCELLED: ExecutionCancelled,
        ExecutionStatus.COMPENSATION_FAILED: CompensationFailed,
    }.get(end.status, ExecutionFailed)
    raise kind(
        row.id,
        row.workflow,
        row.attempt,
        error.error_type,
        error.message,
        error.code or end.code,
        error.details,
    )


def _why(row: ExecutionRow) -> str:
    if row.status is ExecutionStatus.PARKED and row.error:
        return f"it is parked for repair: {load_error(row.error).message}"
    return f"it is {row.status}"


def execution_of(row: ExecutionRow) -> Execution:
    """What users see of a row; payloads as plain JSON."""
    rerun = rerun_of(row.options)
    waits_for_its_start = row.state is State.READY and row.status in _NOT_BEGUN
    wake_at = row.available_at if waits_for_its_start and row.available_at > row.created_at else row.wake_at
    return Execution(
        id=row.id,
        workflow=row.workflow,
        version=row.version,
        status=row.status,
        attempt=row.attempt,
        generation=row.generation,
        input=plain(merged(row.input)),
        result=None if row.result is None else plain(row.result),
        error=None if row.error is None else load_error(row.error),
        code=row.code if row.code is not None or row.error is None else load_error(row.error).code,
        tags=dict(row.tags),
        queue=row.queue,
        priority=row.priority,
        parent_id=row.parent_id,
        key=row.key,
        created_at=to_datetime(row.created_at),
        started_at=None if row.started_at is None else to_datetime(row.started_at),
        finished_at=None if row.finished_at is None else to_datetime(row.finished_at),
        wake_at=None if wake_at is None else to_datetime(wake_at),
        held_by=row.held_by if row.state is State.READY else None,
        rerun_of=None if rerun is None else rerun.of,
        rerun_from=None if rerun is None else rerun.from_step,
    )
