"""What follows from what: pure decisions of the engine, without a store and without a loop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Protocol

from durable.codec import dump_error, load_error, record_error
from durable.engine.journal import Topic
from durable.errors import Fail, find_in
from durable.models import ErrorRecord, ExecutionStatus
from durable.protocols import TIMEOUT_TIMER, Close, ExecutionRow, MessageKind, Park, Ready
from durable.retry import Retry

END = "__end"
"""The checkpoint that says how an execution ends, written before the engine's own rollback begins."""
PAUSED = "__paused"
"""The checkpoint of an execution that an operator has paused."""
GIVEN = "__given"
"""The checkpoint with the results that an operator has given steps which had no record of their own."""
TRIES = "__tries:"
"""Before a step's key: the checkpoint with the tries of it that failed."""
CANCEL: Topic = (MessageKind.CANCEL, "cancel")
TIMEOUT: Topic = (MessageKind.TIMER, TIMEOUT_TIMER)
NUDGE: Topic = (MessageKind.TIMER, "__nudge")
"""A parked execution's body goes on by itself, and wants to be claimed."""
_LONGEST_REASON = 8192


class Waits(Protocol):
    """Something that a branch of the body waits for."""

    @property
    def kind(self) -> str: ...
    @property
    def wake_at(self) -> int | None: ...


def park(waits: Collection[Waits]) -> Park:
    """How an execution is shown that waits for all of these: for a person or a child, else a timer, else a retry."""
    kinds = {wait.kind for wait in waits}
    if kinds <= {"step", "rollback"}:
        status = ExecutionStatus.RETRYING
    elif kinds <= {"step", "rollback", "sleep"}:
        status = ExecutionStatus.SLEEPING
    else:
        status = ExecutionStatus.WAITING
    return Park(status, min((wait.wake_at for wait in waits if wait.wake_at is not None), default=None))


@dataclass(frozen=True, slots=True)
class Ending:
    """Why an execution ends that did not end by itself: it was cancelled, or its time is over."""

    status: ExecutionStatus
    error: ErrorRecord
    may_clean_up: bool
    """Whether the body may go on to do durable things after its `CancelledError`."""

    def close(self) -> Close:
        return Close(self.status, error=dump_error(self.error), code=self.error.code)


class Ended(NamedTuple):
    """An end that is stored: how it came, and the execution as its last owner knew it."""

    row: ExecutionRow
    close: Close


def cancelled(reason: str) -> Ending:
    return cancelled_by(cancel_data(reason))


def cancelled_by(data: bytes) -> Ending:
    """The ending that a cancel's message asks for."""
    return Ending(ExecutionStatus.CANCELLED, load_error(data), may_clean_up=True)


def cancel_data(reason: str, by: str = "") -> bytes:
    """The data of a cancel's message: the error that its execution will end with."""
    reason = kept(reason)
    details = {"by": by} if by else None
    error = ErrorRecord(
        "durable.errors.ExecutionCancelled", reason, code="cancelled", details=details, retry=False
    )
    return dump_error(error)


def timed_out() -> Ending:
    error = ErrorRecord(
        "durable.errors.ExecutionFailed", "the run's timeout is over", code="timeout", retry=False
    )
    return Ending(ExecutionStatus.FAILED, error, may_clean_up=False)


def kept(reason: str) -> str:
    """As much of a reason as is stored."""
    return reason.encode("utf-8", "replace").decode()[:_LONGEST_REASON]


def poisoned(crashes: int) -> Close:
    """The end of an execution whose workers die."""
    error = ErrorRecord(
        "durable.errors.ExecutionFailed",
        f"the worker died {crashes} times in a row while running it, with no step completed in between",
        code="poison",
        retry=False,
    )
    return Close(ExecutionStatus.FAILED, error=dump_error(error), code="poison")


def failed(error: BaseException | ErrorRecord) -> Close:
    record = error if isinstance(error, ErrorRecord) else record_error(error)
    code = record.code or "failed"
    return Close(ExecutionStatus.FAILED, error=dump_error(record), code=code)


def retried(
    error: Exception, *, attempt: int, retry: Retry, rolled_back: bool, now: int, random: Random
) -> Ready | None:
    """When a run is tried again that ended with `error`, or None: it has failed."""
    if rolled_back or find_in(error, Fail):
        return None
    delay = retry.next_delay_ms(attempt, error, random)
    if delay is None:
        return None
    return Ready(now + delay, ExecutionStatus.RETRYING, attempt + 1)
