"""Bad input: a typed error that says what to mend, and nothing stored."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from durable import (
    ConfigurationError,
    Context,
    Durable,
    DurableError,
    ExecutionClosed,
    ExecutionNotFound,
    InvalidInput,
    KeyConflict,
    NotSerializable,
    PayloadTooLarge,
    Retry,
    Signal,
    StoreUnavailable,
    UnknownWorkflow,
    step,
    workflow,
)
from tests.support import World

Go = Signal("go")
Text = Signal("text", str)


class Item(BaseModel):
    sku: str
    amount: int


class Order(BaseModel):
    id: int
    items: list[Item]


@workflow
async def fulfil_order(ctx: Context, order: Order) -> int:
    return order.id


@workflow
async def no_input(ctx: Context) -> None: ...


@workflow
async def takes_anything(ctx: Context, value: object) -> None: ...


@workflow
async def takes_text(ctx: Context, value: str) -> int:
    return len(value)


@workflow
async def never_registered(ctx: Context) -> None: ...


@workflow
async def fulfill_order(ctx: Context, order: Order) -> int:
    """Almost the name of one that is registered."""
    return 0


ORDER = Order(id=1, items=[])
NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001
KNOWN = (fulfil_order, no_input, takes_anything, takes_text)


async def refuses(node: Durable, error: type[DurableError], call: Any, *words: str) -> None:
    with pytest.raises(error) as refused:
        await call
    assert refused.value.code
    assert refused.value.hint
    text = f"{refused.value}\n{refused.value.hint}"
    for word in words:
        assert word in text, text
    assert (await node.operator.list_executions()).items == []


async def test_an_unknown_workflow_is_refused_with_the_closest_one_that_is_known(world: World) -> None:
    node = await world.node(*KNOWN, worker=False)
    await refuses(node, UnknownWorkflow, node.start(never_registered), "never_registered", "workflows=[")
    await refuses(node, UnknownWorkflow, node.start(fulfill_order, ORDER), "did you mean 'fulfil_order'")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"id": "x", "items": []}, ["id", "integer"]),
        ({"id": 1, "items": [{"sku": "a", "amount": 1}, {"sku": "b"}]}, ["items.1.amount", "required"]),
        ({"items": []}, ["id", "required"]),
        (None, ["fulfil_order"]),
        ("text", ["fulfil_order"]),
    ],
    ids=["a wrong type", "a missing field", "another missing field", "nothing", "text"],
)
async def test_an_input_that_does_not_validate_is_refused_by_field(
    world: World, value: Any, words: list[str]
) -> None:
    node = await world.node(*KNOWN, worker=False)
    await refuses(node, InvalidInput, node.start(fulfil_order, value), "fulfil_order", *words)


async def test_an_input_for_a_workflow_that_takes_none_is_refused(world: World) -> None:
    node = await world.node(*KNOWN, worker=False)
    await refuses(node, InvalidInput, node.start(no_input, 5), "no_input")  # type: ignore[arg-type]


async def test_an_input_that_cannot_be_stored_is_refused(world: World) -> None:
    node = await world.node(*KNOWN, worker=False)
    await refuses(node, NotSerializable, node.start(takes_anything, object()), "takes_anything")


async def test_an_input_that_is_too_large_is_refused_with_both_sizes(world: World) -> None:
    node = await world.node(*KNOWN, worker=False)
    await refuses(node, PayloadTooLarge, node.start(takes_text, "x" * 1_048_577), "takes_text", "1,048,576")


async def test_an_input_of_just_the_limit_is_stored(world: World) -> None:
    node = await world.node(*KNOWN)
    assert await node.start_and_wait(takes_text, "x" * (1_048_576 - 2), timeout=10) == 1_048_574


@pytest.mark.parametrize(
    "settings",
    [
        {"at": NAIVE},
        {"at": "tomorrow"},
        {"delay": "soon"},
        {"delay": -1},
        {"delay": float("inf")},
        {"delay": "1s", "at": NAIVE},
        {"timeout": "1 parsec"},
        {"timeout": -5},
        {"key": ""},
        {"key": "x" * 513},
        {"key": "line\nbreak"},
        {"key": "null\x00byte"},
        {"key": 5},
        {"key_reuse": "always"},
        {"queue": "two words"},
        {"queue": "__mine"},
        {"queue": ""},
        {"queue": "../../etc/passwd\x00"},
        {"retry": 0},
        {"retry": -1},
        {"priority": "urgency..level"},
        {"priority": 10**30},
        {"tags": {"a": 5}},
        {"tags": {"x" * 201: "y"}},
        {"tags": {str(n): "y" for n in range(51)}},
        {"tags": "a=b"},
    ],
    ids=repr,
)
async def test_bad_settings_of_a_start_are_refused(world: World, settings: dict[str, Any]) -> None:
    node = await world.node(*KNOWN, worker=False)
    await refuses(node, InvalidInput, node.start(no_input, **{"queue": "default"} | settings))


@pytest.mark.parametrize(
    "id", ["", " ", "a b", "x" * 201, "ö", "a\nb", "a\x00", "'; DROP TABLE--", "{}", 5, None]
)
async def test_hostile_ids_of_executions_are_refused(world: World, id: Any) -> None:
    node = await world.node(*KNOWN, worker=False)
    for call in (
        lambda: node.status(id),
        lambda: node.signal(id, Go),
        lambda: node.cancel(id),
        lambda: node.operator.get_execution_detail(id),
        lambda: node.operator.retry(id),
        lambda: node.operator.explain(id),
    ):
        with pytest.raises(InvalidInput, match="id of an execution"):
            await call()
    with pytest.raises(InvalidInput):
        node.handle(id)


async def test_ids_that_nobody_has_are_not_found(world: World) -> None:
    node = await world.node(*KNOWN, worker=False)
    for call in (
        lambda: node.status("nobody"),
        lambda: node.signal("nobody", Go),
        lambda: node.cancel("nobody"),
        lambda: node.handle("nobody").value("x"),
        lambda: node.operator.get_execution_detail("nobody"),
        lambda: node.operator.retry("nobody"),
        lambda: node.operator.force_fail("nobody", "why"),
        lambda: node.operator.rollback("nobody"),
        lambda: node.operator.explain("nobody"),
    ):
        with pytest.raises(ExecutionNotFound, match="nobody"):
            await call()


@pytest.mark.parametrize("by", ["two\nlines", "\x1b[2J", "half \udcff", "x" * 201, 7])
async def test_who_does_something_is_a_short_line_of_text(one_index_world: World, by: Any) -> None:
    node = await one_index_world.node(*KNOWN, worker=False)
    handle = await node.start(takes_text, "one")
    operator = node.operator
    for call in (
        lambda: handle.cancel(by=by),
        lambda: node.cancel(handle.id, by=by),
        lambda: operator.pause(handle.id, by=by),
        lambda: operator.rollback(handle.id, by=by),
        lambda: operator.rerun(handle.id, by=by),
    ):
        with pytest.raises(InvalidInput, match="by must be"):
            await call()
    assert await operator.unread_acts(handle.id) == []


async def test_a_reason_is_kept_as_far_as_it_can_be(one_index_world: World) -> None:
    node = await one_index_world.node(*KNOWN, worker=False)
    handle = await node.start(takes_text, "one")
    await node.operator.force_fail(handle.id, "half \udcff and long " + "x" * 100_000)
    [act] = [e for e in (await node.operator.get_execution_detail(handle.id)).audit if e.kind == "operator"]
    assert str(act.details["reason"]).startswith("half ? and long xxx")
    assert len(str(act.details["reason"])) == 8192


async def test_one_key_with_two_inputs_is_a_conflict(world: World) -> None:
    node = await world.node(*KNOWN)
    await node.start(takes_text, "one", key="k")
    with pytest.raises(KeyConflict) as conflict:
        await node.start(takes_text, "two", key="k")
    assert conflict.value.hint
    assert len((await node.operator.list_executions()).items) == 1


async def test_an_oversized_signal_is_refused(world: World) -> None:
    @workflow
    async def patient(ctx: Context) -> int:
        return len(await ctx.wait_for_signal(Text))

    node = await world.node(patient)
    handle = await node.start(patient)
    with pytest.raises(PayloadTooLarge, match="text"):
        await handle.signal(Text, "x" * 2_000_000)
    for key in ("", "x" * 513, "a\nb"):
        with pytest.raises(InvalidInput, match="key"):
            await handle.signal(Text, "x", key=key)
    assert (await node.operator.get_execution_detail(handle.id)).signals == []
    await handle.signal(Text, "ab")
    assert await handle.result(5) == 2
    with pytest.raises(ExecutionClosed):
        await handle.signal(Text, "late")


@pytest.mark.parametrize("timeout", ["soon", -1, float("nan"), "1 h 5", True])
async def test_bad_durations_of_a_wait_are_refused(world: World, timeout: Any) -> None:
    node = await world.node(*KNOWN)
    handle = await node.start(no_input)
    with pytest.raises(InvalidInput):
        await handle.result(timeout)


# ---- definitions


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "__mine"},
        {"name": "two words"},
        {"name": ""},
        {"version": "a b"},
        {"queue": "rollback:x"},
        {"timeout": "x"},
        {"retry": 0},
        {"priority": "urgency..level"},
        {"tags": {"a": 1}},
    ],
    ids=repr,
)
def test_bad_settings_of_a_workflow_are_refused_where_it_is_defined(settings: dict[str, Any]) -> None:
    with pytest.raises(DurableError):

        @workflow(**settings)
        async def order(ctx: Context) -> None: ...


def test_what_is_no_workflow_is_refused() -> None:
    def sync(ctx: Context) -> None: ...

    async def too_many(ctx: Context, a: int, b: int) -> None: ...

    async def no_context() -> None: ...

    for fn in (sync, too_many, no_context):
        with pytest.raises(ConfigurationError):
            workflow(fn)  # type: ignore[arg-type, type-var, call-overload]
    with pytest.raises(ConfigurationError, match="rollback"):
        workflow(rollback="always")(no_input.fn)  # type: ignore[call-overload]


def test_a_type_that_cannot_be_stored_stops_the_deployment() -> None:
    class Connection: ...

    @workflow
    async def order(ctx: Context, connection: Connection) -> None: ...

    with pytest.raises(ConfigurationError):
        Durable([order], store="memory://")


def test_two_workflows_of_one_name_and_version_are_refused() -> None:
    @workflow(name="fulfil_order")
    async def other(ctx: Context) -> None: ...

    with pytest.raises(ConfigurationError, match="fulfil_order"):
        Durable([fulfil_order, other], store="memory://")
    with pytest.raises(ConfigurationError, match="neither a workflow nor a module"):
        Durable([print], store="memory://")  # type: ignore[list-item]
    module = ModuleType("orders")
    module.fulfil_order = fulfil_order  # type: ignore[attr-defined]
    assert [info.name for info in Durable([module, fulfil_order], store="memory://").workflows()] == [
        "fulfil_order"
    ]


def test_a_workflow_is_not_called_like_a_function() -> None:
    with pytest.raises(ConfigurationError, match="start it"):
        no_input(None)  # type: ignore[operator]


def test_bad_options_of_a_step_are_refused_where_it_is_defined() -> None:
    for options in ({"name": "__x"}, {"timeout": "x"}, {"retry": 0}):
        with pytest.raises(DurableError):
            step(**options)(len)  # type: ignore[call-overload]
    for wrong in ({"attempts": 0}, {"base": "x"}, {"factor": 0.5}, {"jitter": 2}, {"on": [5]}):
        with pytest.raises(InvalidInput):
            Retry(**wrong)  # type: ignore[arg-type]


# ---- a Durable


@pytest.mark.parametrize(
    "settings",
    [
        {"namespace": "a b"},
        {"namespace": ""},
        {"namespace": "a/b"},
        {"namespace": "x" * 101},
        {"queues": ["two words"]},
        {"concurrency": 0},
        {"concurrency": "many"},
        {"lease": 0},
        {"lease": "x"},
        {"sweep": 0},
        {"drain": -1},
        {"max_crashes": 0},
    ],
    ids=repr,
)
def test_bad_settings_of_a_durable_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Durable(KNOWN, store="memory://", **settings)


@pytest.mark.parametrize(
    "url", ["", "orders.db", "postgres://x", "sqlite:/x", "memory://a?b=c", "mysql://u:secret@h/d"]
)
def test_a_url_that_means_no_backend_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Durable(KNOWN, store=url)
    assert refused.value.hint
    assert "secret" not in f"{refused.value} {refused.value.hint}"


def test_a_durable_needs_a_store_from_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DURABLE_STORE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="DURABLE_STORE_URL"):
        Durable.from_env([no_input])


async def test_the_environment_says_where_things_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLE_STORE_URL", "memory://from-env")
    monkeypatch.setenv("DURABLE_NAMESPACE", "shop")
    there = Durable([takes_text], store="memory://from-env", namespace="shop", worker=False)
    async with Durable.from_env([takes_text], worker=True) as here, there:
        handle = await there.start(takes_text, "abc")
        assert await here.handle(handle.id, takes_text).result(5) == 3


async def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (a)")
        other.execute("PRAGMA user_version = 77")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable) as refused:
        await Durable(KNOWN, store=f"sqlite:///{path}").__aenter__()
    assert "other.db" in str(refused.value)
    assert refused.value.hint
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Ada, " * 1000)
    with pytest.raises(StoreUnavailable, match=r"letter\.txt"):
        await Durable(KNOWN, store=f"sqlite:///{path}").__aenter__()
    assert path.read_text() == "Dear Ada, " * 1000


async def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere") as refused:
        await Durable(KNOWN, store=f"sqlite:///{tmp_path / 'nowhere' / 'orders.db'}").__aenter__()
    assert refused.value.hint


async def test_a_durable_whose_store_is_refused_can_be_entered_later(tmp_path: Path) -> None:
    durable = Durable(KNOWN, store=f"sqlite:///{tmp_path / 'later' / 'orders.db'}")
    with pytest.raises(StoreUnavailable):
        await durable.__aenter__()
    (tmp_path / "later").mkdir()
    async with durable:
        assert await durable.start_and_wait(takes_text, "abcd", timeout=5) == 4
