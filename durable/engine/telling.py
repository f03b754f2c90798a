"""What the engine tells to telemetry: the events of one execution, from what it knows of it. Only with a listener."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, final

from pydantic_core import from_json, to_json

from durable.clock import stopwatch
from durable.codec import load_error
from durable.engine.journal import Journal
from durable.engine.waits import Wait
from durable.errors import DurableError, ReplayMismatch
from durable.protocols import (
    Block,
    Checkpoint,
    CheckpointStatus,
    Claimed,
    Close,
    Committed,
    Diverged,
    Emit,
    ExecutionRow,
    Fenced,
    Full,
    InboxEntry,
    NewExecution,
    Next,
    Park,
    Ready,
)
from durable.telemetry import (
    CommitMade,
    ExecutionClaimed,
    ExecutionClosed,
    ExecutionLost,
    ExecutionStarted,
    ExecutionStarting,
    ExecutionSuspended,
    ReplayMismatched,
    StepBegan,
    StepEnded,
    Telemetry,
    TimerFired,
    Waiting,
)

TRACE: Final = "__trace"
"""The checkpoint that keeps what listeners left for the next claim."""
_MOST_CARRIED: Final = 2_000
_Names = tuple[str, str, str, int]


# ---- what is started


def starting(spec: NewExecution, tell: Telemetry) -> tuple[NewExecution, ExecutionStarting]:
    """What is stored instead of `spec`, once listeners know that it is about to be."""
    event = ExecutionStarting(spec.id, spec.workflow, spec.version, spec.queue, spec.parent_id)
    tell(event)
    if not event.carrier or not _is_small(event.carrier):
        return spec, event
    options: dict[str, object] = from_json(spec.options) if spec.options else {}
    return replace(spec, options=to_json({**options, "trace": event.carrier})), event


def started_within(spec: NewExecution, tell: Telemetry | None) -> NewExecution:
    """The same for one that is stored with the next commit, or beside others."""
    if tell is None:
        return spec
    spec, event = starting(spec, tell)
    tell(ExecutionStarted(event, spec.id, created=None))
    return spec


def emitted(emit: Emit, tell: Telemetry | None) -> Emit:
    """What is stored of an event instead of `emit`, once listeners know whom it starts."""
    if tell is None or not emit.starts:
        return emit
    return replace(emit, starts=[started_within(spec, tell) for spec in emit.starts])


def _is_small(carrier: Mapping[str, str]) -> bool:
    return sum(len(name) + len(value) for name, value in carrier.items()) <= _MOST_CARRIED


# ---- what a worker does


@final
class Told:
    """The events of one execution that runs here."""

    def __init__(self, tell: Telemetry, row: ExecutionRow) -> None:
        self.tell = tell
        self._row = row
        self._names: _Names = (row.id, row.workflow, row.version, row.attempt)
        self._carrier: dict[str, str] = {}

    def claimed(self, claimed: Claimed, journal: Journal, *, kept: bool, seconds: float) -> None:
        row = self._row = claimed.row
        self._names = (row.id, row.workflow, row.version, row.attempt)
        left = journal.history.get(TRACE)
        self._carrier = {}
        self.tell(
            ExecutionClaimed(
                *self._names,
                queue=row.queue,
                crashes=row.crashes,
                replayed=not kept and bool(journal.history),
                waited=max(claimed.now - row.available_at, 0) / 1000,
                seconds=seconds,
                start=from_json(row.options).get("trace", {}) if row.options else {},
                previous={} if left is None else from_json(left.data),
                carrier=self._carrier,
            )
        )

    def leave_trace(self, next: Next, journal: Journal) -> None:
        """Let what listeners have left for the next claim be stored with the commit that gives the execution back."""
        if self._carrier and isinstance(next, Park | Ready | Block) and _is_small(self._carrier):
            data, now = to_json(self._carrier), journal.now
            journal.record(TRACE, "trace", "", CheckpointStatus.OPEN, data, started_at=now)

    def committed(
        self, checkpoints: int, answer: Committed | Fenced | Diverged | Full, seconds: float
    ) -> None:
        accepted = isinstance(answer, Committed)
        self.tell(CommitMade(*self._names, accepted, checkpoints, seconds))

    def left(
        self, next: Next, answer: Committed | Fenced | Diverged | Full, waits: Iterable[Wait], now: int
    ) -> None:
        """The worker has it no more."""
        if not isinstance(answer, Committed):
            self.lost("diverged" if isinstance(answer, Diverged) else "fenced")
        elif isinstance(next, Close):
            error = load_error(next.error).error_type if next.error else None
            seconds = max(now - self._row.created_at, 0) / 1000
            self.tell(ExecutionClosed(*self._names, next.status, next.code, error, seconds))
        else:
            status = getattr(next, "status", "pending")
            code = next.code if isinstance(next, Block) else None
            waiting = [
                Waiting(wait.kind, wait.topics[0][1].partition("@")[0]) for wait in waits if wait.topics
            ]
            self.tell(ExecutionSuspended(*self._names, status, code, waiting))

    def lost(self, reason: str) -> None:
        self.tell(ExecutionLost(*self._names, reason))

    def refused(self, error: DurableError) -> None:
        if isinstance(error, ReplayMismatch):
            self.tell(ReplayMismatched(*self._names, error.step_id))

    def timer(self, entry: InboxEntry, begun: Checkpoint | None) -> None:
        if begun is not None and begun.wake_at is not None:
            self.tell(TimerFired(*self._names, entry.name, max(entry.at - begun.wake_at, 0) / 1000))

    def step(self, step_id: str, name: str, kind: str, number: int) -> Try:
        return Try(self.tell, self._names, (step_id, name, kind, number))


@final
class Try:
    """A try of a step, from its beginning."""

    def __init__(self, tell: Telemetry, names: _Names, step: tuple[str, str, str, int]) -> None:
        self._tell = tell
        self._names = names
        self._step = step
        self._began = stopwatch()
        tell(StepBegan(*names, *step))

    def ended(self, outcome: str, error: BaseException | None = None) -> None:
        kind = type(error)
        error_type = None if error is None else kind.__qualname__
        if error is not None and kind.__module__ != "builtins":
            error_type = f"{kind.__module__}.{kind.__qualname__}"
        seconds = stopwatch() - self._began
        self._tell(StepEnded(*self._names, *self._step, outcome, error_type, seconds))
