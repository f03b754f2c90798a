"""What an operator does to an execution, applied by its next owner, in the same commit as what follows from it."""

from __future__ import annotations

from pydantic_core import from_json

from durable.engine.journal import Journal
from durable.engine.transitions import END, failed
from durable.models import ErrorRecord, ExecutionStatus
from durable.protocols import CheckpointStatus, InboxEntry, Next, Ready

RETRY, RETRY_ROLLBACK, FORCE_FAIL = "retry", "retry_rollback", "force_fail"


def apply_act(entry: InboxEntry, journal: Journal) -> Next | None:
    """Change the journal as the operator asked. A verdict is committed at once; None lets the body begin from there."""
    details = from_json(entry.data)
    failures = [c for c in journal.history.values() if c.status is CheckpointStatus.FAILED]
    if entry.name == FORCE_FAIL:
        reason = str(details.get("reason", ""))
        return failed(ErrorRecord("durable.errors.ExecutionFailed", reason, code="force_failed", retry=False))
    if entry.name == RETRY:
        journal.forget([c.step_id for c in failures if c.kind in ("step", "child", "rollback")])
        # A signal whose payload cannot be read is given up, and its wait waits for the next one.
        unread = details.get("step_id")
        journal.forget([c.step_id for c in journal.history.values() if c.step_id in (END, unread)])
    elif entry.name == RETRY_ROLLBACK:
        journal.forget([c.step_id for c in failures if c.kind == "rollback"])
    for waiting in [c for c in journal.history.values() if c.wake_at is not None]:
        journal.renew(waiting)  # its timer was deleted when the execution ended
    attempt = journal.row.attempt
    if entry.name == RETRY and details.get("from") == ExecutionStatus.FAILED:
        return Ready(0, ExecutionStatus.PENDING, attempt + 1)
    return None
