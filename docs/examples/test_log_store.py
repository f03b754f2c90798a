"""The example backend keeps the contract, also after it has been opened again."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from log_store import LogStore
from typing_extensions import override

from durable.clock import VirtualClock
from durable.protocols import DurableStore, Query
from durable.testing import StoreContract


async def everything(store: DurableStore) -> list[object]:
    rows = (await store.query(Query(limit=100))).rows
    return [(row, await store.history(row.id), await store.inbox(row.id)) for row in rows]


class TestLogStore(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DurableStore]:
        self.clock = VirtualClock(1_700_000_000_000)
        store = LogStore(tmp_path / "log", self.clock)
        await store.open()
        yield store
        before = await everything(store)
        await store.close()
        await store.open()
        assert await everything(store) == before
        await store.close()

    @override
    async def pass_time(self, store: DurableStore, ms: int) -> None:
        self.clock.advance_to(self.clock.now_ms() + ms)
