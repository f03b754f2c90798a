"""From a function that exists to its source, and from a name in it to what the name means.

Nothing is called, imported or computed on the way: attributes are looked up as `inspect.getattr_static` does.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import inspect
import linecache
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, EnumType
from functools import lru_cache
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, cast, final

from durable.describe.values import UNKNOWN, Function, FunctionNode, Known, Partial, TheContext, Value
from durable.steps import Step

_CONTEXTLIB: Final = contextlib.__file__
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})


@final
@dataclass(frozen=True, slots=True, eq=False)
class LiveScope:
    """The globals and the closure of a function that exists."""

    fn: Any

    @property
    def file(self) -> str:
        return cast("CodeType", self.fn.__code__).co_filename

    def lookup(self, name: str) -> Value | None:
        code = self.fn.__code__
        if name in code.co_freevars and self.fn.__closure__ is not None:
            try:
                return known(self.fn.__closure__[code.co_freevars.index(name)].cell_contents)
            except ValueError:  # it is empty still
                return UNKNOWN
        names = cast("Mapping[str, object]", self.fn.__globals__)
        return known(names[name]) if name in names else builtin(name)


def builtin(name: str) -> Value | None:
    """What every module has under a name."""
    return Known(vars(builtins)[name]) if name in vars(builtins) else None


def known(it: object) -> Value:
    """A value for an object that exists."""
    if isinstance(it, functools.partial):
        part = cast("functools.partial[object]", it)
        kwargs = {name: known(value) for name, value in part.keywords.items()}
        return Partial(known(part.func), tuple(map(known, part.args)), kwargs)
    return Known(it)


def live_function(it: object) -> Function | None:
    """The source of a function or a method that exists; None where there is none."""
    owner: Value | None = None
    is_context_manager = False
    while True:
        if isinstance(it, MethodType):
            owner, it = Known(it.__self__), it.__func__
        elif isinstance(it, Step):
            it = cast("Step[..., object]", it).fn
        elif isinstance(it, FunctionType) and it.__code__.co_filename == _CONTEXTLIB:
            it, is_context_manager = vars(it).get("__wrapped__"), True
        elif not isinstance(it, FunctionType) and callable(it) and "__wrapped__" in _own(it):
            it = _own(it)["__wrapped__"]
        else:
            break
    if not isinstance(it, FunctionType):
        return None
    node = node_of(it.__code__)
    if node is None:
        return None
    return Function(node, LiveScope(it), owner, is_context_manager, _defaults(it, node))


def _own(it: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", getattr(it, "__dict__", {}))


def _defaults(fn: FunctionType, node: FunctionNode) -> dict[str, Value]:
    positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    values = fn.__defaults__ or ()
    found = dict(zip(positional[len(positional) - len(values) :], values, strict=True)) if values else {}
    found |= fn.__kwdefaults__ or {}
    return {name: known(value) for name, value in found.items()}


def node_of(code: CodeType) -> FunctionNode | None:
    """The part of a module's source that `code` was made of; None where there is no source, or another one now."""
    lines = linecache.getlines(code.co_filename)
    by_line = _functions("".join(lines)) if lines else {}
    candidates = [node for node in by_line.get(code.co_firstlineno, ()) if _name(node) == code.co_name]
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    return next((node for node in candidates if _is_made_of(code, node)), None)  # lambdas on one line


@lru_cache(maxsize=256)
def _functions(source: str) -> dict[int, list[FunctionNode]]:
    tree = parsed(source)
    found: dict[int, list[FunctionNode]] = {}
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found.setdefault(first, []).append(node)
        elif isinstance(node, ast.Lambda):
            found.setdefault(node.lineno, []).append(node)
    return found


def parsed(source: str) -> ast.Module | None:
    """The source as a tree; None if it is no Python, or none of this version."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _name(node: FunctionNode) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _is_made_of(code: CodeType, node: FunctionNode) -> bool:
    body = node.body if isinstance(node.body, ast.expr) else node.body[0]
    for line, end_line, column, _ in code.co_positions():
        if line and end_line and column and (line, column) >= (body.lineno, body.col_offset):
            last = node.body if isinstance(node.body, ast.expr) else node.body[-1]
            return (line, column) <= (last.end_lineno or line, last.end_col_offset or column)
    return False


def attribute(it: object, name: str) -> Value:
    """What `it.name` is, as far as that takes no code to find out."""
    if isinstance(it, ModuleType):
        return known(vars(it)[name]) if name in vars(it) else UNKNOWN
    if isinstance(it, EnumType):
        members = cast("Mapping[str, object]", it.__members__)
        return Known(members[name]) if name in members else UNKNOWN
    if isinstance(it, Enum) and name in ("value", "name"):
        return Known(vars(it)[f"_{name}_"])
    if isinstance(it, Step):
        step = cast("Step[..., object]", it)
        return Known({"name": step.name, "fn": step.fn}[name]) if name in ("name", "fn") else UNKNOWN
    try:
        found: object = inspect.getattr_static(it, name)
    except AttributeError:
        return TheContext() if _is_annotated_as_context(it, name) else UNKNOWN
    return bound(found, it)


def bound(found: object, owner: object) -> Value:
    """What a class holds, as an instance gives it."""
    is_class = isinstance(owner, type)
    if isinstance(found, staticmethod):
        return known(cast("staticmethod[..., object]", found).__func__)
    if isinstance(found, classmethod):
        kind = owner if is_class else type(owner)
        return Known(MethodType(cast("Callable[..., object]", cast("Any", found).__func__), kind))
    if isinstance(found, FunctionType):
        return Known(found if is_class else MethodType(found, owner))
    if isinstance(found, property | functools.cached_property) or inspect.isdatadescriptor(found):
        return UNKNOWN
    return known(found)


def _is_annotated_as_context(it: object, name: str) -> bool:
    kind: type = it if isinstance(it, type) else type(it)
    return any(is_context_annotation(inspect.get_annotations(base).get(name)) for base in kind.__mro__)


def is_context_annotation(annotation: object) -> bool:
    """Whether an annotation, as an object or as source, is that of a `Context`."""
    if isinstance(annotation, ast.expr):
        annotation = ast.unparse(annotation)
    if isinstance(annotation, str):
        return annotation.strip("'\"").partition("[")[0].rpartition(".")[2] == "Context"
    origin: object = getattr(annotation, "__origin__", annotation)
    return getattr(origin, "__name__", "") == "Context" and str(getattr(origin, "__module__", "")).startswith(
        "durable."
    )


def is_builtin(value: Value) -> bool:
    """Whether it is a part of Python that runs no code of the workflow's: `print`, `isinstance` ..."""
    if not isinstance(value, Known):
        return False
    if isinstance(value.it, BuiltinFunctionType):
        return True
    return isinstance(value.it, type) and value.it.__module__ == "builtins"


def is_of_python(it: object) -> bool:
    """Whether it is a part of the standard library."""
    module: object = getattr(it, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] in sys.stdlib_module_names


def is_of_strangers(it: object) -> bool:
    """Whether it is code of an installed package that knows nothing of durable: it can only hand the context on, to
    code that it finds by means which nobody follows."""
    while isinstance(it, MethodType | functools.partial):
        it = it.__func__ if isinstance(it, MethodType) else cast("functools.partial[object]", it).func
    code: CodeType | None = getattr(it, "__code__", None)
    if code is None or not _INSTALLED.intersection(Path(code.co_filename).parts):
        return False
    names = cast("Mapping[str, object]", getattr(it, "__globals__", {}))
    return not any(_top(value) == "durable" for value in names.values())


def _top(it: object) -> str:
    name: object = it.__name__ if isinstance(it, ModuleType) else getattr(it, "__module__", None)
    return name.partition(".")[0] if isinstance(name, str) else ""
