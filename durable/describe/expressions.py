"""What expressions are known to be. It follows names, attributes and displays, and calls nothing."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import cast

from durable.context import Branch
from durable.describe.frames import Frame
from durable.describe.source import attribute, bound, known, live_function
from durable.describe.values import (
    MOST_ITEMS,
    UNKNOWN,
    ABranch,
    AHandle,
    AStep,
    Attribute,
    Builder,
    Class,
    Function,
    Instance,
    Items,
    Known,
    Module,
    OneOf,
    Partial,
    Patched,
    Pattern,
    Pending,
    StepFacts,
    Table,
    TaskGroup,
    TheContext,
    Topic,
    Value,
    duration_text,
    joined,
    known_text,
    same,
)
from durable.signals import Event, Signal


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a call is given."""

    args: tuple[Value, ...]
    kwargs: Mapping[str, Value]
    complete: bool = True
    """False: there are more, which are not known."""

    def get(self, position: int, name: str) -> Value | None:
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name)


class Expressions:
    """Reads the expressions of one function at a time, in the order in which they run."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def visit(self, node: ast.expr) -> Value:
        """What the expression is; what it calls is walked through on the way."""
        match node:
            case ast.Constant(value=value):
                return Known(value)
            case ast.Name(id=name):
                found = self.frame.lookup(name)
                return UNKNOWN if found is None else found
            case ast.Attribute(value=owner, attr=name):
                return self.attribute(self.visit(owner), name)
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                return self._items(parts)
            case ast.Dict(keys=keys, values=values):
                return self._table(keys, values)
            case ast.JoinedStr(values=parts):
                return self._text(parts)
            case ast.FormattedValue(value=part):
                return self.visit(part)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._sum(self.visit(left), left, self.visit(right), right)
            case ast.Subscript(value=owner, slice=key):
                return self._item(self.visit(owner), self.visit(key))
            case ast.Lambda():
                defaults = self.defaults(node)
                return Function(node, self.frame, defaults=defaults)
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                given = self.visit(value)
                self.frame.bind(name, given)
                return given
            case ast.IfExp():
                return self.either(node)
            case ast.BoolOp():
                return self.bool_op(node)
            case ast.Await(value=value):
                return self.awaited(value)
            case ast.UnaryOp(op=ast.Not(), operand=part):
                decided = self.visit(part)
                return (
                    Patched(decided.draft, not decided.negated) if isinstance(decided, Patched) else UNKNOWN
                )
            case ast.Call():
                return self.call(node)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self.comprehension(node)
            case ast.Yield() | ast.YieldFrom():
                return self.yielded(self.visit(node.value) if node.value is not None else Known(None))
            case ast.Starred(value=value):
                return self.visit(value)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.visit(child)
                return UNKNOWN

    # ---- what depends on where the expression stands

    def either(self, node: ast.IfExp) -> Value:
        self.visit(node.test)
        return joined([self.visit(node.body), self.visit(node.orelse)])

    def bool_op(self, node: ast.BoolOp) -> Value:
        values = [self.visit(part) for part in node.values]
        return joined(values)

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Value:
        return UNKNOWN

    def yielded(self, value: Value) -> Value:
        return UNKNOWN

    def awaited(self, node: ast.expr) -> Value:
        """What `await node` gives."""
        return self.settle(self.visit(node))

    def settle(self, value: Value) -> Value:
        """What a value gives that is awaited."""
        return UNKNOWN

    def called(self, fn: Value, given: Arguments, node: ast.Call) -> Value:
        """What a call of `fn` gives that is nothing which definitions are made of."""
        return UNKNOWN

    # ---- attributes and items

    def attribute(self, owner: Value, name: str) -> Value:
        match owner:
            case Known(it):
                return attribute(it, name)
            case TheContext() | AHandle() | Builder() | TaskGroup() | Pending() | Items() | AStep():
                return Attribute(owner, name)
            case Instance(kind, attributes):
                return attributes[name] if name in attributes else self._of_class(kind, name, owner)
            case Module(scope):
                found = scope.lookup(name)
                return UNKNOWN if found is None else found
            case Class():
                return self._of_class(owner, name, None)
            case OneOf(values):
                return joined(self.attribute(value, name) for value in values)
            case Topic(name=text) if name == "name":
                return Known(text)
            case _:
                return UNKNOWN

    def _of_class(self, kind: Value, name: str, owner: Value | None) -> Value:
        if isinstance(kind, Known) and isinstance(kind.it, type):
            found = _static(kind.it, name)
            if isinstance(found, property) and owner is not None:
                getter = live_function(found.fget)
                return UNKNOWN if getter is None else self.property_of(getter, owner)
            plain = bound(found, kind.it)
            function = live_function(plain.it) if isinstance(plain, Known) else None
            if function is None or isinstance(found, staticmethod | classmethod):
                return plain
            return Function(
                function.node, function.scope, owner, function.is_context_manager, function.defaults
            )
        if isinstance(kind, Class):
            for statement in kind.node.body:
                if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name:
                    static = any(ast.unparse(d) == "staticmethod" for d in statement.decorator_list)
                    method = Function(statement, kind.scope, None if static else owner)
                    if owner is not None and any(
                        ast.unparse(d) == "property" for d in statement.decorator_list
                    ):
                        return self.property_of(method, owner)
                    return method
                if isinstance(statement, ast.Assign) and any(
                    isinstance(target, ast.Name) and target.id == name for target in statement.targets
                ):
                    return self.visit(statement.value)
        return UNKNOWN

    def property_of(self, getter: Function, owner: Value) -> Value:
        return UNKNOWN

    def _item(self, owner: Value, key: Value) -> Value:
        owner = opened(owner)
        if isinstance(owner, Table):
            if isinstance(key, Known):
                return joined(value for at, value in owner.pairs if same(at, key))
            return joined(value for _, value in owner.pairs)
        if isinstance(owner, Items):
            if (
                isinstance(key, Known)
                and isinstance(key.it, int)
                and -len(owner.items) <= key.it < len(owner.items)
            ):
                return owner.items[key.it]
            return joined(owner.items)
        return UNKNOWN

    # ---- displays and texts

    def _items(self, parts: Sequence[ast.expr]) -> Value:
        items: list[Value] = []
        complete = True
        for part in parts:
            value = self.visit(part)
            if isinstance(part, ast.Starred):
                spread = opened(value)
                complete &= isinstance(spread, Items)
                items += spread.items if isinstance(spread, Items) else ()
            else:
                items.append(value)
        return Items(tuple(items)) if complete else Items((*items, UNKNOWN))

    def _table(self, keys: Sequence[ast.expr | None], values: Sequence[ast.expr]) -> Value:
        pairs: list[tuple[Value, Value]] = []
        for key, value in zip(keys, values, strict=True):
            if key is not None:
                pairs.append((self.visit(key), self.visit(value)))
                continue
            spread = opened(self.visit(value))
            pairs += spread.pairs if isinstance(spread, Table) else ((UNKNOWN, UNKNOWN),)
        return Table(tuple(pairs))

    def _text(self, parts: Sequence[ast.expr]) -> Value:
        text, regex, whole = "", "", True
        for part in parts:
            value = self.visit(part)
            piece = value.it if isinstance(value, Known) else None
            plain = isinstance(part, ast.Constant) or (
                isinstance(part, ast.FormattedValue) and part.format_spec is None and part.conversion == -1
            )
            if (
                plain
                and isinstance(piece, str | int)
                and not isinstance(piece, bool)
                and type(piece) in (str, int)
            ):
                text, regex = text + str(piece), regex + re.escape(str(piece))
            elif plain and isinstance(value, Pattern):
                text, regex, whole = text + value.text, regex + value.regex, False
            else:
                source = ast.unparse(part.value if isinstance(part, ast.FormattedValue) else part)
                text, regex, whole = f"{text}{{{source}}}", f"{regex}.*", False
        return Known(text) if whole else Pattern(text, regex)

    def _sum(self, left: Value, left_node: ast.expr, right: Value, right_node: ast.expr) -> Value:
        pieces = [(left, left_node), (right, right_node)]
        if isinstance(left, Items) and isinstance(right, Items):
            return Items((*left.items, *right.items))
        if not any(known_text(value) is not None or isinstance(value, Pattern) for value, _ in pieces):
            return UNKNOWN
        text = regex = ""
        for value, node in pieces:
            plain = known_text(value)
            if plain is not None:
                text, regex = text + plain, regex + re.escape(plain)
            elif isinstance(value, Pattern):
                text, regex = text + value.text, regex + value.regex
            else:
                text, regex = f"{text}{{{ast.unparse(node)}}}", f"{regex}.*"
        return (
            Known(text) if all(known_text(value) is not None for value, _ in pieces) else Pattern(text, regex)
        )

    # ---- calls

    def call(self, node: ast.Call) -> Value:
        fn = self.visit(node.func)
        return self.apply(fn, self.arguments(node), node)

    def arguments(self, node: ast.Call) -> Arguments:
        args: list[Value] = []
        kwargs: dict[str, Value] = {}
        complete = True
        for argument in node.args:
            value = self.visit(argument)
            if isinstance(argument, ast.Starred):
                spread = opened(value)
                if isinstance(spread, Items):
                    args += spread.items
                else:
                    complete = False
                    args.append(value)
            else:
                args.append(value)
        for keyword in node.keywords:
            value = self.visit(keyword.value)
            if keyword.arg is not None:
                kwargs[keyword.arg] = value
                continue
            spread = opened(value)
            pairs = spread.pairs if isinstance(spread, Table) else ((UNKNOWN, UNKNOWN),)
            for key, part in pairs:
                name = known_text(key)
                complete &= name is not None
                if name is not None:
                    kwargs[name] = part
        return Arguments(tuple(args), kwargs, complete)

    def apply(self, fn: Value, given: Arguments, node: ast.Call) -> Value:
        """What a call gives: a definition, where it makes one."""
        if isinstance(fn, Known):
            made = self._definition(fn.it, given)
            if made is not None:
                return made
        if isinstance(fn, Partial):
            kwargs = {**fn.kwargs, **given.kwargs}
            return self.apply(fn.fn, Arguments((*fn.args, *given.args), kwargs, given.complete), node)
        return self.called(fn, given, node)

    def _definition(self, fn: object, given: Arguments) -> Value | None:
        if fn is functools.partial and given.args:
            return Partial(given.args[0], given.args[1:], given.kwargs)
        if fn is Signal or fn is Event:
            name = known_text(given.get(0, "name") or UNKNOWN)
            return UNKNOWN if name is None else Topic("signal" if fn is Signal else "event", name)
        if fn is Branch:
            return ABranch(given.get(0, "name") or UNKNOWN, given.get(2, "fn") or UNKNOWN)
        if fn is getattr and len(given.args) > 1:
            name = known_text(given.args[1])
            return UNKNOWN if name is None else self.attribute(given.args[0], name)
        if (fn is list or fn is tuple) and len(given.args) == 1:
            spread = opened(given.args[0])
            return spread if isinstance(spread, Items) else UNKNOWN
        if fn is timedelta and given.complete:
            return _timedelta(given)
        if fn is dict and not given.args and given.complete:
            return Table(tuple((Known(name), value) for name, value in given.kwargs.items()))
        return None

    def defaults(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> dict[str, Value]:
        """What a function's parameters are by default."""
        arguments = node.args
        positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
        last = positional[len(positional) - len(arguments.defaults) :]
        found = {name: self.visit(value) for name, value in zip(last, arguments.defaults, strict=True)}
        for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            if value is not None:
                found[argument.arg] = self.visit(value)
        return found

    # ---- definitions in a body

    def decorated_step(self, node: ast.FunctionDef | ast.AsyncFunctionDef, decorator: ast.expr) -> AStep:
        """What `@step` or `@step(name=...)` makes of a function."""
        name, timeout = node.name, None
        for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
            if keyword.arg == "name":
                name = known_text(self.visit(keyword.value)) or name
            if keyword.arg == "timeout":
                timeout = self.duration(self.visit(keyword.value), keyword.value)
        return AStep(StepFacts(name, timeout=timeout))

    def duration(self, value: Value | None, node: ast.expr) -> str | None:
        """A duration as people write it; the source, where nothing else is known; None for none."""
        if value is None or (isinstance(value, Known) and value.it is None):
            return None
        text = duration_text(value.it) if isinstance(value, Known) else None
        return ast.unparse(node) if text is None else text


def opened(value: Value) -> Value:
    """A list or a dictionary that exists, by its items."""
    if isinstance(value, Known) and type(value.it) in (list, tuple, set, frozenset):
        items = list(cast("Sequence[object]", value.it))
        return Items(tuple(map(known, items))) if len(items) <= MOST_ITEMS else UNKNOWN
    if isinstance(value, Known) and issubclass(type(value.it), dict | MappingProxyType):
        table = cast("Mapping[object, object]", value.it)
        return (
            Table(tuple((Known(key), known(it)) for key, it in table.items()))
            if len(table) <= MOST_ITEMS
            else UNKNOWN
        )
    return value


def _static(kind: type, name: str) -> object:
    for base in kind.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None


def _timedelta(given: Arguments) -> Value:
    values = [
        value.it if isinstance(value, Known) else None for value in (*given.args, *given.kwargs.values())
    ]
    if not all(isinstance(value, int | float) for value in values):
        return UNKNOWN
    args = [cast("float", value.it) for value in given.args if isinstance(value, Known)]
    kwargs = {
        name: cast("float", value.it) for name, value in given.kwargs.items() if isinstance(value, Known)
    }
    try:
        return Known(timedelta(*args, **kwargs))
    except (TypeError, OverflowError):
        return UNKNOWN
