"""The inbox: what reaches an execution in each state, in which order, and how often."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from durable.errors import StoreFull
from durable.models import ExecutionStatus
from durable.protocols import (
    Close,
    Continue,
    DurableStore,
    InboxEntry,
    MessageKind,
    NotPosted,
    Outcome,
    Park,
    Posted,
    Reach,
    State,
    Watch,
)
from durable.testing.contracts.store.acts import (
    LATER,
    Situation,
    bring,
    cancel,
    complete,
    create,
    due,
    ids,
    message,
    own,
    post,
    row,
    signal,
    situations,
    snapshot,
    tick,
    unread,
)
from durable.testing.contracts.store.suite import StoreSuite

INBOX_LIMIT = 10_000

REFUSED = {(Situation.CLOSED, Reach.PARKED), (Situation.CLOSED, Reach.BLOCKED)} | {
    (Situation.MISSING, reach) for reach in Reach
}
WAKES = {
    (Situation.DELAYED, Reach.BLOCKED),
    (Situation.DELAYED, Reach.CLOSED),
    (Situation.RETRYING, Reach.BLOCKED),
    (Situation.RETRYING, Reach.CLOSED),
    (Situation.PARKED, Reach.PARKED),
    (Situation.PARKED, Reach.BLOCKED),
    (Situation.PARKED, Reach.CLOSED),
    (Situation.BLOCKED, Reach.BLOCKED),
    (Situation.BLOCKED, Reach.CLOSED),
    (Situation.CLOSED, Reach.CLOSED),
}
STORES = set(product(Situation, Reach)) - REFUSED - WAKES


class Inbox(StoreSuite):
    # -- every state and every reach

    @pytest.mark.parametrize(("situation", "reach"), sorted(WAKES))
    async def test_a_message_within_reach_makes_it_ready_now(
        self, store: DurableStore, situation: Situation, reach: Reach
    ) -> None:
        waiting = await bring(store, situation)
        await due(store)
        posted = await post(store, waiting.id, message(reach=reach))
        stored = await row(store, waiting.id)
        assert stored.state is State.READY
        assert posted.doorbell is not None
        assert posted.doorbell.id == waiting.id
        assert await due(store) == [posted.doorbell]
        assert [entry.seq for entry in (await own(store, waiting.id)).inbox] == [posted.seq]

    @pytest.mark.parametrize(("situation", "reach"), sorted(STORES))
    async def test_any_other_message_is_stored_and_changes_nothing_else(
        self, store: DurableStore, situation: Situation, reach: Reach
    ) -> None:
        owner = await bring(store, situation)
        before, next_at = await row(store, owner.id), (await tick(store)).next_at
        posted = await post(store, owner.id, message("go", b"data", reach=reach))
        assert posted == Posted(seq=1, doorbell=None)
        after = await row(store, owner.id)
        assert (after.state, after.status, after.available_at) == (
            before.state,
            before.status,
            before.available_at,
        )
        assert (after.nonce, after.ver, after.inbox_seq) == (before.nonce, before.ver, 1)
        assert [(entry.seq, entry.name) for entry in await unread(store, owner.id)] == [(1, "go")]
        assert (await tick(store)).next_at == next_at

    @pytest.mark.parametrize(("situation", "reach"), sorted(REFUSED))
    async def test_a_message_out_of_reach_is_refused_and_leaves_no_trace(
        self, store: DurableStore, situation: Situation, reach: Reach
    ) -> None:
        ended = await bring(store, situation)
        before = await snapshot(store)
        assert await store.post(ended.id, message(reach=reach)) == NotPosted(situation.state)
        assert await snapshot(store) == before
        assert list(await store.inbox(ended.id)) == []

    # -- order and identity

    async def test_a_message_comes_back_as_it_was_given(self, store: DurableStore) -> None:
        owner = await own(store)
        before = (await store.live()).at
        for kind in MessageKind:
            await post(store, owner.id, message(f"of {kind}", b"\x00\xff", id=f"id {kind}", kind=kind))
        entries = await store.inbox(owner.id)
        expected = [
            InboxEntry(seq, f"id {kind}", kind, f"of {kind}", b"\x00\xff", entry.at)
            for seq, (kind, entry) in enumerate(zip(MessageKind, entries, strict=True), start=1)
        ]
        assert list(entries) == expected
        after = (await store.live()).at
        assert all(before <= entry.at <= after for entry in entries)

    async def test_messages_are_numbered_in_the_order_of_acceptance(self, store: DurableStore) -> None:
        execution = await create(store)
        assert [(await signal(store, execution, f"s{n}")).seq for n in range(5)] == [1, 2, 3, 4, 5]
        assert [entry.name for entry in await unread(store, execution)] == ["s0", "s1", "s2", "s3", "s4"]
        assert (await row(store, execution)).inbox_seq == 5

    async def test_each_execution_counts_for_itself(self, store: DurableStore) -> None:
        one, two = await create(store), await create(store)
        await signal(store, one)
        assert (await signal(store, two)).seq == 1

    async def test_equal_messages_with_two_ids_are_two(self, store: DurableStore) -> None:
        execution = await create(store)
        await signal(store, execution, "go", b"same")
        await signal(store, execution, "go", b"same")
        assert len(await unread(store, execution)) == 2

    @pytest.mark.parametrize("situation", situations(Situation.MISSING))
    async def test_a_message_id_counts_once_whatever_comes_with_it(
        self, store: DurableStore, situation: Situation
    ) -> None:
        reach = Reach.CLOSED
        execution = await bring(store, situation)
        await post(store, execution.id, message("first", id="m", kind=MessageKind.OPERATOR, reach=reach))
        state = (await row(store, execution.id)).state
        before = await snapshot(store)
        again = await store.post(execution.id, message("second", id="m", reach=reach))
        assert again == NotPosted(state, duplicate=True)
        assert await snapshot(store) == before

    async def test_a_message_id_counts_once_after_it_was_consumed(self, store: DurableStore) -> None:
        owner = await own(store)
        await post(store, owner.id, message(id="m"))
        await owner.commit(Park(ExecutionStatus.WAITING), consume=[(1, "wait")], seen=1)
        before = await snapshot(store)
        assert await store.post(owner.id, message(id="m")) == NotPosted(State.PARKED, duplicate=True)
        assert await snapshot(store) == before

    async def test_a_message_id_counts_once_after_the_end(self, store: DurableStore) -> None:
        owner = await own(store)
        await post(store, owner.id, message(id="m"))
        await owner.commit(Close(ExecutionStatus.COMPLETED))
        assert await store.post(owner.id, message(id="m")) == NotPosted(State.CLOSED, duplicate=True)

    async def test_one_message_id_reaches_two_executions(self, store: DurableStore) -> None:
        for execution in (await create(store), await create(store)):
            assert (await post(store, execution, message(id="m"))).seq == 1

    # -- reading

    async def test_peek_tells_only_of_executions_with_something_new(self, store: DurableStore) -> None:
        old, new, none = await own(store), await create(store), await create(store)
        for number in range(1, 4):
            await signal(store, old.id, f"s{number}")
        await signal(store, new)
        await old.commit(consume=[(2, "wait")])
        missing = ids.execution_id()
        peeked = await store.peek({old.id: 1, new: 1, none: 0, missing: 0})
        assert {found: [entry.seq for entry in entries] for found, entries in peeked.items()} == {old.id: [3]}
        peeked = await store.peek({old.id: 0, new: 0})
        assert {found: [entry.seq for entry in entries] for found, entries in peeked.items()} == {
            old.id: [1, 3],
            new: [1],
        }
        assert not await store.peek({})

    async def test_the_inbox_of_nobody_is_empty(self, store: DurableStore) -> None:
        assert list(await store.inbox(ids.execution_id())) == []

    async def test_posts_are_refused_while_ten_thousand_messages_are_unread(
        self, store: DurableStore
    ) -> None:
        owner = await own(store)
        for _ in range(INBOX_LIMIT // 500):
            posts = [store.post(owner.id, message()) for _ in range(500)]
            answers = await asyncio.gather(*posts)
            assert all(isinstance(answer, Posted) for answer in answers)
        with pytest.raises(StoreFull):
            await store.post(owner.id, message("too many"))
        assert (await row(store, owner.id)).inbox_seq == INBOX_LIMIT
        await owner.commit(consume=[(1, "wait")])
        await signal(store, owner.id, "one more")
        with pytest.raises(StoreFull):
            await store.post(owner.id, message("too many"))
        for urgent in (cancel(), message("retry", kind=MessageKind.OPERATOR, reach=Reach.CLOSED)):
            await post(store, owner.id, urgent)  # there must be a way out of this

    # -- cancel

    @pytest.mark.parametrize("situation", [Situation.NEW, Situation.DELAYED])
    async def test_a_cancel_closes_what_was_never_claimed_on_the_spot(
        self, store: DurableStore, situation: Situation
    ) -> None:
        never = await bring(store, situation, timeout_ms=LATER)
        before = (await store.live()).at
        posted = await post(store, never.id, cancel(b"reason"))
        assert (posted.closed, posted.doorbell) == (True, None)
        stored = await row(store, never.id)
        assert (stored.state, stored.status) == (State.CLOSED, ExecutionStatus.CANCELLED)
        assert (stored.error, stored.result, stored.started_at) == (b"reason", None, None)
        assert stored.finished_at is not None
        assert before <= stored.finished_at <= (await store.live()).at
        assert await due(store) == []
        assert (await tick(store)).next_at is None

    @pytest.mark.parametrize(
        ("situation", "wakes"),
        [
            (Situation.RELEASED, False),
            (Situation.OWNED, False),
            (Situation.RETRYING, True),
            (Situation.PARKED, True),
            (Situation.BLOCKED, True),
        ],
    )
    async def test_a_cancel_of_what_was_claimed_before_is_for_the_owner_to_see(
        self, store: DurableStore, situation: Situation, wakes: bool
    ) -> None:
        begun = await bring(store, situation)
        posted = await post(store, begun.id, cancel(b"reason"))
        assert (posted.closed, posted.doorbell is not None) == (False, wakes)
        assert [entry.kind for entry in await unread(store, begun.id)] == [MessageKind.CANCEL]
        assert not (await row(store, begun.id)).status.final

    async def test_a_cancel_of_what_continued_is_for_the_owner_to_see(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(Continue(b"{}"))
        assert not (await post(store, owner.id, cancel())).closed
        assert [entry.kind for entry in (await own(store, owner.id)).inbox] == [MessageKind.CANCEL]

    @pytest.mark.parametrize("situation", [Situation.CLOSED, Situation.MISSING])
    async def test_a_cancel_of_what_has_ended_is_refused(
        self, store: DurableStore, situation: Situation
    ) -> None:
        ended = await bring(store, situation)
        before = await snapshot(store)
        assert await store.post(ended.id, cancel()) == NotPosted(situation.state)
        assert await snapshot(store) == before

    async def test_the_first_of_two_cancels_gives_the_reason(self, store: DurableStore) -> None:
        execution = await create(store)
        await post(store, execution, cancel(b"first", id="m"))
        before = await snapshot(store)
        assert await store.post(execution, cancel(b"second")) == NotPosted(State.CLOSED)
        again = await store.post(execution, cancel(b"first", id="m"))
        assert again == NotPosted(State.CLOSED, duplicate=True)
        assert await snapshot(store) == before

    async def test_a_cancel_on_the_spot_is_told_to_watchers(self, store: DurableStore) -> None:
        child, parent = await create(store), await own(store)
        await parent.commit(Park(ExecutionStatus.WAITING), out=[Watch(child, "join")])
        await post(store, child, cancel(b"reason"))
        [told] = await unread(store, parent.id)
        outcome = Outcome.unpack(told.data)
        assert (outcome.status, outcome.data) == (ExecutionStatus.CANCELLED, b"reason")
        assert (await row(store, parent.id)).state is State.READY

    async def test_a_signal_before_the_first_claim_does_not_hide_a_cancel(self, store: DurableStore) -> None:
        execution = await create(store)
        await signal(store, execution)
        assert (await post(store, execution, cancel())).closed

    async def test_a_late_message_leaves_a_result_alone(self, store: DurableStore) -> None:
        ended = await complete(store)
        before = await row(store, ended)
        await store.post(ended, message())
        await store.post(ended, cancel(b"too late"))
        assert await row(store, ended) == before
