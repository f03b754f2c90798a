"""Errors of `durable` as answers over HTTP."""

from __future__ import annotations

from durable.errors import (
    DurableError,
    ExecutionClosed,
    ExecutionNotFound,
    KeyConflict,
    NotRunning,
    OutcomeUnknown,
    PayloadTooLarge,
    QueueUnavailable,
    ScheduleNotFound,
    StoreUnavailable,
    WrongStatus,
)


def status_of(error: DurableError) -> int:
    """The status that tells whose fault it is, and whether to try again."""
    match error:
        case ExecutionNotFound() | ScheduleNotFound():
            return 404
        case ExecutionClosed() | WrongStatus() | KeyConflict():
            return 409
        case PayloadTooLarge():
            return 413
        case StoreUnavailable() | QueueUnavailable() | NotRunning() | OutcomeUnknown():
            return 503
        case _:
            return 422


def error_record(error: DurableError) -> dict[str, str]:
    """What programs and people are told of it."""
    return {"code": error.code, "message": str(error), "hint": error.hint}
