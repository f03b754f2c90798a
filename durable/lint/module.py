"""A module's source: what its names mean, and which of its functions get a context."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence
from typing import TypeAlias, final

from durable.lint.rules import MUTABLE

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Callable_: TypeAlias = Function | ast.Lambda

_CONTEXTS = frozenset({"durable.Context", "durable.context.Context"})
_WORKFLOWS = frozenset({"durable.workflow", "durable.workflow.workflow"})
_STEPS = frozenset({"durable.step", "durable.steps.step"})


@final
class Module:
    """One file of source.

    Raises:
        SyntaxError: it is no Python.
    """

    def __init__(self, source: str, path: str) -> None:
        self.path = path
        self.lines = source.splitlines()
        self.tree = ast.parse(source, path)
        self.imports = imports_of(self.tree)
        self.functions = {node.name: node for node in self.tree.body if isinstance(node, Function)}
        self.stores = stores_of(self.tree.body)
        self.mutable = {
            name
            for name, values in assignments_of(self.tree.body).items()
            if all(self._is_mutable(value) for value in values)
        }
        self.uses_durable = any(full.partition(".")[0] == "durable" for full in self.imports.values())
        self.bodies = self._bodies()

    def resolve(self, node: ast.expr, hidden: frozenset[str] = frozenset()) -> str | None:
        """The full name of what an expression names: `datetime.datetime.now`. None: unknown, or a local's."""
        match node:
            case ast.Name(id=name):
                if name in hidden:
                    return None
                if name in self.imports:
                    return self.imports[name]
                is_builtin = hasattr(builtins, name) and name not in self.stores
                return f"builtins.{name}" if is_builtin else None
            case ast.Attribute(value=value, attr=attr):
                owner = self.resolve(value, hidden)
                return None if owner is None else f"{owner}.{attr}"
            case _:
                return None

    def is_step(self, name: str) -> bool:
        """Whether a function of this module is an `@step`."""
        function = self.functions.get(name)
        return function is not None and any(self._is(d, _STEPS) for d in function.decorator_list)

    def is_part_of_a_step(self, function: Function) -> bool:
        """Whether it is an `@step`, or the `undo` of one."""
        return any(
            self._is(decorator, _STEPS) or (isinstance(decorator, ast.Attribute) and decorator.attr == "undo")
            for decorator in function.decorator_list
        )

    # ---- bodies

    def _bodies(self) -> dict[Function, str]:
        """The functions that get a context, and the name that it has in them."""
        functions = [node for node in ast.walk(self.tree) if isinstance(node, Function)]
        wrapped = self._wrapped()
        bodies: dict[Function, str] = {}
        for function in functions:
            if self.is_part_of_a_step(function):
                continue
            name = self._context_of(function)
            if name is None and (self._is_workflow(function) or function.name in wrapped):
                name = next((parameter.arg for parameter in parameters_of(function)), None)
            if name is not None:
                bodies[function] = name
        left = list(bodies)
        while left:  # functions that a body hands its context
            body = left.pop()
            for callee, name in self._handed(body, bodies[body]):
                if callee not in bodies and not self.is_part_of_a_step(callee):
                    bodies[callee] = name
                    left.append(callee)
        return bodies

    def _context_of(self, function: Function) -> str | None:
        for parameter in parameters_of(function):
            if parameter.annotation is not None and self._is_context(parameter.annotation):
                return parameter.arg
            is_bare = parameter.annotation is None and isinstance(function, ast.AsyncFunctionDef)
            if is_bare and parameter.arg == "ctx" and self.uses_durable:
                return "ctx"
        return None

    def _is_context(self, annotation: ast.expr) -> bool:
        match annotation:
            case ast.Constant(value=str(text)):
                try:
                    return self._is_context(ast.parse(text, mode="eval").body)
                except SyntaxError:
                    return False
            case ast.Subscript(value=value):
                return self._is_context(value)
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return self._is_context(left) or self._is_context(right)
            case _:
                return self.resolve(annotation) in _CONTEXTS

    def _is_workflow(self, function: Function) -> bool:
        return any(self._is(decorator, _WORKFLOWS) for decorator in function.decorator_list)

    def _is(self, decorator: ast.expr, names: frozenset[str]) -> bool:
        return self.resolve(decorator.func if isinstance(decorator, ast.Call) else decorator) in names

    def _wrapped(self) -> set[str]:
        """Functions that become workflows by a call: `workflow(name="a")(body)`."""
        return {
            call.args[0].id
            for call in ast.walk(self.tree)
            if isinstance(call, ast.Call) and self._is(call.func, _WORKFLOWS)
            if len(call.args) == 1 and isinstance(call.args[0], ast.Name)
        }

    def _handed(self, body: Function, context: str) -> Iterator[tuple[Function, str]]:
        for call in ast.walk(body):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                continue
            callee = self.functions.get(call.func.id)
            if callee is None:
                continue
            parameters = [parameter.arg for parameter in parameters_of(callee)]
            for parameter, argument in zip(parameters, call.args, strict=False):
                if isinstance(argument, ast.Name) and argument.id == context:
                    yield callee, parameter
            for keyword in call.keywords:
                if isinstance(keyword.value, ast.Name) and keyword.value.id == context and keyword.arg:
                    yield callee, keyword.arg

    def _is_mutable(self, value: ast.expr) -> bool:
        if isinstance(value, ast.Call):
            return self.resolve(value.func) in MUTABLE
        return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def imports_of(tree: ast.AST) -> dict[str, str]:
    """What each imported name means in full."""
    full: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head = alias.name.partition(".")[0]
                full[alias.asname or head] = alias.name if alias.asname else head
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                full[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return full


def parameters_of(function: Callable_) -> list[ast.arg]:
    """Those that have names, in order."""
    arguments = function.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def within(nodes: Sequence[ast.stmt] | ast.expr) -> Iterator[ast.AST]:
    """All nodes of these that run where these run: not those of functions and classes in them."""
    left: list[ast.AST] = [nodes] if isinstance(nodes, ast.expr) else [*nodes]
    while left:
        node = left.pop()
        yield node
        if isinstance(node, Function):
            left += [*node.decorator_list, *node.args.defaults]
        elif not isinstance(node, ast.Lambda | ast.ClassDef):
            left += ast.iter_child_nodes(node)


def stores_of(body: Sequence[ast.stmt]) -> frozenset[str]:
    """Names that are bound here, other than by an import."""
    bound: set[str] = set()
    for node in within(body):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            bound.add(node.id)
        elif isinstance(node, Function | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            bound.update(name for name in (node.name,) if name is not None)
    return frozenset(bound)


def assignments_of(body: Sequence[ast.stmt]) -> dict[str, list[ast.expr]]:
    """The expressions that each plain name is assigned here."""
    found: dict[str, list[ast.expr]] = {}
    for node in within(body):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        found.setdefault(target.id, []).append(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found.setdefault(name, []).append(value)
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                found.setdefault(name, []).append(value)
            case _:
                pass
    return found
