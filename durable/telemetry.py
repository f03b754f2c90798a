"""Telemetry: what happens in this process, as typed events, told at one seam to whoever listens.

    Durable(..., telemetry=[listener])        listener(event), for every event below, at once

A listener is any function of one event. It is called where the thing happens, so it has to be quick, and must not
block; what it raises is logged, and disturbs nothing. Events carry names and numbers, and never a payload. They tell
what this process has seen: after a crash something may be told again, or never. Without a listener none is made.

All are told on the event loop, but for `LeaseRenewed`, `LeaseMissed` and `LoopBlocked`, which come from the thread that
holds the worker's lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

log = logging.getLogger("durable.telemetry")


@dataclass(frozen=True, slots=True)
class OfExecution:
    """What is common to the events of one execution."""

    execution_id: str
    workflow: str
    version: str
    attempt: int
    """Of the run, from 1."""


# ---- starting


@dataclass(frozen=True, slots=True)
class ExecutionStarting:
    """An execution is about to be stored."""

    execution_id: str
    workflow: str
    version: str
    queue: str
    parent_id: str | None
    carrier: dict[str, str] = field(default_factory=dict[str, str], hash=False, compare=False)
    """What a listener puts here is stored with the execution, and comes back as `ExecutionClaimed.start`: the context
    of a trace, a few hundred characters."""


@dataclass(frozen=True, slots=True)
class ExecutionStarted:
    """It is stored; or nothing is, and `error` says why."""

    starting: ExecutionStarting
    execution_id: str
    """Of the one that was there before, where `created` is false."""
    created: bool | None
    """None: it is stored with its parent's next commit, or with the event that starts it, if that is new."""
    error: BaseException | None = None


# ---- a worker's part in an execution


@dataclass(frozen=True, slots=True)
class ExecutionClaimed(OfExecution):
    """A worker goes on with an execution."""

    queue: str
    crashes: int
    """Claims in a row, before this one, that ended with a dead worker."""
    replayed: bool
    """False: its coroutine had been kept in memory, or this is its first claim."""
    waited: float
    """Seconds for which it was claimable."""
    seconds: float
    """That the claim took."""
    start: Mapping[str, str]
    """What a listener put into `ExecutionStarting.carrier`."""
    previous: Mapping[str, str]
    """What a listener put into the `carrier` of the claim before, if that one ended in order."""
    carrier: dict[str, str] = field(hash=False, compare=False)
    """What a listener puts here is stored when the execution is suspended, for the next claim."""


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """There was nothing to claim: somebody else has it, or it waits, or has ended."""

    execution_id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that a suspended execution waits for."""

    kind: str
    """`sleep`, `wait_for_signal`, `child` ... as in its records; of a retry `step`."""
    name: str
    """Of the signal; of anything else its step id."""


@dataclass(frozen=True, slots=True)
class ExecutionSuspended(OfExecution):
    """It was given back, and goes on later: it waits, is to be tried again, is parked for repair, or was released."""

    status: str
    code: str | None
    """Why it is parked for repair."""
    waits: Sequence[Waiting]


@dataclass(frozen=True, slots=True)
class ExecutionClosed(OfExecution):
    """It has ended."""

    status: str
    code: str | None
    error_type: str | None
    seconds: float
    """Since it was created."""


@dataclass(frozen=True, slots=True)
class ExecutionLost(OfExecution):
    """This worker has it no more, and stored nothing: another one goes on with it from its last commit."""

    reason: str
    """`fenced`: it has another owner. `diverged`: the store went back in time. `abandoned`: this worker was stopped."""


@dataclass(frozen=True, slots=True)
class ReplayMismatched(OfExecution):
    """The code does not fit what is recorded. An `ExecutionSuspended` follows."""

    step_id: str | None


@dataclass(frozen=True, slots=True)
class CommitMade(OfExecution):
    """The store has answered to a commit."""

    accepted: bool
    checkpoints: int
    """That it carried."""
    seconds: float


@dataclass(frozen=True, slots=True)
class TimerFired(OfExecution):
    """A timer of this execution has reached its inbox."""

    step_id: str
    lag: float
    """Seconds after its instant."""


# ---- steps


@dataclass(frozen=True, slots=True)
class StepBegan(OfExecution):
    """A try of a step begins, in this task: a replayed step has none."""

    step_id: str
    name: str
    """Of its function."""
    kind: str
    """`step`, or `rollback`: a compensation."""
    number: int
    """Of the try, from 1."""


@dataclass(frozen=True, slots=True)
class StepEnded(OfExecution):
    """A try of a step has ended, in the same task."""

    step_id: str
    name: str
    kind: str
    number: int
    outcome: str
    """`completed`, `failed`, `retrying` (it failed, and is tried again) or `cancelled`."""
    error_type: str | None
    seconds: float


# ---- a worker by itself


@dataclass(frozen=True, slots=True)
class SweepMade:
    """A worker has looked for timers that are due, dead workers and lost doorbells."""

    seconds: float
    error_type: str | None


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """A worker's lease holds for as long as it is, from now."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class LeaseMissed:
    """A worker could not renew its lease."""

    worker_id: str
    error: Exception


@dataclass(frozen=True, slots=True)
class LoopBlocked:
    """The event loop of a worker does not answer."""

    worker_id: str
    seconds: float
    """For which it has not."""


TelemetryEvent = (
    ExecutionStarting
    | ExecutionStarted
    | ExecutionClaimed
    | ClaimRefused
    | ExecutionSuspended
    | ExecutionClosed
    | ExecutionLost
    | ReplayMismatched
    | CommitMade
    | TimerFired
    | StepBegan
    | StepEnded
    | SweepMade
    | LeaseRenewed
    | LeaseMissed
    | LoopBlocked
)

Listener = Callable[[TelemetryEvent], object]


@final
class Telemetry:
    """Tells events to listeners, in their order. Who has no listener has no `Telemetry` either, but None."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = tuple(listeners)

    def __call__(self, event: TelemetryEvent) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # it is not ours, and a listener that fails must not fail an execution
                log.exception("a listener of telemetry failed at %s", type(event).__name__)
