"""PostgreSQL keeps the contracts of all three ports, with three stores on one database, as processes have them; and
that of transactions.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import pytest
from tests.postgres_table import PostgresTable, table
from tests.postgres_world import StillDatabase
from typing_extensions import override

from durable.protocols import DurableQueue, DurableStore, EventBus
from durable.testing import BusContract, QueueContract, StoreContract, TransactionsContract
from durable_postgres import PostgresBus, PostgresQueue, PostgresStore

T = TypeVar("T", DurableStore, DurableQueue, EventBus)


@asynccontextmanager
async def opened(port: T) -> AsyncGenerator[T]:
    await port.open()
    try:
        yield port
    finally:
        await port.close()


class TestPostgresStore(StoreContract):
    @pytest.fixture
    async def store(self, still: StillDatabase, namespace: str) -> AsyncIterator[DurableStore]:
        self.still = still
        async with opened(PostgresStore(still.url, namespace)) as store:
            yield store

    @override
    async def pass_time(self, store: DurableStore, ms: int) -> None:
        await self.still.pass_time(ms)

    @override
    @pytest.fixture
    async def peers(
        self, store: DurableStore, still: StillDatabase, namespace: str
    ) -> AsyncIterator[Sequence[DurableStore]]:
        async with opened(PostgresStore(still.url, namespace)) as second:
            async with opened(PostgresStore(still.url, namespace)) as third:
                yield [store, second, third]


class TestPostgresTransactions(TransactionsContract):
    @pytest.fixture
    async def store(self, still: StillDatabase, namespace: str) -> AsyncIterator[DurableStore]:
        async with opened(PostgresStore(still.url, namespace)) as store:
            yield store

    @override
    @pytest.fixture
    async def table(self, still: StillDatabase, postgres_url: str) -> AsyncIterator[PostgresTable]:
        async with table(still.url, elsewhere=postgres_url) as texts:
            yield texts


class TestPostgresBus(BusContract):
    @override
    @pytest.fixture
    async def peers(self, postgres_url: str, namespace: str) -> AsyncIterator[Sequence[EventBus]]:
        async with AsyncExitStack() as stack:
            buses = [PostgresBus(postgres_url, namespace) for _ in range(3)]
            yield [await stack.enter_async_context(opened(bus)) for bus in buses]

    @pytest.fixture
    def bus(self, peers: Sequence[EventBus]) -> EventBus:
        return peers[0]


class TestPostgresQueue(QueueContract):
    @pytest.fixture
    async def queue(self, postgres_url: str, namespace: str) -> AsyncIterator[DurableQueue]:
        async with opened(PostgresQueue(postgres_url, namespace)) as queue:
            yield queue
