"""What every backend must do, and that a URL leads here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from typing_extensions import override

from durable import ConfigurationError, Context, Durable, workflow
from durable.clock import VirtualClock
from durable.protocols import DurableStore
from durable.testing import StoreContract, StoreModel, World
from durable.testing.model import Worlds
from durable_mystore import MyStore


class TestMyStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[DurableStore]:
        self.clock = VirtualClock(1_700_000_000_000)
        store = MyStore("place", "default", self.clock)  # with nothing in it
        await store.open()
        yield store
        await store.close()

    # Give several stores on the same data here, as several processes would have them: the fixture `peers`.

    @override
    async def pass_time(self, store: DurableStore, ms: int) -> None:
        # Without this method the suite waits: leave it out when the time is that of a server.
        self.clock.advance_to(self.clock.now_ms() + ms)


@asynccontextmanager
async def world() -> AsyncGenerator[World]:
    clock = VirtualClock(1_700_000_000_000)

    async def pass_time(ms: int) -> None:
        clock.advance_to(clock.now_ms() + ms)

    store = MyStore("place", "default", clock)  # with nothing in it
    await store.open()
    yield World(store, pass_time, is_exact=True)
    await store.close()


class TestMyStoreModel(StoreModel):
    @pytest.fixture
    def worlds(self) -> Worlds:
        return {"mystore": world}


async def give() -> int:
    return 42


@workflow
async def ask(ctx: Context) -> int:
    return await ctx.step("give", give)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_workflow_runs_at_a_url() -> None:
    async with Durable([ask], store="mystore://place") as durable:
        assert await durable.start_and_wait(ask, timeout="10s") == 42


@pytest.mark.parametrize("url", ["mystore://", "mystore://user:pass@place/path", "mystore://place?fast=1"])
def test_a_url_that_means_nothing_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Durable(store=url)
    assert "pass" not in str(raised.value)
