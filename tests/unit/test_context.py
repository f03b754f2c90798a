"""What `Context` makes of the calls of a workflow body, seen from the runtime behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from functools import partial
from typing import Any

import pytest

from durable import (
    Branch,
    Completed,
    ConfigurationError,
    Context,
    Event,
    Handle,
    InvalidInput,
    Received,
    Retry,
    Signal,
    TimedOut,
    step,
    workflow,
)
from durable.runtime import StepCall

pytestmark = pytest.mark.anyio

Approved = Signal("approved", str)
Ping = Signal("ping")
Paid = Event("paid", Decimal)


@step(name="reserve", retry=5, timeout="30s")
async def reserve(items: list[str], *, rush: bool = False) -> str:
    return ",".join(items) + ("!" if rush else "")


@reserve.undo
async def release(reserved: str) -> None: ...


async def length(text: str) -> int:
    return len(text)


async def void(label: object) -> None: ...


@workflow
async def child(ctx: Context, text: str) -> int:
    return len(text)


class Log:
    """A runtime that notes each call when it is made, and awaits to what it was told."""

    def __init__(self, outcome: object = None) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.outcome = outcome

    def __getattr__(self, verb: str) -> Callable[..., Coroutine[Any, Any, object]]:
        async def give() -> object:
            return self.outcome

        def call(*args: object, **kwargs: object) -> Coroutine[Any, Any, object]:
            self.calls.append((verb, args, kwargs))
            return give()

        return call

    def step(self, call: StepCall) -> Coroutine[Any, Any, object]:
        self.calls.append(("step", (call,), {}))

        async def run() -> object:
            given = call.fn(*call.args, **call.kwargs)
            return await given if asyncio.iscoroutine(given) else given

        return run()

    @property
    def last(self) -> StepCall:
        return self.calls[-1][1][0]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def ctx(log: Log) -> Context:
    return Context(log)


class Tier(StrEnum):
    GOLD = "gold"


class Size(Enum):
    BIG = 1


# Steps


async def test_a_step_of_any_function_is_tried_once_and_knows_its_functions_name(
    ctx: Context, log: Log
) -> None:
    assert await ctx.step("len", length, "four") == 4
    assert (log.last.name, log.last.fn, log.last.fn_name) == ("len", length, "length")
    assert (log.last.args, log.last.kwargs) == (("four",), {})
    assert (log.last.retry, log.last.timeout_ms, log.last.undo) == (None, None, None)


async def test_a_declared_step_brings_its_name_its_options_and_its_compensation(
    ctx: Context, log: Log
) -> None:
    assert await ctx.step(reserve, ["a", "b"], rush=True) == "a,b!"
    assert (log.last.name, log.last.fn, log.last.fn_name) == ("reserve", reserve.fn, "reserve")
    assert (log.last.retry, log.last.timeout_ms, log.last.undo) == (reserve.retry, 30_000, release)


async def test_a_declared_step_under_another_id_keeps_its_options(ctx: Context, log: Log) -> None:
    await ctx.step("again", reserve, ["a"])
    assert (log.last.name, log.last.timeout_ms, log.last.undo) == ("again", 30_000, release)


async def test_options_of_one_call_and_its_compensation(ctx: Context, log: Log) -> None:
    assert await ctx.step("label", retry=3, timeout="10s").up(length, "four").down(void) == 4
    assert (log.last.name, log.last.timeout_ms, log.last.undo) == ("label", 10_000, void)
    assert log.last.retry == Retry(attempts=3)


async def test_options_of_one_call_go_before_those_of_the_step(ctx: Context, log: Log) -> None:
    await ctx.step("again", timeout=1).up(reserve, ["a"])
    assert (log.last.retry, log.last.timeout_ms) == (reserve.retry, 1000)


async def test_a_call_without_a_compensation_is_awaited_as_it_is(ctx: Context, log: Log) -> None:
    assert await ctx.step("label").up(length, "four") == 4
    assert log.last.undo is None


async def test_a_call_is_a_coroutine_to_asyncio(ctx: Context) -> None:
    up = partial(ctx.step("label").up, length, "four")
    assert asyncio.iscoroutine(call := up())
    assert await asyncio.gather(call, up()) == [4, 4]
    assert await asyncio.create_task(up()) == 4
    assert await asyncio.wait_for(up(), timeout=5) == 4
    async with asyncio.TaskGroup() as group:
        task = group.create_task(up())
    assert task.result() == 4


async def test_a_call_can_be_cancelled_as_any_coroutine(ctx: Context) -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(ctx.step("wait").up(forever))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ctx.step("never").up(forever).close()


async def test_the_runtime_hears_of_calls_in_their_order_before_any_is_awaited(
    ctx: Context, log: Log
) -> None:
    a, b, c = ctx.step("a", length, "x"), ctx.step("b").up(length, "x"), ctx.sleep(1)
    assert [call[1][0].name if call[1] else call[0] for call in log.calls] == ["a", "b", "sleep"]
    await asyncio.gather(c, b, a)


async def test_a_step_has_one_compensation(ctx: Context) -> None:
    call = ctx.step("again").up(reserve, ["a"])
    with pytest.raises(ConfigurationError, match="two compensations: release and void"):
        call.down(void)


async def test_a_compensation_takes_one_value(ctx: Context) -> None:
    call = ctx.step("len").up(length, "a")
    with pytest.raises(ConfigurationError, match="cannot undo step len"):
        call.down(lambda: None)


async def test_a_function_that_is_no_step_needs_an_id(ctx: Context) -> None:
    with pytest.raises(ConfigurationError, match="length is no step") as error:
        ctx.step(length, "x")
    assert "@step" in error.value.hint


async def test_a_step_that_was_called_already_is_refused(ctx: Context) -> None:
    called = length("x")
    with pytest.raises(ConfigurationError, match="needs a function") as error:
        ctx.step("len", called)
    assert "apart" in error.value.hint
    called.close()


async def test_a_map_is_a_step_for_each_item(ctx: Context, log: Log) -> None:
    await ctx.map("thumb", length, (text for text in ["a", "bc"]), limit=5)
    ((verb, (id, calls, limit), _),) = log.calls
    assert (verb, id, limit) == ("map", "thumb", 5)
    assert [(call.name, call.args, call.fn_name) for call in calls] == [
        ("thumb[0]", ("a",), "length"),
        ("thumb[1]", ("bc",), "length"),
    ]


async def test_a_map_of_a_declared_step_has_its_options(ctx: Context, log: Log) -> None:
    await ctx.map("many", reserve, [["a"]])
    assert log.calls[0][1][1][0].timeout_ms == 30_000


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_map_needs_a_limit_of_at_least_one(ctx: Context, limit: int) -> None:
    with pytest.raises(InvalidInput, match="limit"):
        ctx.map("thumb", length, ["a"], limit=limit)


# Bad input is refused at the call


def refused() -> Iterator[tuple[str, Callable[[Context], object]]]:
    for id in ["__own", "rollback:x", "a b", "", "x" * 201]:
        yield f"step {id[:10]}", lambda ctx, id=id: ctx.step(id, length, "x")
        yield f"builder {id[:10]}", lambda ctx, id=id: ctx.step(id, retry=3)
        yield f"map {id[:10]}", lambda ctx, id=id: ctx.map(id, length, ["x"])
        yield f"switch {id[:10]}", lambda ctx, id=id: ctx.switch(id, 1, {1: length})
        yield f"branch {id[:10]}", lambda ctx, id=id: ctx.switch("s", id, {id: length})
        yield f"sleep {id[:10]}", lambda ctx, id=id: ctx.sleep(1, id=id)
        yield f"wait {id[:10]}", lambda ctx, id=id: ctx.wait_for_signal(Ping, id=id)
        yield f"start {id[:10]}", lambda ctx, id=id: ctx.start(child, "x", id=id)
        yield f"run {id[:10]}", lambda ctx, id=id: ctx.run(child, "x", id=id)
        yield f"emit {id[:10]}", lambda ctx, id=id: ctx.emit(Paid, Decimal(1), id=id)
        yield f"value {id[:10]}", lambda ctx, id=id: ctx.set_value(id, 1)
        yield f"patched {id[:10]}", lambda ctx, id=id: ctx.patched(id)
    yield "handle", lambda ctx: ctx.handle("a b", child)
    yield "step timeout", lambda ctx: ctx.step("a", timeout="soon")
    yield "step retry", lambda ctx: ctx.step("a", retry=0)
    yield "sleep", lambda ctx: ctx.sleep("soon")
    yield "sleep -1", lambda ctx: ctx.sleep(-1)
    yield "sleep_until naive", lambda ctx: ctx.sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001
    yield "wait timeout", lambda ctx: ctx.wait_for_signal(Ping, timeout="soon")
    yield "wait for none", lambda ctx: ctx.wait_for_any()
    yield "wait for one twice", lambda ctx: ctx.wait_for_any(Ping, Signal("ping"))
    yield "same branch twice", lambda ctx: ctx.switch("s", 1, [Branch("a", bool, length)] * 2)
    yield "same key twice", lambda ctx: ctx.switch("s", 1, {1: length, "1": length})


@pytest.mark.parametrize("call", [pytest.param(call, id=what) for what, call in refused()])
async def test_bad_input_is_refused_at_the_call(
    ctx: Context, log: Log, call: Callable[[Context], object]
) -> None:
    with pytest.raises(InvalidInput):
        call(ctx)
    assert log.calls == []


# Choices


async def chosen(log: Log) -> tuple[str | None, list[str]]:
    _, (_, _, choose, branches, _), _ = log.calls[-1]
    return choose(), list(branches)


@pytest.mark.parametrize(
    ("value", "keys", "name"),
    [
        ("b", ["a", "b"], "b"),
        ("c", ["a", "b"], None),
        (True, [True, False], "True"),
        (2, [1, 2], "2"),
        (Tier.GOLD, ["gold"], "gold"),
        ("gold", [Tier.GOLD], "gold"),
        (Size.BIG, [Size.BIG], "BIG"),
        ([], ["a"], None),
    ],
)
async def test_a_mapping_names_the_branch_of_its_key(
    ctx: Context, log: Log, value: object, keys: list[object], name: str | None
) -> None:
    await ctx.switch("route", value, dict.fromkeys(keys, length))
    assert (await chosen(log))[0] == name


async def test_a_list_names_the_first_branch_that_holds_and_asks_only_then(ctx: Context, log: Log) -> None:
    asked: list[int] = []

    def is_more_than(least: int) -> Callable[[int], bool]:
        return lambda n: asked.append(least) is None and n > least

    branches = [Branch(str(least), is_more_than(least), lambda: length("x")) for least in (9, 5, 1)]
    await ctx.switch("size", 6, [Branch("n9", is_more_than(9), branches[0].fn), *branches[1:]])
    assert asked == []
    assert await chosen(log) == ("5", ["n9", "5", "1"])
    assert asked == [9, 5]


# Waits


async def test_a_wait_without_a_timeout_gives_the_payload(ctx: Context, log: Log) -> None:
    log.outcome = Received("yes", "approved")
    assert await ctx.wait_for_signal(Approved) == "yes"
    assert log.calls == [("wait", ([Approved],), {"timeout_ms": None, "id": None})]


async def test_a_wait_with_a_timeout_gives_the_outcome(ctx: Context, log: Log) -> None:
    log.outcome = Received("yes", "approved")
    assert await ctx.wait_for_signal(Approved, timeout="3d", id="w") == log.outcome
    assert log.calls == [("wait", ([Approved],), {"timeout_ms": 259_200_000, "id": "w"})]
    log.outcome = TimedOut()
    assert await ctx.wait_for_any(Approved, Ping, timeout=0) == TimedOut()
    assert log.calls[-1] == ("wait", ((Approved, Ping),), {"timeout_ms": 0, "id": None})


async def test_a_wait_that_timed_out_stays_so_when_the_code_drops_the_timeout(ctx: Context, log: Log) -> None:
    log.outcome = TimedOut()
    assert await ctx.wait_for_signal(Approved) == TimedOut()
    assert await ctx.wait_for(Handle(log, "x1")) == TimedOut()


async def test_a_wait_for_a_child_gives_its_result_or_the_outcome(ctx: Context, log: Log) -> None:
    log.outcome = Completed(4)
    handle: Handle[int] = Handle(log, "x1", child)
    assert await ctx.wait_for(handle) == 4
    assert await ctx.wait_for(handle, timeout=1.5) == Completed(4)
    assert log.calls[-1] == ("wait_for", (handle,), {"timeout_ms": 1500})


async def test_sleeps_are_in_milliseconds(ctx: Context, log: Log) -> None:
    await ctx.sleep(timedelta(seconds=2))
    await ctx.sleep_until(datetime.fromtimestamp(5, UTC), id="five")
    assert log.calls == [
        ("sleep", (), {"delay_ms": 2000, "until_ms": None, "id": None}),
        ("sleep", (), {"delay_ms": None, "until_ms": 5000, "id": "five"}),
    ]


# Handles


async def test_a_handle_passes_on_what_it_is_asked(log: Log) -> None:
    handle: Handle[int] = Handle(log, "x1", child, created=True)
    log.outcome = 4
    assert await handle.result("2s") == await handle.wait() == 4
    await handle.signal(Approved, "yes", key="k1")
    await handle.signal(Ping)
    await handle.cancel("fraud", by="ada")
    await handle.value("progress")
    await handle.status()
    assert log.calls == [
        ("result", ("x1", child), {"timeout_ms": 2000}),
        ("result", ("x1", child), {"timeout_ms": None}),
        ("signal", ("x1", Approved, "yes"), {"key": "k1", "connection": None}),
        ("signal", ("x1", Ping, None), {"key": None, "connection": None}),
        ("cancel", ("x1", "fraud"), {"by": "ada"}),
        ("value", ("x1", "progress"), {}),
        ("status", ("x1",), {}),
    ]
    assert (handle.id, handle.workflow, handle.created) == ("x1", child, True)


def test_a_handle_refuses_bad_input_at_the_call(log: Log) -> None:
    handle: Handle[int] = Handle(log, "x1")
    with pytest.raises(InvalidInput):
        handle.result("soon")
    with pytest.raises(InvalidInput):
        handle.signal(Ping, key="\x00")
    with pytest.raises(InvalidInput):
        handle.value("__own")
    with pytest.raises(InvalidInput):
        Handle(log, "a b")
    assert log.calls == []
