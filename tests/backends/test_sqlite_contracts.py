"""The SQLite backend keeps the contracts, with one store on a file and with several."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from typing_extensions import override

from durable.backends.sqlite import SqliteBus, SqliteStore
from durable.clock import VirtualClock
from durable.ids import Ids
from durable.protocols import DurableStore, EventBus
from durable.testing import BusContract, StoreContract, TransactionsContract
from durable.testing.contracts.store.concurrency import Concurrency
from durable.testing.contracts.store.processes import Processes
from durable.testing.contracts.store.suite import StoreSuite
from durable.testing.contracts.transactions import UserTable
from tests.backends.sqlite_table import SqliteTable

START_MS = 1_700_000_000_000

ids = Ids()


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with many namespaces, so that a test that can see beyond its own fails."""
    return tmp_path_factory.mktemp("sqlite") / "durable.db"


class Sqlite(StoreSuite):
    stores = 1

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "durable.db"

    @override
    @pytest.fixture
    async def peers(self, file: Path) -> AsyncIterator[Sequence[DurableStore]]:
        self.clock = VirtualClock(START_MS)
        namespace = ids.nonce()
        async with AsyncExitStack() as opened:
            peers: list[DurableStore] = []
            for _ in range(self.stores):
                # How long the disk takes is no part of the contract.
                store = SqliteStore(file, namespace, self.clock, synchronous="normal")
                await store.open()
                opened.push_async_callback(store.close)
                peers.append(store)
            yield peers

    @pytest.fixture
    def store(self, peers: Sequence[DurableStore]) -> DurableStore:
        return peers[0]

    @override
    async def pass_time(self, store: DurableStore, ms: int) -> None:
        self.clock.advance_to(self.clock.now_ms() + ms)


class TestSqliteStore(Sqlite, StoreContract):
    pass


class TestSqliteStores(Sqlite, Concurrency, Processes):
    """Several on one file, as several processes have, beside those of all the other tests."""

    stores = 3

    @override
    @pytest.fixture
    def file(self, crowded: Path) -> Path:
        return crowded


class TestSqliteTransactions(Sqlite, TransactionsContract):
    @override
    @pytest.fixture
    def table(self, store: DurableStore, file: Path) -> UserTable:
        return SqliteTable(file)


class TestSqliteBus(BusContract):
    """Two that reach each other within a process; across processes a bus is only told that the file changed."""

    @override
    @pytest.fixture
    async def peers(self, tmp_path: Path) -> AsyncIterator[Sequence[EventBus]]:
        async with AsyncExitStack() as opened:
            peers: list[EventBus] = []
            for _ in range(2):
                bus = SqliteBus(tmp_path / "durable.db")
                await bus.open()
                opened.push_async_callback(bus.close)
                peers.append(bus)
            yield peers

    @pytest.fixture
    def bus(self, peers: Sequence[EventBus]) -> EventBus:
        return peers[0]
