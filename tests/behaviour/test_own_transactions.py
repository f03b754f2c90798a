"""Starts, signals and events in a caller's own transaction: they happen with the caller's rows, or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from durable import (
    ConfigurationError,
    Context,
    Durable,
    Event,
    ExecutionClosed,
    ExecutionNotFound,
    InvalidInput,
    KeyConflict,
    Signal,
    workflow,
)
from tests.backends.sqlite_table import SqliteTable, connect
from tests.support import World, reaches

Go = Signal("go", str)
Paid = Event("paid", int)


@workflow
async def order(ctx: Context, number: int) -> int:
    return number + 1


@workflow
async def patient(ctx: Context) -> str:
    return await ctx.wait_for_signal(Go)


@workflow(on=[Paid])
async def thank(ctx: Context, amount: int) -> int:
    return amount


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(f"sqlite:///{tmp_path / 'durable.db'}") as world:
        yield world


@pytest.fixture
async def node(world: World) -> Durable:
    """A worker that sweeps too seldom for any test."""
    return await world.node(order, patient, thank, sweep="1h", lease="1h")


@pytest.fixture
def table(node: Durable, tmp_path: Path) -> SqliteTable:
    return SqliteTable(tmp_path / "durable.db")


@pytest.fixture
def connection(table: SqliteTable, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A user's, to be begun a transaction on."""
    with closing(connect(tmp_path / "durable.db")) as connection:
        yield connection


def insert(connection: sqlite3.Connection, text: str) -> None:
    connection.execute("INSERT INTO texts VALUES (?)", (text,))


async def test_a_start_happens_with_the_callers_rows_and_soon(
    node: Durable, table: SqliteTable, connection: sqlite3.Connection
) -> None:
    insert(connection, "order 7")
    handle = await node.start(order, 7, connection=connection)
    assert handle.created
    with pytest.raises(ExecutionNotFound):
        await handle.status()
    connection.commit()
    assert await handle.result(5) == 8
    assert await table.rows() == ["order 7"]


async def test_a_rollback_leaves_neither(
    node: Durable, table: SqliteTable, connection: sqlite3.Connection
) -> None:
    insert(connection, "order 7")
    started = await node.start(order, 7, key="seven", connection=connection)
    sent = await node.send(Paid, 100, connection=connection)
    connection.rollback()
    for id in (started.id, *sent.execution_ids):
        with pytest.raises(ExecutionNotFound):
            await node.status(id)
    assert await table.rows() == []
    again = await node.start(order, 8, key="seven")
    assert (again.id, again.created) == (started.id, True)
    assert await again.result(5) == 9


async def test_a_client_without_a_worker_can_do_it_too(
    world: World, node: Durable, connection: sqlite3.Connection
) -> None:
    client = await world.node(order, worker=False)
    insert(connection, "order 7")
    handle = await client.start(order, 7, connection=connection)
    connection.commit()
    assert await handle.result(5) == 8


async def test_a_key_answers_as_always(
    node: Durable, table: SqliteTable, connection: sqlite3.Connection
) -> None:
    first = await node.start(order, 1, key="k")
    await first.result(5)
    insert(connection, "again")
    again = await node.start(order, 1, key="k", connection=connection)
    assert (again.id, again.created) == (first.id, False)
    with pytest.raises(KeyConflict):
        await node.start(order, 2, key="k", connection=connection)
    new = await node.start(order, 5, key="new", connection=connection)
    twice = await node.start(order, 5, key="new", connection=connection)
    assert (new.created, twice.created, twice.id) == (True, False, new.id)
    with pytest.raises(KeyConflict):
        await node.start(order, 6, key="new", connection=connection)
    connection.commit()
    assert await new.result(5) == 6
    assert await table.rows() == ["again"]


async def test_a_delayed_start_begins_when_it_is_due(node: Durable, connection: sqlite3.Connection) -> None:
    insert(connection, "order 7")
    handle = await node.start(order, 7, delay="50ms", connection=connection)
    connection.commit()
    assert await handle.result(5) == 8


async def test_a_signal_happens_with_the_callers_rows(
    node: Durable, table: SqliteTable, connection: sqlite3.Connection
) -> None:
    handle = await node.start(patient)
    await reaches(handle, "waiting")
    insert(connection, "never")
    await handle.signal(Go, "taken back", connection=connection)
    connection.rollback()
    insert(connection, "paid")
    await node.signal(handle.id, Go, "now", connection=connection)
    connection.commit()
    assert await handle.result(5) == "now"
    assert await table.rows() == ["paid"]
    insert(connection, "late")
    with pytest.raises(ExecutionClosed):
        await handle.signal(Go, "late", connection=connection)
    with pytest.raises(ExecutionNotFound):
        await node.signal("nobody", Go, "late", connection=connection)


async def test_an_execution_can_be_started_and_signalled_at_once(
    node: Durable, connection: sqlite3.Connection
) -> None:
    insert(connection, "order")
    handle = await node.start(patient, connection=connection)
    await handle.signal(Go, "there already", connection=connection)
    connection.commit()
    assert await handle.result(5) == "there already"


async def test_an_event_happens_with_the_callers_rows(node: Durable, connection: sqlite3.Connection) -> None:
    insert(connection, "payment")
    receipt = await node.send(Paid, 100, id="p1", connection=connection)
    connection.commit()
    [started] = receipt.execution_ids
    assert await node.wait(started, 5) == 100
    assert (await node.send(Paid, 100, id="p1")).duplicate


async def test_a_steps_transaction_takes_starts_too(world: World, table: SqliteTable) -> None:
    def place(connection: sqlite3.Connection, number: int) -> None:
        insert(connection, f"order {number}")

    async def place_and_start(connection: sqlite3.Connection, number: int) -> str:
        place(connection, number)
        return (await shop.start(order, number, connection=connection)).id

    @workflow
    async def shopping(ctx: Context) -> str:
        return await ctx.transaction("place", place_and_start, 7)

    shop = await world.node(shopping, order, sweep="1h", lease="1h")
    started = await shop.start_and_wait(shopping, timeout=5)
    assert await shop.handle(started, order).result(5) == 8
    assert await table.rows() == ["order 7"]


async def test_a_connection_that_takes_no_part_is_refused(
    node: Durable, connection: sqlite3.Connection
) -> None:
    with pytest.raises(InvalidInput, match="in no transaction") as refused:
        await node.start(order, 7, connection=connection)
    assert "BEGIN IMMEDIATE" in (refused.value.hint or "")
    with pytest.raises(InvalidInput, match=r"sqlite3\.Connection"):
        await node.start(order, 7, connection="durable.db")


@pytest.mark.parametrize("verb", ["start", "signal", "send"])
async def test_a_store_that_cannot_says_which_can(connection: sqlite3.Connection, verb: str) -> None:
    async with Durable([order, patient, thank], store="memory://") as node:
        handle = await node.start(patient)
        acts = {
            "start": lambda: node.start(order, 7, connection=connection),
            "signal": lambda: handle.signal(Go, "go", connection=connection),
            "send": lambda: node.send(Paid, 1, connection=connection),
        }
        with pytest.raises(ConfigurationError, match="the store memory does not") as refused:
            await acts[verb]()
        assert "sqlite" in (refused.value.hint or "")
        assert len((await node.operator.list_executions()).items) == 1


async def test_a_body_needs_no_connection(world: World, connection: sqlite3.Connection) -> None:
    @workflow(retry=1)
    async def sender(ctx: Context, target: str) -> str:
        try:
            await ctx.handle(target).signal(Go, "go", connection=connection)
        except ConfigurationError as error:
            return error.hint or ""
        return ""

    node = await world.node(sender, patient)
    handle = await node.start(patient)
    assert "leave it out" in await node.start_and_wait(sender, handle.id, timeout=5)
