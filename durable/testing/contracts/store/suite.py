"""The ground that every part of the contract stands on: its fixtures, and how time passes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio
import pytest

from durable.protocols import DurableStore
from durable.testing.contracts.store.acts import contradictions


class StoreSuite:
    """A part of the contract. A subclass provides the fixture `store`: opened, empty, closed afterwards."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Override it with a wider scope when a fixture of yours needs one."""
        return "asyncio"

    @pytest.fixture
    def peers(self, store: DurableStore) -> Sequence[DurableStore]:
        """Override it with stores on the same data, as several processes would have; `store` first."""
        return [store]

    @pytest.fixture(autouse=True)
    async def sound_afterwards(self, store: DurableStore) -> AsyncIterator[None]:
        """After each test nothing in the store contradicts anything else."""
        yield
        assert await contradictions(store) == []

    async def pass_time(self, store: DurableStore, ms: int) -> None:
        """Let `ms` milliseconds pass on the store's clock. Override it when the clock is yours to move."""
        until = (await store.live()).at + ms
        while ms > 0:
            await anyio.sleep(ms / 1000)
            ms = until - (await store.live()).at
