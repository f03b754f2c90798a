"""How a body asks for a step: as a `StepCall`, made at once or with options of this one call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any, ParamSpec, cast, final, overload

from typing_extensions import TypeVar, override

from durable._error import shown
from durable.errors import ConfigurationError
from durable.retry import Retry
from durable.runtime import Runtime, StepCall
from durable.steps import Step, check_compensation, function_name

P = ParamSpec("P")
T = TypeVar("T")


@final
class Up(Coroutine[None, None, T]):
    """A call of a step, ready to be awaited, and to be given its compensation first with `.down(fn)`.

    A forgotten `await` is an error to the checkers after `.down(...)`; here mypy's `unused-awaitable` finds it.
    """

    __slots__ = ("_call", "_coroutine")

    def __init__(self, call: StepCall, coroutine: Coroutine[None, None, T]) -> None:
        self._call = call
        self._coroutine = coroutine

    def down(self, fn: Callable[[T], object], /) -> Coroutine[None, None, T]:
        """The same call, undone by `fn`, which takes what the step returned.

        Raises:
            ConfigurationError: `fn` cannot be called with one value, or the step has a compensation already.
        """
        try:
            if self._call.undo is not None:
                raise ConfigurationError(
                    f"step {self._call.name} has two compensations: "
                    f"{function_name(self._call.undo)} and {function_name(fn)}",
                    "undo everything in one function",
                )
            self._call.undo = check_compensation(fn, self._call.name)
        except ConfigurationError:
            self._coroutine.close()  # nobody will await it
            raise
        return self._coroutine

    @override
    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    @override
    def send(self, value: Any, /) -> Any:
        return self._coroutine.send(value)

    @override
    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    @override
    def close(self) -> None:
        self._coroutine.close()


@final
class StepBuilder:
    """A step with options of this one call: `ctx.step("label", retry=3).up(buy, order.id).down(void)`."""

    __slots__ = ("_id", "_retry", "_runtime", "_timeout_ms")

    def __init__(self, runtime: Runtime, id: str, retry: Retry | None, timeout_ms: int | None) -> None:
        self._runtime = runtime
        self._id = id
        self._retry = retry
        self._timeout_ms = timeout_ms

    @overload
    def up(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Up[T]: ...
    @overload
    def up(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Up[T]: ...
    def up(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> Up[Any]:
        """Call `fn` as this step. Await what comes back, or what its `.down(compensation)` gives."""
        call = step_call(self._id, fn, args, kwargs, self._retry, self._timeout_ms)
        return Up(call, self._runtime.step(call))


def step_call(
    name: str,
    fn: Callable[..., object],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    retry: Retry | None = None,
    timeout_ms: int | None = None,
) -> StepCall:
    """The call, with a `Step`'s own options where none are given."""
    if not callable(fn):
        raise ConfigurationError(
            f"step {name} needs a function, not {shown(fn)}",
            "give the function and its arguments apart: ctx.step('charge', charge, order.id)",
        )
    if not isinstance(fn, Step):
        return StepCall(name, fn, args, kwargs, function_name(fn), retry, timeout_ms)
    step = cast("Step[..., object]", fn)
    return StepCall(
        name,
        step.fn,
        args,
        kwargs,
        function_name(step),
        step.retry if retry is None else retry,
        step.timeout_ms if timeout_ms is None else timeout_ms,
        step.compensation,
        step.limit,
    )
