"""What an operator does to an execution, applied by its next owner, in the same commit as what follows from it.

An act was decided upon by what was stored when it was asked for. Where that holds no more (the step has completed
meanwhile, somebody else has retried) it changes nothing and is recorded as refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json, to_json

from durable.engine.journal import Journal
from durable.engine.transitions import END, GIVEN, PAUSED, cancel_data, failed
from durable.models import ErrorRecord, ExecutionStatus
from durable.protocols import Block, Checkpoint, CheckpointStatus, Free, InboxEntry, Next, Ready

RETRY, RETRY_ROLLBACK, FORCE_FAIL = "retry", "retry_rollback", "force_fail"
SKIP_STEP, EDIT_STEP = "skip_step", "edit_step_result"
PAUSE, RESUME, ROLLBACK = "pause", "resume", "rollback"

APPLIED, REFUSED = "__operator", "__refused"
"""Who has taken the message of an act."""

_VALUE = b',"value":'
SKIPPED: Final = ("step", "rollback", "sleep")
"""The kinds of checkpoints that can be given a result before they have one."""


@dataclass(frozen=True, slots=True)
class Running:
    """A step whose body runs now."""

    key: str
    kind: str
    name: str
    attempts: int
    started_at: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What follows from an act that has changed the journal."""

    next: Next | None = None
    """Committed at once; None lets the body begin, or begin again, from there."""
    gently: bool = False
    """The steps that run may end first."""
    stops: str | None = None
    """But not this one."""
    amends: bool = False
    """The body may have seen what is not recorded any more."""


def pack_act(details: Mapping[str, object], value: bytes = b"") -> bytes:
    """The data of an act's message. The bytes of the value that it brings are put in last, and taken out unread."""
    head = to_json(details)
    return head[:-1] + _VALUE + value + b"}" if value else head


def unpack_act(data: bytes) -> tuple[dict[str, Any], bytes]:
    head, found, value = data.partition(_VALUE)
    return from_json(head + b"}" if found else head), value[:-1]


def paused(journal: Journal) -> Block | None:
    """What is committed instead of going on, if somebody has paused the execution."""
    return Block(ExecutionStatus.PAUSED) if PAUSED in journal.history else None


def apply_act(entry: InboxEntry, journal: Journal, running: Mapping[str, Running]) -> Effect | None:
    """Change the journal as the operator asked; None: the act does not apply any more, and nothing is changed."""
    details, value = unpack_act(entry.data)
    match entry.name:
        case "force_fail":
            reason = str(details.get("reason", ""))
            return Effect(
                failed(
                    ErrorRecord("durable.errors.ExecutionFailed", reason, code="force_failed", retry=False)
                )
            )
        case "retry":
            return _retry(journal, details)
        case "retry_rollback":
            _reopen(journal, ("rollback",))
            return Effect()
        case "rollback":
            return _roll_back(journal, details, value, running)
        case "skip_step":
            return _skip(journal, running, details, value)
        case "edit_step_result":
            return _edit(journal, details, value)
        case "pause":
            return _pause(journal, details)
        case "resume":
            return _resume(journal)
        case _:
            return None


def _retry(journal: Journal, details: Mapping[str, Any]) -> Effect | None:
    if details.get("attempt", journal.row.attempt) != journal.row.attempt:
        return None  # somebody else has retried it
    _reopen(journal, ("step", "child", "rollback"))
    # A signal whose payload cannot be read is given up, and its wait waits for the next one.
    unread = details.get("step_id")
    # Of one that was parked while it was rolled back, that goes on.
    over = None if details.get("from") == ExecutionStatus.PARKED else END
    journal.forget([step_id for step_id in (over, unread) if step_id in journal.history])
    return Effect(_next_attempt(journal, details))


def _next_attempt(journal: Journal, details: Mapping[str, Any]) -> Ready | None:
    """Of a run that had failed."""
    if details.get("from") != ExecutionStatus.FAILED:
        return None
    return Ready(0, ExecutionStatus.PENDING, journal.row.attempt + 1)


def _roll_back(
    journal: Journal, details: Mapping[str, Any], error: bytes, running: Mapping[str, Running]
) -> Effect | None:
    """Let the body come to where it was and end there, and undo what it has completed."""
    before = details.get("from")
    if END in journal.history:
        return Effect() if before == ExecutionStatus.PARKED else None  # it is rolled back already
    if error and details.get("attempt") != journal.row.attempt:
        return None  # it had ended, and somebody else has retried it
    status = ExecutionStatus(str(before)) if error else ExecutionStatus.CANCELLED
    error = error or cancel_data(str(details.get("reason", "")), str(details.get("by", "")))
    if PAUSED in journal.history:
        journal.forget([PAUSED])
    ends = 1 if status is ExecutionStatus.CANCELLED else 2  # a failure was told when it failed
    journal.record(END, "end", status, CheckpointStatus.OPEN, error, attempts=ends, started_at=journal.now)
    # A compensation that runs, by the body's own rollback, shall not run again.
    return Effect(gently=any(step.kind == "rollback" for step in running.values()), amends=True)


def _reopen(journal: Journal, again: tuple[str, ...]) -> None:
    """Let what failed happen again, among these kinds, and what is waited for be waited for."""
    history = journal.history
    failures = [c for c in history.values() if c.status is CheckpointStatus.FAILED and c.kind in again]
    journal.forget([c.step_id for c in failures])
    if PAUSED in history:
        journal.forget([PAUSED])
    for waiting in [c for c in history.values() if c.wake_at is not None]:
        journal.renew(waiting)  # its timer was deleted when the execution ended


def _skip(
    journal: Journal, running: Mapping[str, Running], details: Mapping[str, Any], value: bytes
) -> Effect | None:
    step_id = str(details["step_id"])
    found, runs = journal.history.get(step_id), running.get(step_id)
    now = journal.now
    if runs is not None:
        if found is not None:
            journal.forget([step_id])
        journal.record(
            step_id,
            runs.kind,
            runs.name,
            CheckpointStatus.COMPLETED,
            value,
            attempts=runs.attempts,
            started_at=runs.started_at,
            finished_at=max(now, runs.started_at),
        )
    elif found is None:
        if not details.get("failed_before"):
            return None  # it was taken for one that runs, and does not
        _give(journal, step_id, value)
    elif found.kind not in SKIPPED or found.status in (
        CheckpointStatus.COMPLETED,
        CheckpointStatus.CANCELLED,
    ):
        return None
    else:
        journal.forget([step_id])
        journal.settle(found, CheckpointStatus.COMPLETED, value, finished_at=now)
        if found.status is CheckpointStatus.OPEN and found.kind == "step":
            journal.send(Free(step_id))  # it stood in line at its limit
    return Effect(_again(journal, details), gently=True, stops=step_id, amends=True)


def _edit(journal: Journal, details: Mapping[str, Any], value: bytes) -> Effect | None:
    step_id = str(details["step_id"])
    found = journal.history.get(step_id)
    if found is None or found.kind != "step" or found.status is not CheckpointStatus.COMPLETED:
        return None
    journal.amend(found, value)
    return Effect(_again(journal, details), gently=True, amends=True)


def _again(journal: Journal, details: Mapping[str, Any]) -> Next:
    """What is committed once a record was amended. The body begins again under another claim: this one may have gone
    past a limit only to let the operator in."""
    row, before = journal.row, details.get("from")
    if before == ExecutionStatus.FAILED and details.get("attempt") == row.attempt:
        _reopen(journal, ("step", "child", "rollback"))
        journal.forget([END] if END in journal.history else [])
        return Ready(0, ExecutionStatus.PENDING, row.attempt + 1)
    if before == ExecutionStatus.COMPENSATION_FAILED:
        _reopen(journal, ("rollback",))
    return paused(journal) or Ready(0, ExecutionStatus.PENDING, row.attempt)


def _give(journal: Journal, step_id: str, value: bytes) -> None:
    """Let the body find a result when it comes to a step that has no record now."""
    given = journal.history.get(GIVEN)
    values: dict[str, str] = {} if given is None else from_json(given.data)
    values[step_id] = value.decode()
    at = journal.now
    journal.record(GIVEN, "given", "", CheckpointStatus.OPEN, to_json(values), started_at=at)


def given_result(given: Checkpoint, step_id: str) -> bytes | None:
    """What an operator has given a step before the body came to it."""
    value: str | None = from_json(given.data).get(step_id)
    return None if value is None else value.encode()


def _pause(journal: Journal, details: Mapping[str, Any]) -> Effect | None:
    if PAUSED not in journal.history:
        hold_until(journal, int(details.get("until") or 0), str(details.get("from")))
    return Effect(gently=True)


def hold_until(journal: Journal, at_ms: int, status: str) -> None:
    """Record that the execution is paused, and that before this instant it would not have gone on anyway."""
    data = to_json({"until": at_ms, "status": status})
    journal.record(PAUSED, "paused", "", CheckpointStatus.OPEN, data, started_at=journal.now)


def _resume(journal: Journal) -> Effect | None:
    marker = journal.history.get(PAUSED)
    if marker is None:
        return None
    journal.forget([PAUSED])
    was = from_json(marker.data)
    next = None
    if was["until"] > journal.now:
        next = Ready(was["until"], ExecutionStatus(was["status"]), journal.row.attempt)
    return Effect(next, gently=True)
