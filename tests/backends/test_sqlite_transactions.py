"""One transaction for many, transactions that fail, and what only the file shows."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable.backends.sqlite import (
    SqliteStore,
    query,
    reads,
    schema,
    statements,
)
from durable.errors import StoreFull, StoreUnavailable
from durable.models import ExecutionStatus
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    Committed,
    Diverged,
    Live,
    Message,
    MessageKind,
    Post,
    Posted,
    Query,
    Watch,
)
from tests.backends.sqlite_world import (
    DONE,
    PARK,
    WANTED,
    commit,
    complete,
    create,
    ends_well,
    ids,
    message,
    new,
    opened,
    own,
    pragma,
    record,
    run,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "durable.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(SqliteStore(path, synchronous="normal")) as store:
        yield store


# -- namespaces


async def test_namespaces_of_one_file_do_not_see_each_other(path: Path) -> None:
    async with opened(SqliteStore(path, "a")) as a, opened(SqliteStore(path, "b")) as b:
        await complete(a, "x", key="k", tags={"t": "1"}, parent_id="p", input=b"a")
        await create(b, "x", key="k", tags={"t": "1"}, parent_id="p", input=b"b")
        nonce = await own(a, await create(a, "timed", timeout_ms=0))
        for store in (a, b):
            assert await commit(store, "missing", "n", 0) is not None
        await asyncio.to_thread(a.beat, "w", ttl_ms=60_000)

        assert await b.get("timed") is None
        assert [row.id for row in (await b.query(Query())).rows] == ["x"]
        for filtered in (
            Query(tags={"t": "1"}),
            Query(parent_id="p"),
            Query(id_prefix="x"),
            Query(workflow="order"),
        ):
            assert [row.input for row in (await b.query(filtered)).rows] == [b"b"]
        assert await b.counts() == {ExecutionStatus.PENDING: 1}
        assert (await b.live()).workers == {}
        ticked = await b.tick(0, live=Live({}, 2**53), limit=10)
        assert (ticked.touched, ticked.doorbells, ticked.next_at) == ((), (), None)
        assert [bell.id for bell in await b.due(0, WANTED, limit=10, again_ms=0)] == ["x"]
        assert await b.prune(before=2**53, status=list(ExecutionStatus), limit=10) == 0
        assert isinstance(await b.post("x", message()), Posted)
        assert isinstance(await commit(a, "timed", nonce, 0, PARK, out=[Post("x", message())]), Committed)
        assert [entry.id for entry in await b.inbox("x")] == ["m"]
        assert await a.inbox("x") == []
        assert (await a.check(), await b.check()) == ([], [])


# -- one transaction for many


async def test_what_is_refused_or_fails_harms_none_of_its_neighbours(store: SqliteStore) -> None:
    owned = {id: await own(store, id) for id in [await create(store) for _ in range(10)]}
    first, *others = owned
    assert isinstance(await commit(store, first, owned[first], 0, checkpoints=[record("a")]), Committed)
    taken = await create(store, "taken")
    group = await asyncio.gather(
        *[commit(store, id, owned[id], 0, checkpoints=[record("a")]) for id in others[:4]],
        commit(store, first, owned[first], 1, checkpoints=[record("b"), record("a", b"changed")]),
        create(store, "free", input="no bytes"),
        store.create(new(taken), op_id="other"),
        store.post("free-too", message()),
        store.post(first, Message("\ud800", MessageKind.SIGNAL, "go")),
        *[commit(store, id, owned[id], 0, checkpoints=[record("a")]) for id in others[4:]],
        store.post(first, message()),
        return_exceptions=True,
    )
    committed = [answer for answer in group if isinstance(answer, Committed)]
    errors = [type(answer).__name__ for answer in group if isinstance(answer, BaseException)]
    assert len(committed) == 9
    assert group[4] == Diverged()
    assert errors == ["TypeError", "UnicodeEncodeError"]
    assert isinstance(group[-1], Posted)
    assert [entry.step_id for entry in await store.history(first)] == ["a"]
    assert await store.get("free") is None
    assert await store.check() == []


async def test_two_creates_of_one_id_in_one_transaction_make_one_execution(store: SqliteStore) -> None:
    bystanders = [create(store) for _ in range(5)]
    answers = await asyncio.gather(
        *[store.create(new("x", input=b"%d" % number), op_id=f"op {number}") for number in range(4)],
        *bystanders,
    )
    assert [type(answer).__name__ for answer in answers[:4]] == ["Created", "Exists", "Exists", "Exists"]
    assert sum((await store.counts()).values()) == 6


@pytest.mark.parametrize("at_once", [1, 20])
async def test_a_caller_that_is_cancelled_takes_nothing_back(store: SqliteStore, at_once: int) -> None:
    specs = [new() for _ in range(at_once)]
    callers = [asyncio.create_task(store.create(spec, op_id=ids.nonce())) for spec in specs]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [
        number % 2 == 0 for number in range(at_once)
    ]
    last = await create(store)  # the writer takes one after the other
    assert {row.id for row in (await store.query(Query())).rows} == {last, *(spec.id for spec in specs)}
    assert await store.check() == []


async def test_a_full_disk_refuses_what_has_no_room_and_keeps_the_rest(store: SqliteStore) -> None:
    await create(store, "small")
    pages = await pragma(store, "PRAGMA page_count")
    await pragma(store, f"PRAGMA max_page_count = {pages + 4}")
    answers = await asyncio.gather(
        *[store.create(new(f"large-{n}", input=bytes(100_000)), op_id=ids.nonce()) for n in range(3)],
        store.post("small", message()),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [StoreFull, StoreFull, StoreFull, Posted]
    await pragma(store, "PRAGMA max_page_count = 1000000")
    assert {row.id for row in (await store.query(Query())).rows} == {"small"}
    await create(store, "large-0", input=bytes(100_000))
    assert await store.check() == []


async def test_a_file_that_others_keep_locked_is_given_up_in_the_end(path: Path) -> None:
    store = SqliteStore(path, give_up_s=0.02)
    async with opened(store):
        await asyncio.to_thread(store.beat, "w", ttl_ms=60_000)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked"):
                await create(store)
            with pytest.raises(StoreUnavailable, match="locked"):
                await asyncio.to_thread(store.beat, "w", ttl_ms=60_000)
            assert await store.get("x") is None
            other.execute("ROLLBACK")
        await create(store, "x")
        await asyncio.to_thread(store.beat, "w", ttl_ms=0)


def test_a_commit_whose_outcome_is_unknown_is_made_good_by_the_same_call(path: Path) -> None:
    program = """
        import resource
        async def main(path):
            async with opened(SqliteStore(path)) as store:
                owned = {id: await own(store, id) for id in [await create(store) for _ in range(20)]}
                unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
                size = Path(path + "-wal").stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, unlimited[1]))
                unknown = 0
                for round in range(30):
                    answers = await asyncio.gather(
                        *[commit(store, id, nonce, round, checkpoints=[record(f"{round}")], op_id=f"{id} {round}")
                          for id, nonce in owned.items()],
                        return_exceptions=True,
                    )
                    failed = [answer for answer in answers if isinstance(answer, Exception)]
                    unknown += len(failed)
                    assert all(isinstance(each, OutcomeUnknown) for each in failed), failed
                    assert {each.op_id for each in failed} <= {f"{id} {round}" for id in owned}
                    if failed:
                        assert await store.get(next(iter(owned))) is not None
                        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
                    for id, nonce in owned.items():
                        again = await commit(
                            store, id, nonce, round, checkpoints=[record(f"{round}")], op_id=f"{id} {round}"
                        )
                        assert isinstance(again, Committed) and again.ver == round + 1, again
                assert unknown > 0
                assert await store.check() == []
        asyncio.run(main(sys.argv[1]))
    """
    ends_well(run(program, path))


# -- what only the file shows


async def test_the_log_stays_short(store: SqliteStore, path: Path) -> None:
    for _ in range(40):
        await asyncio.gather(*[create(store, input=bytes(20_000)) for _ in range(50)])
    assert path.stat().st_size > 20_000_000
    assert path.with_name("durable.db-wal").stat().st_size < 30_000_000


async def test_the_number_of_a_deleted_execution_is_not_used_again(store: SqliteStore) -> None:
    target = await create(store, "target")
    parent = await create(store, "parent")
    await commit(store, parent, await own(store, parent), 0, DONE, out=[Watch(target, "join")])
    assert await store.prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=10) == 1
    stranger = await create(store, "stranger")
    await commit(store, target, await own(store, target), 0, DONE)
    assert await store.inbox(stranger) == []
    assert await store.check() == []


@pytest.mark.parametrize(
    "sabotage",
    [
        "UPDATE executions SET state = 'parked' WHERE id = 'open'",
        "UPDATE executions SET status = 'completed' WHERE id = 'open'",
        "UPDATE executions SET bell = 1 WHERE id = 'open'",
        "UPDATE executions SET unread = unread + 1 WHERE id = 'open'",
        "UPDATE executions SET timers = 0 WHERE id = 'timed'",
        "UPDATE executions SET nonce = '' WHERE id = 'timed'",
        "UPDATE counts SET number = number + 1",
        "DELETE FROM executions WHERE id = 'open'",
        "DELETE FROM checkpoints",
        "DELETE FROM inputs WHERE n = 1",
        "DELETE FROM tags",
        "UPDATE timers SET at = at + 1",
    ],
)
async def test_a_check_finds_what_contradicts_itself(store: SqliteStore, path: Path, sabotage: str) -> None:
    await create(store, "open", tags={"a": "b"})
    await store.post("open", message())
    nap = Checkpoint("nap", "sleep", "sleep", CheckpointStatus.OPEN, wake_at=2**50)
    await commit(store, await create(store, "timed"), await own(store, "timed"), 0, checkpoints=[nap])
    await complete(store)
    assert await store.check() == []
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sabotage)
    assert await store.check() != []


def statements_of(*modules: Any) -> list[Any]:
    return [
        pytest.param(value, id=f"{module.__name__.rpartition('.')[2]}.{name}")
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, str) and value.split()[:1] and value.split()[0] in ("SELECT", "UPDATE", "DELETE")
        if "WHERE" in value and name != "ROW"
    ]


@pytest.mark.parametrize("statement", statements_of(statements, query, reads))
def test_no_statement_reads_a_whole_table(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for each in (statement for step in schema.STEPS for statement in step):
            db.execute(each)
        names = dict.fromkeys(re.findall(r":(\w+)", statement))
        numbered = [int(number) for number in re.findall(r"\?(\d+)", statement)]
        parameters: Any = names or [None] * max([statement.count("?") if not numbered else 0, *numbered])
        plan = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + statement, parameters)]
    assert not [step for step in plan if re.match(r"SCAN (?!CONSTANT|\(subquery|.*VIRTUAL TABLE)", step)], (
        plan
    )


@pytest.mark.parametrize(
    "filtered",
    [
        Query(),
        Query(status=[ExecutionStatus.FAILED, ExecutionStatus.PARKED]),
        Query(workflow="order", since=1, until=2),
        Query(tags={"a": "1", "b": "2"}),
        Query(parent_id="p", cursor="5.5"),
    ],
)
def test_a_page_is_read_in_the_order_of_an_index(filtered: Query) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        for each in (statement for step in schema.STEPS for statement in step):
            db.execute(each)
        statement = query._leads(filtered)[0]
        names = dict.fromkeys(re.findall(r":(\w+)", statement))
        plan = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + statement, names)]
    assert not [step for step in plan if "TEMP B-TREE" in step], plan


PAGES = [
    Query(),
    Query(status=[ExecutionStatus.PENDING]),
    Query(status=[ExecutionStatus.PENDING, ExecutionStatus.FAILED]),
    Query(workflow="ship"),
    Query(tags={"tenant": "a"}),
    Query(parent_id="p"),
    Query(since=1, until=2**50),
    Query(id_prefix="x"),
    Query(id_prefix="x1100.7"),
    Query(id_prefix="x1100.7", workflow="order"),
    Query(status=[ExecutionStatus.PENDING], workflow="ship"),
    Query(status=[ExecutionStatus.PENDING], tags={"tenant": "a"}),
    Query(workflow="ship", tags={"tenant": "a"}, since=1),
    Query(status=[ExecutionStatus.FAILED], workflow="ship", tags={"tenant": "a"}),
]


def instructions(path: Path, asked: Query) -> int:
    """How much SQLite does for a page, in hundreds of its instructions."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    with closing(sqlite3.connect(path)) as db:
        (ns,) = db.execute("SELECT ns FROM namespaces").fetchone()
        db.set_progress_handler(count, 100)
        first = query.query(db, ns, asked)
        if first.cursor is not None:
            query.query(db, ns, replace(asked, cursor=first.cursor))
    return counted


async def test_a_page_costs_the_same_however_many_executions_there_are(
    store: SqliteStore, path: Path
) -> None:
    async def fill(number: int) -> None:
        specs = [
            replace(
                new(f"x{number}.{each}"),
                workflow="ship" if each % 2 else "order",
                tags={"tenant": "a" if each % 3 else "b"},
                parent_id="p" if each % 2 else None,
            )
            for each in range(number)
        ]
        await asyncio.gather(*(store.create(spec, op_id=ids.nonce()) for spec in specs))

    await fill(1_100)
    before = [instructions(path, asked) for asked in PAGES]
    await fill(4_000)
    after = [instructions(path, asked) for asked in PAGES]
    for asked, few, many in zip(PAGES, before, after, strict=True):
        assert many <= 1.5 * few + 20, (asked, few, many)
