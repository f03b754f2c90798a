"""A step in a transaction: its rows are there if and only if its checkpoint is."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from typing_extensions import override

from durable import (
    Concurrency,
    ConfigurationError,
    Context,
    Durable,
    ExecutionFailed,
    InvalidInput,
    Retry,
    Signal,
    StepTimeout,
    Workflow,
    current_step,
    step,
    workflow,
)
from durable.backends.wrapped import WrappedStore
from durable.engine.rehearsal import Fit
from durable.errors import OutcomeUnknown, StoreUnavailable
from durable.protocols import DurableStore, Live, Writes
from durable.testing import DurableEnv
from tests.backends.sqlite_table import SqliteTable, connect
from tests.support import World, ends, reaches, steps, until

Go = Signal("go")
QUICK = Retry(attempts=3, base="1ms", jitter=0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "durable.db"


@pytest.fixture(params=["kept", "forgetful"])
async def world(request: pytest.FixtureRequest, file: Path) -> AsyncIterator[World]:
    """A world whose store takes part in transactions."""
    manner: str = request.param
    url = f"sqlite:///{file}?foreign_keys=on"
    async with World(url, forgetful=manner == "forgetful") as world:
        yield world


@pytest.fixture
async def table(world: World, file: Path) -> SqliteTable:
    """A table of the user's, in the store's database."""
    async with Durable(store=world.url, worker=False):
        return SqliteTable(file)


def insert(connection: sqlite3.Connection, text: str) -> str:
    connection.execute("INSERT INTO texts VALUES (?)", (text,))
    return text.upper()


async def insert_async(connection: sqlite3.Connection, text: str) -> str:
    await asyncio.sleep(0)
    return insert(connection, text)


async def test_its_rows_are_committed_with_its_checkpoint_once(world: World, table: SqliteTable) -> None:
    @workflow
    async def order(ctx: Context) -> list[str]:
        first = await ctx.transaction("sync", insert, "a")
        await ctx.wait_for_signal(Go)
        return [first, await ctx.transaction("async", insert_async, text="b")]

    handle = await (await world.node(order)).start(order)
    await reaches(handle, "waiting")
    assert await table.rows() == ["a"]
    node = await world.restart()
    await node.handle(handle.id).signal(Go)
    assert await node.handle(handle.id, order).result(5) == ["A", "B"]
    assert await table.rows() == ["a", "b"]
    done = await steps(node, handle)
    assert [(each.name, each.status, each.attempts) for each in done.values() if each.kind == "step"] == [
        ("insert", "completed", 1),
        ("insert_async", "completed", 1),
    ]


def told_why(refuse: Callable[[sqlite3.Connection], None]) -> Workflow[None, str]:
    """A workflow, without retries, that gives what the function of its transaction refused with."""

    @workflow(retry=1)
    async def order(ctx: Context) -> str:
        try:
            await ctx.transaction("refuse", refuse)
        except ValueError as error:
            return str(error)
        return ""

    return order


async def test_an_exception_rolls_it_back_and_fails_the_step(world: World, table: SqliteTable) -> None:
    def refuse(connection: sqlite3.Connection) -> None:
        insert(connection, "never")
        raise ValueError("out of stock")

    order = told_why(refuse)
    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(5) == "out of stock"
    assert await table.rows() == []
    [refused] = (await steps(node, handle)).values()
    assert (refused.status, refused.error and refused.error.message) == ("failed", "out of stock")


async def test_each_try_is_another_transaction(world: World, table: SqliteTable) -> None:
    tries: list[int] = []

    @step(retry=QUICK)
    def stubborn(connection: sqlite3.Connection, text: str) -> str:
        tries.append(current_step().attempt)
        insert(connection, f"{text}{len(tries)}")
        if len(tries) < 3:
            raise ValueError("again")
        return text

    @workflow
    async def order(ctx: Context) -> str:
        return await ctx.transaction("stubborn", stubborn, "try")

    handle = await (await world.node(order)).start(order)
    assert await handle.result(5) == "try"
    assert tries == [1, 2, 3]
    assert await table.rows() == ["try3"]


async def test_a_timeout_rolls_it_back_even_while_a_thread_goes_on(world: World, table: SqliteTable) -> None:
    late, written = threading.Event(), threading.Event()
    errors: list[str] = []

    @step(timeout="20ms")
    def slow(connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error):  # on a busy machine it is late for this already
            insert(connection, "in time")
        late.wait(10)
        for statement in ("INSERT INTO texts VALUES ('late')", "CREATE TABLE late (x)"):
            try:
                connection.execute(statement)
            except sqlite3.Error as error:
                errors.append(str(error))
        written.set()

    @workflow
    async def order(ctx: Context) -> str:
        try:
            await ctx.transaction("slow", slow)
        except StepTimeout:
            return await ctx.transaction("next", insert, "next")
        return ""

    handle = await (await world.node(order)).start(order)
    try:
        assert await handle.result(5) == "NEXT"
    finally:
        late.set()
    await until(written.is_set)
    assert len(errors) == 2
    assert await table.rows() == ["next"]


async def test_one_that_its_body_cancels_is_rolled_back(world: World, table: SqliteTable) -> None:
    async def endless(connection: sqlite3.Connection) -> None:
        insert(connection, "never")
        await asyncio.Event().wait()

    @workflow
    async def order(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.02):
                await ctx.transaction("endless", endless)
        except TimeoutError:
            return await ctx.transaction("instead", insert, "instead")
        return ""

    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(5) == "INSTEAD"
    assert await table.rows() == ["instead"]
    assert (await steps(node, handle))["endless"].status == "cancelled"


async def test_a_value_that_cannot_be_stored_rolls_it_back(world: World, table: SqliteTable) -> None:
    def hopeless(connection: sqlite3.Connection) -> object:
        insert(connection, "never")
        return object()

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.transaction("hopeless", hopeless)

    handle = await (await world.node(order)).start(order)
    await reaches(handle, "parked")
    assert await table.rows() == []


async def test_what_the_database_refuses_at_the_commit_fails_the_step(
    world: World, table: SqliteTable, file: Path
) -> None:
    with closing(connect(file)) as db:
        db.execute("CREATE TABLE parents (id INTEGER PRIMARY KEY)")
        db.execute("CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)")

    def orphan(connection: sqlite3.Connection) -> None:
        insert(connection, "never")
        connection.execute("INSERT INTO children VALUES (7)")

    @workflow
    async def order(ctx: Context) -> str:
        try:
            await ctx.transaction("orphan", orphan)
        except sqlite3.IntegrityError as error:
            return str(error)
        return ""

    handle = await (await world.node(order)).start(order)
    assert "FOREIGN KEY" in await handle.result(5)
    assert await table.rows() == []


async def test_one_that_goes_on_after_the_database_rolled_it_back_writes_nothing(
    world: World, table: SqliteTable, file: Path
) -> None:
    with closing(connect(file)) as db:
        db.execute("CREATE UNIQUE INDEX one_each ON texts (text)")

    def stubborn(connection: sqlite3.Connection, *, writes: bool) -> None:
        insert(connection, "a")
        with suppress(sqlite3.IntegrityError):
            connection.execute("INSERT OR ROLLBACK INTO texts VALUES ('a')")
        if writes:
            insert(connection, "b")

    @workflow
    async def order(ctx: Context, writes: bool) -> str:
        try:
            await ctx.transaction("stubborn", stubborn, writes=writes)
        except (InvalidInput, sqlite3.DatabaseError) as error:
            return str(error)
        return ""

    node = await world.node(order)
    assert "rolled it back" in await node.start_and_wait(order, False, timeout=5)
    assert "not authorized" in await node.start_and_wait(order, True, timeout=5)
    assert await table.rows() == []


async def test_branches_beside_it_go_on_and_their_commits_wait(world: World, table: SqliteTable) -> None:
    async def beside(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @workflow
    async def order(ctx: Context) -> int:
        inserted, numbers, also = await ctx.gather(
            ctx.transaction("one", insert_async, "one"),
            ctx.map("beside", beside, range(20)),
            ctx.transaction("two", insert_async, "two"),
        )
        assert (inserted, also) == ("ONE", "TWO")
        return sum(numbers)

    handles = [await node.start(order) for node in [await world.node(order)] for _ in range(3)]
    assert [await handle.result(20) for handle in handles] == [190, 190, 190]
    assert await table.rows() == ["one"] * 3 + ["two"] * 3


async def test_a_step_cannot_end_its_transaction(world: World, table: SqliteTable) -> None:
    def commit(connection: sqlite3.Connection, how: str) -> None:
        insert(connection, "never")
        match how:
            case "with":
                with connection:
                    pass
            case "script":
                connection.executescript("SELECT 1")
            case "text":
                connection.execute("COMMIT")
            case _:
                getattr(connection, how)()

    @workflow
    async def order(ctx: Context, how: str) -> str:
        try:
            await ctx.transaction("commit", commit, how)
        except (ConfigurationError, sqlite3.DatabaseError) as error:
            return str(error)
        return ""

    node = await world.node(order)
    for how in ("commit", "rollback", "with", "script", "text"):
        assert await (await node.start(order, how)).result(5), how
    assert await table.rows() == []


async def test_a_worker_that_is_stopped_rolls_it_back_and_another_runs_it(
    world: World, table: SqliteTable
) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def patient(connection: sqlite3.Connection) -> None:
        insert(connection, "once")
        begun.set()
        await may_end.wait()

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.transaction("patient", patient)

    node = await world.node(order)
    handle = await node.start(order)
    await begun.wait()
    await world.stop(node)
    assert await table.rows() == []
    may_end.set()
    node = await world.node(order)
    await node.handle(handle.id).result(5)
    assert await table.rows() == ["once"]


# ---- a store that fails


class FailingStore(WrappedStore):
    """Fails at places of its transactions, once for each name in `failures`."""

    def __init__(self, within: DurableStore, *failures: str) -> None:
        super().__init__(within)
        self.failures = list(failures)

    @override
    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[object]:
        self.fail("begin", StoreUnavailable("away"))
        async with super().transaction() as connection:
            yield connection
            self.fail("before", OutcomeUnknown("before"))
        self.fail("after", OutcomeUnknown("after"))

    @override
    async def enlist(self, connection: object) -> Writes:
        self.fail("within", StoreUnavailable("away"))
        return await super().enlist(connection)

    def fail(self, place: str, error: Exception) -> None:
        if place in self.failures:
            self.failures.remove(place)
            raise error


@pytest.mark.parametrize(
    ("place", "runs"), [("begin", 1), ("within", 2), ("before", 2), ("after", 1)], ids=lambda it: str(it)
)
async def test_an_unknown_commit_is_looked_up_and_never_sent_again(
    world: World, table: SqliteTable, place: str, runs: int
) -> None:
    tries: list[int] = []

    async def counted(connection: sqlite3.Connection) -> int:
        tries.append(current_step().attempt)
        insert(connection, "once")
        return len(tries)

    async def beside() -> str:
        return "beside"

    @workflow
    async def order(ctx: Context) -> tuple[int, str, str]:
        number, text = await ctx.gather(ctx.transaction("counted", counted), ctx.step("beside", beside))
        return number, text, await ctx.transaction("next", insert, "next")

    store = FailingStore(world.store(), place)
    node = await world.node(order, store=store)
    assert await node.start_and_wait(order, timeout=5) == (runs, "beside", "NEXT")
    assert store.failures == []
    assert tries == [1] * runs
    assert await table.rows() == ["next", "once"]


class LossyStore(WrappedStore):
    """Cuts the connections of its first transactions, as their functions find out."""

    def __init__(self, within: DurableStore, losses: int) -> None:
        super().__init__(within)
        self.losses = losses

    @override
    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[object]:
        async with super().transaction() as connection:
            try:
                yield connection
            except ConnectionError as error:
                self.losses -= 1
                raise StoreUnavailable("the connection was lost") from error


@pytest.mark.parametrize(("losses", "runs"), [(3, 4), (1000, 5)])
async def test_a_connection_that_is_lost_under_it_is_no_failed_try_unless_it_loses_each(
    world: World, table: SqliteTable, losses: int, runs: int
) -> None:
    tries: list[int] = []
    store = LossyStore(world.store(), losses)

    @step(retry=Retry(attempts=2, base="1h"))
    def place(connection: sqlite3.Connection) -> int:
        tries.append(current_step().attempt)
        insert(connection, "once")
        if store.losses:
            raise ConnectionError("closed in the middle of an operation")
        return len(tries)

    @workflow(retry=1)
    async def order(ctx: Context) -> int:
        return await ctx.transaction("place", place)

    handle = await (await world.node(order, store=store)).start(order)
    if losses < runs:
        assert await handle.result(5) == runs
        assert await table.rows() == ["once"]
    else:
        await reaches(handle, "sleeping", "retrying")
        assert await table.rows() == []
    assert tries == [1] * runs


async def test_what_it_raises_after_a_loss_counts(world: World, table: SqliteTable) -> None:
    store = LossyStore(world.store(), 1)

    def refuse(connection: sqlite3.Connection) -> None:
        insert(connection, "never")
        if store.losses:
            raise ConnectionError("closed in the middle of an operation")
        raise ValueError("out of stock")

    order = told_why(refuse)
    node = await world.node(order, store=store)
    assert await node.start_and_wait(order, timeout=5) == "out of stock"
    assert await table.rows() == []


class OvertakenStore(WrappedStore):
    """Lets the lease of its worker be over when the first transaction begins."""

    overtaken = False

    @override
    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[object]:
        if not self.overtaken:
            self.overtaken = True
            await self.within.tick(0, live=Live({}, at=2**53), limit=10)
        async with super().transaction() as connection:
            yield connection


async def test_one_whose_execution_was_taken_over_is_rolled_back(world: World, table: SqliteTable) -> None:
    runs: list[int] = []

    def counted(connection: sqlite3.Connection) -> int:
        runs.append(len(runs))
        insert(connection, f"run {len(runs)}")
        return len(runs)

    @workflow
    async def order(ctx: Context) -> int:
        return await ctx.transaction("counted", counted)

    node = await world.node(order, store=OvertakenStore(world.store()))
    assert await node.start_and_wait(order, timeout=5) == 2
    assert await table.rows() == ["run 2"]


# ---- a store that takes part in none


@pytest.mark.parametrize("world", ["kept"], indirect=True)
async def test_a_store_that_cannot_says_so_before_anything_happens(world: World) -> None:
    ran: list[object] = []

    @workflow(retry=1)
    async def order(ctx: Context) -> None:
        await ctx.transaction("insert", ran.append)

    async with Durable([order], store="memory://") as node:
        handle = await node.start(order)
        with pytest.raises(ExecutionFailed, match="the store memory does not") as failed:
            await handle.result(5)
        assert failed.value.error_type.endswith("ConfigurationError")
        assert not await steps(node, handle)
    assert not ran


async def test_a_stub_stands_in_for_it_on_memory() -> None:
    def unstubbed(connection: sqlite3.Connection, text: str) -> str:
        raise AssertionError("it is stubbed")

    @workflow
    async def order(ctx: Context) -> str:
        return await ctx.transaction("insert", unstubbed, "a")

    async with DurableEnv([order], replay=True) as env:
        env.stub("insert", lambda text: f"stubbed {text}")
        handle = await env.durable.start(order)
        assert await handle.result(5) == "stubbed a"
        assert (await env.replay(handle)).fit is Fit.FITS


# ---- as other steps


async def test_it_is_undone_as_other_steps_are(world: World, table: SqliteTable) -> None:
    undone: list[str] = []

    @step
    def reserve(connection: sqlite3.Connection, text: str) -> str:
        return insert(connection, text)

    @reserve.undo
    def release(text: str) -> None:
        undone.append(text)

    @workflow(retry=1, rollback="on_failure")
    async def order(ctx: Context) -> None:
        await ctx.transaction("reserve", reserve, "a")
        raise ValueError("no")

    node = await world.node(order)
    assert (await ends(await node.start(order))).status == "failed"
    assert undone == ["A"]


async def test_it_is_held_back_by_a_limit_and_lets_the_next_pass(world: World, table: SqliteTable) -> None:
    @step(limit="desk")
    def limited(connection: sqlite3.Connection, text: str) -> str:
        return insert(connection, text)

    @workflow
    async def order(ctx: Context) -> list[str]:
        return await ctx.gather(*(ctx.transaction(text, limited, text) for text in "abc"))

    node = await world.node(order, limits={"desk": Concurrency(1)})
    assert await node.start_and_wait(order, timeout=5) == ["A", "B", "C"]
    assert await table.rows() == ["a", "b", "c"]
