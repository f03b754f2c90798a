"""Opening, closing, and what a store says about itself."""

from __future__ import annotations

import asyncio

from durable.errors import StoreUnavailable
from durable.protocols import Created, DurableStore
from durable.testing.contracts.store.acts import complete, create, ids, new, snapshot
from durable.testing.contracts.store.suite import StoreSuite


class Lifecycle(StoreSuite):
    async def test_a_store_says_what_it_is(self, store: DurableStore) -> None:
        capabilities = await store.capabilities()
        assert capabilities.name
        assert capabilities.grade in {"D0", "D1", "D2"}
        assert capabilities.partitions >= 1
        assert capabilities == await store.capabilities()

    async def test_an_empty_store_has_nothing_to_contradict_itself(self, store: DurableStore) -> None:
        assert list(await store.check()) == []

    async def test_closing_twice_and_opening_again_loses_nothing(self, store: DurableStore) -> None:
        await complete(store, key="k")
        await create(store)
        before = await snapshot(store)
        await store.close()
        await store.close()
        await store.open()
        assert await snapshot(store) == before
        await create(store)

    async def test_a_write_that_was_accepted_before_the_close_is_stored(self, store: DurableStore) -> None:
        specs = [new() for _ in range(20)]
        writes = [asyncio.create_task(store.create(spec, op_id=ids.nonce())) for spec in specs]
        await asyncio.sleep(0)
        await store.close()
        answers = await asyncio.gather(*writes, return_exceptions=True)
        await store.open()
        for spec, answer in zip(specs, answers, strict=True):
            assert isinstance(answer, Created | StoreUnavailable)
            assert (await store.get(spec.id) is not None) == isinstance(answer, Created)
