"""Calls in a body: of the context, of functions that are followed, and of what has the context in it."""

from __future__ import annotations

import ast
import asyncio
import functools
from collections.abc import Sequence
from types import FunctionType
from typing import Any, Final, cast

from typing_extensions import override

from durable.context import Context
from durable.describe.expressions import Arguments, opened
from durable.describe.frames import Frame
from durable.describe.operations import Operations
from durable.describe.source import (
    attribute,
    is_builtin,
    is_of_python,
    is_of_strangers,
    live_function,
)
from durable.describe.values import (
    UNKNOWN,
    AHandle,
    AStep,
    Attribute,
    Builder,
    Class,
    Function,
    Instance,
    Items,
    Known,
    OneOf,
    Partial,
    Pending,
    TaskGroup,
    TheContext,
    Value,
    holds,
    joined,
    workflow_name,
)

_GATHERS: Final = (asyncio.gather, asyncio.wait, asyncio.as_completed)
_TASKS: Final = (asyncio.create_task, asyncio.ensure_future)
_WRAPS: Final = (functools.wraps, functools.lru_cache, functools.cache)


class Calls(Operations):
    """Walks through what is called."""

    @override
    def called(self, fn: Value, given: Arguments, node: ast.Call) -> Value:
        match fn:
            case Attribute(TheContext(), name):
                return self.operation(name, given, node)
            case Attribute(Builder() as builder, "up"):
                return self.build_step(builder, given, node)
            case Attribute(Pending() as pending, "down"):
                if pending.facts is not None:
                    pending.facts.has_compensation = True
                return pending
            case Attribute(AHandle() as handle, name):
                return self.handle_operation(handle, name, given, node)
            case Attribute(TaskGroup() as group, "create_task"):
                task = self.task(given.args[0] if given.args else UNKNOWN)
                group.ends.extend(exit for exit in task.ends if exit not in group.ends)
                return task
            case Attribute(Items() as items, "append") if given.args:
                self._append(node, items, given.args[0])
                return Known(None)
            case Attribute(AStep() as found, "undo"):
                found.facts.has_compensation = True
                return UNKNOWN
            case OneOf(values) if self._may_matter(given) or any(isinstance(v, Function) for v in values):
                ways = [(self._called_name(value), self._later(value, given, node)) for value in values]
                return joined(self.decide(ast.unparse(node.func), node, ways))
            case _:
                return self.call_function(fn, given, node)

    def _later(self, fn: Value, given: Arguments, node: ast.Call) -> Any:
        return lambda: self.settle(self.apply(fn, given, node))

    def _called_name(self, fn: Value) -> str:
        if isinstance(fn, Function):
            return getattr(fn.node, "name", "lambda")
        return fn.it.__name__ if isinstance(fn, Known) and isinstance(fn.it, FunctionType | type) else ""

    def _append(self, node: ast.Call, items: Items, value: Value) -> None:
        match node.func:
            case ast.Attribute(value=ast.Name(id=name)):
                self.frame.names[name] = Items((*items.items, value))
            case _:
                self.settle(value)

    def call_function(self, fn: Value, given: Arguments, node: ast.Call) -> Value:
        if isinstance(fn, Function):
            return self._call_known(fn, given, node)
        if isinstance(fn, Partial):
            return self.apply(fn, given, node)
        if isinstance(fn, Class):
            return self._instance(fn, given, node)
        if isinstance(fn, Instance):
            method = self.attribute(fn, "__call__")
            return (
                self.apply(method, given, node)
                if isinstance(method, Function)
                else self._unknown(given, node)
            )
        if not isinstance(fn, Known):
            return self._unknown(given, node)
        it = fn.it
        if is_any(it, _GATHERS):
            return self._asyncio_gather(given, node)
        if is_any(it, _TASKS):
            return self.task(given.args[0] if given.args else UNKNOWN)
        if it is asyncio.TaskGroup:
            return TaskGroup([])
        if it is Context:
            return TheContext()
        if workflow_name(fn) is not None or is_any(it, _WRAPS):
            return UNKNOWN
        if it is map and given.args:
            return self._mapped(given, node)
        if is_builtin(fn):
            self._call_inner_functions(given, node)
            return UNKNOWN
        if not self._may_matter(given):
            return self._uninteresting(it, given, node)
        if isinstance(it, type):
            return self._instance(fn, given, node)
        if is_of_python(it) or is_of_strangers(it):
            return self._unknown(given, node)
        function = live_function(it) or live_function(_bound_call(it))
        return self._unknown(given, node) if function is None else self._call_known(function, given, node)

    def _may_matter(self, given: Arguments) -> bool:
        kinds = (TheContext, AHandle, Function, Pending)
        return any(holds(value, kinds) for value in (*given.args, *given.kwargs.values()))

    def _uninteresting(self, it: object, given: Arguments, node: ast.Call) -> Value:
        """A function that is given nothing durable does nothing durable; a small one may still make such a thing."""
        function = live_function(it)
        if (
            function is not None
            and isinstance(function.node, ast.FunctionDef)
            and _gives_function(function.node)
        ):
            return self.follow(function, given, node)
        return UNKNOWN

    def _call_known(self, fn: Function, given: Arguments, node: ast.Call) -> Value:
        later = isinstance(fn.node, ast.AsyncFunctionDef) or fn.is_context_manager or _is_generator(fn)
        if not later:
            return self.follow(fn, given, node)
        return self.defer(lambda: self.settle(self.follow_generator(fn, given, node)))

    def follow_generator(self, fn: Function, given: Arguments, node: ast.Call) -> Value:
        """Follow it; what it yields goes to the loop or the `with` that it is called for."""
        if not _is_generator(fn):
            return self.follow(fn, given, node)
        through = Function(fn.node, fn.scope, fn.owner, True, fn.defaults)
        return self.follow(through, given, node)

    def _asyncio_gather(self, given: Arguments, node: ast.Call) -> Value:
        def run() -> Value:
            start = self.add("gather", ast.unparse(node.func), node, prunable=True)
            return Items(tuple(self.side_by_side(start, given.args)))

        return self.defer(run)

    def _unknown(self, given: Arguments, node: ast.Call) -> Value:
        """A call of what cannot be followed: if the context goes there, so may the workflow."""
        values = (*given.args, *given.kwargs.values())
        if any(holds(value, (TheContext,)) for value in values):
            return self.defer(lambda: self.add_dynamic(node))
        self._call_inner_functions(given, node)
        for value in values:  # such as asyncio.shield(ctx.step(...))
            spread = opened(value)
            for each in spread.items if isinstance(spread, Items) else (spread,):
                self.settle(each)
        return UNKNOWN

    def _call_inner_functions(self, given: Arguments, node: ast.Call) -> None:
        """What is given a function of this body may call it."""
        for value in (*given.args, *given.kwargs.values()):
            if isinstance(value, Function) and isinstance(value.scope, Frame):
                self.settle(self.apply(value, Arguments((), {}), node))

    def _mapped(self, given: Arguments, node: ast.Call) -> Value:
        with self.loop(ast.unparse(node), node):
            result = self.apply(given.args[0], Arguments((UNKNOWN,) * (len(given.args) - 1), {}), node)
        return Items((result,))

    # ---- objects that have the context

    def _instance(self, kind: Value, given: Arguments, node: ast.Call) -> Value:
        instance = Instance(kind, {})
        init = self.attribute(instance, "__init__")
        if isinstance(init, Function):
            self.follow(init, given, node)
            return instance
        fields: list[str] = []
        if isinstance(kind, Known):
            fields = list(cast("dict[str, object]", getattr(kind.it, "__dataclass_fields__", {})))
        elif isinstance(kind, Class):
            fields = [
                s.target.id
                for s in kind.node.body
                if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
            ]
        instance.attributes.update(zip(fields, given.args, strict=False))
        instance.attributes.update(given.kwargs)
        return instance

    @override
    def bind_attribute(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Attribute):
            owner = self.visit(target.value)
            if isinstance(owner, Instance):
                owner.attributes[target.attr] = value
                return
        if holds(value, (Pending,)):
            self.settle(value)

    @override
    def property_of(self, getter: Function, owner: Value) -> Value:
        method = Function(getter.node, getter.scope, owner)
        call = ast.Call(func=ast.Name("property", ast.Load()), args=[], keywords=[])
        ast.copy_location(call, getter.node)
        return self.follow(method, Arguments((), {}), ast.fix_missing_locations(call))


def is_any(it: object, these: Sequence[object]) -> bool:
    """By identity: what users compare by is not asked."""
    return any(it is one for one in these)


def _bound_call(it: object) -> object:
    found = attribute(it, "__call__") if not isinstance(it, type) else UNKNOWN
    return found.it if isinstance(found, Known) else None


def _is_generator(fn: Function) -> bool:
    if isinstance(fn.node, ast.Lambda):
        return False
    left: list[ast.AST] = list(fn.node.body)
    while left:
        part = left.pop()
        if isinstance(part, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            left += ast.iter_child_nodes(part)
    return False


def _gives_function(node: ast.FunctionDef) -> bool:
    """Whether it is one that defines functions, as a decorator does, or a factory."""
    return any(
        isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for statement in node.body
        for part in ast.walk(statement)
    )
