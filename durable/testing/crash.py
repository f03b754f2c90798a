"""`crash_everywhere`: the same execution, with its worker dead before and after each of its store writes."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from durable.app import Durable
from durable.backends.memory import MemoryBus, MemoryStore
from durable.clock import VirtualClock
from durable.errors import DurableError, OutcomeUnknown
from durable.handle import Handle
from durable.ids import Ids
from durable.models import ExecutionStatus
from durable.protocols import Checkpoint, DurableStore
from durable.testing.env import settle
from durable.worker import Worker
from durable.workflow import AnyWorkflow, Workflow

In = TypeVar("In")

Drive = Callable[[Durable, Handle[Any]], Coroutine[Any, Any, None]]
Mode = Literal["before", "after", "unknown"]
MODES: tuple[Mode, ...] = ("before", "after", "unknown")
WRITES = frozenset({"create", "claim", "commit", "post", "tick", "due"})

_START_MS = 1_767_225_600_000
_LEASE_MS, _SWEEPS = 31_000, 3
_MOST_INSTANTS = 10_000


@dataclass(frozen=True, slots=True)
class Fault:
    """The worker's n-th store write, counted from 1, and what happens to it.

    `before`: the worker dies instead of making it; `after`: it dies once it is made, not knowing; `unknown`: it is
    made, and answered by an error.
    """

    write: int
    mode: Mode


@dataclass(slots=True)
class CrashReport:
    """What `crash_everywhere` has done."""

    runs: int = 0
    writes: int = 0
    """Store writes of the worker in the run without faults."""
    faults: Counter[str] = field(default_factory=Counter[str])
    """How often each kind of fault was met, as `mode verb`."""


@dataclass(slots=True)
class _Run:
    """What came of one run."""

    ended: object = None
    checkpoints: Mapping[str, tuple[str, str, bytes]] = field(
        default_factory=dict[str, tuple[str, str, bytes]]
    )
    bodies: Counter[str] = field(default_factory=Counter[str])
    undone: list[str] = field(default_factory=list[str])
    verbs: list[str] = field(default_factory=list[str])


async def crash_everywhere(
    workflow: Workflow[In, Any],
    input: In | None = None,
    *,
    workflows: Iterable[AnyWorkflow] = (),
    drive: Drive | None = None,
    only: Fault | None = None,
) -> CrashReport:
    """Run the workflow once, and then once with each `Fault` at each store write of its worker; another worker goes on.

    Every run must give the same result (or error) and the same checkpoints, run each step's body at most once more
    than without the fault, and run compensations in the same order. `drive(env, handle)` plays the outside world: it
    sends the signals. `only` repeats the run of one fault.

    Raises:
        AssertionError: a run differed. It names the write, what differed, and how to run just that again.
    """
    known: list[AnyWorkflow] = [workflow, *(other for other in workflows if other is not workflow)]
    report = CrashReport()
    plain = await _run(workflow, input, known, drive, None)
    report.runs, report.writes = 1, len(plain.verbs)
    faults = [Fault(n, mode) for n in range(1, len(plain.verbs) + 1) for mode in MODES]
    for fault in faults if only is None else [only]:
        run = await _run(workflow, input, known, drive, fault)
        report.runs += 1
        verb = run.verbs[fault.write - 1] if fault.write <= len(run.verbs) else "none"
        report.faults[f"{fault.mode} {verb}"] += 1
        for difference in _differences(plain, run):
            raise AssertionError(
                f"{difference}, with a fault {fault.mode} write {fault.write} ({verb}) of {workflow.name}; "
                f"again: crash_everywhere({workflow.name}, ..., only=Fault({fault.write}, {fault.mode!r}))"
            )
    return report


def _differences(plain: _Run, run: _Run) -> Iterable[str]:
    if run.ended != plain.ended:
        yield f"it ended with {run.ended!r} instead of {plain.ended!r}"
    for key in sorted({*plain.checkpoints, *run.checkpoints}):
        was, now = plain.checkpoints.get(key), run.checkpoints.get(key)
        if was != now:
            yield f"checkpoint {key!r} is {now} instead of {was}"
    for key in sorted({*plain.bodies, *run.bodies}):
        if not plain.bodies[key] <= run.bodies[key] <= plain.bodies[key] + 1:
            yield f"the body of {key!r} ran {run.bodies[key]} times instead of {plain.bodies[key]}"
    if _once_each(run.undone) != _once_each(plain.undone):
        yield f"compensations ran in the order {run.undone} instead of {plain.undone}"


def _once_each(undone: Sequence[str]) -> list[str]:
    """A compensation that was running at a crash runs again; its last run counts."""
    return [key for i, key in enumerate(undone) if key not in undone[i + 1 :]]


async def _run(
    workflow: AnyWorkflow,
    input: object,
    known: Sequence[AnyWorkflow],
    drive: Drive | None,
    fault: Fault | None,
) -> _Run:
    run, clock, bus = _Run(), VirtualClock(_START_MS), MemoryBus()
    inner = MemoryStore(clock)
    counting = _Counting(run)
    dying = DyingStore(inner, fault, run.verbs)

    def node(store: object, number: int, *, worker: bool = True) -> Durable:
        return Durable(
            known,
            store=cast("DurableStore", store),
            bus=bus,
            clock=clock,
            ids=Ids(number),
            worker=worker,
            stubs=counting,
        )

    async with node(inner, 0, worker=False) as client:
        handle = await client.start(cast("Workflow[object, Any]", workflow), input, key="it")
        first = await node(dying, 1).__aenter__()
        outside = asyncio.create_task(_nothing() if drive is None else drive(client, handle))
        try:
            await dying.unless_dead(_until_ended(first.worker, clock, handle))
        finally:
            await first.worker.die()
        if dying.dead:
            second = await node(inner, 2).__aenter__()
            try:
                clock.advance_to(clock.now_ms() + _LEASE_MS)
                await _until_ended(second.worker, clock, handle)
            finally:
                await second.worker.die()
        await outside
        run.ended = await _end_of(handle)
        run.checkpoints = {c.step_id: _essence(c) for c in await inner.history(handle.id)}
        contradictions = await inner.check()
        assert not contradictions, contradictions
    return run


async def _nothing() -> None: ...


async def _until_ended(worker: Worker, clock: VirtualClock, handle: Handle[Any]) -> None:
    """Let time pass, from one timer to the next, until the execution has ended."""
    patience = _SWEEPS
    for _ in range(_MOST_INSTANTS):
        await settle(worker)
        status = (await handle.status()).status
        if status.final:
            return
        due = clock.next_at()
        if due is None or (patience and status in (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)):
            # A doorbell got lost, or a worker that died has still its lease: that takes its time, and no timer.
            patience -= 1
            due = clock.now_ms() + _LEASE_MS
        else:
            patience = _SWEEPS
        clock.advance_to(due)
    raise AssertionError(f"execution {handle.id} does not end: {await handle.status()}")


async def _end_of(handle: Handle[Any]) -> object:
    try:
        return await handle.result(0)
    except DurableError as error:
        return type(error).__name__, getattr(error, "error_type", ""), getattr(error, "message", str(error))


def _essence(checkpoint: Checkpoint) -> tuple[str, str, bytes]:
    return checkpoint.kind, checkpoint.status, checkpoint.data


class _Counting:
    """Counts the bodies that run. Implements `durable.engine.attempt.Stubs`."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def replace(self, step_id: str, fn: Callable[..., object]) -> Callable[..., object]:
        @wraps(fn)
        async def counted(*args: object, **kwargs: object) -> object:
            self._run.bodies[step_id] += 1
            if step_id.startswith("rollback:"):
                self._run.undone.append(step_id)
            result = fn(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return counted


class DyingStore:
    """A store as a process sees it that is to die at one of its writes. Whatever it calls after that never returns."""

    def __init__(self, inner: DurableStore, fault: Fault | None, verbs: list[str]) -> None:
        self._inner = inner
        self._fault = fault
        self._verbs = verbs
        self._death: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def dead(self) -> bool:
        return self._death.done()

    async def unless_dead(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, or come back in its middle when the process is dead."""
        task = asyncio.create_task(work)
        await asyncio.wait((task, self._death), return_when=asyncio.FIRST_COMPLETED)
        if not self.dead:
            return await task
        task.cancel()
        await asyncio.wait((task,))
        return None

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._inner, verb)
        if verb not in WRITES:
            return call if verb in ("open", "close", "beat", "capabilities") else self._read(call)

        async def write(*args: Any, **kwargs: Any) -> object:
            await self._if_alive()
            self._verbs.append(verb)
            fault = self._fault if self._fault is not None and self._fault.write == len(self._verbs) else None
            if fault is not None and fault.mode == "before":
                self._death.set_result(None)
            await self._if_alive()
            answer: object = await call(*args, **kwargs)
            if fault is not None and fault.mode == "unknown":
                raise OutcomeUnknown(str(kwargs.get("op_id", "")), "injected")
            if fault is not None:
                self._death.set_result(None)
            await self._if_alive()
            return answer

        return write

    def _read(self, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def read(*args: Any, **kwargs: Any) -> object:
            await self._if_alive()
            return await call(*args, **kwargs)

        return read

    async def _if_alive(self) -> None:
        if self.dead:
            await asyncio.get_running_loop().create_future()
