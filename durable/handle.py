"""Handles: executions that were started, as the code that wants something of them sees them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Generic, Protocol, final, overload

from typing_extensions import TypeVar, override

from durable.duration import Duration, to_ms
from durable.models import Execution
from durable.names import check_key, check_name, check_own_name
from durable.signals import Signal
from durable.workflow import AnyWorkflow

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class Remote(Protocol):
    """What reaches an execution by its id. A client and a running workflow body each have their own."""

    def result(
        self, execution_id: str, workflow: AnyWorkflow | None, *, timeout_ms: int | None
    ) -> Coroutine[None, None, Any]: ...

    def signal(
        self,
        execution_id: str,
        signal: Signal[Any],
        payload: object,
        *,
        key: str | None,
        connection: object = None,
    ) -> Coroutine[None, None, None]: ...

    def cancel(self, execution_id: str, reason: str, *, by: str = "") -> Coroutine[None, None, None]: ...

    def status(self, execution_id: str) -> Coroutine[None, None, Execution]: ...

    def value(self, execution_id: str, name: str) -> Coroutine[None, None, object]: ...


@final
class Handle(Generic[R_co]):
    """An execution that will give an `R`. It holds an id and no connection: make as many as you like.

    Every method but `result` raises `ExecutionNotFound` when there is no such execution (any more).

    Raises:
        InvalidInput: the id is none that an execution can have.
    """

    def __init__(
        self, remote: Remote, id: str, workflow: AnyWorkflow | None = None, *, created: bool = False
    ) -> None:
        self._remote = remote
        self.id = check_name(id, "the id of an execution")
        self.workflow = workflow
        """What it runs, where that is known."""
        self.created = created
        """Whether the call that gave this handle made the execution: false when its key was taken."""

    def result(self, timeout: Duration | None = None) -> Coroutine[None, None, R_co]:
        """The result, as soon as there is one.

        Raises:
            WaitTimeout: it did not come in time. The execution goes on.
            ExecutionFailed: it ended as failed.
            ExecutionCancelled: it ended as cancelled.
            CompensationFailed: it could not be rolled back.
            ExecutionNotFound: there is no such execution.
        """
        timeout_ms = None if timeout is None else to_ms(timeout, what="timeout")
        return self._remote.result(self.id, self.workflow, timeout_ms=timeout_ms)

    def wait(self, timeout: Duration | None = None) -> Coroutine[None, None, R_co]:
        """The same as `result`."""
        return self.result(timeout)

    @overload
    def signal(
        self,
        signal: Signal[None],
        payload: None = None,
        *,
        key: str | None = None,
        connection: object = None,
    ) -> Coroutine[None, None, None]: ...
    @overload
    def signal(
        self, signal: Signal[T], payload: T, *, key: str | None = None, connection: object = None
    ) -> Coroutine[None, None, None]: ...
    def signal(
        self,
        signal: Signal[Any],
        payload: object = None,
        *,
        key: str | None = None,
        connection: object = None,
    ) -> Coroutine[None, None, None]:
        """Send it a signal. It is stored when this returns, and given to one wait, in the order of arrival.

        A signal that is sent again with the same `key` counts once. With a `connection` of the store's database, in a
        transaction of yours, it is stored if that commits (see `Durable.start`).

        Raises:
            InvalidInput: the payload does not validate, the key is not printable, or the connection takes no part.
            ConfigurationError: the store takes part in no transactions, or this is a handle of a workflow's body.
            ExecutionClosed: the execution has ended.
        """
        checked_key = None if key is None else check_key(key)
        return self._remote.signal(self.id, signal, payload, key=checked_key, connection=connection)

    def cancel(self, reason: str = "", *, by: str = "") -> Coroutine[None, None, None]:
        """Ask it to end as cancelled. The first reason is kept, with who gave it (`by`); one that has ended is left
        alone."""
        return self._remote.cancel(self.id, reason, by=by)

    def status(self) -> Coroutine[None, None, Execution]:
        """Where it is now."""
        return self._remote.status(self.id)

    def value(self, name: str) -> Coroutine[None, None, object]:
        """What its body last set with `ctx.set_value(name, ...)`, as plain JSON; None before that."""
        return self._remote.value(self.id, check_own_name(name, "the name of a value"))

    @override
    def __repr__(self) -> str:
        return f"<handle of execution {self.id}>"
