"""Repeats: a write whose outcome was unknown is sent again, gets its first answer and changes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from durable.models import ExecutionStatus
from durable.protocols import (
    CheckpointStatus,
    Claimed,
    Close,
    Committed,
    Created,
    Diverged,
    DurableStore,
    Emit,
    Message,
    NewExecution,
    Next,
    NotPosted,
    Park,
    Post,
    Run,
    Start,
    Watch,
)
from durable.testing.contracts.store.acts import (
    LATER,
    NEXTS,
    WORKER,
    Situation,
    bring,
    cancel,
    carry,
    create,
    due,
    gist,
    ids,
    message,
    new,
    own,
    record,
    reopen,
    row,
    signal,
    snapshot,
    tick,
    timer,
)
from durable.testing.contracts.store.suite import StoreSuite


class Repeats(StoreSuite):
    # -- create

    @pytest.mark.parametrize(
        "spec",
        [
            new(),
            new(key="k"),
            new(key="k", reuse_closed_key=True),
            new(delay_ms=LATER),
            new(timeout_ms=LATER),
        ],
        ids=["plain", "key", "reused key", "delayed", "timeout"],
    )
    async def test_a_create_again(self, store: DurableStore, spec: NewExecution) -> None:
        op_id = ids.nonce()
        first = await store.create(spec, op_id=op_id)
        assert isinstance(first, Created)
        before = await snapshot(store)
        await self.pass_time(store, 1)
        assert await store.create(spec, op_id=op_id) == first
        assert await snapshot(store) == before

    @pytest.mark.parametrize("key", [None, "k"], ids=["no key", "key"])
    async def test_a_create_again_after_it_was_claimed_and_ended(
        self, store: DurableStore, key: str | None
    ) -> None:
        spec, op_id = new(key=key), ids.nonce()
        await store.create(spec, op_id=op_id)
        owner = await own(store, spec.id)
        for next in (Run(), Close(ExecutionStatus.COMPLETED)):
            before = await snapshot(store)
            again = await store.create(spec, op_id=op_id)
            assert isinstance(again, Created)
            assert again.id == spec.id
            assert await snapshot(store) == before
            await owner.commit(next)
        assert await due(store) == []

    # -- commit

    @pytest.mark.parametrize("next", NEXTS.values(), ids=NEXTS)
    async def test_a_commit_again(self, store: DurableStore, next: Next) -> None:
        owner, other, child = await own(store), await bring(store, Situation.PARKED), new()
        await signal(store, owner.id, "taken")
        await signal(store, owner.id, "left")
        batch = owner.batch(
            next,
            seen=2,
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
        again = await owner.send(batch, op_id=op_id)
        await carry(store)
        assert gist(again) == gist(first)
        assert await snapshot(store) == before
        assert (await tick(store)).next_at == next_at

    @pytest.mark.parametrize("next", list(NEXTS.values())[1:], ids=list(NEXTS)[1:])
    async def test_a_commit_again_after_others_went_on(self, store: DurableStore, next: Next) -> None:
        owner = await own(store)
        batch, op_id = owner.batch(next, checkpoints=[record("a")]), ids.nonce()
        first = await owner.send(batch, op_id=op_id)
        assert isinstance(first, Committed)
        await store.post(owner.id, reopen())
        await own(store, owner.id)
        before = await snapshot(store)
        again = await owner.send(batch, op_id=op_id)
        assert isinstance(again, Committed)
        assert (again.ver, again.owned) == (first.ver, False)
        assert await snapshot(store) == before

    async def test_a_park_that_did_not_hold_again(self, store: DurableStore) -> None:
        owner = await own(store)
        await signal(store, owner.id)
        batch, op_id = owner.batch(Park(ExecutionStatus.WAITING)), ids.nonce()
        first = await owner.send(batch, op_id=op_id)
        assert isinstance(first, Committed)
        assert first.owned
        before = await snapshot(store)
        assert gist(await owner.send(batch, op_id=op_id)) == gist(first)
        assert await snapshot(store) == before

    async def test_a_commit_again_after_the_next_one_diverges(self, store: DurableStore) -> None:
        owner = await own(store)
        first = owner.batch(checkpoints=[record("a", status=CheckpointStatus.OPEN)])
        assert isinstance(await owner.send(first, op_id="first"), Committed)
        assert isinstance(await owner.send(owner.batch(checkpoints=[record("b")]), ver=1), Committed)
        before = await snapshot(store)
        assert await owner.send(first, op_id="first") == Diverged()
        assert await snapshot(store) == before

    async def test_the_operation_of_another_execution_is_another_operation(self, store: DurableStore) -> None:
        one, two = await own(store), await own(store)
        await one.commit(checkpoints=[record("a")], op_id="op")
        await two.commit(checkpoints=[record("a")], op_id="op")
        assert len(await store.history(two.id)) == 1

    async def test_a_commit_that_was_refused_is_judged_anew(self, store: DurableStore) -> None:
        owner = await own(store)
        batch = owner.batch(checkpoints=[record("a")])
        assert await owner.send(batch, op_id="op", ver=1) == Diverged()
        assert isinstance(await owner.send(batch, op_id="op", ver=0), Committed)

    # -- post

    @pytest.mark.parametrize(
        ("situation", "sent"),
        [
            (Situation.NEW, message()),
            (Situation.NEW, cancel(b"why")),
            (Situation.DELAYED, cancel(b"why")),
            (Situation.OWNED, message()),
            (Situation.PARKED, message()),
            (Situation.BLOCKED, cancel()),
            (Situation.CLOSED, reopen()),
        ],
        ids=["stored", "closed", "closed later one", "owned", "woken", "cancelled", "opened"],
    )
    async def test_a_post_again(self, store: DurableStore, situation: Situation, sent: Message) -> None:
        subject = await bring(store, situation)
        await store.post(subject.id, sent)
        before = await snapshot(store)
        again = await store.post(subject.id, sent)
        assert again == NotPosted((await row(store, subject.id)).state, duplicate=True)
        assert await snapshot(store) == before

    async def test_a_post_again_does_not_wake_what_parked_since(self, store: DurableStore) -> None:
        owner, sent = await bring(store, Situation.PARKED), message()
        await store.post(owner.id, sent)
        again = await own(store, owner.id)
        await again.commit(Park(ExecutionStatus.WAITING), consume=[(1, "wait")])
        before = await snapshot(store)
        await store.post(owner.id, sent)
        assert await snapshot(store) == before

    # -- the rest

    async def test_a_claim_again(self, store: DurableStore) -> None:
        execution, nonce = await create(store), ids.nonce()
        first = await store.claim(execution, nonce=nonce, worker=WORKER)
        before = await snapshot(store)
        await self.pass_time(store, 1)
        again = await store.claim(execution, nonce=nonce, worker=WORKER)
        assert isinstance(first, Claimed)
        assert isinstance(again, Claimed)
        assert again.row == first.row
        assert await snapshot(store) == before

    async def test_a_tick_again(self, store: DurableStore) -> None:
        owner, lost = await own(store), await own(store, worker="dead")
        await owner.commit(Park(ExecutionStatus.SLEEPING), checkpoints=[timer("nap", owner.now)])
        await self.pass_time(store, 1)
        live = replace(await store.live(), workers={})
        assert {bell.id for bell in (await tick(store, live=live)).doorbells} == {owner.id, lost.id}
        before = await snapshot(store)
        assert list((await tick(store, live=live)).doorbells) == []
        assert await snapshot(store) == before

    async def test_a_beat_again(self, store: DurableStore) -> None:
        for _ in range(2):
            await asyncio.to_thread(store.beat, "w", ttl_ms=LATER)
        assert set((await store.live()).workers) == {"w"}

    async def test_a_prune_again(self, store: DurableStore) -> None:
        await bring(store, Situation.CLOSED)
        pruned = [
            await store.prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=9) for _ in range(2)
        ]
        assert pruned == [1, 0]
