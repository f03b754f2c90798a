"""What log records say of the execution that they are about."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from typing_extensions import override

from durable import Context, Retry, Signal, workflow
from durable.logs import FIELDS, ExecutionFilter
from tests.support import World, ends, reaches

Go = Signal("go")
theirs = logging.getLogger("shop.orders")


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def fields(self, message: str) -> list[tuple[object, ...]]:
        """Of each record with this message."""
        return [
            tuple(getattr(record, name) for name in FIELDS)
            for record in self.records
            if record.getMessage() == message
        ]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """All that is logged, as a user's handler with our filter gets it."""
    handler, root = Kept(), logging.getLogger()
    handler.addFilter(ExecutionFilter())
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


@workflow
async def order(ctx: Context) -> None:
    ctx.log.info("begun", extra={"cents": 5})
    theirs.info("in the body")
    await ctx.step("charge", charge)
    await ctx.gather(ctx.step("pack", pack, "a"), ctx.step("pack", pack, "b"))
    await ctx.wait_for_signal(Go)
    ctx.log.info("told to go")


tries: list[int] = []


async def charge() -> None:
    theirs.info("charging")


def pack(what: str) -> None:
    theirs.info("packing %s", what)


@workflow
async def stubborn(ctx: Context) -> None:
    await ctx.step("try", retry=Retry(2, base="1ms")).up(fails)


def fails() -> None:
    theirs.info("trying")
    raise ValueError


async def test_records_say_which_execution_and_which_step_they_are_about(world: World, kept: Kept) -> None:
    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await handle.signal(Go)
    await handle.result(5)
    assert kept.fields("begun") == [(handle.id, "order", "", 1)]
    assert set(kept.fields("in the body")) == {(handle.id, "order", "", 1)}
    assert kept.fields("charging") == [(handle.id, "order", "charge", 1)]
    assert kept.fields("packing a") == [(handle.id, "order", "pack", 1)]
    assert kept.fields("packing b") == [(handle.id, "order", "pack#2", 1)]
    assert kept.fields("told to go") == [(handle.id, "order", "", 1)]
    assert [record.cents for record in kept.records if record.getMessage() == "begun"] == [5]  # type: ignore[attr-defined]
    ours = [record for record in kept.records if "ended as completed" in record.getMessage()]
    assert [record.execution for record in ours] == [handle.id]  # type: ignore[attr-defined]


async def test_executions_side_by_side_are_told_apart(world: World, kept: Kept) -> None:
    node = await world.node(order)
    handles = [await node.start(order) for _ in range(5)]
    await asyncio.gather(*(reaches(handle, "waiting") for handle in handles))
    assert sorted(fields[0] for fields in kept.fields("charging")) == sorted(handle.id for handle in handles)
    for handle in handles:
        await handle.cancel()


async def test_within_a_step_the_number_is_that_of_its_try(world: World, kept: Kept) -> None:
    node = await world.node(stubborn)
    handle = await node.start(stubborn, retry=1)
    await ends(handle)
    assert [fields[2:] for fields in kept.fields("trying")] == [("try", 1), ("try", 2)]


async def test_a_record_about_no_execution_has_empty_fields(world: World, kept: Kept) -> None:
    await world.node(order)
    theirs.info("outside")
    assert kept.fields("outside") == [("", "", "", "")]


async def test_the_library_s_own_records_have_the_fields_without_a_filter(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "durable")
    node = await world.node(order)
    handle = await node.start(order)
    await reaches(handle, "waiting")
    await handle.cancel()
    await ends(handle)
    text = logging.Formatter("%(execution)s %(workflow)s %(step)s %(attempt)s")
    ours = [record for record in caplog.records if record.name in ("durable.engine", "durable.workflow")]
    assert {text.format(record) for record in ours} == {f"{handle.id} order  1"}
