"""What a workflow body calls. Thin and typed: it checks what it is given, and its `Runtime` does the rest.

Every call here is a plain `def`: its checkpoint gets its id at the call, and what comes back is a coroutine
that does the work when it is awaited. So calls made in a row and awaited together always have the same ids.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    Never,
    NoReturn,
    ParamSpec,
    Protocol,
    cast,
    final,
    overload,
)
from uuid import UUID

from typing_extensions import TypeVar

from durable._error import shown
from durable.builder import StepBuilder, step_call
from durable.duration import Duration, to_instant_ms, to_ms
from durable.errors import ConfigurationError, InvalidInput
from durable.handle import Handle
from durable.matching import Match, check_match
from durable.models import Cause
from durable.names import check_name, check_own_name
from durable.retry import NO_RETRY, Retry
from durable.runtime import Runtime
from durable.signals import Completed, Event, Received, Signal, TimedOut
from durable.steps import Step, function_name
from durable.workflow import AnyWorkflow, Workflow

P = ParamSpec("P")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
K = TypeVar("K")
K_contra = TypeVar("K_contra", contravariant=True)
Item = TypeVar("Item")
In = TypeVar("In")
Out = TypeVar("Out")
T_co = TypeVar("T_co", covariant=True)
V_contra = TypeVar("V_contra", contravariant=True)
DepsT_co = TypeVar("DepsT_co", covariant=True, default=object)


@final
@dataclass(frozen=True, slots=True)
class Branch(Generic[V_contra, T_co]):
    """One way that `ctx.switch` can go: the first branch whose predicate holds for the value."""

    name: str
    predicate: Callable[[V_contra], bool]
    fn: Callable[[], T_co]
    """It takes no arguments, may be async, and may call `ctx`."""


class _Table(Protocol[K_contra, T_co]):
    """A mapping, of the key that it is asked for or of wider ones.

    Where two overloads take a `Mapping[K, ...]`, pyright gives up on what the functions return.
    """

    def __getitem__(self, key: K_contra, /) -> T_co: ...

    def keys(self) -> Iterable[object]: ...


@final
class Context(Generic[DepsT_co]):
    """What a workflow body has of its execution. `Context[Deps]` says what `ctx.deps` is."""

    __slots__ = ("_runtime",)

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @property
    def execution_id(self) -> str:
        return self._runtime.execution_id

    @property
    def workflow_name(self) -> str:
        return self._runtime.workflow_name

    @property
    def version(self) -> str:
        return self._runtime.version

    @property
    def attempt(self) -> int:
        """Which attempt of the run this is, counted from 1."""
        return self._runtime.attempt

    @property
    def tags(self) -> Mapping[str, str]:
        return self._runtime.tags

    @property
    def events(self) -> Sequence[Cause]:
        """The events that started this execution; those of a batch in the order of its items."""
        return self._runtime.events

    @property
    def deps(self) -> DepsT_co:
        """What `Durable(deps=...)` opened."""
        return cast("DepsT_co", self._runtime.deps)

    @property
    def is_replaying(self) -> bool:
        """Whether everything that was asked for so far has been done before."""
        return self._runtime.is_replaying

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Silent while replaying, so that each line is logged once."""
        return self._runtime.log

    @property
    def random(self) -> random.Random:
        """The same values on every replay."""
        return self._runtime.random

    def now(self) -> datetime:
        """The present instant, aware, in UTC. The same on every replay."""
        return self._runtime.now()

    def uuid4(self) -> UUID:
        """A random UUID. The same on every replay."""
        return self._runtime.uuid4()

    @overload
    def step(
        self, step: Step[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[None, None, T]: ...
    @overload
    def step(self, step: Step[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, T]: ...
    @overload
    def step(
        self, id: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[None, None, T]: ...
    @overload
    def step(
        self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[None, None, T]: ...
    @overload
    def step(
        self, id: str, /, *, retry: Retry | int | None = None, timeout: Duration | None = None
    ) -> StepBuilder: ...
    def step(self, step: object, /, *args: Any, **kwargs: Any) -> object:
        """Call a function once, however often the workflow replays: its result is stored before it is given.

        `ctx.step(reserve, items)` for an `@step`, `ctx.step("charge", charge, order.id)` for any function,
        and `ctx.step("label", retry=3, timeout="10s").up(buy, order.id).down(void)` for options of this call.

        Raises:
            InvalidInput: the id is hostile or reserved, or the timeout no duration.
            StepTimeout: the last try took too long.
            StepFailed: the last try raised what cannot be rebuilt. Whatever else it raised comes as itself.
        """
        if isinstance(step, Step):
            return self._runtime.step(step_call(step.name, cast("Step[..., object]", step), args, kwargs))
        if callable(step):
            raise ConfigurationError(
                f"{function_name(step)} is no step",
                "decorate it with @step, or give the call an id: ctx.step('charge', charge, order.id)",
            )
        id = check_own_name(cast("str", step), "the id of a step")
        if not args:
            return self._builder(id, **kwargs)
        return self._runtime.step(step_call(id, args[0], args[1:], kwargs))

    def _builder(
        self, id: str, *, retry: Retry | int | None = None, timeout: Duration | None = None
    ) -> StepBuilder:
        return StepBuilder(
            self._runtime,
            id,
            None if retry is None else Retry.of(retry, NO_RETRY),
            _optional_ms(timeout),
        )

    @overload
    def transaction(
        self,
        id: str,
        fn: Callable[Concatenate[Never, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Coroutine[None, None, T]: ...
    @overload
    def transaction(
        self, id: str, fn: Callable[Concatenate[Never, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[None, None, T]: ...
    def transaction(
        self, id: str, fn: Callable[..., object], /, *args: Any, **kwargs: Any
    ) -> Coroutine[None, None, Any]:
        """Call a function as a step, in a transaction of the store's database: what it writes through the connection
        that it gets first, and its result, are stored together or not at all.

        `await ctx.transaction("place", insert_order, order)` calls `insert_order(connection, order)`: once, as far as
        the database can tell, whatever dies meanwhile. An exception rolls it back, and fails the step. An `@step` has
        its own retry, timeout, limit and compensation here too, each try in another transaction; the compensation
        gets no connection. Should the store fail under it, it runs again, as the same try.

        Keep it short: other commits of this execution wait for its end, and on SQLite everybody who writes to the
        file. Without a timeout of its own a try may take five seconds.

        Raises:
            ConfigurationError: the store takes part in no transactions.
            InvalidInput, StepTimeout, StepFailed: as `step`.
        """
        call = step_call(check_own_name(id, "the id of a transaction"), fn, args, kwargs)
        call.in_transaction = True
        return self._runtime.step(call)

    @overload
    def map(
        self, id: str, fn: Callable[[Item], Awaitable[T]], items: Iterable[Item], limit: int | None = None
    ) -> Coroutine[None, None, list[T]]: ...
    @overload
    def map(
        self, id: str, fn: Callable[[Item], T], items: Iterable[Item], limit: int | None = None
    ) -> Coroutine[None, None, list[T]]: ...
    def map(
        self, id: str, fn: Callable[[Any], object], items: Iterable[Any], limit: int | None = None
    ) -> Coroutine[None, None, list[Any]]:
        """Call `fn` as a step for each item, at most `limit` at a time: the results, in their order.

        Each item has a checkpoint of its own, `id[0]`, `id[1]` ...

        Raises:
            InvalidInput: the id is hostile or reserved, or the limit below 1.
        """
        id = check_own_name(id, "the id of a map")
        if limit is not None and limit < 1:
            raise InvalidInput(f"limit must be at least 1, not {limit}", "limit=None runs all items at once")
        calls = [
            step_call(check_own_name(f"{id}[{index}]", "the id of a map's item"), fn, (item,), {})
            for index, item in enumerate(items)
        ]
        return self._runtime.map(id, calls, limit)

    # With `*branches` the same two branches give a list, as they do with asyncio.gather.
    @overload
    def gather(  # pyright: ignore[reportOverlappingOverload]
        self, b1: Awaitable[T1], b2: Awaitable[T2], /
    ) -> Coroutine[None, None, tuple[T1, T2]]: ...
    @overload
    def gather(
        self, b1: Awaitable[T1], b2: Awaitable[T2], b3: Awaitable[T3], /
    ) -> Coroutine[None, None, tuple[T1, T2, T3]]: ...
    @overload
    def gather(
        self, b1: Awaitable[T1], b2: Awaitable[T2], b3: Awaitable[T3], b4: Awaitable[T4], /
    ) -> Coroutine[None, None, tuple[T1, T2, T3, T4]]: ...
    @overload
    def gather(
        self,
        b1: Awaitable[T1],
        b2: Awaitable[T2],
        b3: Awaitable[T3],
        b4: Awaitable[T4],
        b5: Awaitable[T5],
        /,
    ) -> Coroutine[None, None, tuple[T1, T2, T3, T4, T5]]: ...
    @overload
    def gather(
        self,
        b1: Awaitable[T1],
        b2: Awaitable[T2],
        b3: Awaitable[T3],
        b4: Awaitable[T4],
        b5: Awaitable[T5],
        b6: Awaitable[T6],
        /,
    ) -> Coroutine[None, None, tuple[T1, T2, T3, T4, T5, T6]]: ...
    @overload
    def gather(self, *branches: Awaitable[T]) -> Coroutine[None, None, list[T]]: ...
    @overload
    def gather(
        self, *branches: Awaitable[T], return_exceptions: Literal[True]
    ) -> Coroutine[None, None, list[T | BaseException]]: ...
    def gather(
        self, *branches: Awaitable[Any], return_exceptions: bool = False
    ) -> Coroutine[None, None, Any]:
        """Run branches side by side: their results, as `asyncio.gather` gives them."""
        return self._runtime.gather(branches, return_exceptions=return_exceptions)

    @overload
    def switch(
        self,
        id: str,
        value: K,
        branches: _Table[K, Callable[[], Awaitable[T]]],
        default: Callable[[], Awaitable[T]] | None = None,
    ) -> Coroutine[None, None, T]: ...
    @overload
    def switch(
        self,
        id: str,
        value: K,
        branches: _Table[K, Callable[[], T]],
        default: Callable[[], T] | None = None,
    ) -> Coroutine[None, None, T]: ...
    @overload
    def switch(
        self,
        id: str,
        value: K,
        branches: Sequence[Branch[K, Awaitable[T]]],
        default: Callable[[], Awaitable[T]] | None = None,
    ) -> Coroutine[None, None, T]: ...
    @overload
    def switch(
        self,
        id: str,
        value: K,
        branches: Sequence[Branch[K, T]],
        default: Callable[[], T] | None = None,
    ) -> Coroutine[None, None, T]: ...
    def switch(
        self,
        id: str,
        value: object,
        branches: _Table[Any, Callable[[], object]] | Sequence[Branch[Any, object]],
        default: Callable[[], object] | None = None,
    ) -> Coroutine[None, None, Any]:
        """Go one way of several, the same way on every replay: what the branch gives.

        `branches` maps values to functions, or lists `Branch`es, of which the first that holds is taken. The
        choice is made once in the life of the execution, and stored.

        Raises:
            InvalidInput: the id or a branch's name is hostile or reserved, or two branches have one name.
            NoMatchingBranch: no branch matches, and there is no default.
        """
        id = check_own_name(id, "the id of a switch")
        if isinstance(branches, Sequence):
            named = [(branch.name, branch.fn) for branch in branches]
            chosen = (branch.name for branch in branches if branch.predicate(value))
        else:
            keys = list(branches.keys())
            named = [(_branch_name(key), branches[key]) for key in keys]
            chosen = (_branch_name(key) for key in keys if key == value)
        by_name = {check_own_name(name, "the name of a branch"): fn for name, fn in named}
        if len(by_name) < len(named):
            raise InvalidInput(
                f"two branches of switch {id} have one name",
                f"they are {', '.join(name for name, _ in named)}",
            )
        return self._runtime.switch(id, value, lambda: next(chosen, None), by_name, default)

    def sleep(self, duration: Duration, *, id: str | None = None) -> Coroutine[None, None, None]:
        """Come back after `duration`, whatever happens to the process. It costs no slot meanwhile.

        Raises:
            InvalidInput: it is no duration, or the id is hostile or reserved.
        """
        delay_ms = to_ms(duration)
        return self._runtime.sleep(delay_ms=delay_ms, until_ms=None, id=_optional_id(id))

    def sleep_until(self, when: datetime, *, id: str | None = None) -> Coroutine[None, None, None]:
        """Come back at `when`; at once if that has passed.

        Raises:
            InvalidInput: `when` does not name its zone, or the id is hostile or reserved.
        """
        until_ms = to_instant_ms(when, what="when")
        return self._runtime.sleep(delay_ms=None, until_ms=until_ms, id=_optional_id(id))

    @overload
    def wait_for_signal(
        self, signal: Signal[T], *, timeout: None = None, id: str | None = None
    ) -> Coroutine[None, None, T]: ...
    @overload
    def wait_for_signal(
        self, signal: Signal[T], *, timeout: Duration, id: str | None = None
    ) -> Coroutine[None, None, Received[T] | TimedOut]: ...
    def wait_for_signal(
        self, signal: Signal[Any], *, timeout: Duration | None = None, id: str | None = None
    ) -> Coroutine[None, None, Any]:
        """The payload of the next signal of that name; with a timeout, `Received` or `TimedOut`.

        Signals that came before are there to be taken, in the order of their arrival.

        Raises:
            InvalidInput: the timeout is no duration, or the id is hostile or reserved.
        """
        outcome = self._wait([signal], timeout, id)
        return _payload(outcome) if timeout is None else outcome

    @overload
    def wait_for_any(
        self, s1: Signal[T1], s2: Signal[T2], /, *, timeout: None = None, id: str | None = None
    ) -> Coroutine[None, None, Received[T1] | Received[T2]]: ...
    @overload
    def wait_for_any(
        self, s1: Signal[T1], s2: Signal[T2], /, *, timeout: Duration, id: str | None = None
    ) -> Coroutine[None, None, Received[T1] | Received[T2] | TimedOut]: ...
    @overload
    def wait_for_any(
        self,
        s1: Signal[T1],
        s2: Signal[T2],
        s3: Signal[T3],
        /,
        *,
        timeout: None = None,
        id: str | None = None,
    ) -> Coroutine[None, None, Received[T1] | Received[T2] | Received[T3]]: ...
    @overload
    def wait_for_any(
        self, s1: Signal[T1], s2: Signal[T2], s3: Signal[T3], /, *, timeout: Duration, id: str | None = None
    ) -> Coroutine[None, None, Received[T1] | Received[T2] | Received[T3] | TimedOut]: ...
    @overload
    def wait_for_any(
        self,
        s1: Signal[T1],
        s2: Signal[T2],
        s3: Signal[T3],
        s4: Signal[T4],
        /,
        *,
        timeout: None = None,
        id: str | None = None,
    ) -> Coroutine[None, None, Received[T1] | Received[T2] | Received[T3] | Received[T4]]: ...
    @overload
    def wait_for_any(
        self,
        s1: Signal[T1],
        s2: Signal[T2],
        s3: Signal[T3],
        s4: Signal[T4],
        /,
        *,
        timeout: Duration,
        id: str | None = None,
    ) -> Coroutine[None, None, Received[T1] | Received[T2] | Received[T3] | Received[T4] | TimedOut]: ...
    @overload
    def wait_for_any(
        self, *signals: Signal[T], timeout: None = None, id: str | None = None
    ) -> Coroutine[None, None, Received[T]]: ...
    @overload
    def wait_for_any(
        self, *signals: Signal[T], timeout: Duration, id: str | None = None
    ) -> Coroutine[None, None, Received[T] | TimedOut]: ...
    def wait_for_any(
        self, *signals: Signal[Any], timeout: Duration | None = None, id: str | None = None
    ) -> Coroutine[None, None, Any]:
        """The first of several signals, by arrival: its `name` says which. With a timeout, also `TimedOut`.

        Raises:
            InvalidInput: no signals or two of one name, a bad timeout, or the id is hostile or reserved.
        """
        if not signals or len(set(signals)) < len(signals):
            raise InvalidInput(
                f"wait_for_any needs signals of different names, not {shown(signals)}",
                "name each signal once",
            )
        return self._wait(signals, timeout, id)

    @overload
    def wait_for_event(
        self,
        event: Event[T],
        *,
        match: Match | None = None,
        timeout: None = None,
        lookback: Duration | None = None,
        id: str | None = None,
    ) -> Coroutine[None, None, T]: ...
    @overload
    def wait_for_event(
        self,
        event: Event[T],
        *,
        match: Match | None = None,
        timeout: Duration,
        lookback: Duration | None = None,
        id: str | None = None,
    ) -> Coroutine[None, None, Received[T] | TimedOut]: ...
    def wait_for_event(
        self,
        event: Event[Any],
        *,
        match: Match | None = None,
        timeout: Duration | None = None,
        lookback: Duration | None = None,
        id: str | None = None,
    ) -> Coroutine[None, None, Any]:
        """The payload of the next event of that name that has all the values of `match`; with a timeout, `Received` or
        `TimedOut`.

        `match` names values by their dotted paths: `{"order.id": order.id}`. They are compared as they are stored, with
        their types: `True` is not 1, "7" is not 7. An event that came before counts too, if that was since this
        execution began, or within `lookback` ("0s": none does); never the one that started this execution, nor one
        that an earlier wait of it has received.

        Raises:
            InvalidInput: a bad path or duration, a value that cannot be compared, or the id is hostile or reserved.
        """
        outcome = self._runtime.wait_for_event(
            event,
            match=check_match(match or {}, f"what is wanted of event {event.name}"),
            timeout_ms=_optional_ms(timeout),
            lookback_ms=None if lookback is None else to_ms(lookback, what="lookback"),
            id=_optional_id(id),
        )
        return _payload(outcome) if timeout is None else outcome

    def _wait(
        self, signals: Sequence[Signal[Any]], timeout: Duration | None, id: str | None
    ) -> Coroutine[None, None, Received[Any] | TimedOut]:
        return self._runtime.wait(signals, timeout_ms=_optional_ms(timeout), id=_optional_id(id))

    @overload
    def start(
        self,
        workflow: Workflow[None, Out],
        input: None = None,
        *,
        id: str | None = None,
        detached: bool = False,
    ) -> Coroutine[None, None, Handle[Out]]: ...
    @overload
    def start(
        self, workflow: Workflow[In, Out], input: In, *, id: str | None = None, detached: bool = False
    ) -> Coroutine[None, None, Handle[Out]]: ...
    def start(
        self,
        workflow: Workflow[Never, Out],
        input: object = None,
        *,
        id: str | None = None,
        detached: bool = False,
    ) -> Coroutine[None, None, Handle[Out]]:
        """A child execution, started once. It is cancelled with this one, unless it is `detached`.

        Raises:
            InvalidInput: the input does not validate, or the id is hostile or reserved.
        """
        return self._runtime.start(workflow, input, id=_optional_id(id), detached=detached)

    @overload
    def run(
        self, workflow: Workflow[None, Out], input: None = None, *, id: str | None = None
    ) -> Coroutine[None, None, Out]: ...
    @overload
    def run(
        self, workflow: Workflow[In, Out], input: In, *, id: str | None = None
    ) -> Coroutine[None, None, Out]: ...
    def run(
        self, workflow: Workflow[Never, Out], input: object = None, *, id: str | None = None
    ) -> Coroutine[None, None, Out]:
        """Start a child and wait for its result.

        Raises:
            ExecutionFailed: the child ended as failed.
            ExecutionCancelled: the child ended as cancelled.
            CompensationFailed: the child could not be rolled back.
            InvalidInput: as `start`.
        """
        return self._runtime.run(workflow, input, id=_optional_id(id))

    @overload
    def wait_for(self, handle: Handle[T], *, timeout: None = None) -> Coroutine[None, None, T]: ...
    @overload
    def wait_for(
        self, handle: Handle[T], *, timeout: Duration
    ) -> Coroutine[None, None, Completed[T] | TimedOut]: ...
    def wait_for(self, handle: Handle[Any], *, timeout: Duration | None = None) -> Coroutine[None, None, Any]:
        """The result of another execution; with a timeout, `Completed` or `TimedOut`, which leaves it alone.

        Raises:
            ExecutionFailed: it ended as failed.
            ExecutionCancelled: it ended as cancelled.
            CompensationFailed: it could not be rolled back.
            ExecutionNotFound: there is no such execution.
            InvalidInput: the timeout is no duration.
        """
        outcome = self._runtime.wait_for(handle, timeout_ms=_optional_ms(timeout))
        return _value(outcome) if timeout is None else outcome

    @overload
    def handle(self, execution_id: str, workflow: None = None) -> Handle[object]: ...
    @overload
    def handle(self, execution_id: str, workflow: Workflow[Never, Out]) -> Handle[Out]: ...
    def handle(self, execution_id: str, workflow: AnyWorkflow | None = None) -> Handle[Any]:
        """A handle of an execution that was started elsewhere, to signal it or to wait for it."""
        return self._runtime.handle(check_name(execution_id, "the id of an execution"), workflow)

    @overload
    def emit(
        self, event: Event[None], payload: None = None, *, id: str | None = None
    ) -> Coroutine[None, None, None]: ...
    @overload
    def emit(self, event: Event[T], payload: T, *, id: str | None = None) -> Coroutine[None, None, None]: ...
    def emit(
        self, event: Event[Any], payload: object = None, *, id: str | None = None
    ) -> Coroutine[None, None, None]:
        """Send an event to whomever it concerns, once, however often the workflow replays.

        Raises:
            InvalidInput: the payload does not validate, or the id is hostile or reserved.
        """
        return self._runtime.emit(event, payload, id=_optional_id(id))

    def note(self, text: str, /, **details: object) -> Coroutine[None, None, None]:
        """Write an audit entry, once: `await ctx.note("checked by hand", by="ada")`."""
        return self._runtime.note(text, details)

    def set_value(self, name: str, value: object) -> Coroutine[None, None, None]:
        """Show a value to the outside, where `handle.value(name)` reads it.

        Raises:
            InvalidInput: the name is hostile or reserved.
        """
        return self._runtime.set_value(check_own_name(name, "the name of a value"), value)

    def rollback(self) -> Coroutine[None, None, None]:
        """Run the compensations of the completed steps, newest first, each once. A second call does nothing.

        Nothing is retried afterwards. A compensation that uses up its attempts ends the execution as
        `compensation_failed`.
        """
        return self._runtime.rollback()

    def saga(self) -> AbstractAsyncContextManager[None, None]:
        """A block that is undone as a whole: an exception that leaves it runs its compensations first."""
        # It swallows nothing: with that a checker sees that nothing follows a `return` inside of the block.
        return cast("AbstractAsyncContextManager[None, None]", self._runtime.saga())

    def patched(self, change: str) -> bool:
        """Whether this execution takes the changed code: not if it was past this point before the change.

        Raises:
            InvalidInput: the name of the change is hostile or reserved.
        """
        return self._runtime.patched(check_own_name(change, "the name of a change"))

    def continue_as_new(self, input: object = None) -> NoReturn:
        """End this execution and start the next of the chain: same id, same unread signals, no history."""
        self._runtime.continue_as_new(input)

    def bail(self, reason: str = "") -> NoReturn:
        """End as cancelled, for that reason. Nothing is retried."""
        self._runtime.bail(reason)


def _branch_name(key: object) -> str:
    if isinstance(key, Enum):
        return key.value if isinstance(key.value, str) else key.name
    return str(key)


def _optional_ms(timeout: Duration | None) -> int | None:
    return None if timeout is None else to_ms(timeout, what="timeout")


def _optional_id(id: str | None) -> str | None:
    return None if id is None else check_own_name(id, "an id")


async def _payload(outcome: Coroutine[None, None, Received[Any] | TimedOut]) -> Any:
    received = await outcome
    # A wait that timed out stays so when a later version of the code gives it no timeout.
    return received.payload if isinstance(received, Received) else received


async def _value(outcome: Coroutine[None, None, Completed[Any] | TimedOut]) -> Any:
    completed = await outcome
    return completed.value if isinstance(completed, Completed) else completed
