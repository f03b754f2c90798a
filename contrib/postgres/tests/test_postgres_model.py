"""The store is played random sequences, and does what the reference says.

DURABLE_TEST_LONG=1       20,000 sequences, other ones each time; or as many as DURABLE_TEST_MODEL says
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from tests.postgres_world import StillDatabase

from durable.testing.model import StoreModel, World, Worlds
from durable_postgres import PostgresStore


@pytest.mark.timeout(0)
class TestPostgresModel(StoreModel):
    @pytest.fixture
    def worlds(self, still: StillDatabase) -> Worlds:
        @asynccontextmanager
        async def postgres() -> AsyncGenerator[World]:
            store = PostgresStore(still.url, secrets.token_hex(8))
            await store.open()
            async with still.clock() as pass_time:
                yield World(store, pass_time, is_exact=True)
            await store.close()

        return {"postgres": postgres}
