"""Watching: how the end of one execution reaches others."""

from __future__ import annotations

import pytest

from durable.models import ExecutionStatus
from durable.protocols import (
    Block,
    Close,
    Continue,
    DurableStore,
    MessageKind,
    Next,
    Outcome,
    Park,
    Ready,
    Run,
    Start,
    State,
    Watch,
)
from durable.testing.contracts.store.acts import (
    Owner,
    complete,
    create,
    ids,
    new,
    own,
    row,
    signal,
    unread,
)
from durable.testing.contracts.store.suite import StoreSuite

PARK = Park(ExecutionStatus.WAITING)
DONE = Close(ExecutionStatus.COMPLETED, b"42")
ENDS = [status for status in ExecutionStatus if status.final]


class Watching(StoreSuite):
    async def _watcher(self, store: DurableStore, target: str, step_id: str = "join") -> Owner:
        """A parked execution that watches `target`."""
        watcher = await own(store)
        await watcher.commit(PARK, out=[Watch(target, step_id)])
        return watcher

    @pytest.mark.parametrize("status", ENDS)
    async def test_the_end_of_a_target_wakes_its_watcher(
        self, store: DurableStore, status: ExecutionStatus
    ) -> None:
        target = await own(store, await create(store, workflow="shipping"))
        await target.commit(Ready(0, ExecutionStatus.RETRYING, attempt=2))
        watcher = await self._watcher(store, target.id)
        target = await own(store, target.id)
        completed = status is ExecutionStatus.COMPLETED
        end = Close(status, b"value") if completed else Close(status, None, b"boom", "code")
        answer = await target.commit(end)
        assert [bell.id for bell in answer.doorbells] == [watcher.id]
        assert {watcher.id, target.id} <= set(answer.touched)
        [entry] = (await own(store, watcher.id)).inbox
        assert (entry.kind, entry.name) == (MessageKind.CHILD, "join")
        assert entry.id == f"watch:{target.id}:join"
        outcome = Outcome.unpack(entry.data)
        assert outcome == Outcome(status, "shipping", 2, b"value" if completed else b"boom")

    async def test_an_end_without_data_is_told_as_no_bytes(self, store: DurableStore) -> None:
        target = await own(store)
        watcher = await self._watcher(store, target.id)
        await target.commit(Close(ExecutionStatus.COMPLETED))
        [entry] = await unread(store, watcher.id)
        assert Outcome.unpack(entry.data) == Outcome(ExecutionStatus.COMPLETED, "order", 1, b"")

    async def test_the_end_of_a_target_that_had_ended_is_told_at_once(self, store: DurableStore) -> None:
        target = await complete(store)
        watcher = await self._watcher(store, target)
        assert (await row(store, watcher.id)).state is not State.PARKED
        [entry] = await unread(store, watcher.id)
        assert entry.id == f"watch:{target}:join"
        assert Outcome.unpack(entry.data) == Outcome(ExecutionStatus.COMPLETED, "order", 1, b"42")

    async def test_a_target_that_does_not_exist_is_told_at_once(self, store: DurableStore) -> None:
        missing = ids.execution_id()
        watcher = await self._watcher(store, missing)
        assert (await row(store, watcher.id)).state is not State.PARKED
        [entry] = await unread(store, watcher.id)
        assert entry.id == f"watch:{missing}:join"
        assert Outcome.unpack(entry.data).status is None

    async def test_several_watchers_are_all_told(self, store: DurableStore) -> None:
        target = await own(store)
        watchers = {(await self._watcher(store, target.id)).id for _ in range(5)}
        answer = await target.commit(DONE)
        assert {bell.id for bell in answer.doorbells} == watchers
        assert {len(await unread(store, watcher)) for watcher in watchers} == {1}

    async def test_one_watcher_of_several_targets_is_told_of_each(self, store: DurableStore) -> None:
        one, two = await own(store), await own(store)
        watcher = await own(store)
        await watcher.commit(PARK, out=[Watch(one.id, "first"), Watch(two.id, "second")])
        await two.commit(DONE)
        await one.commit(DONE)
        assert [entry.name for entry in await unread(store, watcher.id)] == ["second", "first"]

    async def test_watching_twice_is_told_once(self, store: DurableStore) -> None:
        target, watcher = await own(store), await own(store)
        await watcher.commit(out=[Watch(target.id, "join"), Watch(target.id, "join")])
        await watcher.commit(PARK, out=[Watch(target.id, "join")])
        await target.commit(DONE)
        assert len(await store.inbox(watcher.id)) == 1
        watcher = await own(store, watcher.id)
        await watcher.commit(out=[Watch(target.id, "join")])
        assert len(await store.inbox(watcher.id)) == 1

    async def test_watching_again_after_the_end_was_taken_is_told_again(self, store: DurableStore) -> None:
        target, watcher = await complete(store), await own(store)
        for number in (1, 2):
            await watcher.commit(out=[Watch(target, "join")])
            assert [entry.name for entry in await unread(store, watcher.id)] == ["join"]
            await watcher.commit(consume=[(number, "join")], drop=["join"])

    async def test_watching_for_two_steps_is_told_to_each(self, store: DurableStore) -> None:
        target, watcher = await own(store), await own(store)
        await watcher.commit(PARK, out=[Watch(target.id, "a"), Watch(target.id, "b")])
        await target.commit(DONE)
        assert sorted(entry.name for entry in await unread(store, watcher.id)) == ["a", "b"]

    async def test_a_watcher_that_has_ended_is_told_nothing(self, store: DurableStore) -> None:
        target = await own(store)
        watcher = await own(store)
        await watcher.commit(DONE, out=[Watch(target.id, "join")])
        before = await row(store, watcher.id)
        answer = await target.commit(DONE)
        assert list(answer.doorbells) == []
        assert await row(store, watcher.id) == before
        assert list(await store.inbox(watcher.id)) == []

    @pytest.mark.parametrize(
        "next",
        [Run(), PARK, Ready(0, ExecutionStatus.RETRYING, attempt=2), Continue(b"{}")],
        ids=lambda next: type(next).__name__,
    )
    async def test_only_the_end_is_told(
        self, store: DurableStore, next: Run | Park | Ready | Continue
    ) -> None:
        target = await own(store)
        watcher = await self._watcher(store, target.id)
        await target.commit(next)
        assert await unread(store, watcher.id) == []
        if isinstance(next, Park):
            await signal(store, target.id)
        if not isinstance(next, Run):
            target = await own(store, target.id)
        await target.commit(DONE)
        assert [entry.name for entry in await unread(store, watcher.id)] == ["join"]

    @pytest.mark.parametrize(
        ("next", "rings"),
        [
            (Run(), False),
            (Ready(0, ExecutionStatus.PENDING, attempt=1), False),
            (Ready(2**53, ExecutionStatus.RETRYING, attempt=2), False),
            (PARK, True),
            (Block(ExecutionStatus.PAUSED), False),
        ],
        ids=["owned", "released", "retrying", "parked", "blocked"],
    )
    async def test_an_end_wakes_a_parked_watcher_only(
        self, store: DurableStore, next: Next, rings: bool
    ) -> None:
        target, watcher = await own(store), await own(store)
        await watcher.commit(next, out=[Watch(target.id, "join")])
        before = await row(store, watcher.id)
        answer = await target.commit(DONE)
        assert [bell.id for bell in answer.doorbells] == ([watcher.id] if rings else [])
        assert len(await unread(store, watcher.id)) == 1
        after = await row(store, watcher.id)
        assert (after.state is before.state) != rings
        assert (after.available_at == before.available_at) or rings

    async def test_a_child_is_started_and_watched_in_one_commit(self, store: DurableStore) -> None:
        parent, child = await own(store), new()
        await parent.commit(PARK, out=[Start(child), Watch(child.id, "join")])
        assert (await row(store, parent.id)).state is State.PARKED
        await (await own(store, child.id)).commit(DONE)
        [entry] = await unread(store, parent.id)
        assert Outcome.unpack(entry.data).status is ExecutionStatus.COMPLETED
