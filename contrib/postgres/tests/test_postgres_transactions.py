"""What is PostgreSQL's own in transactions of users: sessions set up in any way, isolation, roles, locks, hints."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import asyncpg
import pytest
from tests.postgres_table import PostgresTable, session, table

from durable import (
    Concurrency,
    Context,
    Durable,
    ExecutionFailed,
    InvalidInput,
    OutcomeUnknown,
    Retry,
    Signal,
    StoreUnavailable,
    current_step,
    step,
    workflow,
)
from durable.protocols import (
    Batch,
    Claimed,
    Committed,
    Created,
    Emit,
    Gate,
    GateKind,
    Message,
    MessageKind,
    NewExecution,
    Posted,
    Run,
)
from durable_postgres import PostgresStore
from durable_postgres.transactions import WIDTH
from tests.brokers.postgres_server import PostgresServer
from tests.support import World, reaches, until

Go = Signal("go", str)
CUT_WHO_COMMITS = """
    DO $$ BEGIN
        WHILE NOT EXISTS (
            SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%COMMIT'
        ) LOOP
            PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
        END LOOP;
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%COMMIT';
    END $$
"""
ODD = 'it\'s "odd", {a \\ backslash} (and, more), NULL, \t\n\0 ünd \1'


@pytest.fixture
async def texts(postgres_url: str) -> AsyncIterator[PostgresTable]:
    async with table(postgres_url, postgres_url) as texts:
        yield texts


@asynccontextmanager
async def opened(url: str, namespace: str, **options: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, namespace, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(postgres_url: str, namespace: str) -> AsyncIterator[PostgresStore]:
    async with opened(postgres_url, namespace) as store:
        yield store


@pytest.fixture
async def db(postgres_url: str) -> AsyncIterator[Any]:
    """A user's connection, in no transaction."""
    async with session(postgres_url) as db:
        yield db


def order(id: str, **options: Any) -> NewExecution:
    return NewExecution(id, "order", "1", b"{}", **options)


def signal(id: str, data: bytes = b"") -> Message:
    return Message(id, MessageKind.SIGNAL, "go", data)


GATE = Gate("only one", key="", kind=GateKind.SLOTS, limit=1)


# -- sessions


async def test_what_a_user_has_set_up_on_the_session_changes_nothing_and_stays(
    postgres_url: str, store: PostgresStore
) -> None:
    def refuse(value: object) -> str:
        raise AssertionError(f"{value!r} went through a codec of the user's")

    db: Any = await asyncpg.connect(postgres_url, statement_cache_size=0)
    try:
        settings = {
            "search_path": "pg_temp",
            "bytea_output": "escape",
            "standard_conforming_strings": "off",
            "array_nulls": "off",
            "TimeZone": "Asia/Kathmandu",
            "extra_float_digits": "0",
        }
        for name, value in settings.items():
            await db.execute(f"SET {name} = '{value}'")
        for kind in ("text", "bytea", "int2", "int4", "int8", "bool", "float8", "json", "jsonb"):
            await db.set_type_codec(kind, encoder=refuse, decoder=refuse, schema="pg_catalog")
        async with db.transaction():
            writes = await store.enlist(db)
            spec = order(
                ODD, key=ODD, tags={ODD: ODD}, values={ODD: b"\0\xff"}, gates=[GATE], timeout_ms=10**6
            )
            assert isinstance(await writes.create(spec, op_id="1"), Created)
            assert isinstance(await writes.post(ODD, signal(ODD, b'\\x"{(,\0\xff')), Posted)
            event = Emit(ODD, ODD, b"\0\xff", shapes=[ODD], topics=[ODD], starts=[order("started")])
            [receipt] = (await writes.send([event], op_id="2")).receipts
            assert list(receipt.execution_ids) == ["started"]
        row = await store.get(ODD)
        assert row is not None
        assert (row.key, row.tags, row.input) == (ODD, {ODD: ODD}, b"{}")
        assert await store.value(ODD, ODD) == b"\0\xff"
        assert [(entry.id, entry.data) for entry in await store.inbox(ODD)] == [(ODD, b'\\x"{(,\0\xff')]
        found = await store.event(ODD, ODD)
        assert found is not None
        assert found.data == b"\0\xff"
        assert isinstance(await store.claim(ODD, nonce="n", worker="w"), Claimed)
        async with db.transaction():
            answer = await (await store.enlist(db)).commit(
                ODD, nonce="n", ver=0, op_id="3", batch=Batch(seen=0, next=Run(), values={"v": b"\\"})
            )
        assert isinstance(answer, Committed)
        assert [entry.data for entry in answer.inbox] == [b'\\x"{(,\0\xff']
        await db.reset_type_codec("text", schema="pg_catalog")
        assert {name: await db.fetchval(f"SHOW {name}") for name in settings} == settings
    finally:
        await db.close()


async def test_a_connection_that_a_pool_has_lent_is_one(postgres_url: str, store: PostgresStore) -> None:
    async with asyncpg.create_pool(postgres_url, min_size=0, max_size=1) as pool:
        async with pool.acquire() as db, db.transaction():
            assert isinstance(await (await store.enlist(db)).create(order("a"), op_id="1"), Created)
        with pytest.raises(InvalidInput, match="released"):
            await store.enlist(db)
    assert await store.get("a") is not None


async def test_another_name_of_the_server_leads_to_the_same_database(
    postgres_url: str, store: PostgresStore
) -> None:
    async with session(postgres_url.replace("127.0.0.1", "localhost")) as db, db.transaction():
        await store.enlist(db)


async def test_a_server_that_was_started_again_is_known_again(private_postgres: PostgresServer) -> None:
    async with opened(private_postgres.url, "n") as store:
        for id in ("a", "b"):
            async with session(private_postgres.url) as db, db.transaction():
                await (await store.enlist(db)).create(order(id), op_id=id)
            await asyncio.to_thread(private_postgres.restart)
            assert await store.get(id) is not None


@pytest.mark.parametrize(
    ("begin", "match"),
    [
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", "repeatable read"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "serializable"),
        ("BEGIN READ ONLY", "read-only"),
    ],
)
async def test_a_transaction_in_which_wake_ups_could_get_lost_is_refused_and_goes_on(
    store: PostgresStore, db: Any, begin: str, match: str
) -> None:
    await db.execute(begin)
    with pytest.raises(InvalidInput, match=match):
        await store.enlist(db)
    assert await db.fetchval("SELECT 1") == 1


async def test_a_block_cannot_ask_for_another_isolation(store: PostgresStore) -> None:
    async def block() -> None:
        async with store.transaction() as connection:
            await cast("Any", connection).execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            await (await store.enlist(connection)).create(order("a"), op_id="1")

    with pytest.raises(InvalidInput, match="must be read committed"):
        await block()
    assert await store.get("a") is None


async def test_a_transaction_that_has_failed_is_refused(store: PostgresStore, db: Any) -> None:
    await db.execute("BEGIN")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await db.execute("SELECT 1 / 0")
    with pytest.raises(InvalidInput, match="aborted"):
        await store.enlist(db)


async def test_a_role_without_rights_is_refused_and_told_what_it_needs(
    postgres_url: str, store: PostgresStore, db: Any
) -> None:
    role = f"clerk_{secrets.token_hex(6)}"
    await db.execute(f"CREATE ROLE {role}")
    try:
        async with db.transaction():
            await db.execute(f"SET LOCAL ROLE {role}")
            with pytest.raises(InvalidInput, match="may not write") as refused:
                await store.enlist(db)
            assert "GRANT" in (refused.value.hint or "")
            assert await db.fetchval("SELECT 1") == 1
        await db.execute(f"GRANT USAGE ON SCHEMA durable TO {role}")
        await db.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA durable TO {role}")
        async with db.transaction():
            await db.execute(f"SET LOCAL ROLE {role}")
            await (await store.enlist(db)).create(order("a"), op_id="1")
        assert await store.get("a") is not None
    finally:
        await db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# -- transactions of the store's own


async def test_a_block_whose_statement_failed_unheeded_is_not_committed_silently(
    store: PostgresStore, texts: PostgresTable
) -> None:
    async def block() -> None:
        async with store.transaction() as connection:
            await texts.insert(connection, "lost")
            with pytest.raises(asyncpg.DivisionByZeroError):
                await cast("Any", connection).execute("SELECT 1 / 0")

    with pytest.raises(InvalidInput, match="aborted") as refused:
        await block()
    assert "savepoint" in (refused.value.hint or "")
    assert await texts.rows() == []


async def test_what_fails_in_a_savepoint_harms_nothing(store: PostgresStore, texts: PostgresTable) -> None:
    async def fail(lent: Any) -> None:
        async with lent.transaction():
            await texts.insert(lent, "lost")
            await lent.execute("SELECT 1 / 0")

    async with store.transaction() as connection:
        await texts.insert(connection, "kept")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await fail(connection)
        await (await store.enlist(connection)).create(order("a"), op_id="1")
    assert await texts.rows() == ["kept"]
    assert await store.get("a") is not None


async def test_what_a_deferred_constraint_refuses_raises_as_the_driver_has_it(
    store: PostgresStore, texts: PostgresTable, db: Any
) -> None:
    await db.execute("ALTER TABLE texts ADD UNIQUE (text) DEFERRABLE INITIALLY DEFERRED")

    async def block() -> None:
        async with store.transaction() as connection:
            await texts.insert(connection, "twice")
            await texts.insert(connection, "twice")

    with pytest.raises(asyncpg.UniqueViolationError):
        await block()
    assert await texts.rows() == []


async def test_what_was_made_with_a_lent_connection_ends_with_it(
    store: PostgresStore, texts: PostgresTable
) -> None:
    async with store.transaction() as connection:
        lent = cast("Any", connection)
        statement = await lent.prepare("INSERT INTO texts VALUES ($1)")
        await lent.execute("SET search_path = pg_temp")
        await lent.execute("SELECT pg_advisory_lock(7)")
    with pytest.raises(asyncpg.InterfaceError, match="released"):
        await statement.fetch("late")
    async with store.transaction() as connection:
        lent = cast("Any", connection)
        assert await lent.fetchval("SHOW search_path") != "pg_temp"
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert await lent.fetchval(held) == 0
    assert await texts.rows() == []


async def test_a_statement_that_is_under_way_at_the_end_stops_the_commit(
    store: PostgresStore, texts: PostgresTable, db: Any
) -> None:
    pid = 0
    slow: list[asyncio.Task[object]] = []

    async def block() -> None:
        nonlocal pid
        async with store.transaction() as connection:
            lent = cast("Any", connection)
            await texts.insert(connection, "lost")
            pid = await lent.fetchval("SELECT pg_backend_pid()")
            slow.append(asyncio.create_task(lent.execute("SELECT pg_sleep(60)")))
            await asyncio.sleep(0)

    with pytest.raises(InvalidInput, match="under way"):
        await block()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await slow[0]
    await db.execute("SELECT pg_terminate_backend($1)", pid)  # the server would sleep on
    assert await texts.rows() == []


async def test_all_blocks_together_leave_the_stores_own_verbs_their_connections(
    store: PostgresStore, texts: PostgresTable
) -> None:
    async with AsyncExitStack() as stack:
        for number in range(WIDTH):
            await texts.insert(await stack.enter_async_context(store.transaction()), str(number))
        another = asyncio.create_task(stack.enter_async_context(store.transaction()))
        assert isinstance(await store.create(order("a"), op_id="1"), Created)
        assert isinstance(await store.post("a", signal("m")), Posted)
        assert await store.check() == []
        assert not another.done()
        another.cancel()
    assert len(await texts.rows()) == WIDTH
    async with store.transaction() as connection:
        await texts.insert(connection, "next")


async def test_connections_that_the_server_has_cut_are_replaced(
    private_postgres: PostgresServer,
) -> None:
    async with opened(private_postgres.url, "n") as store:
        async with AsyncExitStack() as stack:
            for _ in range(WIDTH):
                await stack.enter_async_context(store.transaction())
        await asyncio.to_thread(private_postgres.restart)
        async with store.transaction() as connection:
            await (await store.enlist(connection)).create(order("a"), op_id="1")
        assert await store.get("a") is not None


async def test_a_connection_that_is_lost_before_the_commit_has_surely_committed_nothing(
    store: PostgresStore, texts: PostgresTable, db: Any
) -> None:
    async def block() -> None:
        async with store.transaction() as connection:
            lent = cast("Any", connection)
            await texts.insert(connection, "lost")
            await db.execute(
                "SELECT pg_terminate_backend($1)", await lent.fetchval("SELECT pg_backend_pid()")
            )
            await until(lent.is_closed)

    with pytest.raises(StoreUnavailable):
        await block()
    assert await texts.rows() == []


async def test_a_commit_whose_answer_does_not_come_is_an_unknown_outcome(
    postgres_url: str, store: PostgresStore, texts: PostgresTable, db: Any
) -> None:
    """The commit waits for the other one, whose row it must not repeat; and is cut there."""
    await db.execute("ALTER TABLE texts ADD UNIQUE (text) DEFERRABLE INITIALLY DEFERRED")

    async def block() -> None:
        async with store.transaction() as connection:
            await texts.insert(connection, "same")

    async with session(postgres_url) as other, other.transaction():
        await texts.insert(other, "same")
        cutting = asyncio.create_task(db.execute(CUT_WHO_COMMITS))
        with pytest.raises(OutcomeUnknown):
            await block()
        await cutting
    assert await texts.rows() == ["same"]


# -- locks


async def test_who_waits_for_each_other_is_told_or_tried_again_and_nothing_is_half_done(
    postgres_url: str, store: PostgresStore, texts: PostgresTable, db: Any
) -> None:
    """A user posts to two executions one after the other, and the store has them in the other order."""
    await store.create(order("a"), op_id="a")
    await store.create(order("b"), op_id="b")
    for number in range(5):
        mine, theirs = f"mine {number}", f"theirs {number}"
        try:
            async with db.transaction():
                writes = await store.enlist(db)
                await texts.insert(db, mine)
                await writes.post(
                    "b", signal(mine)
                )  # it was created later, and is locked later by those who lock both
                posting = asyncio.create_task(_post_both(store, postgres_url, theirs))
                await until(lambda: _waits(postgres_url))
                await writes.post("a", signal(mine))
        except StoreUnavailable as error:
            assert "40P01" in str(error)  # noqa: PT017
        await posting
        is_there = mine in await texts.rows()
        for id in ("a", "b"):
            ids = [entry.id for entry in await store.inbox(id)]
            assert theirs in ids
            assert (mine in ids) == is_there


async def _post_both(store: PostgresStore, url: str, text: str) -> None:
    """To both in one group, which is one transaction."""
    await asyncio.gather(store.post("a", signal(text)), store.post("b", signal(text)))


async def _waits(url: str) -> bool:
    """Somebody waits for a lock of somebody else."""
    async with session(url) as db:
        return bool(
            await db.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
        )


async def test_gates_that_a_transaction_has_sought_are_held_until_it_ends_and_no_others_wait(
    postgres_url: str, store: PostgresStore, db: Any
) -> None:
    async with db.transaction():
        await (await store.enlist(db)).create(order("first", gates=[GATE]), op_id="1")
        second = asyncio.create_task(store.create(order("second", gates=[GATE]), op_id="2"))
        await until(lambda: _waits(postgres_url))
        assert isinstance(await store.create(order("free"), op_id="3"), Created)
        assert not second.done()
    answer = await second
    assert isinstance(answer, Created)
    assert answer.doorbell is None  # the first has the slot


@workflow
async def busy(ctx: Context) -> str:
    await ctx.step("work", lambda: 1)
    await ctx.sleep(0.01)
    return await ctx.wait_for_signal(Go)


@workflow(concurrency=Concurrency(1))
async def gated(ctx: Context) -> None: ...


@pytest.mark.parametrize("held", ["gates", "executions"])
async def test_who_has_nothing_to_do_with_what_a_transaction_holds_goes_on(
    postgres_url: str, namespace: str, db: Any, held: str
) -> None:
    """For as long as the transaction takes."""
    async with World(postgres_url, namespace=namespace) as world:
        node = await world.node(busy, gated)
        others = [await node.start(busy) for _ in range(8)]
        for handle in others:
            await reaches(handle, "waiting", within=20)
        waiting: list[asyncio.Task[object]] = []
        async with db.transaction():
            if held == "gates":
                await node.start(gated, connection=db)
            else:
                for handle in others:
                    await handle.signal(Go, "held", connection=db)
            for handle in others:  # each in a group of its own, so that no lane is left
                start = node.start(gated) if held == "gates" else handle.signal(Go, "too")
                waiting.append(asyncio.create_task(start))
                await until(lambda: _waits(postgres_url))
            for _ in range(3):
                handle = await node.start(busy)
                await reaches(handle, "waiting", within=20)
                await handle.signal(Go, "free")
                assert await handle.result(20) == "free"
            assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)
        if held == "executions":
            assert [await handle.result(20) for handle in others] == ["held"] * 8


async def test_who_is_held_up_is_told_in_the_end_and_others_in_the_order_in_which_they_asked(
    postgres_url: str, namespace: str, db: Any
) -> None:
    async with opened(postgres_url, namespace) as store:
        await store.create(order("a"), op_id="a")
        async with db.transaction():
            await (await store.enlist(db)).post("a", signal("his"))
            with pytest.raises(StoreUnavailable, match="55P03"):
                await store.post("a", signal("too early"))
            later = [asyncio.create_task(store.post("a", signal(f"{number}"))) for number in range(20)]
            await until(lambda: _waits(postgres_url))
        assert all(isinstance(answer, Posted) for answer in await asyncio.gather(*later))
        assert [entry.id for entry in await store.inbox("a")] == ["his", *map(str, range(20))]


# -- hints


@workflow
async def patient(ctx: Context) -> str:
    return await ctx.wait_for_signal(Go)


async def test_a_start_and_a_signal_of_a_transaction_reach_workers_elsewhere_when_it_commits(
    postgres_url: str, namespace: str, texts: PostgresTable, db: Any
) -> None:
    seldom = {"sweep": "1h", "lease": "1h", "namespace": namespace}
    worker = Durable([patient], store=postgres_url, **cast("Any", seldom))
    caller = Durable([patient], store=postgres_url, worker=False, **cast("Any", seldom))
    async with worker, caller:
        tx = db.transaction()
        await tx.start()
        await texts.insert(db, "never")
        lost = await caller.start(patient, connection=db)
        await tx.rollback()
        async with db.transaction():
            await texts.insert(db, "order 7")
            handle = await caller.start(patient, connection=db)
        await reaches(handle, "waiting", within=20)
        async with db.transaction():
            await texts.insert(db, "paid")
            await handle.signal(Go, "at once", connection=db)
        assert await handle.result(20) == "at once"
        assert await texts.rows() == ["order 7", "paid"]
        assert [each.id for each in (await caller.operator.list_executions()).items] == [handle.id]
        assert lost.id != handle.id


async def test_a_step_in_a_transaction_commits_its_rows_with_its_checkpoint_and_rolls_back_with_its_error(
    postgres_url: str, namespace: str, texts: PostgresTable
) -> None:
    tries: list[int] = []

    @step(retry=Retry(attempts=3, base="1ms", jitter=0))
    async def place(connection: Any, text: str) -> str:
        tries.append(len(tries))
        await texts.insert(connection, f"{text} {len(tries)}")
        if len(tries) < 3:
            raise ValueError("again")
        return text

    @step(retry=Retry(attempts=1))
    async def refuse(connection: Any) -> None:
        await texts.insert(connection, "never")
        raise ValueError("out of stock")

    @workflow
    async def ordering(ctx: Context) -> str:
        text = await ctx.transaction("place", place, "try")
        await ctx.transaction("refuse", refuse)
        return text

    async with World(postgres_url, namespace=namespace) as world:
        handle = await (await world.node(ordering)).start(ordering)
        with pytest.raises(ExecutionFailed, match="out of stock"):
            await handle.result(20)
    assert await texts.rows() == ["try 3"]


@pytest.mark.parametrize("when", ["between statements", "in a statement"])
async def test_a_step_whose_connection_is_cut_runs_again_as_the_same_try(
    postgres_url: str, namespace: str, texts: PostgresTable, db: Any, when: str
) -> None:
    """It has no retry policy: a lost connection is none of its failures."""
    attempts: list[int] = []

    async def place(connection: Any) -> None:
        attempts.append(current_step().attempt)
        await texts.insert(connection, f"call {len(attempts)}")
        if len(attempts) < 3:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            if when == "in a statement":
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            await db.execute("SELECT pg_terminate_backend($1)", pid)
            await until(connection.is_closed)
            await texts.insert(connection, "late")

    @workflow(retry=1)
    async def ordering(ctx: Context) -> None:
        await ctx.transaction("place", place)

    async with World(postgres_url, namespace=namespace) as world:
        await (await world.node(ordering)).start_and_wait(ordering, timeout=20)
    assert attempts == [1, 1, 1]
    assert await texts.rows() == ["call 3"]


async def test_a_step_that_meets_a_deadlock_at_its_checkpoint_runs_again_by_itself(
    postgres_url: str, namespace: str, texts: PostgresTable, db: Any
) -> None:
    """A caller has the execution and waits for a lock of the step, whose checkpoint waits for the execution."""
    begun, may_go_on = asyncio.Event(), asyncio.Event()
    attempts: list[int] = []
    lock = f"SELECT pg_advisory_xact_lock({secrets.randbits(40)})"

    async def place(connection: Any) -> None:
        attempts.append(current_step().attempt)
        await connection.execute(lock)
        await texts.insert(connection, f"call {len(attempts)}")
        begun.set()
        await may_go_on.wait()

    @workflow
    async def ordering(ctx: Context) -> str:
        await ctx.transaction("place", place)
        return await ctx.wait_for_signal(Go)

    async with World(postgres_url, namespace=namespace) as world:
        handle = await (await world.node(ordering)).start(ordering)
        await asyncio.wait_for(begun.wait(), 20)
        async with db.transaction():
            await db.execute("SET LOCAL deadlock_timeout = '1h'")  # it is the step that finds out
            await handle.signal(Go, "both", connection=db)
            waiting = asyncio.create_task(db.execute(lock))
            await until(lambda: _waits(postgres_url), within=20)
            may_go_on.set()
            await waiting
        assert await handle.result(20) == "both"
    assert attempts == [1, 1]
    assert await texts.rows() == ["call 2"]
