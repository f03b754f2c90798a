"""Several processes in turn: what one has written the next one finds, and takes no account of who wrote it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from durable.models import ExecutionStatus
from durable.protocols import (
    Committed,
    Created,
    DurableStore,
    Emit,
    Exists,
    Fenced,
    Next,
    NotPosted,
    Park,
    Post,
    Start,
    State,
    Watch,
)
from durable.testing.contracts.store.acts import (
    LATER,
    NEXTS,
    SOON,
    Situation,
    bring,
    carry,
    create,
    due,
    gist,
    ids,
    message,
    new,
    own,
    record,
    row,
    signal,
    snapshot,
    tick,
    timer,
)
from durable.testing.contracts.store.suite import StoreSuite

PARK = Park(ExecutionStatus.WAITING)


class Processes(StoreSuite):
    """Each of these goes round all of `peers`."""

    async def test_everybody_sees_at_once_what_anybody_wrote(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for peer in peers:
            owner = await own(peer, await create(peer, tags={"a": "b"}))
            await signal(peer, owner.id)
            await owner.commit(checkpoints=[record("a")], values={"v": b"1"}, out=[Emit(owner.id, "e", b"")])
            seen = [await snapshot(other) for other in peers]
            assert seen == [seen[0]] * len(peers)
            assert [await other.value(owner.id, "v") for other in peers] == [b"1"] * len(peers)
            assert None not in [await other.event("e", owner.id) for other in peers]

    async def test_an_execution_goes_from_process_to_process(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        execution = await create(store)
        for number in range(3 * len(peers)):
            here, there = peers[number % len(peers)], peers[(number + 1) % len(peers)]
            owner = await own(here, execution)
            assert owner.ver == 2 * number
            await owner.commit(checkpoints=[record(f"step {number}")], consume=[(number, "wait")])
            await owner.commit(PARK)
            await signal(there, execution)
        steps = [stored.step_id for stored in await store.history(execution)]
        assert steps == [f"step {number}" for number in range(3 * len(peers))]

    async def test_an_owner_that_another_process_succeeded_is_fenced(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        stale = await bring(store, Situation.RELEASED)
        owner = await own(peers[-1], stale.id)
        assert await stale.send(stale.batch(checkpoints=[record("a")])) == Fenced()
        await owner.commit(checkpoints=[record("a")])
        assert await stale.send(stale.batch(checkpoints=[record("b")]), ver=owner.ver) == Fenced()

    @pytest.mark.parametrize("next", NEXTS.values(), ids=NEXTS)
    async def test_a_commit_is_sent_again_by_another_process(
        self, store: DurableStore, peers: Sequence[DurableStore], next: Next
    ) -> None:
        owner, other, child = await own(store), await bring(store, Situation.PARKED), new()
        await signal(store, owner.id, "taken")
        await signal(store, owner.id, "left")
        batch = owner.batch(
            next,
            seen=1,
            checkpoints=[record("a"), timer("nap", owner.now + LATER)],
            consume=[(1, "a")],
            out=[Start(child), Post(other.id, message()), Watch(other.id, "join"), Emit("e", "paid", b"")],
            values={"v": b"1"},
        )
        op_id = ids.nonce()
        first = await owner.send(batch, op_id=op_id)
        assert isinstance(first, Committed)
        await carry(store)
        before, next_at = await snapshot(store), (await tick(store)).next_at
        for peer in peers:
            again = await replace(owner, store=peer).send(batch, op_id=op_id)
            await carry(store)
            assert gist(again) == gist(first)
        assert await snapshot(store) == before
        assert (await tick(store)).next_at == next_at

    async def test_a_create_and_a_post_are_sent_again_by_another_process(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        spec, op_id, sent = new(key="k"), ids.nonce(), message()
        first = await store.create(spec, op_id=op_id)
        assert isinstance(first, Created)
        await store.post(spec.id, sent)
        before = await snapshot(store)
        for peer in peers:
            assert await peer.create(spec, op_id=op_id) == first
            assert await peer.create(new(key="k"), op_id=ids.nonce()) == Exists(spec.id, same_input=True)
            assert await peer.post(spec.id, sent) == NotPosted(State.READY, duplicate=True)
        assert await snapshot(store) == before

    async def test_a_timer_fires_wherever_the_tick_comes_from(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        owner = await own(store)
        wake_at = owner.now + LATER
        await owner.commit(PARK, checkpoints=[timer("now", owner.now), timer("later", wake_at)])
        ticked = await tick(peers[-1])
        assert [bell.id for bell in ticked.doorbells] == [owner.id]
        assert [(await tick(peer)).next_at for peer in peers] == [wake_at] * len(peers)
        await (await own(store, owner.id)).commit(checkpoints=[record("later")])
        assert [(await tick(peer)).next_at for peer in peers] == [None] * len(peers)

    async def test_a_doorbell_that_was_rung_is_quiet_for_everybody(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for peer in peers:
            await create(peer)
        rung = [await due(peer, again_ms=LATER) for peer in (*peers, *peers)]
        assert sum(map(len, rung)) == len(peers)

    async def test_a_lease_is_seen_by_everybody(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for number, peer in enumerate(peers):
            await asyncio.to_thread(peer.beat, f"w{number}", ttl_ms=LATER)
        expected = {f"w{number}" for number in range(len(peers))}
        assert [set((await peer.live()).workers) for peer in peers] == [expected] * len(peers)
        await asyncio.to_thread(peers[-1].beat, "w0", ttl_ms=0)
        await self.pass_time(store, SOON)
        assert ["w0" in (await peer.live()).workers for peer in peers] == [False] * len(peers)

    async def test_what_one_prunes_is_gone_for_everybody(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        ended = await bring(store, Situation.CLOSED, key="k")
        for peer in peers:
            assert (await row(peer, ended.id)).state is State.CLOSED
        await peers[-1].prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=9)
        assert [await peer.get(ended.id) for peer in peers] == [None] * len(peers)
        created = await create(store, id=ended.id, key="k")
        assert (await own(peers[-1], created)).ver == 0

    async def test_one_that_closes_leaves_the_others_at_work(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        owner = await own(store)
        for peer in peers[1:]:
            await peer.close()
        await owner.commit(checkpoints=[record("a")])
        for peer in peers[1:]:
            await peer.open()
            assert len(await peer.history(owner.id)) == 1
