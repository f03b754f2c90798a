"""The operations of a context and of a handle: each call of one is a node."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, cast

from durable.context import Branch
from durable.describe.drafts import Draft, Exit
from durable.describe.expressions import Arguments, opened
from durable.describe.flow import Flow
from durable.describe.shape import NodeKind
from durable.describe.source import known
from durable.describe.values import (
    UNKNOWN,
    ABranch,
    AHandle,
    Builder,
    Function,
    Items,
    Known,
    OneOf,
    Partial,
    Patched,
    Pattern,
    Pending,
    Saga,
    StepFacts,
    Table,
    Value,
    branch_label,
    known_text,
    step_facts,
    topic,
    workflow_name,
)

NOT_DRAWN: Final = frozenset({"now", "uuid4", "random", "log", "tags", "deps", "attempt", "is_replaying"})


class Operations(Flow):
    """Draws what the operations do."""

    def operation(self, name: str, given: Arguments, node: ast.Call) -> Value:
        """A call of `ctx.<name>`."""
        operations: Mapping[str, Callable[[Arguments, ast.Call], Value]] = {
            "step": self._step,
            "transaction": self._transaction,
            "map": self._map,
            "gather": self.gather,
            "switch": self._switch,
            "sleep": self._sleep,
            "sleep_until": self._sleep,
            "wait_for_signal": self._wait_for_signal,
            "wait_for_any": self._wait_for_any,
            "wait_for_event": self._wait_for_event,
            "wait_for": self._wait_for,
            "start": self._start,
            "run": self._run_child,
            "handle": self._handle,
            "emit": self._emit,
            "note": self._note,
            "set_value": self._set_value,
            "rollback": self._rollback,
            "patched": self._patched,
        }
        if name in operations:
            return operations[name](given, node)
        match name:
            case "saga":
                return Saga()
            case "bail":
                self.leave("leave", "bail")
            case "continue_as_new":
                self.leave("leave", "continue as new")
            case _ if name not in NOT_DRAWN:
                return self.add_dynamic(node)
            case _:
                pass
        return UNKNOWN

    # ---- steps

    def _step(self, given: Arguments, node: ast.Call) -> Value:
        first = given.get(0, "")
        facts = None if first is None else step_facts(first)
        if facts is not None:
            return self._step_of(Known(facts.name), facts, node)
        if first is None or not _is_name(first):
            return self.defer(lambda: self.add_dynamic(node))
        if len(given.args) == 1 and given.complete:
            timeout = self._duration(given, 99, "timeout", node)
            return Builder(node, first, timeout)
        return self._step_of(first, _facts_of_function(given.get(1, "")), node)

    def build_step(self, builder: Builder, given: Arguments, node: ast.Call) -> Value:
        """A call of `ctx.step("label", ...).up`."""
        facts = _facts_of_function(given.get(0, ""))
        if builder.timeout is not None:
            facts.timeout = builder.timeout
        return self._step_of(builder.name, facts, builder.call)

    def _transaction(self, given: Arguments, node: ast.Call) -> Value:
        name = given.get(0, "") or UNKNOWN
        return self._step_of(name, _facts_of_function(given.get(1, "")), node, in_transaction=True)

    def _step_of(
        self, name: Value, facts: StepFacts, node: ast.Call, *, in_transaction: bool = False
    ) -> Value:
        own = StepFacts(facts.name, facts.has_compensation, facts.timeout)  # `.down` is for this call alone

        def run() -> Value:
            self._named(
                name,
                "step",
                node,
                has_compensation=own.has_compensation,
                in_transaction=in_transaction,
                timeout=own.timeout,
            )
            return UNKNOWN

        return self.defer(run, own)

    def _map(self, given: Arguments, node: ast.Call) -> Value:
        name = given.get(0, "id") or UNKNOWN
        facts = _facts_of_function(given.get(1, "fn"))

        def run() -> Value:
            fields = {"has_compensation": facts.has_compensation, "timeout": facts.timeout}
            self._named(name, "map", node, **fields)
            return UNKNOWN

        return self.defer(run)

    def gather(self, given: Arguments, node: ast.Call) -> Value:
        """Branches side by side."""

        def run() -> Value:
            start = self.add("gather", "gather", node)
            return Items(tuple(self.side_by_side(start, given.args)))

        return self.defer(run)

    # ---- a choice

    def _switch(self, given: Arguments, node: ast.Call) -> Value:
        name = given.get(0, "id") or UNKNOWN
        branches = given.get(2, "branches") or UNKNOWN
        default = given.get(3, "default")

        def run() -> Value:
            switch = self._named(name, "switch", node)
            start = [Exit(switch)] if switch is not None else list(self.drawing.ends)
            ways = self._branches(branches, known_text(name) or "switch", node)
            if default is not None and not (isinstance(default, Known) and default.it is None):
                ways.append(("", self._branch("default", default, known_text(name) or "switch", node)))
            values = self.ways(start, ways)
            return values[0] if len(values) == 1 else UNKNOWN

        return self.defer(run)

    def _branches(
        self, branches: Value, switch: str, node: ast.Call
    ) -> list[tuple[str, Callable[[], Value]]]:
        spread = opened(branches)
        ways: list[tuple[str, Callable[[], Value]]] = []
        unknown = node.args[2] if len(node.args) > 2 else node
        if isinstance(spread, Table):
            for key, fn in spread.pairs:
                label = branch_label(key.it) if isinstance(key, Known) else "…"
                ways.append(("", self._branch(label, fn, switch, node)))
        elif isinstance(spread, Items) and all(_branch_of(item) is not None for item in spread.items):
            for item in spread.items:
                name, fn = _branch_of(item) or (UNKNOWN, UNKNOWN)
                ways.append(("", self._branch(_text(name) or "…", fn, switch, node)))
        else:
            ways.append(("", lambda: self.add_dynamic(unknown)))
        return ways

    def _branch(self, label: str, fn: Value, switch: str, node: ast.Call) -> Callable[[], Value]:
        def walk() -> Value:
            line = fn.node if isinstance(fn, Function) else node
            self.add("branch", label, line, within=switch)
            if type(fn) is Value:
                return self.add_dynamic(node)
            return self.settle(self.apply(fn, Arguments((), {}), node))

        return walk

    # ---- waits

    def _sleep(self, given: Arguments, node: ast.Call) -> Value:
        duration = self._duration(given, 0, "duration", node) or self._duration(given, 0, "when", node)
        name = given.kwargs.get("id", Known("sleep"))
        return self._plain(name, "sleep", node, label=f"sleep {duration}", timeout=duration)

    def _wait_for_signal(self, given: Arguments, node: ast.Call) -> Value:
        return self._wait_for_topics([given.get(0, "signal")], "signal", given, node)

    def _wait_for_any(self, given: Arguments, node: ast.Call) -> Value:
        return self._wait_for_topics(given.args if given.complete else [None], "signal", given, node)

    def _wait_for_event(self, given: Arguments, node: ast.Call) -> Value:
        return self._wait_for_topics([given.get(0, "event")], "event", given, node)

    def _wait_for_topics(
        self,
        topics: Sequence[Value | None],
        kind: Literal["signal", "event"],
        given: Arguments,
        node: ast.Call,
    ) -> Value:
        found = [None if value is None else topic(value, kind) for value in topics]
        names = [name for name in found if name is not None]
        if len(names) < len(found):
            return self.defer(lambda: self.add_dynamic(node))
        is_any = isinstance(node.func, ast.Attribute) and node.func.attr == "wait_for_any" and len(names) > 1
        name = given.kwargs.get("id", Known("wait_for_any" if is_any else names[0]))
        timeout = self._duration(given, 99, "timeout", node)
        node_kind: NodeKind = "wait_for_signal" if kind == "signal" else "wait_for_event"
        signal = ",".join(names)

        def run() -> Value:
            self._wait(name, node_kind, node, "received", label=signal, signal=signal, timeout=timeout)
            return UNKNOWN

        return self.defer(run)

    def _wait_for(self, given: Arguments, node: ast.Call) -> Value:
        timeout = self._duration(given, 99, "timeout", node)
        return self._wait_for_execution(given.get(0, "handle"), timeout, node)

    def _wait_for_execution(self, handle: Value | None, timeout: str | None, node: ast.Call) -> Value:
        workflow = handle.workflow if isinstance(handle, AHandle) else None

        def run() -> Value:
            label = f"wait for {workflow or 'an execution'}"
            self._wait(
                Known("wait_for"),
                "wait_for",
                node,
                "completed",
                label=label,
                workflow=workflow,
                timeout=timeout,
            )
            return UNKNOWN

        return self.defer(run)

    def _wait(self, name: Value, kind: NodeKind, node: ast.Call, met: str, **fields: str | None) -> None:
        draft = self._named(name, kind, node, **fields)
        if draft is not None and fields["timeout"] is not None and self.drawing.ends == [Exit(draft)]:
            self.drawing.ends = [Exit(draft, met), Exit(draft, "timeout")]

    # ---- other executions

    def _start(self, given: Arguments, node: ast.Call) -> Value:
        return self._child(given, node, "start ", AHandle)

    def _run_child(self, given: Arguments, node: ast.Call) -> Value:
        return self._child(given, node, "", lambda _: UNKNOWN)

    def _child(
        self, given: Arguments, node: ast.Call, verb: str, gives: Callable[[str | None], Value]
    ) -> Value:
        value = given.get(0, "workflow") or UNKNOWN
        choices = value.values if isinstance(value, OneOf) else (value,)
        workflows = [name for name in map(workflow_name, choices) if name is not None]
        if len(workflows) < len(choices):

            def dynamic() -> Value:
                self.add_dynamic(node)
                return gives(None)

            return self.defer(dynamic)
        names = given.kwargs.get("id")
        if names is None:
            names = Known(workflows[0]) if len(workflows) == 1 else OneOf(tuple(map(Known, workflows)))
        workflow = workflows[0] if len(workflows) == 1 else None

        def run() -> Value:
            self._named(
                names, "child", node, workflow=workflow, label=None if workflow is None else verb + workflow
            )
            return gives(workflow)

        return self.defer(run)

    def _handle(self, given: Arguments, node: ast.Call) -> Value:
        workflow = given.get(1, "workflow")
        return AHandle(None if workflow is None else workflow_name(workflow))

    def handle_operation(self, handle: AHandle, name: str, given: Arguments, node: ast.Call) -> Value:
        """A call of a method of a handle that the body holds."""
        target = handle.workflow or "an execution"
        match name:
            case "result" | "wait":
                return self._wait_for_execution(handle, self._duration(given, 0, "timeout", node), node)
            case "signal":
                signal = topic(given.get(0, "signal") or UNKNOWN, "signal")
                if signal is None:
                    return self.defer(lambda: self.add_dynamic(node))
                return self._plain(
                    Known(f"signal:{signal}"),
                    "emit",
                    node,
                    label=f"signal {signal} to {target}",
                    signal=signal,
                )
            case "cancel":
                return self._plain(Known("cancel"), "emit", node, label=f"cancel {target}")
            case _:
                return UNKNOWN

    # ---- what is done once

    def _emit(self, given: Arguments, node: ast.Call) -> Value:
        event = topic(given.get(0, "event") or UNKNOWN, "event")
        if event is None:
            return self.defer(lambda: self.add_dynamic(node))
        name = given.kwargs.get("id", Known(f"emit:{event}"))
        return self._plain(name, "emit", node, label=f"emit {event}", signal=event)

    def _note(self, given: Arguments, node: ast.Call) -> Value:
        text = _text(given.get(0, "") or UNKNOWN)
        return self._plain(Known("note"), "note", node, label=ast.unparse(node) if text is None else text)

    def _set_value(self, given: Arguments, node: ast.Call) -> Value:
        name = given.get(0, "name") or UNKNOWN
        text = _text(name)
        if text is None:
            return self.defer(lambda: self.add_dynamic(node))
        regex = name.regex if isinstance(name, Pattern) else None
        key = Known(f"value:{text}") if regex is None else Pattern(f"value:{text}", f"value:{regex}")
        return self._plain(key, "note", node, label=f"set {text}")

    def _rollback(self, given: Arguments, node: ast.Call) -> Value:
        def run() -> Value:
            self.add("rollback", "rollback", node)
            return UNKNOWN

        return self.defer(run)

    def _patched(self, given: Arguments, node: ast.Call) -> Value:
        change = given.get(0, "change") or UNKNOWN
        text = _text(change)
        if text is None:
            return self.add_dynamic(node)
        regex = f"patched:{change.regex}" if isinstance(change, Pattern) else None
        draft = self.add("decision", f"patched {text}", node, name=f"patched:{text}", pattern=regex)
        return Patched(draft)

    # ---- names

    def _plain(self, name: Value, kind: NodeKind, node: ast.Call, **fields: str | None) -> Pending:
        def run() -> Value:
            self._named(name, kind, node, **fields)
            return UNKNOWN

        return self.defer(run)

    def _named(self, name: Value, kind: NodeKind, node: ast.AST, **fields: object) -> Draft | None:
        """Draw a node for an operation of that name; one for each that it may have; a dynamic one, if none is known."""
        if isinstance(name, OneOf) and all(_text(each) is not None for each in name.values):

            def way(each: Value) -> tuple[str, Callable[[], Value]]:
                def walk() -> Value:
                    self._named(each, kind, node, **fields)
                    return UNKNOWN

                return _text(each) or "", walk

            self.decide("which name?", node, [way(each) for each in name.values])
            return None
        text = _text(name)
        if text is None:
            self.add_dynamic(node)
            return None
        given = {key: value for key, value in fields.items() if key != "label"}
        label = fields.get("label")
        draft = self.add(
            kind,
            label if isinstance(label, str) else text,
            node,
            name=text,
            pattern=name.regex if isinstance(name, Pattern) else None,
            **given,
        )
        if kind not in ("emit", "note"):
            self.may_raise(draft)
        return draft

    def _duration(self, given: Arguments, position: int, name: str, node: ast.Call) -> str | None:
        value = given.get(position, name)
        if value is None:
            return None
        source: ast.expr = node
        if position < len(node.args):
            source = node.args[position]
        for keyword in node.keywords:
            if keyword.arg == name:
                source = keyword.value
        return self.duration(value, source)


def _is_name(value: Value) -> bool:
    return _text(value) is not None or (
        isinstance(value, OneOf) and all(_text(each) is not None for each in value.values)
    )


def _text(value: Value) -> str | None:
    return value.text if isinstance(value, Pattern) else known_text(value)


def _facts_of_function(fn: Value | None) -> StepFacts:
    while isinstance(fn, Partial):
        fn = fn.fn
    facts = None if fn is None else step_facts(fn)
    return StepFacts("", facts.has_compensation, facts.timeout) if facts is not None else StepFacts("")


def _branch_of(item: Value) -> tuple[Value, Value] | None:
    if isinstance(item, ABranch):
        return item.name, item.fn
    it = item.it if isinstance(item, Known) else None
    if isinstance(it, Branch):
        branch = cast("Branch[object, object]", it)
        return Known(branch.name), known(branch.fn)
    return None
