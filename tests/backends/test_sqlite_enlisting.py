"""SQLite takes part in transactions of its users, whatever they have set on their connections, and changes nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from durable.backends.sqlite import SqliteStore, preflight
from durable.errors import InvalidInput, OutcomeUnknown, StoreUnavailable
from durable.protocols import Created, Exists
from tests.backends.sqlite_table import SqliteTable, connect
from tests.backends.sqlite_world import create, ids, new, opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "durable.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    async with opened(SqliteStore(file, synchronous="normal")) as store:
        yield store


@pytest.fixture
def table(store: SqliteStore, file: Path) -> SqliteTable:
    return SqliteTable(file)


async def test_a_connection_may_be_set_as_its_user_likes(store: SqliteStore, file: Path) -> None:
    detect = sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES
    with closing(sqlite3.connect(file, detect_types=detect, isolation_level="EXCLUSIVE")) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.row_factory = row_factory = lambda _, row: {"row": row}
        db.text_factory = text_factory = lambda data: data.decode().swapcase()
        db.execute("BEGIN")
        writes = await store.enlist(db)
        first = await writes.create(new(key="k"), op_id=ids.nonce())
        assert isinstance(first, Created)
        assert await writes.create(new(key="k"), op_id=ids.nonce()) == Exists(first.id, same_input=True)
        assert (db.row_factory, db.text_factory) == (row_factory, text_factory)
        assert db.isolation_level == "EXCLUSIVE"
        db.commit()
    assert await store.get(first.id) is not None


async def test_a_transaction_may_have_begun_by_itself(
    store: SqliteStore, table: SqliteTable, file: Path
) -> None:
    with closing(connect(file)) as db:
        db.execute("INSERT INTO texts VALUES ('a')")
        created = await (await store.enlist(db)).create(new(), op_id=ids.nonce())
        db.commit()
    assert await store.get(created.id) is not None
    assert await table.rows() == ["a"]


def read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{file}?mode=ro", uri=True)


def query_only(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file)
    db.execute("PRAGMA query_only = ON")
    return db


def attached(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.execute("ATTACH ? AS durable", (str(file),))
    return db


def hiding(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file)
    db.execute("CREATE TEMP TABLE events (id)")
    return db


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (read_only, "may not write"),
        (query_only, "may not write"),
        (attached, "another database, in memory"),
        (hiding, "temporary table events"),
    ],
)
async def test_a_connection_that_would_not_do_is_refused(
    store: SqliteStore, file: Path, wrong: Callable[[Path], sqlite3.Connection], says: str
) -> None:
    with closing(wrong(file)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("BEGIN")
        with pytest.raises(InvalidInput, match=says):
            await store.enlist(db)
        assert db.in_transaction


async def test_a_connection_of_another_thread_or_closed_is_refused(store: SqliteStore, file: Path) -> None:
    elsewhere = await asyncio.to_thread(sqlite3.connect, file)
    with pytest.raises(InvalidInput, match="thread"):
        await store.enlist(elsewhere)
    await asyncio.to_thread(lambda: None)
    with closing(connect(file)) as db:
        pass
    with pytest.raises(InvalidInput, match="closed"):
        await store.enlist(db)


@pytest.mark.parametrize(("fixed_in", "pages"), [((9, 0, 0), 0), ((3, 0, 0), 1000)])
async def test_a_connection_leaves_checkpoints_to_the_store_where_they_could_do_harm(
    store: SqliteStore, file: Path, monkeypatch: pytest.MonkeyPatch, fixed_in: tuple[int, ...], pages: int
) -> None:
    monkeypatch.setattr(preflight, "WAL_RESET_FIXED", fixed_in)
    with closing(sqlite3.connect(file)) as db:
        db.execute("BEGIN IMMEDIATE")
        await store.enlist(db)
        assert db.execute("PRAGMA wal_autocheckpoint").fetchone() == (pages,)


async def test_a_transaction_that_read_too_early_is_told_to_begin_anew(
    store: SqliteStore, table: SqliteTable, file: Path
) -> None:
    with closing(connect(file)) as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM texts").fetchall()
        await create(store)
        with pytest.raises(StoreUnavailable, match="since this transaction began") as refused:
            await store.enlist(db)
        assert "BEGIN IMMEDIATE" in (refused.value.hint or "")


async def test_a_failing_verb_leaves_the_rest_of_the_transaction_whole(
    store: SqliteStore, table: SqliteTable, file: Path
) -> None:
    with closing(connect(file)) as db:
        db.execute("INSERT INTO texts VALUES ('a')")
        writes = await store.enlist(db)
        db.execute("CREATE TEMP TRIGGER no BEFORE INSERT ON main.inputs BEGIN SELECT RAISE(ABORT, 'no'); END")
        spec = new()
        with pytest.raises(StoreUnavailable):
            await writes.create(spec, op_id=ids.nonce())
        db.commit()
    assert await store.get(spec.id) is None
    assert await table.rows() == ["a"]
    assert await store.check() == []


async def test_a_start_that_is_given_up_while_it_waits_for_the_lock_holds_it_no_more(
    store: SqliteStore, table: SqliteTable, file: Path
) -> None:
    async def begin() -> None:
        async with store.transaction():
            raise AssertionError("it was given up")

    with closing(connect(file)) as db:
        db.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.create_task(begin()) for _ in range(2)]
        await asyncio.sleep(0)
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)
        db.rollback()
    async with store.transaction() as connection:
        await table.insert(connection, "a")
    assert await table.rows() == ["a"]


async def test_a_disk_that_fails_at_the_commit_leaves_it_unknown(
    store: SqliteStore, table: SqliteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store._opened is not None

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(store._opened.transactions, "_end", fail)

    async def write() -> None:
        async with store.transaction() as connection:
            await table.insert(connection, "a")

    with pytest.raises(OutcomeUnknown):
        await write()
    monkeypatch.undo()
    assert await table.rows() == []
    await create(store)
