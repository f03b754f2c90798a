"""Every error, and when it is raised.

    DurableError
    ├─ raised by your code             Fail  RetryAfter
    ├─ reaches your workflow           StepFailed  StepTimeout  NoMatchingBranch  ExecutionFailed ...
    ├─ how an execution ended          ExecutionFailed  ExecutionCancelled  CompensationFailed
    ├─ a call that was refused         InvalidInput  UnknownWorkflow  KeyConflict  ExecutionNotFound ...
    ├─ parks an execution for repair   ReplayMismatch  NotSerializable  PayloadTooLarge  LimitReached
    └─ a backend in trouble            StoreUnavailable  StoreFull  OutcomeUnknown  LeaseLost ...

Fields come before text: what happened is in attributes, `code` is stable, `hint` says what to do and stands
below a plain traceback. `args` is plain JSON, and `type(error)(*error.args)` is an equal error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from json import loads
from typing import TypeVar, cast

from pydantic_core import to_json

from durable._error import DurableError as DurableError, InvalidInput as InvalidInput, shown as shown  # noqa: PLC0414 exported
from durable.duration import Duration, format_duration, to_timedelta
from durable.names import did_you_mean

MAX_DETAILS_BYTES = 64 * 1024
_PREVIEW_CHARS = 8 * 1024  # so that the preview, encoded again, stays below the maximum
_NAMES_SHOWN = 10

E = TypeVar("E", bound=BaseException)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """What an exception group (a `TaskGroup` raises one) holds, at any depth; else the error itself."""
    pending = [error]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(reversed(cast("BaseExceptionGroup[BaseException]", error).exceptions))
        else:
            yield error


def find_in(error: BaseException, kind: type[E]) -> E | None:
    """The first `kind` among the `leaves` of `error`."""
    return next((leaf for leaf in leaves(error) if isinstance(leaf, kind)), None)


# Raised by user code


class Fail(DurableError):
    """Raised by a step or a workflow that knows that trying again is useless.

    The step it leaves is not retried and, uncaught, neither is the run, which ends as `failed` with this
    `code` and these `details`. A subclass may set `code` on the class.

    `details` is any JSON value, and what is not JSON becomes so as far as it can. Above 64 KiB of JSON it is
    replaced by `{"truncated": True, "size": <bytes>, "preview": <the beginning of the JSON>}`.
    """

    code = "failed"
    hint = "nothing tries this again by itself; mend the cause, then operator.retry(execution_id)"
    message: str = ""
    details: object = None

    def __init__(self, message: str, code: str | None = None, details: object = None) -> None:
        self.message = message
        self.details = _plain(details)
        if code is not None:
            self.code = code
        super().__init__(message, args=(message, code, self.details))


class RetryAfter(DurableError):
    """Raised by a step or a workflow that knows when to try again: its retry policy's next delay is `delay`.

    The policy's number of attempts still holds.
    """

    code = "retry_after"
    hint = "it is tried again after the delay, unless that was the last attempt: allow more with retry="

    def __init__(self, delay: Duration, message: str = "") -> None:
        self.delay = to_timedelta(delay, what="RetryAfter's delay")
        self.message = message
        super().__init__(
            message or f"retry after {format_duration(self.delay)}",
            args=(self.delay.total_seconds(), message),
        )


# What reaches a workflow body


class StepFailed(DurableError):
    """A step failed with an exception that cannot be rebuilt from its class's name and its arguments."""

    code = "step_failed"
    hint = (
        "look at error_type; or move that class to module level and let its constructor take what args holds"
    )

    def __init__(self, error_type: str, message: str, step_id: str) -> None:
        self.error_type = error_type
        self.message = message
        self.step_id = step_id
        super().__init__(
            f"step {step_id} failed with {error_type}: {message}", args=(error_type, message, step_id)
        )


class StepTimeout(DurableError, TimeoutError):
    """A step's body took longer than its `timeout` and was cancelled. It is retried like any failure."""

    code = "step_timeout"
    hint = "give the step a longer timeout=, or tries enough with retry="

    def __init__(self, step_id: str, timeout: Duration) -> None:
        self.step_id = step_id
        self.timeout = to_timedelta(timeout, what="timeout")
        super().__init__(
            f"step {step_id} took longer than {format_duration(self.timeout)}",
            args=(step_id, self.timeout.total_seconds()),
        )


class NoMatchingBranch(DurableError):
    """A `ctx.switch` found no branch for its value and has no default."""

    code = "no_matching_branch"
    hint = "add a branch for it, or give the switch a default="

    def __init__(self, switch_id: str, value: str, branches: Iterable[str] = ()) -> None:
        self.switch_id = switch_id
        self.value = value
        self.branches = list(branches)
        super().__init__(
            f"switch {switch_id} has no branch for {value} (it has {_some(self.branches)})",
            args=(switch_id, value, self.branches),
        )


# How an execution ended


class ExecutionEnded(DurableError):
    """A result was waited for, and the execution ended without one. Raised as one of the three kinds below.

    `error_type`, `message` and `details` are those of the last error. `code` is that of the user's `Fail` if
    it had one, else a word for how the execution ended.
    """

    code = "ended"
    _how = "ended"

    def __init__(
        self,
        execution_id: str,
        workflow: str,
        attempt: int,
        error_type: str,
        message: str,
        code: str | None = None,
        details: object = None,
    ) -> None:
        self.execution_id = execution_id
        self.workflow = workflow
        self.attempt = attempt
        self.error_type = error_type
        self.message = message
        self.details = details
        if code is not None:
            self.code = code
        super().__init__(
            f"{workflow} {execution_id} {self._how} in attempt {attempt}: {self._cause()}",
            args=(execution_id, workflow, attempt, error_type, message, code, details),
        )

    def _cause(self) -> str:
        return f"{self.error_type}: {self.message}" if self.message else self.error_type


class ExecutionFailed(ExecutionEnded):
    """The execution ended as `failed`: no attempts left, a `Fail`, its timeout, or too many crashed workers.

    `code` is "failed" if the error has none of its own, "timeout" or "poison".
    """

    code = "failed"
    hint = "see operator.get_execution_detail(execution_id); operator.retry(execution_id) goes on from there"
    _how = "failed"


class ExecutionCancelled(ExecutionEnded):
    """The execution ended as `cancelled`; `message` is the reason, `code` "cancelled" or "rate_limited"."""

    code = "cancelled"
    hint = "a cancelled execution stays so; start it again under another key if it was cancelled by mistake"
    _how = "was cancelled"


class CompensationFailed(ExecutionEnded):
    """A compensation used up its attempts, so that some completed steps are not undone."""

    code = "compensation_failed"
    hint = "mend what the compensation needs, then operator.retry_rollback(execution_id)"
    _how = "could not be rolled back"


class WaitTimeout(DurableError, TimeoutError):
    """The result did not come in the time that the caller gave. The execution is not touched and goes on."""

    code = "wait_timeout"
    hint = "wait again with handle.result(timeout=...); operator.explain(execution_id) says what it waits for"

    def __init__(self, execution_id: str, timeout: Duration, reason: str = "") -> None:
        self.execution_id = execution_id
        self.timeout = to_timedelta(timeout, what="timeout")
        self.reason = reason
        why = f": {reason}" if reason else ""
        super().__init__(
            f"execution {execution_id} has not ended after {format_duration(self.timeout)}{why}",
            args=(execution_id, self.timeout.total_seconds(), reason),
        )


# A call that was refused


class ConfigurationError(DurableError):
    """Definitions or settings contradict each other or themselves, or need a backend or extra not there."""

    code = "configuration"
    hint = "correct the definition or the setting that the error names"


class UnknownWorkflow(DurableError):
    """A start, a child or a schedule names a workflow, or a version of one, that is not registered here."""

    code = "unknown_workflow"

    def __init__(self, workflow: str, registered: Iterable[str] = (), version: str | None = None) -> None:
        self.workflow = workflow
        self.version = version
        self.registered = sorted(registered)
        which = repr(workflow) if version is None else f"{workflow!r} in version {version!r}"
        args = (workflow, self.registered, version)
        super().__init__(f"no workflow {which} is registered", self._suggestion(), args=args)

    def _suggestion(self) -> str:
        if not self.registered:
            return "nothing is registered: pass Durable(workflows=[...])"
        question = did_you_mean(self.workflow, self.registered)
        return f"{question}registered: {_some(self.registered)}; add it to Durable(workflows=[...])"


class ExecutionNotFound(DurableError, LookupError):
    """No execution has this id in this store and namespace. It may have been pruned."""

    code = "execution_not_found"
    hint = "check the id, the store's URL and the namespace"

    def __init__(self, execution_id: str) -> None:
        self.execution_id = execution_id
        super().__init__(f"there is no execution {shown(execution_id)}", args=(execution_id,))


class ScheduleNotFound(DurableError, LookupError):
    """No schedule has this id in this store and namespace; the hint names the closest of those that are `known`."""

    code = "schedule_not_found"
    hint = "list_schedules() names those that exist; ensure_schedule() makes one"

    def __init__(self, schedule_id: str, known: Iterable[str] = ()) -> None:
        self.schedule_id = schedule_id
        self.known = sorted(known)
        hint = did_you_mean(schedule_id, self.known) + self.hint
        super().__init__(f"there is no schedule {shown(schedule_id)}", hint, args=(schedule_id, self.known))


class WorkerNotFound(DurableError, LookupError):
    """No worker whose lease holds has this id; the hint names the closest of those that are `known`."""

    code = "worker_not_found"
    hint = "operator.workers() names those that are alive"

    def __init__(self, worker_id: str, known: Iterable[str] = ()) -> None:
        self.worker_id = worker_id
        self.known = sorted(known)
        hint = did_you_mean(worker_id, self.known) + self.hint
        super().__init__(f"there is no live worker {shown(worker_id)}", hint, args=(worker_id, self.known))


class ExecutionClosed(DurableError):
    """A signal was sent to an execution that has ended. The signal is not stored."""

    code = "execution_closed"
    hint = "its result is final; start another execution if there is more to do"

    def __init__(self, execution_id: str, status: str) -> None:
        self.execution_id = execution_id
        self.status = status
        super().__init__(
            f"execution {execution_id} has ended ({status}) and takes no more signals",
            args=(execution_id, status),
        )


class WrongStatus(DurableError):
    """An operator's verb does not apply to the execution's status: `retry_rollback` of a running one, say."""

    code = "wrong_status"
    hint = "look at its status first: nothing was changed"

    def __init__(self, execution_id: str, verb: str, status: str) -> None:
        self.execution_id = execution_id
        self.verb = verb
        self.status = status
        super().__init__(
            f"{verb} does not apply to execution {execution_id}, which is {status}",
            args=(execution_id, verb, status),
        )


class KeyConflict(DurableError):
    """A start repeats the key of an execution of its workflow with another input. Nothing was started."""

    code = "key_conflict"
    hint = "use another key for another input, or send the input that the first start had"

    def __init__(self, key: str, workflow: str, execution_id: str) -> None:
        self.key = key
        self.workflow = workflow
        self.execution_id = execution_id
        super().__init__(
            f"key {shown(key)} of {workflow} belongs to execution {execution_id}, whose input differs",
            args=(key, workflow, execution_id),
        )


class NotRunning(DurableError):
    """A `Durable` was used before `async with durable:` was entered, or after it began to drain."""

    code = "not_running"
    hint = "make the call inside `async with durable:`"


# What parks an execution until somebody repairs it


class ReplayMismatch(DurableError):
    """The code asks for something else than what is recorded under a step id. No body can catch this."""

    code = "replay_mismatch"

    def __init__(
        self,
        execution_id: str,
        step_id: str,
        recorded_kind: str,
        recorded_name: str,
        asked_kind: str,
        asked_name: str,
        where: str = "",
    ) -> None:
        self.execution_id = execution_id
        self.step_id = step_id
        self.recorded_kind = recorded_kind
        self.recorded_name = recorded_name
        self.asked_kind = asked_kind
        self.asked_name = asked_name
        self.where = where
        recorded, asked = _kind_and_name(recorded_kind, recorded_name), _kind_and_name(asked_kind, asked_name)
        super().__init__(
            f"execution {execution_id} diverged at {step_id!r}: recorded {recorded}, "
            f"the code now asks for {asked}{f' ({where})' if where else ''}",
            f'bring the old code back; or guard the change: `if ctx.patched("{asked_name or asked_kind}"):`; '
            "or register it as another version and let this one drain; then operator.retry(execution_id)",
            args=(execution_id, step_id, recorded_kind, recorded_name, asked_kind, asked_name, where),
        )


class NotSerializable(DurableError):
    """A value cannot be stored as JSON, or cannot be read back as the type it is annotated with.

    `what` says whose value ("the result of step 'charge'"), `path` where in it ("items.0.price", or empty).
    """

    code = "not_serializable"
    hint = "use a type that pydantic can write and read (a model, a dataclass, plain JSON), or annotate it"

    def __init__(self, what: str, reason: str, path: str = "") -> None:
        self.what = what
        self.reason = reason
        self.path = path
        super().__init__(
            f"{what} cannot be stored: {f'at {path}: ' if path else ''}{reason}", args=(what, reason, path)
        )


class PayloadTooLarge(DurableError):
    """A value is larger than a payload may be, in bytes of JSON. Raised before any I/O."""

    code = "payload_too_large"
    hint = "store the value elsewhere (a file, a table, a bucket) and pass on where it is"

    def __init__(self, what: str, size: int, limit: int) -> None:
        self.what = what
        self.size = size
        self.limit = limit
        super().__init__(f"{what} is {size:,} bytes, and {limit:,} are allowed", args=(what, size, limit))


class LimitReached(DurableError):
    """An execution has as many of something (checkpoints, unread inbox entries) as it may have."""

    code = "limit_reached"
    hint = "end long histories with ctx.continue_as_new(...), and have signals read before sending more"

    def __init__(self, execution_id: str, what: str, limit: int) -> None:
        self.execution_id = execution_id
        self.what = what
        self.limit = limit
        super().__init__(
            f"execution {execution_id} has reached its limit of {limit:,} {what}",
            args=(execution_id, what, limit),
        )


# A backend in trouble


class StoreUnavailable(DurableError):
    """The store cannot be reached or refuses to work, and the call certainly changed nothing."""

    code = "store_unavailable"
    hint = "check that the store runs and that its URL is right; the call may be repeated"


class StoreFull(DurableError):
    """The store has no room left. The call changed nothing."""

    code = "store_full"
    hint = "make room (operator.prune, more memory, more disk); the call may be repeated then"


class OutcomeUnknown(DurableError):
    """A write was sent, no answer came back, and it may or may not have been applied.

    The only legal reaction is the same call again with the same `op_id`: a store answers it as the first.
    """

    code = "outcome_unknown"
    hint = "make the same call again with the same op_id"

    def __init__(self, op_id: str, reason: str = "") -> None:
        self.op_id = op_id
        self.reason = reason
        super().__init__(
            f"the outcome of write {op_id} is unknown{f': {reason}' if reason else ''}", args=(op_id, reason)
        )


class LeaseLost(DurableError):
    """This worker no longer owns the execution, and its write was refused. Whoever owns it now goes on."""

    code = "lease_lost"
    hint = "nothing to do: it goes on elsewhere; if this happens often, look for what blocks the event loop"

    def __init__(self, execution_id: str) -> None:
        self.execution_id = execution_id
        super().__init__(f"execution {execution_id} is no longer owned by this worker", args=(execution_id,))


class QueueUnavailable(DurableError):
    """The queue cannot be reached. No work is lost: the store rings again for what nobody has claimed."""

    code = "queue_unavailable"
    hint = "check that the queue runs and that its URL is right; until then sweeps of the store find the work"


def _plain(details: object) -> object:
    """`details` as a JSON value of bounded size. Never raises, as it would hide the failure it belongs to."""
    if details is None:
        return None
    try:
        encoded = to_json(details, fallback=shown, bytes_mode="base64", inf_nan_mode="null")
        if len(encoded) > MAX_DETAILS_BYTES:
            preview = encoded.decode()[:_PREVIEW_CHARS]
            return {"truncated": True, "size": len(encoded), "preview": preview}
        plain: object = loads(encoded)
    except (ValueError, TypeError, RecursionError):
        return {"truncated": True, "preview": shown(details)}
    return plain


def _some(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return (", ".join(names[:_NAMES_SHOWN]) or "none") + (f" and {more} more" if more > 0 else "")


def _kind_and_name(kind: str, name: str) -> str:
    return f"{kind} {name!r}" if name else kind
