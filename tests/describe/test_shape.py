"""What a shape says beside its graph, and what it is when there is little to say."""

from __future__ import annotations

import json
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, cast

import pytest

from durable import (
    ConfigurationError,
    Context,
    Durable,
    WorkflowShape,
    describe,
    step,
    workflow,
)
from durable.describe import Node
from durable.describe.live import drawn
from durable.describe.source import live_function
from durable.engine import attempt
from tests.describe.corpus import choices, failures, functions, names, straight
from tests.describe.corpus.parts import work


def node(shape: WorkflowShape, id: str) -> Node:
    return shape.node(id)


def test_a_shape_has_the_name_and_the_version_of_its_workflow() -> None:
    @workflow(name="fulfil-order", version="7")
    async def order(ctx: Context) -> None:
        await ctx.step("charge", work)

    shape = describe(order)
    assert (shape.name, shape.version) == ("fulfil-order", "7")


def test_a_step_says_whether_it_has_a_compensation_and_how_long_a_try_may_take() -> None:
    shape = describe(straight.steps_in_a_row)
    assert [n.has_compensation for n in shape.nodes if n.kind == "step"] == [False, True, False]
    assert node(shape, "charge").timeout == "30s"
    shape = describe(straight.up_and_down)
    assert (node(shape, "label").has_compensation, node(shape, "label").timeout) == (True, "10s")
    assert not node(shape, "plain").has_compensation


def test_a_step_in_a_transaction_says_so() -> None:
    shape = describe(straight.in_transactions)
    assert [n.in_transaction for n in shape.nodes if n.kind == "step"] == [True, True]
    assert (node(shape, "charge").has_compensation, node(shape, "charge").timeout) == (True, "30s")
    assert "charge (transaction) (undo)" in shape.to_mermaid()
    assert not any(n.in_transaction for n in describe(straight.steps_in_a_row).nodes)


def test_a_compensation_of_one_call_is_not_that_of_the_next() -> None:
    @workflow
    async def order(ctx: Context) -> None:
        @step
        async def buy() -> int:
            return 1

        await ctx.step("first").up(buy).down(print)
        await ctx.step("second", buy)

    shape = describe(order)
    assert [node(shape, id).has_compensation for id in ("first", "second")] == [True, False]


def test_a_step_that_the_body_defines_has_the_compensation_that_it_gives_it() -> None:
    @workflow
    async def order(ctx: Context) -> None:
        @step(name="buy-label", timeout="5s")
        async def buy() -> int:
            return 1

        @buy.undo
        async def sell(value: int) -> None: ...

        await ctx.step(buy)

    found = node(describe(order), "buy-label")
    assert (found.kind, found.has_compensation, found.timeout) == ("step", True, "5s")


def test_waits_say_for_what_and_how_long() -> None:
    shape = describe(choices.matched)
    found = node(shape, "approved")
    assert (found.kind, found.signal, found.timeout) == ("wait_for_signal", "approved", "3d")
    several = node(describe(choices.either_signal), "wait_for_any")
    assert (several.kind, several.signal, several.timeout) == ("wait_for_signal", "approved,rejected", "90s")


def test_an_installed_package_that_knows_nothing_of_durable_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    source = "async def run(fn, ctx):\n    for _ in 'ab':\n        await fn(ctx)\n"
    (installed / "stranger_that_runs.py").write_text(source)
    (installed / "friend_that_runs.py").write_text(f"from durable import Context\n{source}")
    monkeypatch.syspath_prepend(installed)
    stranger, friend = import_module("stranger_that_runs"), import_module("friend_that_runs")

    async def part(ctx: Context) -> None:
        await ctx.step("part", work)

    @workflow
    async def by_a_stranger(ctx: Context) -> None:
        await stranger.run(part, ctx)

    @workflow
    async def by_a_friend(ctx: Context) -> None:
        await friend.run(part, ctx)

    assert [(n.kind, n.label) for n in describe(by_a_stranger).nodes[1:-1]] == [
        ("dynamic", "stranger.run(part, ctx)")
    ]
    assert [n.kind for n in describe(by_a_friend).nodes[1:-1]] == ["loop", "step"]


def test_an_event_is_waited_for_by_its_name() -> None:
    module = compiled_from(
        "async def body(ctx):\n"
        "    await ctx.wait_for_event(Paid, match={'id': 1}, timeout='7d')\n"
        "    await ctx.wait_for_event(Paid)\n",
        "from tests.describe.corpus.parts import Paid\n",
    )
    shape = describe(workflow(cast("Any", module).body))
    assert [(n.id, n.kind, n.signal, n.timeout) for n in shape.nodes[1:-1]] == [
        ("payment.received", "wait_for_event", "payment.received", "7d"),
        ("payment.received#2", "wait_for_event", "payment.received", None),
    ]


def test_children_and_waits_for_them_say_of_which_workflow_they_are() -> None:
    shape = describe(straight.children)
    assert [(n.id, n.kind, n.workflow) for n in shape.nodes if n.workflow] == [
        ("shipping", "child", "shipping"),
        ("second", "child", "shipping"),
        ("wait_for", "wait_for", "shipping"),
        ("wait_for#2", "wait_for", "shipping"),
    ]


def test_durations_are_told_as_people_write_them() -> None:
    shape = describe(straight.one_name_twice)
    assert [n.timeout for n in shape.nodes if n.kind == "sleep"] == [
        "1h",
        "2d",
        "datetime(2030, 1, 1, tzinfo=UTC)",
    ]


def test_a_name_of_which_a_part_is_known_is_a_pattern() -> None:
    shape = describe(names.patterns)
    assert [(n.id, n.kind, n.pattern) for n in shape.nodes[1:-1]] == [
        ("order-{n}", "step", r"order\-.*"),
        ("item-{str(n)}", "step", r"item\-.*"),
    ]


def test_what_only_a_run_decides_is_a_dynamic_node_with_its_source() -> None:
    shape = describe(names.only_known_when_it_runs)
    assert [n.label for n in shape.nodes if n.kind == "dynamic"] == [
        "ctx.step(name, work)",
        "ctx.step(os.environ['STEP'], work)",
        "ctx.wait_for_signal(Signal(name))",
        "dict(zip(name, name, strict=True))",
    ]


def test_lines_are_those_of_the_source_and_name_the_file_where_it_is_another() -> None:
    shape = describe(functions.followed)
    authorize, inner = node(shape, "authorize"), node(describe(functions.inner_functions), "first")
    assert authorize.file is not None
    assert "authorize" in Path(authorize.file).read_text().splitlines()[(authorize.line or 0) - 1]
    assert inner.file is None
    assert "ctx.step(name" in Path(functions.__file__).read_text().splitlines()[(inner.line or 0) - 1]


def test_the_structure_is_told_by_its_source() -> None:
    shape = describe(choices.if_else)
    assert [n.label for n in shape.nodes if n.kind == "decision"] == ["n > 3", "n > 2"]
    shape = describe(failures.rolled_back)
    assert [n.label for n in shape.nodes if n.kind == "rollback"] == ["rollback on failure"]


def test_json_holds_all_of_it() -> None:
    shape = describe(choices.matched)
    told = json.loads(shape.to_json())
    assert (told["name"], told["version"]) == ("matched", "1")
    assert [n["id"] for n in told["nodes"]] == [n.id for n in shape.nodes]
    assert told["nodes"][1]["signal"] == "approved"
    assert {"source": "approved", "target": "decision", "label": "timeout"} in told["edges"]


def test_describe_runs_nothing_and_needs_no_store() -> None:
    ran: list[str] = []

    class Loud:
        @property
        def name(self) -> str:
            ran.append("property")
            return "loud"

        def __getattr__(self, name: str) -> object:
            ran.append(name)
            raise AttributeError(name)

    loud = Loud()

    def default() -> str:
        ran.append("function")
        return "name"

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step(loud.name, work)
        await ctx.step(default(), work)
        await ctx.step("there", cast("Any", loud).anything)

    with_store = Durable([order], store="redis://127.0.0.1:1/0", worker=False)
    shape = with_store.describe(order)
    assert [n.kind for n in shape.nodes] == ["start", "dynamic", "dynamic", "step", "end"]
    assert shape == describe(order)
    assert ran == []


def test_an_import_in_a_body_loads_nothing() -> None:
    sys.modules.pop("this", None)

    @workflow
    async def order(ctx: Context) -> None:
        import this

        await this.go(ctx)  # type: ignore[attr-defined]
        from tests.describe.corpus.parts import pay

        await pay(ctx, 1)

    shape = describe(order)
    assert "this" not in sys.modules
    assert [n.kind for n in shape.nodes] == ["start", "dynamic", "step", "step", "end"]


def compiled_from(source: str, imports: str = "") -> ModuleType:
    """A module whose source is known to `linecache`, and in no file."""
    import linecache

    name = f"<written here {hash(source)}>"
    text = imports + source
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    module = ModuleType("written_here")
    exec(compile(text, name, "exec"), vars(module))
    return module


def test_without_source_the_shape_is_one_dynamic_node_that_says_so() -> None:
    names: dict[str, Any] = {}
    exec("async def typed(ctx, n): await ctx.step('a', print)", names)
    shape = describe(workflow(names["typed"]))
    assert [n.kind for n in shape.nodes] == ["start", "dynamic", "end"]
    assert len(shape.edges) == 2
    assert "not there to be read" in shape.notes[0]


def test_a_function_without_source_that_is_given_the_context_is_dynamic() -> None:
    names: dict[str, Any] = {}
    exec("async def typed(ctx): await ctx.step('a', print)", names)
    typed = names["typed"]

    @workflow
    async def order(ctx: Context) -> None:
        await typed(ctx)

    assert [n.label for n in describe(order).nodes if n.kind == "dynamic"] == ["typed(ctx)"]


def test_source_that_has_changed_since_it_was_loaded_is_not_taken_for_what_was(tmp_path: Path) -> None:
    file = tmp_path / "changed.py"
    file.write_text("async def body(ctx):\n    await ctx.step('a', print)\n")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    file.write_text("x = 1\n\nasync def other(ctx):\n    await ctx.step('b', print)\n")
    assert [n.kind for n in describe(workflow(names["body"])).nodes] == ["start", "dynamic", "end"]


def test_what_is_no_workflow_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is no workflow"):
        describe(cast("Any", work))


def test_two_lambdas_on_one_line_are_told_apart() -> None:
    pair = (lambda ctx: ctx.step("left", work)), (lambda ctx: ctx.step("right", work))
    right = pair[1]

    @workflow
    async def order(ctx: Context) -> None:
        await right(ctx)

    assert [n.id for n in describe(order).nodes if n.kind == "step"] == ["right"]


def test_a_body_that_calls_itself_without_end_is_walked_through_once() -> None:
    async def down(ctx: Context, name: str) -> None:
        await ctx.step(f"go-{name}", work)
        await down(ctx, name + "x")

    @workflow
    async def order(ctx: Context) -> None:
        await down(ctx, "a")

    assert {n.id for n in describe(order).nodes if n.kind == "step"} <= {"go-a", "go-ax", "go-axx"}
    assert len(describe(order).nodes) < 10


def test_a_flood_of_calls_ends_in_a_dynamic_node() -> None:
    async def two(ctx: Context, depth: str) -> None:
        await ctx.step("work", work)
        await four(ctx, depth)
        await four(ctx, depth)

    async def four(ctx: Context, depth: str) -> None:
        await eight(ctx, depth + "l")
        await eight(ctx, depth + "r")

    async def eight(ctx: Context, depth: str) -> None:
        for name in ("a", "b", "c", "d", "e", "f", "g", "h"):
            await ctx.step(name, work)
        await two(ctx, depth + "x")
        await two(ctx, depth + "y")

    @workflow
    async def order(ctx: Context) -> None:
        await two(ctx, "")

    assert len(describe(order).nodes) < 3000


def test_objects_that_resist_being_looked_at_are_left_alone() -> None:
    class Resists:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError("describe must not compare what is not its own")

        def __bool__(self) -> bool:
            raise AssertionError("describe must not ask what is not its own")

        def __call__(self, *values: object) -> object:
            raise AssertionError("describe must not call what is not its own")

    it, other = Resists(), Resists()
    table: dict[Any, Any] = {"a": it}

    @workflow
    async def order(ctx: Context, n: int) -> None:
        it(n)
        value = it if n else other
        await ctx.step("a", table["a"], value)
        await ctx.step("b").up(it).down(other)
        await ctx.switch("route", it, table, default=other)
        await cast("Any", it)(ctx)

    shape = describe(order)
    assert [n.id for n in shape.nodes if n.kind == "step"] == ["a", "b"]
    assert [n.label for n in shape.nodes if n.kind == "dynamic"] == ["cast('Any', it)(ctx)"]


@pytest.mark.parametrize("module", [attempt, textwrap], ids=lambda module: module.__name__)
def test_any_function_can_be_walked_through(module: ModuleType) -> None:
    kinds = [found for found in vars(module).values() if isinstance(found, type)]
    functions = [found for kind in (module, *kinds) for found in vars(kind).values()]
    shapes = [
        drawn("any", "1", function, compensates=True)
        for found in functions
        if isinstance(found, FunctionType) and (function := live_function(found)) is not None
    ]
    assert len(shapes) >= 5
    for shape in shapes:
        ids = {n.id for n in shape.nodes}
        assert len(ids) == len(shape.nodes)
        assert all({edge.source, edge.target} <= ids for edge in shape.edges)
