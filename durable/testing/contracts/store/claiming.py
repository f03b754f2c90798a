"""Claiming: who gets an execution, and what the owner is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from durable.models import ExecutionStatus
from durable.protocols import Claimed, Continue, DurableStore, NotClaimed, Park, Ready, State
from durable.testing.contracts.store.acts import (
    SOON,
    WORKER,
    Situation,
    bring,
    create,
    due,
    ids,
    own,
    record,
    row,
    signal,
    situations,
    snapshot,
)
from durable.testing.contracts.store.suite import StoreSuite

CLAIMABLE = (Situation.NEW, Situation.RELEASED)


class Claiming(StoreSuite):
    @pytest.mark.parametrize("situation", CLAIMABLE)
    async def test_a_ready_execution_is_claimed(self, store: DurableStore, situation: Situation) -> None:
        ready = await bring(store, situation)
        nonce = ids.nonce()
        answer = await store.claim(ready.id, nonce=nonce, worker="worker-9")
        assert isinstance(answer, Claimed)
        claimed = answer.row
        assert (claimed.state, claimed.status) == (State.OWNED, ExecutionStatus.RUNNING)
        assert (claimed.nonce, claimed.worker, claimed.ver) == (nonce, "worker-9", ready.ver)
        assert claimed == await row(store, ready.id)

    @pytest.mark.parametrize("situation", situations(*CLAIMABLE))
    async def test_what_is_not_ready_now_is_not_claimed(
        self, store: DurableStore, situation: Situation
    ) -> None:
        other = await bring(store, situation)
        before = await snapshot(store)
        answer = await store.claim(other.id, nonce=ids.nonce(), worker=WORKER)
        assert answer == NotClaimed(situation.state)
        assert await snapshot(store) == before

    async def test_a_claim_leaves_the_ready_index(self, store: DurableStore) -> None:
        owner = await own(store)
        assert await due(store) == []
        await self.pass_time(store, SOON)
        assert owner.id not in {bell.id for bell in await due(store, again_ms=0)}

    async def test_the_same_nonce_gets_the_same_answer_while_it_owns(self, store: DurableStore) -> None:
        execution = await create(store)
        await signal(store, execution)
        nonce = ids.nonce()
        first = await store.claim(execution, nonce=nonce, worker=WORKER)
        assert isinstance(first, Claimed)
        before = await snapshot(store)
        again = await store.claim(execution, nonce=nonce, worker=WORKER)
        assert isinstance(again, Claimed)
        assert replace(again, now=first.now) == first
        assert await snapshot(store) == before

    async def test_a_nonce_that_lost_its_claim_does_not_get_it_back(self, store: DurableStore) -> None:
        loser = await bring(store, Situation.RELEASED)
        await own(store, loser.id)
        answer = await store.claim(loser.id, nonce=loser.nonce, worker=WORKER)
        assert answer == NotClaimed(State.OWNED)

    async def test_the_first_claim_of_all_is_the_start(self, store: DurableStore) -> None:
        owner = await own(store)
        started_at = (await row(store, owner.id)).started_at
        assert started_at == owner.now
        await owner.commit(Ready(0, ExecutionStatus.PENDING, attempt=1))
        await self.pass_time(store, SOON)
        assert (await row(store, (await own(store, owner.id)).id)).started_at == started_at

    async def test_a_retry_can_be_claimed_from_its_instant_on(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(Ready(owner.now + SOON, ExecutionStatus.RETRYING, attempt=2))
        await self.pass_time(store, SOON)
        assert [bell.id for bell in await due(store)] == [owner.id]
        retried = await own(store, owner.id)
        stored = await row(store, owner.id)
        assert stored.attempt == 2
        assert retried.now >= stored.available_at

    # -- what the owner is told

    async def test_the_owner_gets_the_history_in_order_and_the_unread_messages(
        self, store: DurableStore
    ) -> None:
        owner = await own(store)
        for number in range(3):
            await signal(store, owner.id, f"s{number}")
        await owner.commit(checkpoints=[record("b"), record("a")])
        await owner.commit(
            Ready(0, ExecutionStatus.PENDING, attempt=1), checkpoints=[record("c")], consume=[(2, "b")]
        )
        answer = await store.claim(owner.id, nonce=ids.nonce(), worker=WORKER)
        assert isinstance(answer, Claimed)
        assert answer.history is not None
        assert [entry.step_id for entry in answer.history] == ["b", "a", "c"]
        assert list(answer.history) == list(await store.history(owner.id))
        assert [(entry.seq, entry.name) for entry in answer.inbox] == [(1, "s0"), (3, "s2")]

    async def test_a_first_claim_has_an_empty_history(self, store: DurableStore) -> None:
        answer = await store.claim(await create(store), nonce=ids.nonce(), worker=WORKER)
        assert isinstance(answer, Claimed)
        assert (list(answer.history or ()), list(answer.inbox)) == ([], [])
        assert answer.history is not None

    async def test_the_history_is_left_out_for_whoever_made_the_last_commit(
        self, store: DurableStore
    ) -> None:
        owner = await own(store)
        await owner.commit(Park(ExecutionStatus.WAITING), checkpoints=[record("a")], op_id="last")
        await signal(store, owner.id)
        answer = await store.claim(owner.id, nonce=ids.nonce(), worker=WORKER, have_op="last")
        assert isinstance(answer, Claimed)
        assert answer.history is None
        assert [entry.name for entry in answer.inbox] == ["go"]

    @pytest.mark.parametrize("have_op", ["earlier", "unheard of"])
    async def test_the_history_is_not_left_out_when_somebody_has_committed_since(
        self, store: DurableStore, have_op: str
    ) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[record("a")], op_id="earlier")
        await owner.commit(Ready(0, ExecutionStatus.PENDING, attempt=1), checkpoints=[record("b")])
        answer = await store.claim(owner.id, nonce=ids.nonce(), worker=WORKER, have_op=have_op)
        assert isinstance(answer, Claimed)
        assert [entry.step_id for entry in answer.history or ()] == ["a", "b"]

    async def test_an_execution_that_continued_is_claimed_with_its_new_input_and_no_history(
        self, store: DurableStore
    ) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[record("a")])
        await owner.commit(Continue(b"next"))
        answer = await store.claim(owner.id, nonce=ids.nonce(), worker=WORKER)
        assert isinstance(answer, Claimed)
        assert (answer.row.input, answer.row.generation, answer.row.attempt) == (b"next", 1, 1)
        assert answer.history is not None
        assert list(answer.history) == []
