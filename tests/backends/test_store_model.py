"""The stores are played the same random sequences, and each does what the reference says.

DURABLE_TEST_LONG=1       20,000 sequences of 100 acts, other ones each time; or as many as DURABLE_TEST_MODEL says

The clock of a Redis is moved by one line: its scripts read the time in `clock()` of their prelude, and here that
adds what stands in a key of the test's. All else of the scripts is as it is delivered. Real time goes on meanwhile,
which the model allows for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from durable.backends.redis import scripts
from durable.backends.redis.location import Location
from durable.backends.redis.store import RedisStore
from durable.backends.redis.wire import Script
from durable.backends.sqlite import SqliteStore
from durable.clock import VirtualClock
from durable.ids import Ids
from durable.testing.model import StoreModel, World, Worlds, memory_world
from tests.backends.redis_keys import forget

START_MS = 1_700_000_000_000
TIME = "return time[1] * 1000 + math.floor(time[2] / 1000)"

ids = Ids()


@pytest.mark.timeout(0)
class TestStores(StoreModel):
    @pytest.fixture
    def worlds(self, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Worlds:
        ahead = f"test:{ids.nonce()}"
        for name, script in vars(scripts).items():
            if isinstance(script, Script):
                monkeypatch.setattr(scripts, name, ahead_of_time(script, ahead))

        @asynccontextmanager
        async def sqlite() -> AsyncIterator[World]:
            clock = VirtualClock(START_MS)

            async def pass_time(ms: int) -> None:
                clock.advance_to(clock.now_ms() + ms)

            store = SqliteStore(tmp_path / "durable.db", ids.nonce(), clock, synchronous="normal")
            await store.open()
            yield World(store, pass_time, is_exact=True)
            await store.close()

        @asynccontextmanager
        async def redis() -> AsyncIterator[World]:
            store = RedisStore(Location.parse(f"{redis_url}?partitions=3"), ids.nonce())
            await store.open()
            wire, space = store.verbs.wire, store.verbs.space

            async def pass_time(ms: int) -> None:
                await wire.call("INCRBY", ahead, ms, key=ahead, op_id="test")

            yield World(store, pass_time)
            await forget(wire, space)
            await store.close()

        return {"memory": memory_world, "sqlite": sqlite, "redis": redis}


def ahead_of_time(script: Script, by: str) -> Script:
    """The script on a clock that is as far ahead as a key says."""
    assert script.source.count(TIME) == 1
    return Script(script.name, script.source.replace(TIME, f"{TIME} + (call('GET', '{by}') or 0)"))
