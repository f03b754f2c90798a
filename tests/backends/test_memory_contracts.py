"""The memory backend keeps the contracts."""

from collections.abc import AsyncIterator, Sequence

import pytest
from typing_extensions import override

from durable.backends.memory import MemoryBus, MemoryStore
from durable.clock import VirtualClock
from durable.ids import Ids
from durable.protocols import DurableStore, EventBus
from durable.testing import BusContract, StoreContract

START_MS = 1_700_000_000_000

ids = Ids()


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[DurableStore]:
        self.clock = VirtualClock(START_MS)
        store = MemoryStore(self.clock)
        await store.open()
        yield store
        await store.close()

    @override
    async def pass_time(self, store: DurableStore, ms: int) -> None:
        self.clock.advance_to(self.clock.now_ms() + ms)


class TestMemoryBus(BusContract):
    @pytest.fixture
    async def bus(self) -> AsyncIterator[EventBus]:
        bus = MemoryBus()
        await bus.open()
        yield bus
        await bus.close()


class TestSharedMemoryBus(BusContract):
    @override
    @pytest.fixture
    async def peers(self) -> AsyncIterator[Sequence[EventBus]]:
        name = ids.nonce()
        peers = [MemoryBus(name=name) for _ in range(3)]
        for peer in peers:
            await peer.open()
        yield peers
        for peer in peers:
            await peer.close()

    @pytest.fixture
    def bus(self, peers: Sequence[EventBus]) -> EventBus:
        return peers[0]
