"""Steps: functions whose result is stored, so that they run once however often the workflow is replayed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from types import MethodType
from typing import Concatenate, Generic, ParamSpec, final, overload

from typing_extensions import TypeVar, override

from durable._error import shown
from durable.duration import Duration, to_ms
from durable.errors import ConfigurationError
from durable.names import check_own_name
from durable.retry import NO_RETRY, Retry

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
Owner = TypeVar("Owner")


@final
class Step(Generic[P, R_co]):
    """A function with the options it has as a step. Called outside a workflow it is just that function."""

    def __init__(
        self,
        fn: Callable[P, R_co],
        *,
        name: str | None = None,
        retry: Retry | int | None = None,
        timeout: Duration | None = None,
        limit: str | None = None,
    ) -> None:
        if not _gives_one_value(fn):
            raise ConfigurationError(
                f"@step needs a function that returns one value, not {shown(fn)}",
                "write @step, or @step(name=..., retry=..., timeout=...), above a def or an async def",
            )
        self._fn = fn
        self._name = check_own_name(function_name(fn) if name is None else name, "the name of a step")
        self._retry = None if retry is None else Retry.of(retry, NO_RETRY)
        self._timeout_ms = None if timeout is None else to_ms(timeout, what="timeout")
        self._limit = None if limit is None else check_own_name(limit, "the name of a limit")
        self._compensation: Callable[..., object] | None = None
        update_wrapper(self, fn)

    @property
    def fn(self) -> Callable[P, R_co]:
        """The function itself."""
        return self._fn

    @property
    def name(self) -> str:
        """The id of its checkpoints, unless the call gives another."""
        return self._name

    @property
    def retry(self) -> Retry | None:
        """None: it is tried once."""
        return self._retry

    @property
    def timeout_ms(self) -> int | None:
        """Of each try."""
        return self._timeout_ms

    @property
    def limit(self) -> str | None:
        """The name of the limit that it shares with others."""
        return self._limit

    @property
    def compensation(self) -> Callable[..., object] | None:
        """What undoes it."""
        return self._compensation

    @overload
    def undo(self: Step[P, Awaitable[T]], fn: Callable[[T], R], /) -> Callable[[T], R]: ...
    @overload
    def undo(self: Step[P, T], fn: Callable[[T], R], /) -> Callable[[T], R]: ...
    def undo(self, fn: Callable[..., object], /) -> Callable[..., object]:
        """Make `fn` the compensation. It takes what the step returned, and has its retry policy and timeout.

        Raises:
            ConfigurationError: the step has a compensation already, or `fn` cannot be called with one value.
        """
        if self._compensation is not None:
            raise ConfigurationError(
                f"step {self._name} has two compensations: "
                f"{function_name(self._compensation)} and {function_name(fn)}",
                "undo everything in one function",
            )
        self._compensation = check_compensation(fn, self._name)
        return fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self._fn(*args, **kwargs)

    @overload
    def __get__(self, owner: None, kind: type, /) -> Step[P, R_co]: ...
    @overload
    def __get__(self: Step[Concatenate[Owner, Q], R], owner: Owner, kind: type, /) -> Step[Q, R]: ...
    def __get__(self, owner: object, kind: type, /) -> object:
        """A step that is a method is bound as methods are. Its compensation is bound to nothing."""
        if owner is None:
            return self
        bound = copy(self)
        vars(bound).update(_fn=MethodType(self._fn, owner), __wrapped__=MethodType(self._fn, owner))
        return bound

    @override
    def __repr__(self) -> str:
        return f"<step {self._name}>"


@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    limit: str | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    fn: Callable[..., object] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    limit: str | None = None,
) -> object:
    """Give a function the options that it has as a step: `@step`, or `@step(retry=5, timeout="30s")`.

    `retry` is a `Retry` or a number of tries; by default a step is tried once. `timeout` limits each try. A
    sync function runs in a worker thread. `limit` names one of `Durable(limits=...)`, shared by all steps that
    name it in all processes: a try waits until it lets it pass, and holds no worker's slot meanwhile.

    Raises:
        InvalidInput: a bad duration, or a name that is hostile or reserved.
        ConfigurationError: it is not a function that gives one value.
    """

    def decorate(fn: Callable[P, R]) -> Step[P, R]:
        return Step(fn, name=name, retry=retry, timeout=timeout, limit=limit)

    return decorate if fn is None else decorate(fn)


@final
@dataclass(frozen=True, slots=True)
class StepInfo:
    """The try of a step that is running here."""

    execution_id: str
    step_id: str
    attempt: int
    """Which try of the step this is, counted from 1."""
    idempotency_key: str
    """The same for every try of this step of this execution, and for no other: hand it to what you call."""
    is_cancelled: Callable[[], bool] = field(repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether the execution is being cancelled: what this step returns now is stored nowhere."""
        return self.is_cancelled()


STEP: ContextVar[StepInfo] = ContextVar("durable.step")


def current_step() -> StepInfo:
    """What the step body that calls this knows about itself; in a sync step's thread too.

    Raises:
        ConfigurationError: no step is running here.
    """
    try:
        return STEP.get()
    except LookupError:
        raise ConfigurationError(
            "current_step() was called outside a step",
            "call it in a function that runs as a step; a workflow body has ctx.execution_id and its kin",
        ) from None


def function_name(fn: Callable[..., object]) -> str:
    """The name recorded for `fn`: of a partial its function's, of an object without one its class's."""
    while isinstance(fn, partial | Step):
        fn = fn.func if isinstance(fn, partial) else fn.fn
    name: object = getattr(fn, "__name__", None)
    return name if isinstance(name, str) else type(fn).__name__


def check_compensation(fn: Callable[..., object], step_name: str) -> Callable[..., object]:
    """`fn` itself, a `Step`'s function for a `Step`.

    Raises:
        ConfigurationError: it cannot be called with one value.
    """
    if isinstance(fn, Step):
        fn = fn.fn
    try:
        signature = inspect.signature(fn)
    except ValueError:  # some functions that are written in C have none
        return fn
    try:
        signature.bind(None)
    except TypeError as error:
        raise ConfigurationError(
            f"{function_name(fn)} cannot undo step {step_name}: {error}",
            "a compensation takes one value, what the step returned",
        ) from error
    return fn


def _gives_one_value(fn: object) -> bool:
    return callable(fn) and not (inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn))
