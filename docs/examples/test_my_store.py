"""A backend's tests are a subclass of the contract and one fixture. The memory store stands in for yours."""

from collections.abc import AsyncIterator

import pytest
from typing_extensions import override

from durable.backends.memory import MemoryStore
from durable.clock import VirtualClock
from durable.protocols import DurableStore
from durable.testing import StoreContract


class TestMyStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[DurableStore]:
        self.clock = VirtualClock(1_700_000_000_000)
        store = MemoryStore(self.clock)  # yours
        await store.open()
        yield store
        await store.close()

    @override
    async def pass_time(self, store: DurableStore, ms: int) -> None:
        self.clock.advance_to(self.clock.now_ms() + ms)
