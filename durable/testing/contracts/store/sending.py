"""Outgoing messages: what a commit starts, posts and emits beside its own execution."""

from __future__ import annotations

import pytest

from durable.models import ExecutionStatus
from durable.protocols import Close, DurableStore, Emit, Exists, Park, Post, Start, State
from durable.testing.contracts.store.acts import (
    LATER,
    Situation,
    bring,
    cancel,
    complete,
    create,
    due,
    event_of,
    everything,
    ids,
    message,
    new,
    own,
    partitions,
    post,
    record,
    row,
    situations,
    snapshot,
    tick,
    unread,
)
from durable.testing.contracts.store.suite import StoreSuite

PARK = Park(ExecutionStatus.WAITING)


class Sending(StoreSuite):
    # -- Start

    async def test_a_commit_starts_another_execution(self, store: DurableStore) -> None:
        parent = await own(store)
        child = new(
            workflow="shipping",
            input=b"\xff",
            priority=4,
            queue="mail",
            tags={"a": "b"},
            timeout_ms=LATER,
            parent_id=parent.id,
        )
        answer = await parent.commit(out=[Start(child)])
        # A store that starts it by a message of its own may ring twice: a doorbell is a hint.
        [bell] = set(answer.doorbells)
        assert (bell.id, bell.workflow, bell.queue, bell.priority) == (child.id, "shipping", "mail", 4)
        stored = await row(store, child.id)
        assert (stored.state, stored.status) == (State.READY, ExecutionStatus.PENDING)
        assert (stored.input, stored.tags, stored.parent_id) == (b"\xff", {"a": "b"}, parent.id)
        assert stored.deadline_at == stored.created_at + LATER
        await own(store, child.id)

    async def test_a_start_with_a_delay_rings_nobody(self, store: DurableStore) -> None:
        parent, child = await own(store), new(delay_ms=LATER)
        assert list((await parent.commit(out=[Start(child)])).doorbells) == []
        assert await due(store) == []
        assert (await tick(store)).next_at == (await row(store, child.id)).available_at

    async def test_a_start_happens_once_by_its_id(self, store: DurableStore) -> None:
        parent, child = await own(store), new(input=b"first")
        await parent.commit(out=[Start(child)])
        running = await own(store, child.id)
        await running.commit(checkpoints=[record("a")])
        before = await row(store, child.id)
        await parent.commit(out=[Start(child), Start(new(id=child.id, input=b"second"))])
        assert await row(store, child.id) == before
        assert len(await everything(store)) == 2

    async def test_a_start_of_what_has_ended_does_not_start_it_again(self, store: DurableStore) -> None:
        parent, ended = await own(store), await complete(store)
        before = await row(store, ended)
        answer = await parent.commit(out=[Start(new(id=ended))])
        assert list(answer.doorbells) == []
        assert await row(store, ended) == before

    async def test_what_a_commit_started_is_found_by_its_key(self, store: DurableStore) -> None:
        parent, child = await own(store), new(key="k")
        await parent.commit(out=[Start(child)])
        assert await store.create(new(key="k"), op_id=ids.nonce()) == Exists(child.id, same_input=True)

    async def test_the_last_commit_of_an_execution_sends_too(self, store: DurableStore) -> None:
        parent, child, other = await own(store), new(), await bring(store, Situation.PARKED)
        end = Close(ExecutionStatus.COMPLETED)
        await parent.commit(end, out=[Start(child), Post(other.id, message()), Emit("e", "paid", b"")])
        await own(store, child.id)
        await own(store, other.id)
        assert await store.event("paid", "e") is not None

    # -- Post

    @pytest.mark.parametrize("situation", situations(Situation.MISSING, Situation.CLOSED))
    async def test_a_commit_posts_to_another_execution(
        self, store: DurableStore, situation: Situation
    ) -> None:
        target, sender = await bring(store, situation), await own(store)
        before = await row(store, target.id)
        answer = await sender.commit(out=[Post(target.id, message("hello", b"\xff", id="m"))])
        assert target.id in answer.touched
        [entry] = await unread(store, target.id)
        assert (entry.seq, entry.id, entry.name, entry.data) == (1, "m", "hello", b"\xff")
        wakes = situation is Situation.PARKED
        assert [bell.id for bell in answer.doorbells] == ([target.id] if wakes else [])
        assert (await row(store, target.id)).state is (State.READY if wakes else before.state)

    @pytest.mark.parametrize("situation", [Situation.MISSING, Situation.CLOSED])
    async def test_a_post_to_what_has_ended_is_silent(
        self, store: DurableStore, situation: Situation
    ) -> None:
        ended, sender = await bring(store, situation), await own(store)
        before = await store.get(ended.id)
        answer = await sender.commit(out=[Post(ended.id, message()), Post(ended.id, cancel())])
        assert list(answer.doorbells) == []
        assert await store.get(ended.id) == before
        assert list(await store.inbox(ended.id)) == []

    async def test_a_post_counts_once_by_its_id(self, store: DurableStore) -> None:
        target, sender = await bring(store, Situation.PARKED), await own(store)
        await sender.commit(out=[Post(target.id, message(id="m")), Post(target.id, message(id="m"))])
        await (await own(store, target.id)).commit(PARK, consume=[(1, "wait")])
        answer = await sender.commit(out=[Post(target.id, message(id="m"))])
        assert list(answer.doorbells) == []
        assert (await row(store, target.id)).state is State.PARKED
        assert len(await store.inbox(target.id)) == 1

    async def test_a_post_and_a_client_share_message_ids(self, store: DurableStore) -> None:
        target, sender = await create(store), await own(store)
        await post(store, target, message(id="m"))
        await sender.commit(out=[Post(target, message(id="m"))])
        assert len(await store.inbox(target)) == 1

    async def test_a_cancel_that_a_commit_posts_closes_what_was_never_claimed(
        self, store: DurableStore
    ) -> None:
        child, parent = await create(store), await own(store)
        await parent.commit(out=[Post(child, cancel(b"parent ended"))])
        stored = await row(store, child)
        assert (stored.status, stored.error) == (ExecutionStatus.CANCELLED, b"parent ended")
        assert await due(store) == []

    async def test_a_cancel_follows_the_start_of_the_same_commit(self, store: DurableStore) -> None:
        child, parent = new(), await own(store)
        await parent.commit(out=[Start(child), Post(child.id, cancel())])
        assert (await row(store, child.id)).status is ExecutionStatus.CANCELLED

    # -- Emit

    async def test_an_event_is_stored_once_by_its_id(self, store: DurableStore) -> None:
        one, two = await own(store), await own(store)
        first = Emit("e", "paid", b"\x00\xff")
        assert await store.event("paid", "e") is None
        await one.commit(out=[first])
        await one.commit(out=[Emit("e", "paid", b"second")])
        await two.commit(out=[Emit("e", "refunded", b"third"), Emit("f", "paid", b"")])
        stored = await event_of(store, "paid", "e")
        assert (stored.name, stored.id, stored.data, stored.seq) == (first.name, first.id, first.data, 1)
        assert (await event_of(store, "paid", "f")).seq == 2
        assert (await event_of(store, "refunded", "e")).data == b"third"

    async def test_a_relay_with_nothing_to_carry_changes_nothing(self, store: DurableStore) -> None:
        await complete(store)
        before = await snapshot(store)
        for number in await partitions(store):
            relayed = await store.relay(number, limit=100)
            assert (list(relayed.doorbells), list(relayed.touched), relayed.more) == ([], [], False)
        assert await snapshot(store) == before
