"""Where in a body's code an operation is called, for people who are to find it."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, CoroutineType, FrameType
from typing import Any, Final

from durable.engine.branch import Branch, current_branch
from durable.workflow import AnyWorkflow

_ENGINE: Final = Path(__file__).parent
_NOT_THE_BODY: Final = tuple(
    str(path)
    for path in (
        _ENGINE,
        _ENGINE.with_name("context.py"),
        _ENGINE.with_name("builder.py"),
        Path(asyncio.__file__).parent,
        "<frozen",
    )
)


def call_site(workflow: AnyWorkflow) -> str:
    """File and line of the body's own code that the running task stands at, as `app.py:41`.

    For an operation that runs in a task of its own, that is where the body awaits it.
    """
    for code, line in _frames():
        if not code.co_filename.startswith(_NOT_THE_BODY):
            return f"{code.co_filename}:{line}"
    code = inspect.unwrap(workflow.fn).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _frames() -> Iterator[tuple[CodeType, int]]:
    """The innermost first: what runs, up to the loop; then what waits for it."""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - there is no other way
    while frame is not None and frame.f_code.co_qualname != Branch.shell.__qualname__:
        yield frame.f_code, frame.f_lineno
        frame = frame.f_back
    branch = current_branch()
    while branch is not None and (branch := branch.parent) is not None:
        if branch.task is not None:
            yield from reversed(list(_awaited(branch.task.get_coro())))


def _awaited(coro: Any) -> Iterator[tuple[CodeType, int]]:
    """The frames of a coroutine that is suspended, the outermost first."""
    while isinstance(coro, CoroutineType):
        frame: FrameType | None = coro.cr_frame
        if frame is not None:
            yield frame.f_code, frame.f_lineno
        coro = coro.cr_await
