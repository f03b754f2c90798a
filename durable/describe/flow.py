"""Where control goes: ways that part and meet, loops, jumps, tasks that run beside, functions that are followed."""

from __future__ import annotations

import ast
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from typing_extensions import override

from durable.describe.drafts import Draft, Drawing, Exit, Exits, shortened
from durable.describe.expressions import Arguments, Expressions, opened
from durable.describe.frames import Block, Call, Finally, Frame, Jump, Loop, Names, OnYield, Try
from durable.describe.shape import NodeKind
from durable.describe.values import (
    UNKNOWN,
    ATask,
    Function,
    FunctionNode,
    Items,
    Known,
    OneOf,
    Pending,
    StepFacts,
    Table,
    TheContext,
    Value,
    holds,
    joined,
)

_MOST_NODES: Final = 1000
_DEEPEST: Final = 40
_MOST_ROUNDS: Final = 3
"""How often a function that calls itself is followed into itself, with other arguments each time."""


class Flow(Expressions):
    """Draws what it comes by."""

    def __init__(self, drawing: Drawing, frame: Frame) -> None:
        super().__init__(frame)
        self.drawing = drawing
        self.own_file = frame.file
        self.blocks: list[Block] = []
        self.loops: tuple[Draft, ...] = ()
        self.place: ast.AST = ast.Pass()
        """The last thing that was awaited."""
        self.active: list[tuple[Function, Arguments, int]] = []
        self.failures: Exits = []
        """How the execution ends but by the end of its body."""

    # ---- nodes

    def add(self, kind: NodeKind, label: str, node: ast.AST, **fields: object) -> Draft:
        """Draw a node for a place in the source."""
        return self.drawing.add(self.draft(kind, label, node, **fields))

    def draft(self, kind: NodeKind, label: str, node: ast.AST, **fields: object) -> Draft:
        line: int | None = getattr(node, "lineno", None)
        file = None if self.frame.file == self.own_file else self.frame.file
        draft = Draft(kind, shortened(label), line, file)
        for name, value in fields.items():
            setattr(draft, name, value)
        return draft

    def add_dynamic(self, node: ast.AST) -> Value:
        """Draw a node for what cannot be known before it runs."""
        self.may_raise(self.add("dynamic", ast.unparse(node), node))
        return UNKNOWN

    def may_raise(self, draft: Draft) -> None:
        """An exception may come from a node: it goes where it would be caught."""
        exits = [Exit(draft, "raises")]
        for block in reversed(self.blocks):
            if isinstance(block, Try):
                block.raised += exits
                return
            if isinstance(block, Finally):
                block.passing.append(("raise", exits))
                return

    def jump(self, jump: Jump, exits: Iterable[Exit]) -> None:
        """Send loose ends where a jump takes them."""
        exits = list(exits)
        for block in reversed(self.blocks):
            match block:
                case Finally():
                    block.passing.append((jump, exits))
                    return
                case Loop() if jump == "break":
                    block.breaks += exits
                    return
                case Loop(head=None) if jump == "continue":
                    block.continues += exits
                    return
                case Loop(head=Draft() as head) if jump == "continue":
                    self.drawing.join(exits, head)
                    return
                case Call() if jump == "return":
                    block.returns += exits
                    return
                case Try(is_saga=True) if jump == "leave" and all(exit.outcome == "bail" for exit in exits):
                    block.bailed += exits
                    return
                case Try() if jump == "raise":
                    block.raised += exits
                    return
                case _:
                    pass
        self.failures += exits

    def leave(self, jump: Jump, outcome: str = "") -> None:
        """Nothing comes next here: the loose ends jump."""
        ends, self.drawing.ends = self.drawing.ends, []
        self.jump(jump, [exit.leaving(outcome) for exit in ends] if outcome else ends)

    @contextmanager
    def within(self, block: Block) -> Generator[None]:
        self.blocks.append(block)
        try:
            yield
        finally:
            self.blocks.pop()

    # ---- ways that part and meet

    def ways(self, start: Sequence[Exit], ways: Sequence[tuple[str, Callable[[], Value]]]) -> list[Value]:
        """Walk each way from `start`, under its label, and meet behind them."""
        names = dict(self.frame.names)
        frame = self.frame
        ends: Exits = []
        seen: list[Names] = []
        values: list[Value] = []
        for label, walk in ways:
            frame.names = dict(names)
            self.drawing.ends = [_labelled(exit, label) for exit in start]
            value = walk()
            if self.drawing.ends:
                seen.append(frame.names)
                values.append(value)
            ends += self.drawing.ends
        self.drawing.ends = ends
        if seen:
            frame.merge(seen)
        return values

    def decide(
        self, label: str, node: ast.AST, ways: Sequence[tuple[str, Callable[[], Value]]]
    ) -> list[Value]:
        decision = self.add("decision", label, node, prunable=True)
        return self.ways([Exit(decision)], ways)

    @contextmanager
    def loop(self, label: str, node: ast.AST, bound: Iterable[str] = ()) -> Generator[Draft]:
        """Draw a loop around what is walked within; its names are not known from one round to the next."""
        head = self.add("loop", label, node, prunable=True)
        first = len(self.drawing.drafts)
        for name in bound:
            self.frame.bind(name, UNKNOWN)
        self.drawing.ends = [Exit(head, "each")]
        before, self.loops = self.loops, (*self.loops, head)
        block = Loop(head)
        with self.within(block):
            yield head
        self.loops = before
        head.prunable = all(draft.prunable for draft in self.drawing.drafts[first:])
        self.drawing.join(self.drawing.ends, head)
        self.drawing.ends = [Exit(head, "done"), *block.breaks]

    # ---- coroutines that are awaited later, and tasks

    def defer(self, run: Callable[[], Value], facts: StepFacts | None = None) -> Pending:
        """A coroutine: `run` walks through it, once something awaits it."""
        frame = self.frame

        def run_here() -> Value:
            awaiting, self.frame = self.frame, frame
            try:
                return run()
            finally:
                self.frame = awaiting

        pending = Pending(run_here, self.loops, facts)
        frame.pending.append(pending)
        return pending

    @override
    def settle(self, value: Value) -> Value:
        match value:
            case Pending():
                if not value.state:
                    value.state.append(UNKNOWN)  # a coroutine that awaits itself
                    value.state[0] = self._run(value)
                return value.state[0]
            case ATask(ends, result):
                self.drawing.ends += [exit for exit in ends if exit not in self.drawing.ends]
                ends.clear()
                return result
            case OneOf(values) if any(isinstance(each, Pending | ATask) for each in values):
                return joined(
                    self.decide("which one?", self.place, [("", self._way_of(each)) for each in values])
                )
            case _:
                return UNKNOWN

    def _way_of(self, value: Value) -> Callable[[], Value]:
        return lambda: self.settle(value)

    def _run(self, pending: Pending) -> Value:
        left = [loop for loop in pending.loops if loop not in self.loops]
        if not left:
            return pending.run()
        outer = left[-1]  # it was made in a loop that is over: as often as that went round
        head = Draft("loop", outer.label, outer.line, outer.file)
        self.drawing.add(head)
        self.drawing.ends = [Exit(head, "each")]
        before, self.loops = self.loops, (*self.loops, *left)
        result = pending.run()
        self.loops = before
        self.drawing.join(self.drawing.ends, head)
        self.drawing.ends = [Exit(head, "done")]
        return result

    def side_by_side(self, start: Draft, branches: Iterable[Value]) -> list[Value]:
        """Walk each branch from `start`: the next node comes after all of them."""
        ends: Exits = []
        results: list[Value] = []
        for branch in branches:
            self.drawing.ends = [Exit(start)]
            spread = opened(branch)
            for each in spread.items if isinstance(spread, Items) else (spread,):
                self.drawing.ends = [Exit(start)]
                results.append(self.settle(each))
                ends += [exit for exit in self.drawing.ends if exit not in ends]
        self.drawing.ends = [exit for exit in ends if exit.draft is not start] or [Exit(start)]
        return results

    def task(self, value: Value) -> ATask:
        """Walk what runs as a task from here on, beside whatever comes next."""
        here = list(self.drawing.ends)
        result = self.settle(value)
        ends = [exit for exit in self.drawing.ends if exit not in here]
        self.drawing.ends = here
        return ATask(ends, result)

    def settle_since(self, count: int, kept: Value = UNKNOWN) -> None:
        """Walk coroutines that nothing that is known of awaits, so that they are there all the same."""
        for pending in self.frame.pending[count:]:
            if not pending.state and not _has(kept, pending):
                self.settle(pending)

    # ---- expressions in which control goes several ways

    @override
    def awaited(self, node: ast.expr) -> Value:
        self.place = node
        if isinstance(node, ast.IfExp):
            return self._either(node, self.awaited)
        return super().awaited(node)

    @override
    def either(self, node: ast.IfExp) -> Value:
        return self._either(node, self.visit)

    def _either(self, node: ast.IfExp, visit: Callable[[ast.expr], Value]) -> Value:
        self.visit(node.test)
        yes, no = (lambda: visit(node.body)), (lambda: visit(node.orelse))
        return joined(self.decide(ast.unparse(node.test), node, [("true", yes), ("false", no)]))

    @override
    def bool_op(self, node: ast.BoolOp) -> Value:
        value = self.visit(node.values[0])
        goes_on, stops = ("true", "false") if isinstance(node.op, ast.And) else ("false", "true")
        values = [value]
        for before, part in zip(node.values, node.values[1:], strict=False):

            def walk(part: ast.expr = part) -> Value:
                return self.visit(part)

            values += self.decide(ast.unparse(before), node, [(goes_on, walk), (stops, lambda: UNKNOWN)])[:1]
        return UNKNOWN if isinstance(node.op, ast.And) else joined(values)

    @override
    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Value:
        first, *others = node.generators
        self.visit(first.iter)
        names = dict(self.frame.names)
        count = len(self.frame.pending)
        with self.loop(f"for {ast.unparse(first.target)} in {ast.unparse(first.iter)}", node):
            self.bind_each(first.target, self.visit_again(first.iter))
            for generator in others:
                self.visit(generator.iter)
                self.bind_each(generator.target, UNKNOWN)
            for generator in node.generators:
                for test in generator.ifs:
                    self.visit(test)
            if isinstance(node, ast.DictComp):
                self.visit(node.key)
                item = self.visit(node.value)
            else:
                item = self.visit(node.elt)
        made = [pending for pending in self.frame.pending[count:] if not pending.state]
        kept = {name: value for name, value in self.frame.names.items() if name in names}
        self.frame.names = names | kept
        if isinstance(node, ast.DictComp):
            return Table(((UNKNOWN, item),)) if made else UNKNOWN
        return Items((item,)) if made else UNKNOWN

    def visit_again(self, node: ast.expr) -> Value:
        """What an expression is whose calls have been walked through before."""
        return Expressions(self.frame).visit(node)

    @override
    def yielded(self, value: Value) -> Value:
        on_yield = self.frame.on_yield
        if on_yield is not None and not on_yield.done:
            on_yield.done = True
            on_yield.walk(value)
        return UNKNOWN

    def through(self, generator: Value, walk: Callable[[Value], None]) -> None:
        """Walk through a generator, and through `walk` where it yields; behind it, if that is nowhere to be seen."""
        frame, loops = self.frame, self.loops

        def inside(value: Value) -> None:
            inner, self.frame = self.frame, frame
            walk(value)
            self.frame = inner

        on_yield = OnYield(inside)
        frame.on_yield = on_yield
        self.settle(generator)
        frame.on_yield, self.loops = None, loops
        if not on_yield.done:
            walk(UNKNOWN)

    # ---- binding

    def bind_target(self, target: ast.expr, value: Value) -> None:
        """Give the names of an assignment their values."""
        match target:
            case ast.Name(id=name):
                self.frame.bind(name, value)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                spread = opened(value)
                known = isinstance(spread, Items) and len(spread.items) == len(parts)
                for index, part in enumerate(parts):
                    self.bind_target(
                        part, spread.items[index] if known and isinstance(spread, Items) else UNKNOWN
                    )
            case ast.Starred(value=part):
                self.bind_target(part, UNKNOWN)
            case _:
                self.bind_attribute(target, value)

    def bind_attribute(self, target: ast.expr, value: Value) -> None:
        self.visit(target)

    def bind_each(self, target: ast.expr, iterated: Value) -> None:
        """Give the names of a loop what they may be in one round or another."""
        spread = opened(iterated)
        if isinstance(spread, Table):
            spread = Items(tuple(key for key, _ in spread.pairs))
        items = spread.items if isinstance(spread, Items) else ()
        if isinstance(target, ast.Tuple):
            rows = [opened(item) for item in items]
            columns = [
                row.items for row in rows if isinstance(row, Items) and len(row.items) == len(target.elts)
            ]
            whole = bool(columns) and len(columns) == len(items)
            for index, part in enumerate(target.elts):
                self.bind_target(part, joined(column[index] for column in columns) if whole else UNKNOWN)
            return
        self.bind_target(target, joined(items))

    # ---- functions

    def follow(self, function: Function, given: Arguments, node: ast.Call) -> Value:
        """Walk through a function that is called here: what it gives."""
        too_much = len(self.drawing.drafts) > _MOST_NODES or len(self.active) > _DEEPEST
        if too_much:
            return self.add_dynamic(node)
        counts = _calls_itself(function.node)
        rounds = [(args, first) for fn, args, first in self.active if fn.node is function.node]
        if rounds and (len(rounds) >= _MOST_ROUNDS or any(_alike(args, given, counts) for args, _ in rounds)):
            first = rounds[-1][1]
            if first < len(self.drawing.drafts):
                again = [_labelled(exit, "again") for exit in self.drawing.ends]
                self.drawing.join(again, self.drawing.drafts[first])
            return UNKNOWN
        caller = self.frame
        self.frame = Frame(function.scope, function.node)
        if function.is_context_manager:
            self.frame.on_yield, caller.on_yield = caller.on_yield, None
        self._bind_parameters(function, given)
        return self._walked(function, given, caller)

    def _walked(self, function: Function, given: Arguments, caller: Frame) -> Value:
        self.active.append((function, given, len(self.drawing.drafts)))
        block = Call()
        try:
            with self.within(block):
                if isinstance(function.node, ast.Lambda):
                    value = self.visit(function.node.body)
                    self.settle_since(0, value)
                    caller.pending += [p for p in _pending_in(value) if not p.state]
                    return value
                self.body(function.node.body)
                self.drawing.ends = [*block.returns, *self.drawing.ends]
                value = joined(block.values) if block.values else Known(None)
                self.settle_since(0, value)
                caller.pending += [p for p in _pending_in(value) if not p.state]
                return value
        finally:
            self.active.pop()
            self.frame = caller

    def body(self, statements: Sequence[ast.stmt]) -> None:
        raise NotImplementedError

    def _bind_parameters(self, function: Function, given: Arguments) -> None:
        frame, arguments = self.frame, function.node.args
        positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
        args = given.args if function.owner is None else (function.owner, *given.args)
        values = dict(function.defaults)
        values |= dict(zip(positional, args, strict=False))
        named = {*positional, *(argument.arg for argument in arguments.kwonlyargs)}
        values |= {name: value for name, value in given.kwargs.items() if name in named}
        if arguments.vararg is not None:
            rest = args[len(positional) :]
            frame.bind(arguments.vararg.arg, Items(rest) if given.complete else Items((*rest, UNKNOWN)))
        if arguments.kwarg is not None:
            others = [(Known(name), value) for name, value in given.kwargs.items() if name not in named]
            frame.bind(arguments.kwarg.arg, Table(tuple(others)))
        counts = _calls_itself(function.node)
        for name, value in values.items():
            is_number = isinstance(value, Known) and isinstance(value.it, int)
            frame.bind(name, UNKNOWN if counts and is_number else value)  # it is another one in each round


def _labelled(exit: Exit, label: str) -> Exit:
    if not label or exit.outcome:
        return exit
    return replace(exit, label=f"{exit.label}, {label}" if exit.label else label)


def _pending_in(value: Value) -> list[Pending]:
    match value:
        case Pending():
            return [value]
        case Items(items) | OneOf(items):
            return [pending for item in items for pending in _pending_in(item)]
        case Table(pairs):
            return [pending for _, item in pairs for pending in _pending_in(item)]
        case _:
            return []


def _has(value: Value, pending: Pending) -> bool:
    return any(each is pending for each in _pending_in(value))


def _alike(one: Arguments, other: Arguments, counts: bool) -> bool:
    """Whether two calls have the same arguments, as far as is known; but for numbers, where these count rounds."""
    told = str if counts else str | int

    def texts(given: Arguments) -> list[object]:
        values = [*given.args, *(given.kwargs[name] for name in sorted(given.kwargs))]
        return [
            value.it if isinstance(value, Known) and isinstance(value.it, told) else None for value in values
        ]

    return texts(one) == texts(other)


def _calls_itself(node: FunctionNode) -> bool:
    return not isinstance(node, ast.Lambda) and any(
        isinstance(part, ast.Name) and part.id == node.name for part in ast.walk(node)
    )


def carries(value: Value) -> bool:
    """Whether a function that is given this may use the context."""
    return holds(value, (TheContext,))
