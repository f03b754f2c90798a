"""Leases: which workers are alive, as far as the store can tell."""

from __future__ import annotations

import asyncio
from threading import Thread

from durable.protocols import DurableStore, WorkerInfo
from durable.testing.contracts.store.acts import LATER, SOON
from durable.testing.contracts.store.suite import StoreSuite


class Leases(StoreSuite):
    async def test_nobody_is_alive_who_never_beat(self, store: DurableStore) -> None:
        assert dict((await store.live()).workers) == {}

    async def test_a_beat_from_another_thread_holds_a_lease_from_now_on(self, store: DurableStore) -> None:
        before = (await store.live()).at
        await asyncio.to_thread(store.beat, "w", ttl_ms=LATER, info=b"\x00\xff")
        live = await store.live()
        worker = live.workers["w"]
        assert worker == WorkerInfo("w", worker.until, b"\x00\xff")
        assert before + LATER <= worker.until <= live.at + LATER

    async def test_a_lease_ends_by_itself(self, store: DurableStore) -> None:
        await asyncio.to_thread(store.beat, "w", ttl_ms=SOON)
        await asyncio.to_thread(store.beat, "v", ttl_ms=LATER)
        await self.pass_time(store, SOON + 1)
        assert set((await store.live()).workers) == {"v"}

    async def test_a_beat_prolongs_the_lease_and_replaces_the_info(self, store: DurableStore) -> None:
        await asyncio.to_thread(store.beat, "w", ttl_ms=SOON, info=b"old")
        await asyncio.to_thread(store.beat, "w", ttl_ms=LATER, info=b"new")
        await self.pass_time(store, SOON + 1)
        assert (await store.live()).workers["w"].info == b"new"

    async def test_a_beat_of_no_time_ends_the_lease_at_once(self, store: DurableStore) -> None:
        await asyncio.to_thread(store.beat, "w", ttl_ms=LATER)
        await asyncio.to_thread(store.beat, "v", ttl_ms=LATER)
        await asyncio.to_thread(store.beat, "w", ttl_ms=0)
        await self.pass_time(store, 1)
        assert set((await store.live()).workers) == {"v"}
        await asyncio.to_thread(store.beat, "w", ttl_ms=LATER)
        assert set((await store.live()).workers) == {"v", "w"}

    async def test_a_beat_of_no_time_for_nobody_is_no_error(self, store: DurableStore) -> None:
        await asyncio.to_thread(store.beat, "w", ttl_ms=0)
        await self.pass_time(store, 1)
        assert dict((await store.live()).workers) == {}

    async def test_beats_of_many_threads_at_once_all_hold(self, store: DurableStore) -> None:
        beats = [asyncio.to_thread(store.beat, f"w{index}", ttl_ms=LATER) for index in range(10)]
        await asyncio.gather(*beats)
        assert len((await store.live()).workers) == 10

    async def test_a_beat_goes_through_while_the_loop_is_blocked(self, store: DurableStore) -> None:
        heart = Thread(target=store.beat, args=["w"], kwargs={"ttl_ms": LATER}, daemon=True)
        heart.start()
        heart.join(timeout=10)
        assert not heart.is_alive()
        assert "w" in (await store.live()).workers

    async def test_the_clock_of_the_store_does_not_go_back(self, store: DurableStore) -> None:
        instants = [(await store.live()).at for _ in range(20)]
        assert instants == sorted(instants)
