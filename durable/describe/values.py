"""What an expression of a body is known to be, before anything has run."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast, final

from durable.signals import Event, Signal
from durable.steps import Step
from durable.workflow import Workflow

if TYPE_CHECKING:
    from durable.describe.drafts import Draft, Exits

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Scope(Protocol):
    """Where a name that is not a function's own is looked up."""

    @property
    def file(self) -> str: ...

    def lookup(self, name: str) -> Value | None: ...


@dataclass(frozen=True, slots=True)
class Value:
    """Anything at all; nothing is known of it."""


UNKNOWN = Value()


@final
@dataclass(frozen=True, slots=True)
class Known(Value):
    """An object that exists: a constant, or what a global or a closure holds while the source is read."""

    it: object


@final
@dataclass(frozen=True, slots=True)
class Pattern(Value):
    """A text of which parts are known: `f"charge-{index}"`."""

    text: str
    regex: str


@final
@dataclass(frozen=True, slots=True)
class TheContext(Value):
    """`ctx`, under whatever name."""


@final
@dataclass(frozen=True, slots=True)
class Attribute(Value):
    """`owner.name`, of an owner that has operations: a context, a handle, a task group, a call that is built."""

    owner: Value
    name: str


@final
@dataclass(frozen=True, slots=True, eq=False)
class Function(Value):
    """A function whose source is at hand."""

    node: FunctionNode
    scope: Scope
    owner: Value | None = None
    """What a method is bound to."""
    is_context_manager: bool = False
    defaults: Mapping[str, Value] = field(default_factory=dict["str", "Value"])


@final
@dataclass(frozen=True, slots=True, eq=False)
class Class(Value):
    """A class whose source is at hand, where there is no such object."""

    node: ast.ClassDef
    scope: Scope


@final
@dataclass(frozen=True, slots=True, eq=False)
class Module(Value):
    """A module whose source is at hand, where there is no such object."""

    scope: Scope


@final
@dataclass(frozen=True, slots=True, eq=False)
class Instance(Value):
    """What a class gave that was called with a context."""

    kind: Value
    attributes: dict[str, Value]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Partial(Value):
    fn: Value
    args: tuple[Value, ...]
    kwargs: Mapping[str, Value]


@final
@dataclass(frozen=True, slots=True)
class Items(Value):
    """A list or a tuple, by its items."""

    items: tuple[Value, ...]


@final
@dataclass(frozen=True, slots=True)
class Table(Value):
    """A dictionary, by its items."""

    pairs: tuple[tuple[Value, Value], ...]


@final
@dataclass(frozen=True, slots=True)
class OneOf(Value):
    """One of several, and which is not known."""

    values: tuple[Value, ...]


@final
@dataclass(slots=True, eq=False)
class StepFacts:
    """What is known of an `@step`."""

    name: str
    has_compensation: bool = False
    timeout: str | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class AStep(Value):
    facts: StepFacts


@final
@dataclass(frozen=True, slots=True, eq=False)
class AWorkflow(Value):
    name: str
    fn: Value


@final
@dataclass(frozen=True, slots=True)
class Topic(Value):
    """A signal or an event."""

    kind: Literal["signal", "event"]
    name: str


@final
@dataclass(frozen=True, slots=True)
class ABranch(Value):
    """One branch of a switch."""

    name: Value
    fn: Value


@final
@dataclass(frozen=True, slots=True)
class AHandle(Value):
    """Another execution's handle."""

    workflow: str | None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Builder(Value):
    """`ctx.step("label", timeout="10s")`, before `.up(...)`."""

    call: ast.Call
    name: Value
    timeout: str | None


@final
@dataclass(frozen=True, slots=True)
class Saga(Value):
    """What `ctx.saga()` gave."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class TaskGroup(Value):
    """`asyncio.TaskGroup()`: `ends` are those of the tasks that it was given."""

    ends: Exits


@final
@dataclass(frozen=True, slots=True, eq=False)
class ATask(Value):
    """A task that runs beside what comes after: `ends` are its own."""

    ends: Exits
    result: Value


@final
@dataclass(frozen=True, slots=True)
class Patched(Value):
    """What `ctx.patched(...)` gave at the decision `draft`."""

    draft: Draft
    negated: bool = False


@final
@dataclass(frozen=True, slots=True, eq=False)
class Pending(Value):
    """A coroutine that nothing has awaited yet; `loops` are those it was made in."""

    run: Callable[[], Value]
    loops: tuple[Draft, ...]
    facts: StepFacts | None = None
    state: list[Value] = field(default_factory=list["Value"])
    """Its result, once it has been walked through."""


def known_text(value: Value) -> str | None:
    """The text that `value` is, as a name: that of a text enumeration's member too."""
    if isinstance(value, Known) and isinstance(value.it, str):
        return str.__str__(value.it)
    return None


def step_facts(value: Value) -> StepFacts | None:
    """What is known of a step, if it is one."""
    if isinstance(value, AStep):
        return value.facts
    it = value.it if isinstance(value, Known) else None
    if isinstance(it, Step):
        step = cast("Step[..., object]", it)
        timeout = None if step.timeout_ms is None else duration_text(timedelta(milliseconds=step.timeout_ms))
        return StepFacts(step.name, step.compensation is not None, timeout)
    return None


def workflow_name(value: Value) -> str | None:
    """The name of a workflow, if it is one."""
    if isinstance(value, AWorkflow):
        return value.name
    it = value.it if isinstance(value, Known) else None
    if isinstance(it, Workflow):
        return cast("Workflow[object, object]", it).name
    return None


def topic(value: Value, kind: Literal["signal", "event"]) -> str | None:
    """The name of a signal or of an event, if it is one of that kind."""
    if isinstance(value, Topic) and value.kind == kind:
        return value.name
    wanted = Signal if kind == "signal" else Event
    it = value.it if isinstance(value, Known) else None
    if isinstance(it, wanted):
        return cast("Signal[object]", it).name
    return None


def duration_text(value: object) -> str | None:
    """A duration as people write it; None if it is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, timedelta):
        ms = value // timedelta(milliseconds=1)
        for unit, size in (
            ("w", 604_800_000),
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1000),
        ):
            if ms and ms % size == 0:
                return f"{ms // size}{unit}"
        return f"{ms}ms" if ms else "0s"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}s"
    return None


def branch_label(key: object) -> str:
    """How `ctx.switch` names the branch of a key."""
    if isinstance(key, Enum):
        value: object = key.value
        return value if isinstance(value, str) else key.name
    return str(key) if isinstance(key, str | int | float | bool | None) else type(key).__name__


def parts(value: Value) -> Iterable[Value]:
    """What a value consists of."""
    match value:
        case Items(items) | OneOf(items):
            return items
        case Table(pairs):
            return [part for pair in pairs for part in pair]
        case Partial(fn, args, kwargs):
            return [fn, *args, *kwargs.values()]
        case Instance(attributes=attributes):
            return list(attributes.values())
        case Attribute(owner):
            return [owner]
        case ABranch(fn=fn):
            return [fn]
        case Function(owner=Value() as owner):
            return [owner]
        case Known(it) if type(it) in (list, tuple) and len(cast("list[object]", it)) <= MOST_ITEMS:
            return [Known(item) for item in cast("list[object]", it)]
        case _:
            return ()


MOST_ITEMS = 50


def holds(value: Value, kinds: tuple[type[Value], ...], depth: int = 5) -> bool:
    """Whether it is one of `kinds`, or has one in it."""
    if isinstance(value, kinds):
        return True
    return depth > 0 and any(holds(part, kinds, depth - 1) for part in parts(value))


def joined(values: Iterable[Value]) -> Value:
    """What a value is that may be any of these. A context that may also be None is a context."""
    distinct: list[Value] = []
    for value in values:
        for each in value.values if isinstance(value, OneOf) else (value,):
            if not any(same(each, other) for other in distinct):
                distinct.append(each)
    for each in distinct:
        if holds(each, (TheContext,)):
            return each
    if not distinct or type(distinct[0]) is Value or len(distinct) > MOST_ITEMS:
        return UNKNOWN
    if any(type(each) is Value for each in distinct):
        return UNKNOWN
    if len(distinct) > 1 and all(isinstance(each, Items) for each in distinct):  # a list that grows
        return Items(tuple(dict.fromkeys(item for each in distinct for item in parts(each))))
    return distinct[0] if len(distinct) == 1 else OneOf(tuple(distinct))


def same(one: Value, other: Value) -> bool:
    """Whether two values are known to be one. Objects are so by identity: what users compare by is not asked."""
    if isinstance(one, Known) and isinstance(other, Known):
        plain = isinstance(one.it, str | int | float | bool | None) and type(one.it) is type(other.it)
        return one.it is other.it or (plain and one.it == other.it)
    return one is other or (type(one) is type(other) and not isinstance(one, Known) and _equal(one, other))


def _equal(one: Value, other: Value) -> bool:
    if isinstance(one, Items | Table | OneOf) or isinstance(other, Items | Table | OneOf):
        return False
    return one == other
