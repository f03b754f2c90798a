"""What a workflow's body must leave alone: data outside of it, and whatever differs on every replay."""

from __future__ import annotations

import dis
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Self, cast, final

from durable.engine.branch import current_branch
from durable.steps import STEP
from durable.workflow import AnyWorkflow

_NAMES: Final = {"LOAD_GLOBAL", "STORE_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "STORE_DEREF"}
_OURS: Final = str(Path(__file__).parents[1])
_TIME: Final = "ctx.now()"
_CHANCE: Final = "ctx.random"
_FICKLE: Final = {
    ("time", "time"): _TIME,
    ("time", "time_ns"): _TIME,
    ("time", "monotonic"): _TIME,
    ("time", "perf_counter"): _TIME,
    ("datetime", "now"): _TIME,
    ("datetime", "utcnow"): _TIME,
    ("date", "today"): _TIME,
    ("Random", "random"): _CHANCE,
    ("Random", "getrandbits"): _CHANCE,
    ("posix", "urandom"): "ctx.random or ctx.uuid4()",
}
"""By module or class and name: what gives the same on every replay instead."""


@final
class Bystanders:
    """Lists, dicts, sets and numbers outside of the workflows' bodies that these name. What a body changes there by
    itself, and not through a step, is changed again by a replay, and is not there for another process."""

    def __init__(self, workflows: Iterable[AnyWorkflow]) -> None:
        self._found = {
            name: read for workflow in workflows for name, read in _named_by(inspect.unwrap(workflow.fn))
        }
        self._sizes: dict[str, float] = {}
        self._in_bodies = 0
        self.changed: Counter[str] = Counter()
        """By how much each has changed while no step's body ran."""

    def begin(self) -> None:
        self._sizes = self._measured()

    def end(self) -> None:
        self._look(count=self._in_bodies == 0)

    def body(self, begins: bool) -> None:
        """A step's body begins or has ended: what is changed in there is its own affair."""
        self._look(count=self._in_bodies == 0)
        self._in_bodies = max(0, self._in_bodies + (1 if begins else -1))

    def lost(self) -> None:
        """The process died: no body of a step runs any more."""
        self._look(count=self._in_bodies == 0)
        self._in_bodies = 0

    def differences(self, plain: Bystanders) -> Iterator[str]:
        for name in sorted(self._found):
            if self.changed[name] != plain.changed[name]:
                yield (
                    f"the body changed `{name}`, which is outside of it, by {self.changed[name]:g} instead of "
                    f"{plain.changed[name]:g}: what is no step happens again on a replay, and is lost with its process"
                )

    def _look(self, *, count: bool) -> None:
        sizes = self._measured()
        if count:
            for name, size in sizes.items():
                self.changed[name] += cast("int", size - self._sizes.get(name, 0))
        self._sizes = sizes

    def _measured(self) -> dict[str, float]:
        sizes = {name: _size(read()) for name, read in self._found.items()}
        return {name: size for name, size in sizes.items() if size is not None}


def _size(value: object) -> float | None:
    if isinstance(value, list | dict | set | bytearray) or type(value).__name__ == "deque":
        return len(cast("list[object]", value))
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _named_by(fn: Callable[..., object]) -> Iterator[tuple[str, Callable[[], object]]]:
    """What a function's own code names outside of it; functions within it are others (steps, as a rule)."""
    code: CodeType | None = getattr(fn, "__code__", None)
    if code is None:
        return
    cells = dict(zip(code.co_freevars, getattr(fn, "__closure__", None) or (), strict=True))
    globals_: dict[str, Any] = getattr(fn, "__globals__", {})
    names = {str(each.argval) for each in dis.get_instructions(code) if each.opname in _NAMES}
    for name in sorted(names):
        if name in cells:
            yield name, partial(_content, cells[name])
        elif name in globals_:
            yield name, partial(globals_.get, name)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


@final
class Habits:
    """Notices, while it is entered, what the bodies of workflows ask for that would differ on a replay.

    What the code of a package in `trust` asks for, or has asked for, is let be.
    """

    def __init__(self, workflows: Iterable[AnyWorkflow], trust: Iterable[str] = ()) -> None:
        self._trust = frozenset(trust)
        self._codes = {inspect.unwrap(workflow.fn).__code__ for workflow in workflows}
        self.bad: list[str] = []
        """A sentence for each."""

    def __enter__(self) -> Self:
        self._previous = sys.getprofile()
        if self._previous is None:  # somebody who measures this process goes first
            sys.setprofile(self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is None:
            sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call":
            return
        owner = getattr(called, "__self__", None)
        name = getattr(owner, "__name__", None) or type(owner).__name__
        instead = _FICKLE.get((name, called.__name__))
        if instead is None or current_branch() is None or STEP.get(None) is not None:
            return
        caller: FrameType | None = frame
        while caller is not None and caller.f_code not in self._codes:
            package = str(caller.f_globals.get("__name__")).partition(".")[0]
            if caller.f_code.co_filename.startswith(_OURS) or package in self._trust:
                return
            caller = caller.f_back
        if caller is not None:
            where = f"{caller.f_code.co_filename}:{caller.f_lineno}"
            self.bad.append(
                f"the body calls {name}.{called.__name__}() at {where}, which differs on a replay: use {instead}, "
                f"or a step"
            )
