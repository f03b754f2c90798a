"""How a command ends: its exit code, and what it says on the way out."""

from __future__ import annotations

from enum import IntEnum

from durable.cli.output import clean, error_console
from durable.errors import (
    CompensationFailed,
    DurableError,
    ExecutionEnded,
    ExecutionFailed,
    ExecutionNotFound,
    ReplayMismatch,
    ScheduleNotFound,
    WaitTimeout,
    WorkerNotFound,
)
from durable.names import did_you_mean


class ExitCode(IntEnum):
    """Stable, for scripts. `USAGE` also says that nothing could be done: a store that cannot be reached, say."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    TIMED_OUT = 4
    MISMATCH = 5
    INTERRUPTED = 130


def exit_code(error: DurableError) -> ExitCode:
    """The exit code that tells of `error`."""
    match error:
        case ExecutionNotFound() | ScheduleNotFound() | WorkerNotFound():
            return ExitCode.NOT_FOUND
        case WaitTimeout():
            return ExitCode.TIMED_OUT
        case ReplayMismatch():
            return ExitCode.MISMATCH
        case ExecutionEnded():
            return ExitCode.FAILED
        case _:
            return ExitCode.USAGE


def hint_for(error: DurableError) -> str:
    """What to do about `error`, in terms of the command line where its own hint speaks of code."""
    match error:
        case ScheduleNotFound(schedule_id=id, known=known):
            return f"{did_you_mean(id, known)}`durable schedules list` names those that exist"
        case WorkerNotFound(worker_id=id, known=known):
            return f"{did_you_mean(id, known)}`durable workers` names those that are alive"
        case WaitTimeout(execution_id=id):
            return f"it goes on; `durable show {id}` says where it is"
        case CompensationFailed(execution_id=id):
            return f"mend what the compensation needs, then `durable retry {id}`"
        case ExecutionFailed(execution_id=id):
            return f"`durable show {id}` says where; mend the cause, then `durable retry {id}` goes on from there"
        case _:
            return error.hint


def tell(error: str, hint: str | None = None) -> None:
    """Say on stderr what went wrong, and what to do about it."""
    console = error_console()
    console.print(f"error: {clean(error)}", style="red")
    if hint:
        console.print(f"hint: {clean(hint)}")
