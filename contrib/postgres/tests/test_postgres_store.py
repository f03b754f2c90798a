"""What is PostgreSQL's own: URLs, the schema and its versions, texts, lost connections, transactions of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from durable import ConfigurationError, Context, Durable, OutcomeUnknown, StoreUnavailable, workflow
from durable.backends import backend_for
from durable.clock import SystemClock
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Checkpoint,
    CheckpointStatus,
    Created,
    Message,
    MessageKind,
    NewExecution,
    Park,
    Posted,
    Query,
    Wanted,
)
from durable_postgres import PostgresStore
from durable_postgres.texts import given, stored
from tests.brokers.postgres_server import PostgresServer, database

CUT_WHO_WAITS = """
    DO $$ BEGIN
        WHILE NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock') LOOP
            PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
        END LOOP;
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock';
    END $$
"""

READ_BY_CREATION = """
    SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE indexrelname = 'executions_created'
"""


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def opened(url: str, namespace: str, **options: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, namespace, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def order(id: str) -> NewExecution:
    return NewExecution(id, "order", "1", b"{}")


def signal(id: str) -> Message:
    return Message(id, MessageKind.SIGNAL, "go")


# -- URLs


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
async def test_a_url_is_found_by_its_scheme_and_keeps_an_execution(
    postgres_url: str, namespace: str, scheme: str
) -> None:
    @workflow
    async def greet(ctx: Context, name: str) -> str:
        return await ctx.step("greet", lambda: f"hello, {name}")

    url = f"{scheme}://{postgres_url.partition('://')[2]}"
    async with Durable([greet], store=url, queue=url, namespace=namespace) as durable:
        assert await durable.start_and_wait(greet, "ada", timeout=20) == "hello, ada"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql:///shop",
        "postgresql://localhost",
        "postgresql://localhost/",
        "postgresql://localhost/a/b",
        "postgresql://localhost:port/shop",
        "postgresql://localhost/shop#part",
        "postgresql://localhost/shop?fsync=off",
        "postgresql://localhost/shop?sslmode=on",
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str) -> None:
    for opener in (backend_for(url).open_store, backend_for(url).open_queue, backend_for(url).open_bus):
        assert opener is not None
        with pytest.raises(ConfigurationError):
            opener(url, namespace="default", clock=SystemClock())


async def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    store = PostgresStore("postgresql://me:hush@127.0.0.1:1/shop")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/shop") as caught:
        await store.open()
    assert "hush" not in str(caught.value)


# -- the schema


async def test_a_schema_of_another_application_is_left_as_it_was(postgres_url: str) -> None:
    with database(postgres_url) as url:
        async with session(url) as db:
            await db.execute("CREATE SCHEMA durable; CREATE TABLE durable.goods (n int)")
            with pytest.raises(StoreUnavailable, match="another application"):
                await PostgresStore(url).open()
            tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'durable'"
            assert await db.fetchval(tables) == 1


async def test_a_newer_schema_is_not_written_by_an_older_process(postgres_url: str) -> None:
    with database(postgres_url) as url:
        async with opened(url, "n"), session(url) as db:
            await db.execute("UPDATE durable.meta SET version = 99")
            async with opened(url, "n"):
                pass
            await db.execute("UPDATE durable.meta SET min_writer = 99")
            with pytest.raises(StoreUnavailable, match="newer"):
                await PostgresStore(url).open()


async def test_many_that_come_first_make_one_schema(postgres_url: str) -> None:
    with database(postgres_url) as url:
        stores = [PostgresStore(url, f"n{number % 2}") for number in range(6)]
        await asyncio.gather(*(store.open() for store in stores))
        assert isinstance(await stores[0].create(order("a"), op_id="1"), Created)
        assert await stores[2].get("a") == await stores[0].get("a")
        assert await stores[1].get("a") is None
        await asyncio.gather(*(store.close() for store in stores))


# -- texts


@pytest.mark.parametrize("text", ["", "plain", "\0", "\1", "\1\1", "\1\2", "a\0\1b\1\0", "\0\0"])
def test_a_text_comes_back_as_it_was(text: str) -> None:
    assert "\0" not in stored(text)
    assert given(stored(text)) == text


def test_texts_are_ordered_as_before() -> None:
    texts = ["", "\0", "\0\0", "\0\1", "\1", "\1\0", "\1\1", "\2", "a", "a\0", "a\1", "b"]
    assert sorted(texts, key=stored) == texts


# -- pages


@pytest.mark.parametrize(
    "rare", [Query(id_prefix="rare"), Query(workflow="rare"), Query(tags={"rare": "yes"})]
)
async def test_a_page_of_what_is_rare_is_read_by_its_index_also_after_many_pages_of_all(
    postgres_url: str, rare: Query
) -> None:
    spec = NewExecution("rare", "rare", "1", b"{}", tags={"rare": "yes"})
    with database(postgres_url) as url:
        async with session(url) as db:
            async with opened(url, "n") as store:
                await store.create(spec, op_id="rare")
                await asyncio.gather(
                    *(store.create(order(f"{number}"), op_id=f"{number}") for number in range(500))
                )
                await db.execute("ANALYZE")
                for _ in range(10):  # a server keeps a plan from the sixth time on
                    await store.query(Query(limit=1))
                for _ in range(10):
                    assert [row.id for row in (await store.query(rare)).rows] == ["rare"]
            assert await db.fetchval(READ_BY_CREATION) < 100


# -- sweeps


async def test_what_a_tick_makes_ready_is_not_rung_by_the_due_beside_it(
    postgres_url: str, namespace: str
) -> None:
    wanted = Wanted(("default",), frozenset({"order@1"}))
    sleep = Checkpoint("sleep", "sleep", "sleep", CheckpointStatus.OPEN, wake_at=1)
    park = Batch(seen=0, next=Park(ExecutionStatus.SLEEPING), checkpoints=(sleep,))
    async with opened(postgres_url, namespace) as store:
        live = await store.live()
        for number in range(30):
            id = f"x{number}"
            await store.create(order(id), op_id=id)
            await store.claim(id, nonce=id, worker="w")
            await store.commit(id, nonce=id, ver=0, op_id=id, batch=park)
            ticked, rung = await asyncio.gather(
                store.tick(0, live=live, limit=9), store.due(0, wanted, limit=9, again_ms=9)
            )
            assert [bell.id for bell in ticked.doorbells] == [id]
            assert list(rung) == []
            await store.claim(id, nonce=f"{id} again", worker="w")


async def test_what_others_hold_hides_nothing_else_that_is_due(postgres_url: str, namespace: str) -> None:
    wanted = Wanted(("default",), frozenset({"order@1"}))
    async with opened(postgres_url, namespace) as store, session(postgres_url) as db:
        for number in range(60):
            await store.create(order(f"x{number:02}"), op_id=f"{number}")
        async with db.transaction():
            held = "SELECT n FROM durable.executions WHERE id BETWEEN 'x05' AND 'x44' FOR UPDATE"
            await db.execute(held)
            first = await store.due(0, wanted, limit=10, again_ms=60_000)
            assert [bell.id for bell in first] == [f"x{number:02}" for number in (*range(5), *range(45, 50))]
            assert len(await store.due(0, wanted, limit=20, again_ms=60_000)) == 10
        rest = await store.due(0, wanted, limit=50, again_ms=60_000)
        assert [bell.id for bell in rest] == [f"x{number:02}" for number in range(5, 45)]


# -- what goes wrong


async def test_a_lost_connection_is_an_unknown_outcome_and_then_the_same_answer(
    private_postgres: PostgresServer,
) -> None:
    url = private_postgres.url
    async with opened(url, "n", patience_s=30) as store, session(url) as db:
        await store.create(order("a"), op_id="1")
        async with db.transaction():
            await db.execute("SELECT n FROM durable.executions FOR UPDATE")
            post = asyncio.create_task(store.post("a", signal("m")))
            async with session(url) as other:
                await other.execute(CUT_WHO_WAITS)
            with pytest.raises(OutcomeUnknown):
                await post
        assert isinstance(await store.post("a", signal("m")), Posted)


async def test_a_row_that_is_held_for_too_long_is_no_hang(postgres_url: str, namespace: str) -> None:
    async with opened(postgres_url, namespace, patience_s=0.3) as store, session(postgres_url) as db:
        await store.create(order("a"), op_id="1")
        async with db.transaction():
            await db.execute("SELECT n FROM durable.executions WHERE id = 'a' FOR UPDATE")
            with pytest.raises(StoreUnavailable, match="57014"):
                await store.post("a", signal("m"))
        assert isinstance(await store.post("a", signal("m")), Posted)


async def test_reads_outlive_a_server_that_is_started_again(private_postgres: PostgresServer) -> None:
    async with opened(private_postgres.url, "n") as store:
        await store.create(order("a"), op_id="1")
        await asyncio.to_thread(private_postgres.restart)
        assert await store.get("a") is not None
        assert await store.check() == []
        await asyncio.to_thread(store.beat, "w", ttl_ms=1000)
