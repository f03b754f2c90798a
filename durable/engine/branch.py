"""Branches: which asyncio task of a body asks, under which path, and whether any of them can still move by itself.

A body may use plain asyncio (`gather`, `TaskGroup`, `create_task`, timeouts). Each task that it creates becomes a
branch with a path of its own, given by the order of creation within its parent, so that checkpoint keys do not depend
on the order in which tasks happen to run:

    charge          in the body itself             #1/charge      in the first task that it created
    charge#2        the second use there           #1.2/charge    in the second task that that one created

The path comes from a context variable that the loop's task factory sets; every other task on the loop is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from pathlib import Path
from types import CodeType
from typing import Any, Protocol, TypeVar, cast, final

from durable.steps import STEP

log = logging.getLogger("durable.engine")

AnyTask = asyncio.Task[Any]
_MOST_AWAITS = 100
_OURS = (str(Path(__file__).parent), str(Path(__file__).parent.with_name("context.py")))
_RUN_THE_BODY_ON = ("gather", "_switch")
T = TypeVar("T")


class PutAside(BaseException):
    """Ends the coroutines of a body that is not needed in memory any more. No `Exception`, no cancellation; and no
    `GeneratorExit`, which an async generator in between would not pass on."""


class Owner(Protocol):
    """The run that branches belong to."""

    @property
    def live(self) -> bool: ...

    def adopt(self, branch: Branch) -> None:
        """A task of the body exists from now on; `branch.task` is it."""
        ...


@final
class Branch:
    """One task of a body: its path, the names used on it, and the time that it has reached."""

    __slots__ = (
        "_body",
        "_closed",
        "_created",
        "_used",
        "calls",
        "context",
        "owner",
        "parent",
        "path",
        "prefix",
        "task",
        "time",
    )

    def __init__(self, owner: Owner, path: str, parent: Branch | None, time: int) -> None:
        self.owner = owner
        self.path = path
        self.parent = parent
        self.time = time
        """Milliseconds: when the last thing that this branch has seen happened."""
        self.context: Context = copy_context()
        self.context.run(_current.set, self)
        self.task: AnyTask | None = None
        self._body: Coroutine[Any, Any, Any] | None = None
        self._closed = False
        self.prefix = f"{path}/" if path else ""
        self._used: dict[str, int] = {}
        self._created = 0
        self.calls = 0
        """How many names and paths it has given away."""

    def key(self, name: str) -> str:
        """The key of the next checkpoint called `name` in this branch: `name`, then `name#2`, `name#3` ..."""
        self.calls += 1
        used = self._used.get(name, 0) + 1
        self._used[name] = used
        if used == 1:
            return self.prefix + name
        key = f"{name}#{used}"
        if key in self._used:  # somebody called a step "charge#2"
            return self.key(name)
        self._used[key] = 1
        return self.prefix + key

    @property
    def keys(self) -> list[str]:
        """Of every operation that was called in this branch, also of one that never ran."""
        return [self.prefix + local for local in self._used]

    def fork(self, coro: object) -> Branch:
        """The branch of a task that this one creates to run `coro`."""
        if _is_one_operation(coro):  # it has its key already, and its task needs no path
            return Branch(self.owner, f"{self.path}#", self, self.time)
        self.calls += 1
        self._created += 1
        number = str(self._created)
        return Branch(self.owner, f"{self.path}.{number}" if self.path else f"#{number}", self, self.time)

    def saw(self, time: int) -> None:
        """Something that happened at `time` is known to this branch."""
        if time > self.time:
            self.time = time

    def start(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `coro` as this branch's task."""
        body = self.enclose(coro)
        task = asyncio.Task(body, loop=asyncio.get_running_loop(), context=self.context)
        self.is_run_by(task)
        return task

    def enclose(self, coro: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """`coro`, in a shell that lets its task end as cancelled after `close`."""
        self._body = coro
        return self.shell(coro)

    async def shell(self, coro: Coroutine[Any, Any, T]) -> T:
        try:
            return await coro
        except BaseException:
            if self.owner.live and not self._closed:
                raise
            raise asyncio.CancelledError from None

    def is_run_by(self, task: AnyTask) -> None:
        self.task = task
        self.owner.adopt(self)

    def is_over(self) -> None:
        """Its task has ended. Its context, which knows this branch, is let go: both would wait for the collector."""
        self.context, self.task, self._body = _NO_CONTEXT, None, None

    def close(self) -> bool:
        """End the coroutine, which does not run now: its `finally` blocks run. False: it would not end."""
        self._closed = True
        body = cast("Coroutine[Any, Any, Any]", self._body)
        for _ in range(_MOST_AWAITS):  # each await in a `finally` takes another round
            try:
                self.context.run(body.throw, PutAside())
            except BaseException as ended:
                if not isinstance(ended, PutAside | StopIteration):
                    log.debug("a body raised while it was put aside", exc_info=True)
                return True
        log.warning(
            "a body swallows whatever should end it, and stays in memory: is there an `except:` in a loop?"
        )
        _UNCLOSED.append(self)
        if (
            self.task is not None
        ):  # it would keep the loop from closing, as it does not end when it is cancelled
            asyncio.tasks._unregister_task(self.task)
        return False


_NO_CONTEXT = Context()
_UNCLOSED: list[Branch] = []
"""Kept, because the garbage collector would only try to close them once more."""
_current: ContextVar[Branch | None] = ContextVar("durable.branch", default=None)


def current_branch() -> Branch | None:
    """The branch that is running, None outside of a workflow body."""
    return _current.get()


def _is_one_operation(coro: object) -> bool:
    """Whether `coro` is an operation of `ctx`, whose key was allocated when it was called, and no code of the body."""
    code: CodeType | None = getattr(coro, "cr_code", None)
    if code is None:
        return type(coro).__module__ == "durable.builder"
    return code.co_filename.startswith(_OURS) and code.co_name not in _RUN_THE_BODY_ON


def is_about_to_run(task: AnyTask) -> bool:
    future = cast("asyncio.Future[Any] | None", getattr(task, "_fut_waiter", None))
    return future is None or future.done()


def blocked_on_children(task: AnyTask, tasks: set[AnyTask]) -> bool:
    """Whether `task` only waits for others of `tasks` (through `await`, gather, wait, wait_for,
    shield or a TaskGroup).

    Anything else that it may be waiting for (a plain `asyncio.sleep`, a socket) can move it without our knowing.
    """
    future = cast("asyncio.Future[Any]", getattr(task, "_fut_waiter", None))
    if is_about_to_run(task):
        return False
    if isinstance(future, asyncio.Task):
        return future in tasks
    children = cast("list[asyncio.Future[Any]] | None", getattr(future, "_children", None))
    if children is not None:  # what asyncio.gather waits for
        return all(child.done() or child in tasks for child in children)
    callbacks: list[tuple[Any, Context]] = getattr(future, "_callbacks", None) or []
    if any(getattr(callback, "__qualname__", "").startswith("shield.") for callback, _ in callbacks):
        return True
    innermost: Any = task.get_coro()
    while hasattr(getattr(innermost, "cr_await", None), "cr_code"):
        innermost = innermost.cr_await
    code = getattr(innermost, "cr_code", None)
    return code is not None and code.co_qualname in _WAITS_FOR_TASKS


_WAITS_FOR_TASKS = frozenset({"TaskGroup.__aexit__", "TaskGroup._aexit", "_wait", "wait_for"})

_Factory = Callable[..., "asyncio.Future[Any]"]


@final
class _BranchFactory:
    """A loop's task factory that gives the tasks of workflow bodies their branch, and others to what was there."""

    def __init__(self, previous: _Factory | None) -> None:
        self.previous = previous
        self.users = 0

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Any, *, context: Context | None = None, **options: Any
    ) -> Any:
        parent = _current.get() if context is None else context.get(_current)
        if parent is None or not parent.owner.live or STEP.get(None) is not None:
            if context is not None:
                options["context"] = context
            return self._make(loop, coro, **options)
        branch = (context or copy_context()).run(parent.fork, coro)
        task = self._make(loop, branch.enclose(coro), context=branch.context, **options)
        branch.is_run_by(task)
        return task

    def _make(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        if self.previous is not None:
            return self.previous(loop, coro, **options)
        return asyncio.Task(coro, loop=loop, **options)


def install(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Give the tasks of workflow bodies on `loop` their branches, until the returned function is called."""
    found = cast("object", loop.get_task_factory())
    factory = found if isinstance(found, _BranchFactory) else _BranchFactory(cast("_Factory | None", found))
    if factory is not found:
        loop.set_task_factory(factory)
    factory.users += 1

    def uninstall() -> None:
        factory.users -= 1
        if factory.users == 0 and loop.get_task_factory() is factory:
            loop.set_task_factory(cast("Any", factory.previous))

    return uninstall
