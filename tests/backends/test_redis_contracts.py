"""The Redis store keeps the contract: on a server, with several stores as processes have them, and on a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest
from typing_extensions import override

from durable.backends.redis.location import Location
from durable.backends.redis.store import RedisStore
from durable.ids import Ids
from durable.protocols import DurableStore
from durable.testing import StoreContract
from durable.testing.contracts.store.concurrency import Concurrency
from durable.testing.contracts.store.processes import Processes
from durable.testing.contracts.store.suite import StoreSuite
from tests.backends.redis_keys import forget

ids = Ids()


class OnRedis(StoreSuite):
    stores = 1
    partitions = 3

    @pytest.fixture
    def location(self, redis_url: str) -> Location:
        return Location.parse(f"{redis_url}?partitions={self.partitions}")

    @override
    @pytest.fixture
    async def peers(self, location: Location) -> AsyncIterator[Sequence[DurableStore]]:
        namespace = ids.nonce()
        async with AsyncExitStack() as opened:
            peers: list[RedisStore] = []
            for _ in range(self.stores):
                store = RedisStore(location, namespace)
                await store.open()
                opened.push_async_callback(store.close)
                peers.append(store)
            yield peers
            await peers[0].open()
            await forget(peers[0].verbs.wire, peers[0].verbs.space)

    @pytest.fixture
    def store(self, peers: Sequence[DurableStore]) -> DurableStore:
        return peers[0]


class TestRedisStore(OnRedis, StoreContract):
    pass


class TestRedisStores(OnRedis, Concurrency, Processes):
    stores = 3


class TestRedisClusterStore(OnRedis, StoreContract):
    """All keys of a script are declared, and of one slot; partitions are on three masters."""

    partitions = 5

    @override
    @pytest.fixture
    def location(self, redis_cluster_url: str) -> Location:
        return Location.parse(f"{redis_cluster_url}?partitions={self.partitions}")
