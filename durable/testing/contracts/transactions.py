"""`TransactionsContract`: what a `TransactionalStore` must do, beside what every store does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, cast

import pytest

from durable.errors import InvalidInput
from durable.models import ExecutionStatus
from durable.protocols import (
    Committed,
    Created,
    Diverged,
    DurableStore,
    Exists,
    Fenced,
    NotPosted,
    Park,
    Posted,
    State,
    TransactionalStore,
    Writes,
)
from durable.testing.contracts.store.acts import (
    Owner,
    Situation,
    bring,
    due,
    ids,
    message,
    new,
    own,
    record,
    row,
    snapshot,
    unread,
)
from durable.testing.contracts.store.events import paid
from durable.testing.contracts.store.suite import StoreSuite

VERBS = ("create", "commit", "post", "send")


class UserTable(Protocol):
    """An empty table of texts that belongs to a user of the store's database, who has connections of his own."""

    def connect(self) -> AbstractAsyncContextManager[object]:
        """A new connection of the kind that the store takes, in no transaction."""
        ...

    def elsewhere(self) -> AbstractAsyncContextManager[object]:
        """The same to another database."""
        ...

    async def begin(self, connection: object) -> None: ...

    async def commit(self, connection: object) -> None: ...

    async def rollback(self, connection: object) -> None: ...

    async def insert(self, connection: object, text: str) -> None: ...

    async def rows(self) -> list[str]:
        """What is committed, in the order of the texts, on a connection of its own."""
        ...


class TransactionsContract(StoreSuite):
    """Subclass it with the fixtures `store`, as for `StoreContract`, and `table`."""

    @pytest.fixture
    def table(self) -> UserTable:
        raise NotImplementedError("provide a UserTable")

    @pytest.fixture
    def transactions(self, store: DurableStore) -> TransactionalStore:
        return cast("TransactionalStore", store)

    async def test_the_store_says_which_connections_it_takes(self, store: DurableStore) -> None:
        assert (await store.capabilities()).connection

    # -- a user's own transaction

    @pytest.mark.parametrize("verb", VERBS)
    async def test_a_verb_is_stored_when_its_transaction_commits_and_not_before(
        self, transactions: TransactionalStore, table: UserTable, verb: str
    ) -> None:
        target = await bring(transactions, Situation.OWNED)
        before = await snapshot(transactions)
        async with _his(table) as connection:
            effect = await _write(verb, await transactions.enlist(connection), target)
            assert await snapshot(transactions) == before
            await table.commit(connection)
            assert await table.rows() == ["his"]
            assert await effect(transactions)

    @pytest.mark.parametrize("verb", VERBS)
    async def test_a_verb_leaves_nothing_when_its_transaction_is_rolled_back(
        self, transactions: TransactionalStore, table: UserTable, verb: str
    ) -> None:
        target = await bring(transactions, Situation.OWNED)
        before = await snapshot(transactions)
        async with _his(table) as connection:
            effect = await _write(verb, await transactions.enlist(connection), target)
            await table.rollback(connection)
            assert await table.rows() == []
            assert await snapshot(transactions) == before
            assert not await effect(transactions)

    async def test_an_execution_that_a_transaction_creates_is_found_ready_after_it(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        async with _his(table) as connection:
            created = await (await transactions.enlist(connection)).create(new(), op_id=ids.nonce())
            assert isinstance(created, Created)
            assert created.doorbell is not None
            await table.commit(connection)
            assert [bell.id for bell in await due(transactions)] == [created.id]
            await (await own(transactions, created.id)).commit(checkpoints=[record("a")])

    async def test_a_verb_sees_what_the_transaction_has_written(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        async with _his(table) as connection:
            writes = await transactions.enlist(connection)
            spec = new(key="k")
            op_id = ids.nonce()
            created = await writes.create(spec, op_id=op_id)
            assert isinstance(created, Created)
            assert isinstance(await writes.create(spec, op_id=op_id), Created)
            assert await writes.create(new(key="k"), op_id=ids.nonce()) == Exists(created.id, same_input=True)
            sent = message()
            assert isinstance(await writes.post(created.id, sent), Posted)
            again = await transactions.enlist(connection)
            assert await again.post(created.id, sent) == NotPosted(State.READY, duplicate=True)
            await table.commit(connection)
            assert [entry.id for entry in await unread(transactions, created.id)] == [sent.id]

    async def test_a_verb_sees_what_the_store_wrote_before_and_the_store_what_it_wrote(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        owner = await bring(transactions, Situation.PARKED)
        async with table.connect() as connection:
            for _ in range(2):
                await table.begin(connection)
                posted = await (await transactions.enlist(connection)).post(owner.id, message())
                await table.commit(connection)
                assert isinstance(posted, Posted)
                assert posted.doorbell is not None
                owner = await own(transactions, owner.id)
                assert [entry.seq for entry in owner.inbox][-1] == posted.seq
                owner.seen = posted.seq
                await owner.commit(Park(ExecutionStatus.WAITING))

    async def test_a_refused_commit_writes_nothing_even_if_the_transaction_commits(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        owner = await bring(transactions, Situation.OWNED)
        before = await snapshot(transactions)
        async with _his(table) as connection:
            writes = await transactions.enlist(connection)
            batch = owner.batch(checkpoints=[record("a")], values={"v": b"1"})
            for nonce, ver, answer in ((ids.nonce(), 0, Fenced()), (owner.nonce, 7, Diverged())):
                assert (
                    await writes.commit(owner.id, nonce=nonce, ver=ver, op_id=ids.nonce(), batch=batch)
                    == answer
                )
            await table.commit(connection)
            assert await snapshot(transactions) == before

    async def test_an_owner_who_was_followed_by_another_cannot_commit_in_a_transaction(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        stale = await bring(transactions, Situation.RELEASED)
        await own(transactions, stale.id)
        async with _his(table) as connection:
            writes = await transactions.enlist(connection)
            answer = await writes.commit(
                stale.id, nonce=stale.nonce, ver=stale.ver, op_id=ids.nonce(), batch=stale.batch()
            )
            assert answer == Fenced()

    # -- what is no transaction to take part in

    @pytest.mark.parametrize("thing", [None, "a connection", object()], ids=["none", "a text", "an object"])
    async def test_something_else_than_a_connection_is_refused(
        self, transactions: TransactionalStore, thing: object
    ) -> None:
        with pytest.raises(InvalidInput):
            await transactions.enlist(thing)

    async def test_a_connection_without_a_transaction_is_refused(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        async with table.connect() as connection:
            with pytest.raises(InvalidInput, match="transaction"):
                await transactions.enlist(connection)
            await table.begin(connection)
            await table.commit(connection)
            with pytest.raises(InvalidInput, match="transaction"):
                await transactions.enlist(connection)

    async def test_a_connection_to_another_database_is_refused(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        async with table.elsewhere() as connection:
            await table.begin(connection)
            with pytest.raises(InvalidInput, match="database"):
                await transactions.enlist(connection)

    # -- the store's own

    async def test_a_block_is_committed_with_all_that_was_written_in_it(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        owner = await own(transactions)
        async with transactions.transaction() as connection:
            await table.insert(connection, "a")
            answer = await _commit(await transactions.enlist(connection), owner)
            assert isinstance(answer, Committed)
            assert (answer.owned, answer.ver) == (True, owner.ver + 1)
            assert await table.rows() == []
        assert await table.rows() == ["a"]
        assert [each.step_id for each in await transactions.history(owner.id)] == ["a"]
        owner.ver = answer.ver
        await owner.commit(checkpoints=[record("b")])

    async def test_a_block_that_raises_is_rolled_back_and_raises_the_same(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        owner = await own(transactions)
        error = RuntimeError("no")

        async def fail() -> None:
            async with transactions.transaction() as connection:
                await table.insert(connection, "a")
                await _commit(await transactions.enlist(connection), owner)
                raise error

        with pytest.raises(RuntimeError) as raised:
            await fail()
        assert raised.value is error
        assert await table.rows() == []
        assert not await transactions.history(owner.id)
        await owner.commit(checkpoints=[record("b")])

    @pytest.mark.parametrize("is_left_by", ["its end", "an error"])
    async def test_a_connection_that_outlives_its_block_writes_nothing(
        self, transactions: TransactionalStore, table: UserTable, is_left_by: str
    ) -> None:
        kept: list[object] = []

        async def keep() -> None:
            async with transactions.transaction() as connection:
                kept.append(connection)
                if is_left_by == "an error":
                    raise TimeoutError

        assert await _raises(keep()) == (is_left_by == "an error")
        assert await _raises(table.insert(kept[0], "late"))
        async with transactions.transaction() as connection:
            await table.insert(connection, "in time")
        assert await table.rows() == ["in time"]

    async def test_a_block_that_ends_its_transaction_is_told(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        async def end() -> None:
            async with transactions.transaction() as connection:
                await table.insert(connection, "a")
                await table.commit(connection)

        assert await _raises(end())

    async def test_blocks_follow_each_other_on_clean_connections(
        self, transactions: TransactionalStore, table: UserTable
    ) -> None:
        for text in ("a", "b", "c"):
            async with transactions.transaction() as connection:
                await table.insert(connection, text)
        assert await table.rows() == ["a", "b", "c"]


@asynccontextmanager
async def _his(table: UserTable) -> AsyncGenerator[object]:
    """A user's connection, in a transaction of his in which he has written."""
    async with table.connect() as connection:
        await table.begin(connection)
        await table.insert(connection, "his")
        yield connection


async def _raises(act: Awaitable[object]) -> bool:
    """Whether it fails: with an error of the driver's, or of ours."""
    try:
        await act
    except Exception:  # noqa: BLE001
        return True
    return False


async def _commit(writes: Writes, owner: Owner) -> object:
    batch = owner.batch(checkpoints=[record("a")])
    return await writes.commit(owner.id, nonce=owner.nonce, ver=owner.ver, op_id=ids.nonce(), batch=batch)


class _Effect(Protocol):
    async def __call__(self, store: DurableStore) -> bool: ...


async def _write(verb: str, writes: Writes, target: Owner) -> _Effect:
    """Write with a verb, and tell how to find what was written."""
    spec, sent, event = new(), message(), paid()

    async def is_there(store: DurableStore) -> bool:
        match verb:
            case "create":
                return await store.get(spec.id) is not None
            case "commit":
                return (await row(store, target.id)).ver == target.ver + 1
            case "post":
                return [entry.id for entry in await unread(store, target.id)] == [sent.id]
            case _:
                return await store.event("paid", event.id) is not None

    match verb:
        case "create":
            assert isinstance(await writes.create(spec, op_id=ids.nonce()), Created)
        case "commit":
            assert isinstance(await _commit(writes, target), Committed)
        case "post":
            assert isinstance(await writes.post(target.id, sent), Posted)
        case _:
            [receipt] = (await writes.send([event], op_id=ids.nonce())).receipts
            assert not receipt.duplicate
    return is_there
