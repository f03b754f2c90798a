"""What people see of an execution: its steps, what it waits for, what happened to it, and why it is where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import cast

from pydantic_core import from_json

from durable.client import execution_of
from durable.clock import to_datetime
from durable.codec import load_error, plain
from durable.engine.frames import Try, unpack_event, unpack_received
from durable.engine.operator_acts import REFUSED
from durable.engine.reruns import rerun_of
from durable.models import (
    AuditEntry,
    ExecutionDetail,
    ExecutionStatus,
    LimitInfo,
    SignalRecord,
    Slot,
    StepRecord,
    StepTry,
)
from durable.operator.timings import Queueing, spans_of, timings_of, total, tries_of
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    ExecutionRow,
    GateRow,
    InboxEntry,
    MessageKind,
)

_AUDITED = (MessageKind.SIGNAL, MessageKind.CANCEL, MessageKind.OPERATOR)


def detail_of(
    row: ExecutionRow, history: Sequence[Checkpoint], inbox: Sequence[InboxEntry], now: int
) -> ExecutionDetail:
    tries, queueing = tries_of(history), Queueing(row, history)
    steps = [
        _step_record(c, tries.get(c.step_id, ()), queueing, now)
        for c in history
        if not c.step_id.startswith("__")
    ]
    waiting = () if row.status.final else [s for s in steps if s.finished_at is None and _waits(s)]
    signals = [
        SignalRecord(entry.name, plain(entry.data), to_datetime(entry.at), entry.consumed_by)
        for entry in inbox
        if entry.kind is MessageKind.SIGNAL
    ]
    audit = _audit(row, history, inbox)
    return ExecutionDetail(execution_of(row), steps, waiting, signals, audit, timings_of(row, history, now))


def _step_record(checkpoint: Checkpoint, tries: Sequence[Try], queueing: Queueing, now: int) -> StepRecord:
    # A step that is to be tried again shows its last try as its error; it is among the tries as well.
    working, waiting = spans_of(checkpoint, tries, now)
    first = min((since for since, _ in working), default=checkpoint.started_at)
    failed = checkpoint.status in (CheckpointStatus.FAILED, CheckpointStatus.RETRYING)
    return StepRecord(
        id=checkpoint.step_id,
        kind=checkpoint.kind,
        status=checkpoint.status,
        attempts=checkpoint.attempts,
        result=None if failed else _shown_result(checkpoint),
        error=load_error(checkpoint.data) if failed and checkpoint.data else None,
        started_at=to_datetime(checkpoint.started_at),
        finished_at=None if checkpoint.finished_at is None else to_datetime(checkpoint.finished_at),
        name=checkpoint.name,
        wake_at=None if checkpoint.wake_at is None else to_datetime(checkpoint.wake_at),
        tries=[
            StepTry(each.number, to_datetime(each.started_at), to_datetime(each.finished_at), each.error)
            for each in tries
        ],
        queued=queueing.before(checkpoint, first),
        running=total(working),
        waiting=total(waiting),
    )


def _shown_result(checkpoint: Checkpoint) -> object:
    data = checkpoint.data
    if checkpoint.kind in ("child", "wait_for") and checkpoint.status is CheckpointStatus.COMPLETED:
        data = data.partition(b"\n")[2] or data  # after the outcome's first line
    elif checkpoint.kind == "step" and checkpoint.status is CheckpointStatus.OPEN:
        return None
    elif checkpoint.kind == "wait_for_event" and data:
        event = unpack_event(data)
        data = b"null" if event is None else event.data
    elif checkpoint.kind == "wait_for_signal" and data:
        received = unpack_received(data)
        data = b"null" if received is None else received[1]
    return plain(data) if data else None


def _waits(step: StepRecord) -> bool:
    return step.kind != "switch" and (step.kind != "step" or step.status != CheckpointStatus.COMPLETED)


def _audit(row: ExecutionRow, history: Sequence[Checkpoint], inbox: Sequence[InboxEntry]) -> list[AuditEntry]:
    """What happened, in order. The history is in the order of its commits, and what came from outside goes between."""
    entries = [AuditEntry(to_datetime(row.created_at), "created", row.workflow, _lineage(row))]
    if row.started_at is not None:
        entries.append(AuditEntry(to_datetime(row.started_at), "start_attempt", "1"))
    outside = [entry for entry in reversed(inbox) if entry.kind in _AUDITED]
    for checkpoint in history:
        at = checkpoint.started_at if checkpoint.finished_at is None else checkpoint.finished_at
        while outside and outside[-1].at <= at:
            entries.append(_came(outside.pop()))
        entries.extend(_happened(checkpoint, to_datetime(at)))
    entries.extend(_came(entry) for entry in reversed(outside))
    if row.finished_at is not None:
        entries.append(AuditEntry(to_datetime(row.finished_at), row.status, row.workflow))
    return entries


def _happened(checkpoint: Checkpoint, at: datetime) -> Iterator[AuditEntry]:
    if checkpoint.kind == "attempt":
        number = int(checkpoint.step_id.partition(":")[2])
        yield AuditEntry(at, "retry", str(number), {"error": str(load_error(checkpoint.data))})
        yield AuditEntry(at, "start_attempt", str(number + 1))
    elif checkpoint.kind not in ("end", "paused", "given", "tries", "trace"):
        noted = _mapping(plain(checkpoint.data) if checkpoint.kind == "note" else None)
        yield AuditEntry(at, checkpoint.kind, checkpoint.step_id, {"status": str(checkpoint.status), **noted})


def _came(entry: InboxEntry) -> AuditEntry:
    details: dict[str, object] = {}
    if entry.kind is MessageKind.OPERATOR:
        details.update(_mapping(plain(entry.data)))
        if entry.consumed_by is None:
            details["pending"] = True
        elif entry.consumed_by == REFUSED:
            details["refused"] = True
    elif entry.kind is MessageKind.CANCEL:
        error = load_error(entry.data)
        details.update({"reason": error.message, **_mapping(error.details)})
    return AuditEntry(to_datetime(entry.at), entry.kind, entry.name, details)


def _lineage(row: ExecutionRow) -> Mapping[str, object]:
    rerun = rerun_of(row.options)
    if rerun is None:
        return {}
    return {"rerun_of": rerun.of, "from_step": rerun.from_step, "by": rerun.by}


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def explanation(row: ExecutionRow, waits: Sequence[Checkpoint]) -> str:
    match row.status:
        case ExecutionStatus.PENDING:
            return f"it begins at {to_datetime(row.available_at).isoformat(timespec='seconds')}"
        case ExecutionStatus.RUNNING:
            return f"it is being run by worker {row.worker}" if row.worker else "it is about to go on"
        case ExecutionStatus.RETRYING | ExecutionStatus.SLEEPING | ExecutionStatus.WAITING:
            what = ", ".join(_waited_for(c) for c in waits) or "its next attempt"
            until = (
                f", until {to_datetime(row.wake_at or row.available_at).isoformat(timespec='seconds')}"
                if row.wake_at or not waits
                else ""
            )
            return f"it waits for {what}{until}"
        case ExecutionStatus.PARKED:
            why = load_error(row.error).message if row.error else "a value or a replay"
            return f"it is parked until somebody repairs it: {why}"
        case _:
            why = f": {load_error(row.error).message}" if row.error else ""
            return f"it has ended as {row.status}{why}"


def limit_info(row: GateRow) -> LimitInfo:
    rule, _, key = row.name.partition("|")
    return LimitInfo(
        rule,
        key,
        row.limit,
        [Slot(each.execution_id, each.step_id, to_datetime(each.since)) for each in row.holdings],
        row.held,
        row.waiting,
        None if row.oldest_at is None else to_datetime(row.oldest_at),
        None if row.next_at is None else to_datetime(row.next_at),
    )


def shown_instant(at: int) -> str:
    return to_datetime(at).isoformat(timespec="seconds")


def _waited_for(c: Checkpoint) -> str:
    match c.kind:
        case "sleep":
            return f"the timer {c.step_id!r}"
        case "wait_for_signal":
            return f"signal {c.name!r}"
        case "wait_for_event":
            return f"event {c.name!r}"
        case "step" if c.status is CheckpointStatus.OPEN:
            return f"the limit {from_json(c.data)['limit']!r} of step {c.step_id!r}"
        case "child" | "wait_for":
            return f"the execution of {c.name!r}"
        case _:
            return f"the next try of {c.step_id!r} (attempt {c.attempts + 1})"
