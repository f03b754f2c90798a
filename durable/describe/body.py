"""A body: its statements, one after the other."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, final

from typing_extensions import override

from durable.describe.calls import Calls, is_any
from durable.describe.drafts import Draft, Drawing, Exit, shortened
from durable.describe.expressions import Arguments
from durable.describe.flow import carries
from durable.describe.frames import Call, Finally, Frame, Loop, Try, bound_names
from durable.describe.patterns import exhausts
from durable.describe.source import (
    is_context_annotation,
    known,
    live_function,
)
from durable.describe.values import (
    UNKNOWN,
    AStep,
    Attribute,
    AWorkflow,
    Class,
    Function,
    Instance,
    Items,
    Known,
    Patched,
    Pending,
    Saga,
    TaskGroup,
    TheContext,
    Value,
    known_text,
)
from durable.steps import step
from durable.workflow import workflow

_MANAGERS: Final = (contextlib.asynccontextmanager, contextlib.contextmanager)


Modules: TypeAlias = Callable[[str], Value]
"""What a name imports."""


def loaded(name: str) -> Value:
    """A module that has been imported before. Nothing is loaded for the sake of it."""
    return known(sys.modules[name]) if name in sys.modules else UNKNOWN


@final
class Body(Calls):
    """Walks through a workflow's function and draws what may happen in it."""

    def __init__(self, drawing: Drawing, frame: Frame, modules: Modules = loaded) -> None:
        super().__init__(drawing, frame)
        self._modules = modules

    def draw(self, function: Function, *, compensates: bool) -> None:
        """All of a workflow's function, from its start to its ends."""
        drawing, node = self.drawing, function.node
        given = Arguments((TheContext(), UNKNOWN), {})
        self._bind_parameters(function, given)
        self.active.append((function, given, 1))
        block = Call()
        with self.within(block):
            if isinstance(node, ast.Lambda):
                self.settle(self.visit(node.body))
            else:
                self.body(node.body)
            drawing.ends = [*block.returns, *drawing.ends]
            self.settle_since(0)
        drawing.join(drawing.ends, drawing.end)
        self._fail(compensates)

    def _fail(self, compensates: bool) -> None:
        """Join what ends the execution otherwise; on the way it is undone, where the workflow says so."""
        failures = self.failures
        if compensates and failures and any(draft.has_compensation for draft in self.drawing.drafts):
            rollback = Draft("rollback", "rollback on failure")
            undone = [exit for exit in failures if exit.outcome != "continue as new"]
            if undone:
                self.drawing.drafts.append(rollback)
                self.drawing.join(undone, rollback)
                failures = [exit for exit in failures if exit not in undone]
                failures.append(Exit(rollback))
        self.drawing.join(failures, self.drawing.end)

    # ---- statements

    @override
    def body(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            if not self.drawing.ends:
                return
            count = len(self.frame.pending)
            self.statement(statement)
            if isinstance(statement, ast.Expr | ast.If | ast.While | ast.Assert | ast.Raise):
                self.settle_since(count, self._held())

    def _held(self) -> Value:
        return Items(tuple(self.frame.names.values()))

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=value):
                self.visit(value)
            case ast.Assign(targets=targets, value=value):
                given = self.visit(value)
                for target in targets:
                    self.bind_target(target, given)
            case ast.AnnAssign(target=target, annotation=annotation, value=value):
                given = UNKNOWN if value is None else self.visit(value)
                if type(given) is Value and is_context_annotation(annotation):
                    given = TheContext()
                self.bind_target(target, given)
            case ast.AugAssign(target=target, op=op, value=value):
                added = ast.BinOp(left=_loaded(target), op=op, right=value)
                self.bind_target(target, self.visit(ast.copy_location(added, node)))
            case ast.Return(value=value):
                self._return(Known(None) if value is None else self.visit(value))
            case ast.Raise():
                self._raise(node)
            case ast.Break():
                self.leave("break")
            case ast.Continue():
                self.leave("continue")
            case ast.If():
                self._if(node)
            case ast.Match():
                self._match(node)
            case ast.While():
                self._while(node)
            case ast.For() | ast.AsyncFor():
                self._for(node)
            case ast.Try() | ast.TryStar():
                self._try(node)
            case ast.With() | ast.AsyncWith():
                self._with(node.items, node)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._define(node)
            case ast.ClassDef(name=name):
                self.frame.bind(name, Class(node, self.frame))
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case _:
                for part in ast.iter_child_nodes(node):
                    if isinstance(part, ast.expr):
                        self.visit(part)

    def _return(self, value: Value) -> None:
        for block in reversed(self.blocks):
            if isinstance(block, Call):
                block.values.append(value)
                break
        self.leave("return")

    def _raise(self, node: ast.Raise) -> None:
        if node.exc is not None:
            self.visit(node.exc)
        self.leave(
            "raise", "raise again" if node.exc is None else f"raise {shortened(ast.unparse(node.exc), 60)}"
        )

    def _if(self, node: ast.If) -> None:
        test = self.visit(node.test)

        def yes() -> Value:
            self.body(node.body)
            return UNKNOWN

        def no() -> Value:
            self.body(node.orelse)
            return UNKNOWN

        if isinstance(test, Patched) and self.drawing.ends == [Exit(test.draft)]:
            self.ways(
                self.drawing.ends,
                [("false" if test.negated else "true", yes), ("true" if test.negated else "false", no)],
            )
        else:
            self.decide(ast.unparse(node.test), node, [("true", yes), ("false", no)])

    def _match(self, node: ast.Match) -> None:
        subject = self.visit(node.subject)
        what = "what came" if isinstance(node.subject, ast.Await) else ast.unparse(node.subject)
        decision = self.add("decision", f"match {what}", node, prunable=True)

        def way(case: ast.match_case) -> Any:
            def walk() -> Value:
                for name in bound_names(case.pattern):
                    self.frame.bind(name, UNKNOWN)
                if (
                    isinstance(case.pattern, ast.MatchAs)
                    and case.pattern.pattern is None
                    and case.pattern.name
                ):
                    self.frame.bind(case.pattern.name, subject)
                if case.guard is not None:
                    self.visit(case.guard)
                self.body(case.body)
                return UNKNOWN

            guard = f" if {ast.unparse(case.guard)}" if case.guard is not None else ""
            return shortened(f"{ast.unparse(case.pattern)}{guard}", 60), walk

        ways = [way(case) for case in node.cases]
        if not exhausts(node.cases):
            ways.append(("no case", lambda: UNKNOWN))
        self.ways([Exit(decision)], ways)

    # ---- loops

    def _while(self, node: ast.While) -> None:
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        bound = set(bound_names(node))
        names = dict(self.frame.names)
        with self.loop(f"while {ast.unparse(node.test)}", node, bound) as head:
            self.visit(node.test)
            self.body(node.body)
        self.frame.merge([names, self.frame.names])
        self._after_loop(head, node.orelse, endless=endless)

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        iterated = self.visit(node.iter)
        if isinstance(iterated, Pending):
            self._through_generator(iterated, node)
            return
        if isinstance(iterated, TheContext):
            self.add_dynamic(node.iter)
        bound = set(bound_names(node))
        names = dict(self.frame.names)
        label = f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}"
        with self.loop(label, node, bound) as head:
            self.bind_each(node.target, iterated)
            self.body(node.body)
        self.frame.merge([names, self.frame.names])
        self._after_loop(head, node.orelse)

    def _after_loop(self, head: Draft, otherwise: Sequence[ast.stmt], *, endless: bool = False) -> None:
        """`else` comes behind a loop that was not left by `break`."""
        done = (
            []
            if endless
            else [exit for exit in self.drawing.ends if exit.draft is head and exit.label == "done"]
        )
        breaks = [exit for exit in self.drawing.ends if not (exit.draft is head and exit.label == "done")]
        self.drawing.ends = done
        if done:
            self.body(otherwise)
        self.drawing.ends = [*self.drawing.ends, *breaks]

    def _through_generator(self, generator: Pending, node: ast.For | ast.AsyncFor) -> None:
        """A loop over what a generator yields that has the context: its body runs where the generator yields."""
        names = dict(self.frame.names)
        block = Loop(None)

        def walk(value: Value) -> None:
            for name in bound_names(node):
                self.frame.bind(name, UNKNOWN)
            self.bind_target(node.target, value)
            with self.within(block):
                self.body(node.body)
            self.drawing.ends = [*self.drawing.ends, *block.continues]

        self.through(generator, walk)
        self.frame.merge([names, self.frame.names])
        if self.drawing.ends:
            self.body(node.orelse)
        self.drawing.ends = [*self.drawing.ends, *block.breaks]

    # ---- exceptions

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        if node.finalbody:
            last = Finally()
            with self.within(last):
                self._try_except(node)
            self._finally(last, node.finalbody)
        else:
            self._try_except(node)

    def _try_except(self, node: ast.Try | ast.TryStar) -> None:
        if not node.handlers:
            self.body([*node.body, *node.orelse])
            return
        entry, before = list(self.drawing.ends), len(self.drawing.drafts)
        names = dict(self.frame.names)
        block = Try()
        with self.within(block):
            self.body(node.body)
        raised = block.raised or [Exit(exit.draft, exit.label or "raises", exit.outcome) for exit in entry]
        untouched = len(self.drawing.drafts) == before and not block.raised
        if self.drawing.ends:
            self.body(node.orelse)
        ends, after = self.drawing.ends, self.frame.names
        self.drawing.ends = [Exit(exit.draft, exit.label, exit.outcome) for exit in raised]
        self.frame.merge([names, after])
        decision = self.add("decision", "except", node, prunable=untouched)

        def way(handler: ast.ExceptHandler) -> Any:
            def walk() -> Value:
                if handler.name is not None:
                    self.frame.bind(handler.name, UNKNOWN)
                self.body(handler.body)
                return UNKNOWN

            return "any" if handler.type is None else shortened(ast.unparse(handler.type), 60), walk

        caught = dict(self.frame.names)
        self.ways([Exit(decision)], [way(handler) for handler in node.handlers])
        self.frame.merge([after if ends else caught, self.frame.names])
        self.drawing.ends = [*ends, *self.drawing.ends]

    def _finally(self, last: Finally, statements: Sequence[ast.stmt]) -> None:
        """Walk it once, whoever passes: then each goes where it was going."""
        ends = self.drawing.ends
        through = [exit for _, exits in last.passing for exit in exits]
        before = len(self.drawing.drafts)
        self.drawing.ends = [*ends, *(Exit(exit.draft, exit.label, exit.outcome) for exit in through)]
        if not self.drawing.ends:
            return
        self.body(statements)
        if len(self.drawing.drafts) == before:  # nothing happens in it
            if not self.drawing.ends:
                return
            self.drawing.ends = ends
            for jump, exits in last.passing:
                explicit = [exit for exit in exits if exit.label != "raises"]
                self.jump(jump, explicit)
            return
        after = self.drawing.ends
        if not ends:
            self.drawing.ends = []
        for jump, exits in last.passing:
            for outcome in dict.fromkeys(
                exit.outcome or (exit.label if jump == "raise" else "") for exit in exits
            ):
                self.jump(jump, [Exit(exit.draft, exit.label, outcome) for exit in after])

    # ---- with

    def _with(self, items: Sequence[ast.withitem], node: ast.With | ast.AsyncWith) -> None:
        if not items:
            self.body(node.body)
            return
        item, *others = items
        entered = self.visit(item.context_expr)

        def inside(value: Value = entered) -> None:
            if item.optional_vars is not None:
                self.bind_target(item.optional_vars, value)
            self._with(others, node)

        match entered:
            case Saga():
                self._saga(item.context_expr, inside)
            case TaskGroup():
                self._task_group(entered, item.context_expr, inside)
            case Pending():
                self.through(entered, inside)
            case Instance() if carries(entered):
                prefix = "__a" if isinstance(node, ast.AsyncWith) else "__"
                call = ast.copy_location(
                    ast.Call(func=item.context_expr, args=[], keywords=[]), item.context_expr
                )
                value = self._method(entered, f"{prefix}enter__", (), call)
                inside(entered if type(value) is Value else value)
                self._method(entered, f"{prefix}exit__", (Known(None),) * 3, call)
            case _:
                self._guarded(inside, swallows=_swallows(item.context_expr))

    def _method(self, owner: Value, name: str, args: tuple[Value, ...], call: ast.Call) -> Value:
        method = self.attribute(owner, name)
        return (
            self.settle(self.apply(method, Arguments(args, {}), call))
            if isinstance(method, Function)
            else UNKNOWN
        )

    def _guarded(self, inside: Any, *, swallows: bool) -> None:
        """A block whose context manager may be one that swallows exceptions."""
        if not swallows:
            inside()
            return
        block = Try()
        with self.within(block):
            inside()
        self.drawing.ends = [*self.drawing.ends, *block.raised]

    def _saga(self, node: ast.expr, inside: Any) -> None:
        block = Try(is_saga=True)
        with self.within(block):
            inside()
        ends, self.drawing.ends = self.drawing.ends, [*block.raised, *block.bailed]
        if self.drawing.ends:
            rollback = self.add("rollback", "saga", node)
            if block.raised:
                self.jump("raise", [Exit(rollback, outcome="raise again")])
            if block.bailed:
                self.jump("leave", [Exit(rollback, outcome="bail")])
        self.drawing.ends = ends

    def _task_group(self, group: TaskGroup, node: ast.expr, inside: Any) -> None:
        start = self.add("gather", "task group", node, prunable=True)
        inside()
        self.drawing.ends = [exit for exit in self.drawing.ends if exit.draft is not start or not group.ends]
        self.drawing.ends += group.ends

    # ---- definitions

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        value: Value = Function(node, self.frame, defaults=self.defaults(node))
        for decorator in reversed(node.decorator_list):
            head = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(head, ast.Attribute) and head.attr == "undo":
                owner = self.visit(head.value)
                if isinstance(owner, Attribute):
                    owner = owner.owner
                if isinstance(owner, AStep):
                    owner.facts.has_compensation = True
                continue
            maker = self.visit(head)
            it = maker.it if isinstance(maker, Known) else None
            if it is step:
                value = self.decorated_step(node, decorator)
            elif it is workflow:
                value = AWorkflow(self._workflow_name(node, decorator), value)
            elif is_any(it, _MANAGERS):
                value = Function(node, self.frame, None, True, self.defaults(node))
            elif isinstance(maker, Function) or live_function(it) is not None:
                call = decorator if isinstance(decorator, ast.Call) else ast.Call(decorator, [], [])
                ast.copy_location(call, decorator)
                if isinstance(decorator, ast.Call):
                    maker = self.visit(decorator)
                wrapped = self.call_function(maker, Arguments((value,), {}), call)
                value = value if type(wrapped) is Value else wrapped
        self.frame.bind(node.name, value)

    def _workflow_name(self, node: ast.FunctionDef | ast.AsyncFunctionDef, decorator: ast.expr) -> str:
        for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
            if keyword.arg == "name":
                return known_text(self.visit(keyword.value)) or node.name
        return node.name

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                self.frame.bind(alias.asname or name, self._modules(name))
                continue
            module = self._absolute(node)
            found = self.attribute(self._modules(module), alias.name)
            if type(found) is Value:
                found = self._modules(f"{module}.{alias.name}")
            self.frame.bind(alias.asname or alias.name, found)

    def _absolute(self, node: ast.ImportFrom) -> str:
        package = self.frame.lookup("__package__")
        name = known_text(package) if package is not None else None
        try:
            return importlib.util.resolve_name("." * node.level + (node.module or ""), name)
        except (ImportError, TypeError, ValueError):  # it leads out of the package
            return ""


def _loaded(target: ast.Name | ast.Attribute | ast.Subscript) -> ast.expr:
    match target:
        case ast.Name(id=name):
            return ast.copy_location(ast.Name(name, ast.Load()), target)
        case ast.Attribute(value=value, attr=name):
            return ast.copy_location(ast.Attribute(value, name, ast.Load()), target)
        case ast.Subscript(value=value, slice=key):
            return ast.copy_location(ast.Subscript(value, key, ast.Load()), target)


def _swallows(node: ast.expr) -> bool:
    """Whether a context manager may swallow exceptions: any but those that are known not to."""
    text = ast.unparse(node.func if isinstance(node, ast.Call) else node)
    return text.rpartition(".")[2] not in {
        "timeout",
        "timeout_at",
        "fail_after",
        "Lock",
        "lock",
        "nullcontext",
    }
