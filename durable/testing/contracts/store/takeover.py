"""Dead owners: whose executions a tick makes ready again, and what becomes of the old owner."""

from __future__ import annotations

import asyncio

import pytest

from durable.protocols import DurableStore, Fenced, Live, Run, State, WorkerInfo
from durable.testing.contracts.store.acts import (
    LATER,
    SOON,
    WORKER,
    Situation,
    bring,
    create,
    due,
    own,
    record,
    row,
    signal,
    situations,
    snapshot,
    tick,
    tick_once,
    timer,
)
from durable.testing.contracts.store.suite import StoreSuite


def nobody(at: int) -> Live:
    return Live({}, at)


class Takeover(StoreSuite):
    async def test_what_a_dead_worker_owned_is_ready_again_with_a_crash_counted(
        self, store: DurableStore
    ) -> None:
        owner = await own(store)
        ticked = await tick(store, live=nobody(owner.now + 1))
        assert [(bell.id, bell.crashes) for bell in ticked.doorbells] == [(owner.id, 1)]
        stored = await row(store, owner.id)
        assert (stored.state, stored.crashes, stored.ver) == (State.READY, 1, 0)
        assert [(bell.id, bell.crashes) for bell in await due(store)] == [(owner.id, 1)]
        await own(store, owner.id)
        assert (await row(store, owner.id)).crashes == 1

    async def test_what_a_live_worker_owns_stays_its_own(self, store: DurableStore) -> None:
        owner = await own(store)
        before = await snapshot(store)
        live = Live({WORKER: WorkerInfo(WORKER, until=2**53)}, at=owner.now + LATER)
        assert list((await tick(store, live=live)).doorbells) == []
        assert await snapshot(store) == before

    async def test_what_was_claimed_at_or_after_the_look_at_the_leases_stays(
        self, store: DurableStore
    ) -> None:
        owner = await own(store)
        before = await snapshot(store)
        await tick(store, live=nobody(owner.now))
        await tick(store, live=nobody(owner.now - 1))
        assert await snapshot(store) == before

    @pytest.mark.parametrize("situation", situations(Situation.MISSING, Situation.OWNED))
    async def test_what_nobody_owns_is_not_taken_from_anybody(
        self, store: DurableStore, situation: Situation
    ) -> None:
        await bring(store, situation)
        before = await snapshot(store)
        assert list((await tick(store, live=nobody(2**53))).doorbells) == []
        assert await snapshot(store) == before

    async def test_only_the_dead_workers_executions_are_taken(self, store: DurableStore) -> None:
        lost, kept = await own(store, worker="dead"), await own(store, worker="alive")
        live = Live({"alive": WorkerInfo("alive", until=2**53)}, at=kept.now + 1)
        assert [bell.id for bell in (await tick(store, live=live)).doorbells] == [lost.id]
        await kept.commit()

    async def test_a_lease_that_ended_loses_what_was_claimed_before(self, store: DurableStore) -> None:
        await asyncio.to_thread(store.beat, WORKER, ttl_ms=LATER)
        owner = await own(store)
        await self.pass_time(store, SOON)
        assert list((await tick(store, live=await store.live())).doorbells) == []
        await asyncio.to_thread(store.beat, WORKER, ttl_ms=0)
        ticked = await tick(store, live=await store.live())
        assert [bell.id for bell in ticked.doorbells] == [owner.id]

    async def test_the_old_owner_is_fenced_from_then_on(self, store: DurableStore) -> None:
        old = await own(store)
        await old.commit(checkpoints=[record("a")])
        await tick(store, live=nobody(old.now + 1))
        assert await old.send(old.batch(checkpoints=[record("b")])) == Fenced()
        new = await own(store, old.id)
        assert await old.send(old.batch(checkpoints=[record("b")])) == Fenced()
        assert new.ver == 1
        await new.commit(checkpoints=[record("b", b"new owner's")])
        assert [stored.data for stored in await store.history(old.id)] == [b"", b"new owner's"]

    async def test_crashes_in_a_row_add_up_and_a_commit_ends_the_row(self, store: DurableStore) -> None:
        execution = await create(store)
        for crashes in range(1, 4):
            owner = await own(store, execution)
            await tick(store, live=nobody(owner.now + 1))
            assert (await row(store, execution)).crashes == crashes
        owner = await own(store, execution)
        await owner.commit(Run())
        assert (await row(store, execution)).crashes == 0
        await tick(store, live=nobody(owner.now + 1))
        assert (await row(store, execution)).crashes == 1

    async def test_a_takeover_loses_no_message_and_no_timer(self, store: DurableStore) -> None:
        owner = await own(store)
        wake_at = owner.now + LATER
        await signal(store, owner.id, "unread")
        await owner.commit(checkpoints=[record("a"), timer("nap", wake_at)], values={"v": b"1"})
        assert (await tick(store, live=nobody(owner.now + 1))).next_at == wake_at
        new = await own(store, owner.id)
        assert [entry.name for entry in new.inbox] == ["unread"]
        assert [stored.step_id for stored in await store.history(owner.id)] == ["a", "nap"]
        assert await store.value(owner.id, "v") == b"1"

    async def test_many_dead_owners_are_found_in_more_than_one_tick(self, store: DurableStore) -> None:
        owners = [await own(store) for _ in range(7)]
        live = nobody(owners[-1].now + 1)
        found: set[str] = set()
        for _ in range(20):
            ticked = await tick_once(store, live=live, limit=2)
            found |= {bell.id for bell in ticked.doorbells}
            if not ticked.more:
                break
        assert found == {owner.id for owner in owners}
