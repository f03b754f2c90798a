"""What stands around a place in the source: what names mean there, and where `return`, `break` and `raise` go."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, final

from durable.describe.drafts import Draft, Exit, Exits
from durable.describe.values import UNKNOWN, FunctionNode, Pending, Scope, Value, joined

Names: TypeAlias = dict[str, Value]


@final
@dataclass(slots=True, eq=False)
class OnYield:
    """What runs where a generator yields: the body of the loop, or of the `with`, that it was called for."""

    walk: Callable[[Value], None]
    done: bool = False


@final
class Frame:
    """One call of a function: its names, by what they are known to be at the place that is looked at."""

    def __init__(self, scope: Scope, node: FunctionNode | None) -> None:
        self.scope = scope
        self.names: Names = {}
        self.own = frozenset(bound_names(node)) if node is not None else frozenset[str]()
        self.shared = frozenset(_shared_names(node)) if node is not None else frozenset[str]()
        """Those that an inner function may change."""
        self.pending: list[Pending] = []
        self.on_yield: OnYield | None = None

    @property
    def file(self) -> str:
        return self.scope.file

    def lookup(self, name: str) -> Value | None:
        if name in self.names:
            return self.names[name]
        return UNKNOWN if name in self.own else self.scope.lookup(name)

    def bind(self, name: str, value: Value) -> None:
        self.names[name] = UNKNOWN if name in self.shared else value

    def merge(self, ways: list[Names]) -> None:
        """Several ways meet here: a name is what it is on each of them, if they agree."""
        names = {name: None for way in ways for name in way}
        self.names = {name: joined(way.get(name, UNKNOWN) for way in ways if name in way) for name in names}


def bound_names(node: ast.AST) -> Iterator[str]:
    """Names that a function, or a part of one, binds itself."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            yield argument.arg
        for star in (arguments.vararg, arguments.kwarg):
            if star is not None:
                yield star.arg
        outside = {
            name
            for part in _within(node)
            if isinstance(part, ast.Global | ast.Nonlocal)
            for name in part.names
        }
        yield from (name for part in _within(node) for name in _bound_by(part) if name not in outside)
        return
    for part in (node, *_within(node)):
        yield from _bound_by(part)


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """Its parts, and not those of functions and classes in it."""
    left = list(ast.iter_child_nodes(node))
    while left:
        part = left.pop()
        yield part
        if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            left += ast.iter_child_nodes(part)


def _bound_by(part: ast.AST) -> Iterator[str]:
    match part:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case _:
            return


def _shared_names(node: FunctionNode) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Nonlocal):
            yield from part.names


# ---- what jumps pass on their way


Jump: TypeAlias = Literal["return", "break", "continue", "raise", "leave"]
"""`leave` is that of `ctx.bail` and `ctx.continue_as_new`, which no `except Exception` sees."""


@final
@dataclass(slots=True, eq=False)
class Call:
    """The body of a function: `return` ends here."""

    returns: Exits = field(default_factory=list[Exit])
    values: list[Value] = field(default_factory=list[Value])


@final
@dataclass(slots=True, eq=False)
class Loop:
    """The body of a loop. `continue` goes to its head; to `continues`, where it has none of its own."""

    head: Draft | None
    continues: Exits = field(default_factory=list[Exit])
    breaks: Exits = field(default_factory=list[Exit])


@final
@dataclass(slots=True, eq=False)
class Try:
    """A block whose exceptions are caught: `raised` are the ways out of it by one."""

    raised: Exits = field(default_factory=list[Exit])
    is_saga: bool = False
    """It sees `ctx.bail` as well: `bailed` are the ways out of it by that."""
    bailed: Exits = field(default_factory=list[Exit])


@final
@dataclass(slots=True, eq=False)
class Finally:
    """A block that whoever leaves passes through what comes `finally`."""

    passing: list[tuple[Jump, Exits]] = field(default_factory=list["tuple[Jump, Exits]"])


Block: TypeAlias = Call | Loop | Try | Finally
