"""The checker: goes through the bodies of a module and finds where they break a rule."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from durable.lint import rules
from durable.lint.module import (
    Callable_,
    Function,
    Module,
    assignments_of,
    parameters_of,
    stores_of,
    within,
)
from durable.lint.rules import Finding, Rule

_NOQA = re.compile(r"#\s*noqa(?::\s*(?P<codes>[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*))?", re.IGNORECASE)
_SETS = frozenset({"builtins.set", "builtins.frozenset"})
_OF_SETS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
_SET_TYPES = frozenset({"set", "frozenset", "Set", "AbstractSet", "MutableSet", "FrozenSet"})
_TAKES_STEPS = frozenset({"step", "transaction", "map", "up", "down"})


def lint_file(path: Path, shown_as: str | None = None) -> list[Finding]:
    """What is found in the bodies of a file, in order. A file that is no Python has none.

    Raises:
        OSError: it cannot be read.
    """
    return lint_source(path.read_text(encoding="utf-8"), shown_as or str(path))


def lint_source(source: str, path: str = "<source>") -> list[Finding]:
    """What is found in the bodies of a module's source, in order."""
    try:
        module = Module(source, path)
    except (SyntaxError, ValueError):
        return []
    found: set[Finding] = set()
    for body, context in module.bodies.items():
        _Body(module, body, frozenset({context}), found).check()
    return sorted(finding for finding in found if not _is_excused(finding, module.lines))


def _is_excused(finding: Finding, lines: list[str]) -> bool:
    noqa = _NOQA.search(lines[finding.line - 1])
    if noqa is None:
        return False
    codes = noqa["codes"]
    return codes is None or finding.code in re.split(r"[,\s]+", codes.upper())


@dataclass
class _Scope:
    """What is known of the names in a function, those of the functions around it included."""

    hidden: frozenset[str]
    """Names of locals, which stand for nothing else."""
    sets: frozenset[str]
    """Locals that are sets."""
    paths: frozenset[str]
    """Locals that are a `Path`."""
    functions: dict[str, Function] = field(default_factory=dict[str, Function])
    """Functions that are defined here."""
    globals: frozenset[str] = frozenset()


@final
class _Body:
    """One body, with the functions in it that run as a part of it."""

    def __init__(
        self,
        module: Module,
        function: Callable_,
        contexts: frozenset[str],
        found: set[Finding],
        around: _Scope | None = None,
        visited: frozenset[Function] = frozenset(),
    ) -> None:
        self._module = module
        self._function = function
        self._contexts = contexts
        self._found = found
        self._visited = visited
        self._nodes: Sequence[ast.stmt] = (
            function.body if isinstance(function, Function) else [ast.Expr(function.body)]
        )
        self._scope = self._scope_within(around)
        self._in_steps: set[ast.AST] = set()
        """Lambdas and functions that run as steps."""

    def check(self) -> None:
        nodes = list(within(self._nodes))
        for node in nodes:
            if isinstance(node, ast.Call):
                self._look_for_steps(node)
        for node in nodes:
            self._check(node)
        called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        for node in nodes:
            if isinstance(node, ast.Lambda) and node not in self._in_steps:
                self._enter(node)
            elif isinstance(node, Function) and node not in self._module.bodies:
                self._check_nested(node, is_called=node.name in called)
        if self._function not in self._module.bodies or self._contexts:
            self._follow(called)

    # ---- functions in functions

    def _check_nested(self, node: Function, *, is_called: bool) -> None:
        is_step = node in self._in_steps or self._module.is_part_of_a_step(node)
        if is_step:
            self._check_step(node)
        if is_called or (not is_step and self._uses_context(node)):
            self._enter(node)

    def _enter(self, node: Callable_) -> None:
        hidden = {parameter.arg for parameter in parameters_of(node)}
        contexts = self._contexts - hidden
        _Body(self._module, node, contexts, self._found, self._scope, self._visited).check()

    def _follow(self, called: set[str]) -> None:
        """Functions of the module that the body calls run as a part of it."""
        for name in sorted(called - self._scope.hidden):
            function = self._module.functions.get(name)
            if function is None or function in self._module.bodies or function in self._visited:
                continue
            if self._module.is_part_of_a_step(function):
                continue
            visited = self._visited | {function}
            _Body(self._module, function, frozenset(), self._found, visited=visited).check()

    def _look_for_steps(self, call: ast.Call) -> None:
        """Note the functions that are handed to `ctx.step` and its kin."""
        match call.func:
            case ast.Attribute(attr=attr, value=value) if attr in _TAKES_STEPS and self._is_of_context(value):
                arguments = call.args
            case ast.Name(id="Branch") | ast.Attribute(attr="Branch"):
                arguments = call.args[1:2]  # what chooses a branch is asked once
            case _:
                return
        for argument in arguments:
            for node in within(argument):
                if isinstance(node, ast.Lambda):
                    self._in_steps.add(node)
                    if isinstance(call.func, ast.Attribute) and call.func.attr != "Branch":
                        self._check_step(node)
                elif isinstance(node, ast.Name) and node.id in self._scope.functions:
                    self._in_steps.add(self._scope.functions[node.id])

    def _check_step(self, node: Callable_) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call) and self._operation(inner):
                self._report(rules.CTX_IN_STEP, inner, f"{ast.unparse(inner.func)}() is called in a step")

    def _uses_context(self, node: Callable_) -> bool:
        return any(isinstance(n, ast.Name) and n.id in self._contexts for n in ast.walk(node))

    # ---- nodes

    def _check(self, node: ast.AST) -> None:
        match node:
            case ast.Call():
                self._check_call(node)
            case ast.Try() | ast.TryStar():
                self._check_try(node)
            case ast.With() | ast.AsyncWith():
                self._check_with(node)
            case ast.For() | ast.AsyncFor():
                self._check_loop(node.iter, self._has_operation(node.body))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                for generator in node.generators:
                    self._check_loop(generator.iter, self._has_operation([ast.Expr(node.elt)]))
            case ast.DictComp():
                for generator in node.generators:
                    inner = [ast.Expr(node.key), ast.Expr(node.value)]
                    self._check_loop(generator.iter, self._has_operation(inner))
            case ast.Expr(value=ast.Call() as call) if self._operation(call):
                if not self._is_expression_of_a_lambda(node):
                    self._report(rules.NOT_AWAITED, call, f"{ast.unparse(call.func)}() is not awaited")
            case ast.Assign(targets=targets):
                self._check_targets(targets)
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target, value=ast.expr()):
                self._check_targets([target])
            case ast.Delete(targets=targets):
                self._check_targets(targets)
            case ast.Subscript(value=value, ctx=ast.Load()):
                if self._resolve(value) == "os.environ":
                    self._report(rules.ENVIRONMENT, node, "os.environ is read in a workflow's body")
            case _:
                pass

    def _is_expression_of_a_lambda(self, node: ast.Expr) -> bool:
        return not hasattr(node, "lineno")

    def _check_call(self, call: ast.Call) -> None:
        match call.func:
            case ast.Name(id=name) if self._module.is_step(name) and name not in self._scope.hidden:
                self._report(rules.STEP_CALLED, call, f"step {name} is called like a function")
            case ast.Attribute(attr="run_in_executor"):
                self._report(rules.THREAD, call, f"{ast.unparse(call.func)}() runs in a thread")
            case ast.Attribute(attr=attr, value=value) if attr in rules.OF_A_PATH and self._is_path(value):
                self._report(rules.IO, call, f"{ast.unparse(call.func)}() touches the disk")
            case ast.Attribute(attr=attr, value=ast.Name(id=name)) if attr in rules.MUTATORS:
                if self._is_global(name):
                    self._report(rules.GLOBAL, call, f"{name}.{attr}() changes a global")
            case _:
                pass
        full = self._resolve(call.func)
        rule = rules.BY_NAME.get(full or "")
        if rule is None or (rule is rules.SLEEP and _is_zero(call)):
            return
        assert full is not None
        self._report(rule, call, f"{full.removeprefix('builtins.')}() is called in a workflow's body")

    def _check_try(self, node: ast.Try | ast.TryStar) -> None:
        if self._has_operation(node.body):
            for handler in node.handlers:
                if self._catches_all(handler.type) and not _raises(handler.body):
                    what = "except:" if handler.type is None else f"except {ast.unparse(handler.type)}"
                    self._report(rules.CATCH_ALL, handler, f"{what} around an operation of ctx")
        for operation in self._operations(node.finalbody):
            self._report(rules.FINALLY, operation, f"{ast.unparse(operation.func)}() is called in a finally")

    def _check_with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            call = item.context_expr
            if not (isinstance(call, ast.Call) and self._resolve(call.func) == "contextlib.suppress"):
                continue
            if any(self._catches_all(kind) for kind in call.args) and self._has_operation(node.body):
                self._report(rules.CATCH_ALL, call, f"{ast.unparse(call)} around an operation of ctx")

    def _catches_all(self, kind: ast.expr | None) -> bool:
        if isinstance(kind, ast.Tuple):
            return any(self._catches_all(each) for each in kind.elts)
        return kind is None or self._resolve(kind) == "builtins.BaseException"

    def _check_loop(self, over: ast.expr, has_operation: bool) -> None:
        if has_operation and self._is_set(over):
            self._report(rules.SET, over, f"operations of ctx in the order of a set, {ast.unparse(over)}")

    def _check_targets(self, targets: list[ast.expr]) -> None:
        for target in targets:
            match target:
                case ast.Name(id=name) if name in self._scope.globals:
                    self._report(rules.GLOBAL, target, f"global {name} is changed")
                case ast.Subscript(value=ast.Name(id=name)) if self._is_global(name):
                    self._report(rules.GLOBAL, target, f"global {name} is changed")
                case ast.Tuple(elts=elements) | ast.List(elts=elements):
                    self._check_targets(elements)
                case _:
                    pass

    # ---- what things are

    def _scope_within(self, around: _Scope | None) -> _Scope:
        own = stores_of(self._nodes)
        globals_ = frozenset(n for s in within(self._nodes) if isinstance(s, ast.Global) for n in s.names)
        parameters = parameters_of(self._function)
        assigned = assignments_of(self._nodes)
        named = frozenset(parameter.arg for parameter in parameters)
        scope = _Scope(
            hidden=(own | named) - globals_,
            sets=frozenset(p.arg for p in parameters if _is_set_type(p.annotation)),
            paths=frozenset(),
            functions={n.name: n for n in within(self._nodes) if isinstance(n, Function)},
            globals=globals_,
        )
        if around is not None:
            scope.hidden |= around.hidden
            scope.sets |= around.sets - own - named
            scope.paths |= around.paths - own - named
            scope.functions = {**around.functions, **scope.functions}
        self._scope = scope
        for name, values in assigned.items():
            if all(self._is_set(value) for value in values):
                scope.sets |= {name}
            if all(self._is_path(value) for value in values):
                scope.paths |= {name}
        return scope

    def _resolve(self, node: ast.expr) -> str | None:
        return self._module.resolve(node, self._scope.hidden)

    def _is_global(self, name: str) -> bool:
        return name in self._module.mutable and name not in self._scope.hidden

    def _is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set(elts=elements):
                return not all(
                    isinstance(each, ast.Constant) and isinstance(each.value, int) for each in elements
                )
            case ast.SetComp():
                return True
            case ast.Name(id=name):
                return name in self._scope.sets
            case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in _OF_SETS:
                return self._is_set(value)
            case ast.Call(func=func):
                return self._resolve(func) in _SETS
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.BitXor() | ast.Sub(), right=right):
                return self._is_set(left) and (self._is_set(right) or not isinstance(node.op, ast.BitOr))
            case _:
                return False

    def _is_path(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return name in self._scope.paths
            case ast.BinOp(left=left, op=ast.Div()):
                return self._is_path(left)
            case ast.Call(func=func):
                return self._resolve(func) in ("pathlib.Path", "pathlib.Path.cwd", "pathlib.Path.home")
            case _:
                return False

    def _is_of_context(self, node: ast.expr) -> bool:
        """Whether it is a context, or what an operation of one gives: `ctx.step("a").up`."""
        match node:
            case ast.Name(id=name):
                return name in self._contexts
            case ast.Call(func=ast.Attribute(value=value)):
                return self._is_of_context(value)
            case _:
                return False

    def _operation(self, call: ast.Call) -> bool:
        """Whether this call does something durable."""
        match call.func:
            case ast.Attribute(value=ast.Name(id=name), attr=attr):
                return name in self._contexts and attr in rules.OPERATIONS
            case ast.Attribute(attr="up" | "down", value=value):
                return self._is_of_context(value)
            case _:
                return False

    def _operations(self, nodes: Sequence[ast.stmt]) -> Iterator[ast.Call]:
        """The durable calls in these; a function that gets the context counts as one."""
        for node in within(nodes):
            if isinstance(node, ast.Call):
                hands_it_on = any(isinstance(a, ast.Name) and a.id in self._contexts for a in node.args)
                if self._operation(node) or (hands_it_on and isinstance(node.func, ast.Name)):
                    yield node

    def _has_operation(self, nodes: Sequence[ast.stmt]) -> bool:
        return any(True for _ in self._operations(nodes))

    def _report(self, rule: Rule, node: ast.expr | ast.ExceptHandler, what: str) -> None:
        shown = " ".join(what.split())
        self._found.add(
            Finding(
                self._module.path,
                node.lineno,
                node.col_offset + 1,
                rule.code,
                f"{shown}: {rule.advice}",
                rule.is_warning,
            )
        )


def _is_zero(call: ast.Call) -> bool:
    """`asyncio.sleep(0)` gives way, and sleeps not."""
    return len(call.args) >= 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0


def _raises(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, ast.Raise) for node in within(body))


def _is_set_type(annotation: ast.expr | None) -> bool:
    match annotation:
        case ast.Subscript(value=value):
            return _is_set_type(value)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in _SET_TYPES
        case _:
            return False
