"""`@workflow` and the registry."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import pytest

from durable import ConfigurationError, Context, InvalidInput, Retry, UnknownWorkflow, Workflow, workflow
from durable.workflow import AnyWorkflow, Registry


@dataclass
class Order:
    id: str


@workflow
async def fulfil(ctx: Context, order: Order) -> list[int]:
    """Sends it."""
    return [1]


@workflow
async def nightly(ctx: Context) -> None: ...


def versions(*numbers: str, name: str = "report") -> list[AnyWorkflow]:
    async def body(ctx: Context) -> None: ...

    return [workflow(name=name, version=number)(body) for number in numbers]


def test_by_default_it_is_named_after_its_function_and_tried_three_times() -> None:
    assert (fulfil.name, fulfil.version, fulfil.queue, fulfil.priority) == ("fulfil", "1", "default", 0)
    assert fulfil.retry == Retry(attempts=3, base="1s", factor=2.0, cap="1h", jitter=0.2)
    assert (fulfil.timeout_ms, fulfil.tags, fulfil.rollback) == (None, {}, "manual")
    assert fulfil.__doc__ == "Sends it."


def test_it_has_the_options_it_was_given() -> None:
    tags = {"category": "orders"}

    @workflow(
        name="other",
        version="2",
        queue="q",
        retry=5,
        timeout="1h",
        priority=7,
        tags=tags,
        rollback="on_failure",
    )
    async def body(ctx: Context) -> None: ...

    tags["category"] = "changed"
    assert (body.name, body.version, body.queue, body.priority) == ("other", "2", "q", 7)
    assert (body.retry.attempts, body.timeout_ms, body.rollback) == (5, 3_600_000, "on_failure")
    assert body.tags == {"category": "orders"}
    assert isinstance(body.tags, Mapping)


def test_its_schemas_are_those_of_its_annotations() -> None:
    assert fulfil.takes_input
    assert fulfil.input_schema.validate({"id": "1"}) == Order("1")
    assert fulfil.output_schema.annotation == list[int]
    assert not nightly.takes_input
    with pytest.raises(InvalidInput):
        nightly.input_schema.validate(3)


def test_it_is_not_called_like_a_function_but_its_body_may_be() -> None:
    with pytest.raises(ConfigurationError, match="called like a function") as error:
        fulfil(None, Order("1"))
    assert "durable.start" in error.value.hint
    fulfil.fn(None, Order("1")).close()


async def three(ctx: Context, a: int, b: int) -> None: ...
async def none() -> None: ...
async def keyword(ctx: Context, *, order: Order) -> None: ...
async def many(ctx: Context, *orders: Order) -> None: ...
async def options(ctx: Context, **options: str) -> None: ...
def sync(ctx: Context) -> None: ...


@pytest.mark.parametrize("fn", [three, none, keyword, many, options])
def test_it_takes_a_context_and_at_most_one_input(fn: object) -> None:
    with pytest.raises(ConfigurationError, match="must take a context and at most one input"):
        workflow(fn)


@pytest.mark.parametrize("fn", [sync, "fulfil", partial(three, b=1)])
def test_it_is_an_async_function(fn: object) -> None:
    with pytest.raises(ConfigurationError, match="needs an async function"):
        workflow(fn)


@pytest.mark.parametrize(
    "option", [{"name": "a b"}, {"name": "__x"}, {"version": ""}, {"version": 2}, {"queue": "rollback:x"}]
)
def test_hostile_names_are_refused(option: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        workflow(**option)(nightly.fn)


def test_a_rollback_is_one_of_two_words() -> None:
    with pytest.raises(ConfigurationError, match="on_failure"):
        workflow(rollback="always")(nightly.fn)


def test_a_registry_finds_a_workflow_by_name_and_version() -> None:
    registry = Registry([fulfil, nightly])
    assert registry.find("fulfil") is fulfil
    assert registry.get("fulfil", "1") is fulfil
    assert registry.get("fulfil", "2") is None
    assert registry.get("other", "1") is None
    assert len(registry) == 2


def test_without_a_version_the_highest_one_is_found() -> None:
    registry = Registry(versions("9", "10", "2"))
    assert registry.find("report").version == "10"
    assert registry.find("report", "9").version == "9"
    assert [known.version for known in registry] == ["2", "9", "10"]
    assert Registry(versions("1.9", "1.10", "v1")).find("report").version == "1.10"


def test_an_unknown_workflow_is_an_error_that_names_the_closest() -> None:
    registry = Registry([fulfil, nightly])
    with pytest.raises(UnknownWorkflow) as error:
        registry.find("fulfill")
    assert "did you mean 'fulfil'" in error.value.hint
    with pytest.raises(UnknownWorkflow, match="version '2'"):
        registry.find("fulfil", "2")


def test_two_workflows_of_one_name_and_version_are_refused_naming_both_places() -> None:
    with pytest.raises(ConfigurationError, match=r"two workflows are named report, version 1: .*body.*body"):
        Registry([*versions("1"), *versions("1")])


def test_the_same_workflow_twice_is_no_contradiction() -> None:
    assert len(Registry([fulfil, fulfil, nightly])) == 2


def test_a_module_stands_for_the_workflows_in_it() -> None:
    registry = Registry([sys.modules[__name__], ModuleType("empty"), fulfil])
    assert [known.name for known in registry] == ["fulfil", "nightly"]


def test_what_is_no_workflow_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="neither a workflow nor a module"):
        Registry([three])


def test_a_type_that_cannot_be_resolved_is_refused_when_it_is_registered() -> None:
    @dataclass
    class Local:
        id: str

    @workflow
    async def local(ctx: Context, order: Local) -> None: ...

    with pytest.raises(ConfigurationError, match="Local"):
        Registry([local])


def test_infos_tell_what_is_registered() -> None:
    info, _ = Registry([nightly, fulfil]).infos()
    assert (info.name, info.version, info.queue, info.tags) == ("fulfil", "1", "default", {})
    assert info.input_schema["properties"] == {"id": {"title": "Id", "type": "string"}}
    assert info.output_schema == {"items": {"type": "integer"}, "type": "array"}


def test_isinstance_and_repr_know_it() -> None:
    assert isinstance(fulfil, Workflow)
    assert repr(fulfil) == "<workflow fulfil version 1>"
