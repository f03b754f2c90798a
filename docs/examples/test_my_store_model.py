"""Random sequences of verbs on your store, compared with a reference. The memory store stands in for yours."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from durable.backends.memory import MemoryStore
from durable.clock import VirtualClock
from durable.testing import StoreModel, World
from durable.testing.model import Worlds


@asynccontextmanager
async def my_world() -> AsyncGenerator[World]:
    clock = VirtualClock(1_700_000_000_000)

    async def pass_time(ms: int) -> None:
        clock.advance_to(clock.now_ms() + ms)

    store = MemoryStore(clock)  # yours, with nothing in it
    await store.open()
    yield World(store, pass_time, is_exact=True)
    await store.close()


class TestMyStoreModel(StoreModel):
    @pytest.fixture
    def worlds(self) -> Worlds:
        return {"mine": my_world}
