"""The one port between what authors call (`Context`) and what makes it durable (the engine).

`Context` checks names and durations, the runtime does the rest. Every method is a plain `def`: it allocates
the checkpoint's key at the call, in the caller's branch, and returns a coroutine that does the work. So the
keys follow from the order of the calls, whatever the order in which branches happen to run.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, Protocol
from uuid import UUID

from durable.handle import Handle
from durable.matching import Match
from durable.models import Cause
from durable.retry import Retry
from durable.signals import Completed, Event, Received, Signal, TimedOut
from durable.workflow import AnyWorkflow


@dataclass(slots=True, eq=False)
class StepCall:
    """One call of a step, as the body asked for it.

    `undo` may still be set until the coroutine that `Runtime.step` gave for the call is first awaited, by
    `ctx.step(...).up(...).down(...)`; the runtime reads it from there on. Nothing else changes.
    """

    name: str
    """The checkpoint's name, before any `#n`."""
    fn: Callable[..., object]
    """The function itself, never a `Step`. It may be sync, and give an awaitable all the same."""
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    fn_name: str
    """What is recorded, and compared on replay, to notice that the code asks for another function."""
    retry: Retry | None = None
    """None: the step is tried once."""
    timeout_ms: int | None = None
    """Of each try."""
    undo: Callable[..., object] | None = None
    """The compensation; it takes what the step returned."""
    limit: str | None = None
    """The named limit that each try passes before it begins."""
    in_transaction: bool = False
    """`fn` takes a connection first, in a transaction that stores the checkpoint too."""


class Runtime(Protocol):
    """What an attempt gives the workflow's body, through `Context`. Names and durations are checked."""

    @property
    def execution_id(self) -> str: ...
    @property
    def workflow_name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def events(self) -> Sequence[Cause]: ...
    @property
    def deps(self) -> object: ...
    @property
    def is_replaying(self) -> bool: ...
    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]: ...
    @property
    def random(self) -> random.Random: ...

    def now(self) -> datetime: ...

    def uuid4(self) -> UUID: ...

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]: ...

    def map(self, id: str, calls: Sequence[StepCall], limit: int | None) -> Coroutine[Any, Any, list[Any]]:
        """The results in the order of `calls`, which are named `id[0]`, `id[1]` ..."""
        ...

    def gather(
        self, branches: Sequence[Awaitable[Any]], *, return_exceptions: bool
    ) -> Coroutine[Any, Any, list[Any]]:
        """The results in the order of `branches`, as `asyncio.gather` gives them."""
        ...

    def switch(
        self,
        id: str,
        value: object,
        choose: Callable[[], str | None],
        branches: Mapping[str, Callable[[], object]],
        default: Callable[[], object] | None,
    ) -> Coroutine[Any, Any, Any]:
        """What the chosen branch gives.

        `choose` names the branch, None when none matches; it is called once in the life of the execution.
        `value` is what it looks at, for the text of `NoMatchingBranch`.
        """
        ...

    def sleep(
        self, *, delay_ms: int | None, until_ms: int | None, id: str | None
    ) -> Coroutine[Any, Any, None]:
        """Exactly one of `delay_ms` and `until_ms` is given."""
        ...

    def wait(
        self, signals: Sequence[Signal[Any]], *, timeout_ms: int | None, id: str | None
    ) -> Coroutine[Any, Any, Received[Any] | TimedOut]: ...

    def wait_for_event(
        self,
        event: Event[Any],
        *,
        match: Match,
        timeout_ms: int | None,
        lookback_ms: int | None,
        id: str | None,
    ) -> Coroutine[Any, Any, Received[Any] | TimedOut]:
        """`lookback_ms`: how old an event may be, None: as old as this execution."""
        ...

    def start(
        self, workflow: AnyWorkflow, input: object, *, id: str | None, detached: bool
    ) -> Coroutine[Any, Any, Handle[Any]]: ...

    def run(self, workflow: AnyWorkflow, input: object, *, id: str | None) -> Coroutine[Any, Any, Any]: ...

    def wait_for(
        self, handle: Handle[Any], *, timeout_ms: int | None
    ) -> Coroutine[Any, Any, Completed[Any] | TimedOut]: ...

    def handle(self, execution_id: str, workflow: AnyWorkflow | None) -> Handle[Any]: ...

    def emit(self, event: Event[Any], payload: object, *, id: str | None) -> Coroutine[Any, Any, None]: ...

    def note(self, text: str, details: Mapping[str, object]) -> Coroutine[Any, Any, None]: ...

    def set_value(self, name: str, value: object) -> Coroutine[Any, Any, None]: ...

    def rollback(self) -> Coroutine[Any, Any, None]: ...

    def saga(self) -> AbstractAsyncContextManager[None]:
        """It swallows no exception."""
        ...

    def patched(self, change: str) -> bool: ...

    def continue_as_new(self, input: object) -> NoReturn: ...

    def bail(self, reason: str) -> NoReturn: ...
