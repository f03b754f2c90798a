"""Timers: when they are set, moved and deleted, and that each one fires once and not before its instant."""

from __future__ import annotations

import pytest

from durable.models import ExecutionStatus
from durable.protocols import (
    TIMEOUT_TIMER,
    Block,
    CheckpointStatus,
    Close,
    Continue,
    DurableStore,
    MessageKind,
    Park,
    Ready,
    Run,
    State,
)
from durable.testing.contracts.store.acts import (
    LATER,
    SOON,
    Situation,
    bring,
    create,
    due,
    own,
    post,
    record,
    reopen,
    row,
    signal,
    situations,
    tick,
    tick_once,
    timer,
    unread,
)
from durable.testing.contracts.store.suite import StoreSuite

PARK = Park(ExecutionStatus.SLEEPING)


class Timers(StoreSuite):
    @pytest.mark.parametrize("status", [CheckpointStatus.OPEN, CheckpointStatus.RETRYING])
    async def test_an_open_record_with_a_wake_up_wakes_a_parked_execution(
        self, store: DurableStore, status: CheckpointStatus
    ) -> None:
        owner = await own(store)
        wake_at = owner.now + SOON
        await owner.commit(PARK, checkpoints=[record("nap", status=status, wake_at=wake_at)])
        await self.pass_time(store, SOON)
        ticked = await tick(store)
        assert [bell.id for bell in ticked.doorbells] == [owner.id]
        assert owner.id in ticked.touched
        assert ticked.next_at is None
        [entry] = (await own(store, owner.id)).inbox
        assert (entry.kind, entry.name) == (MessageKind.TIMER, "nap")
        assert wake_at <= entry.at <= ticked.now

    async def test_the_next_timer_is_announced_and_not_early(self, store: DurableStore) -> None:
        owner = await own(store)
        wake_at = owner.now + LATER
        await owner.commit(PARK, checkpoints=[timer("then", wake_at + 1), timer("next", wake_at)])
        ticked = await tick(store)
        assert (ticked.next_at, list(ticked.doorbells)) == (wake_at, [])
        assert await unread(store, owner.id) == []

    async def test_the_first_timer_is_known_also_when_it_is_late(self, store: DurableStore) -> None:
        assert await store.first_timer() is None
        owner, other = await own(store), await own(store)
        at = owner.now + SOON
        await owner.commit(PARK, checkpoints=[timer("nap", at), timer("later", at + LATER)])
        await other.commit(PARK, checkpoints=[timer("nap", at + 1)])
        assert await store.first_timer() == at
        await self.pass_time(store, SOON + 1)
        assert await store.first_timer() == at
        await tick(store)
        assert await store.first_timer() == at + LATER

    async def test_a_timer_fires_once(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(PARK, checkpoints=[timer("nap", owner.now)])
        for _ in range(3):
            await tick(store)
            await self.pass_time(store, 1)
        assert len(await store.inbox(owner.id)) == 1

    async def test_a_timer_that_fired_leaves_its_record_open(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(PARK, checkpoints=[timer("nap", owner.now)])
        before = list(await store.history(owner.id))
        await tick(store)
        assert list(await store.history(owner.id)) == before

    async def test_no_timer_is_early_and_none_is_forgotten(self, store: DurableStore) -> None:
        owner = await own(store)
        wakes = {f"nap {after}": owner.now + SOON + after for after in (3, 0, 5, 1, 4)}
        await owner.commit(PARK, checkpoints=[timer(name, at) for name, at in wakes.items()])
        fired: set[str] = set()
        while len(fired) < len(wakes):
            before = (await store.live()).at
            ticked = await tick(store)
            fired = {entry.name for entry in await store.inbox(owner.id)}
            assert {name for name, at in wakes.items() if at <= before} <= fired
            assert fired <= {name for name, at in wakes.items() if at <= ticked.now}
            assert ticked.next_at == min(
                (at for name, at in wakes.items() if name not in fired), default=None
            )
            await self.pass_time(store, 1)
        assert all(wakes[entry.name] <= entry.at for entry in await store.inbox(owner.id))

    async def test_due_timers_fire_oldest_first(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(PARK, checkpoints=[timer(f"nap {n}", owner.now + n) for n in (4, 0, 3, 1, 2)])
        await self.pass_time(store, 5)
        ticked = await tick(store)
        assert [entry.name for entry in await store.inbox(owner.id)] == [f"nap {n}" for n in range(5)]
        assert {bell.id for bell in ticked.doorbells} == {owner.id}

    async def test_a_tick_fires_at_most_its_limit_and_says_that_there_is_more(
        self, store: DurableStore
    ) -> None:
        owner = await own(store)
        await owner.commit(PARK, checkpoints=[timer(f"nap {n}", owner.now + n) for n in (4, 0, 3, 1, 2)])
        await self.pass_time(store, 5)
        fired: list[str] = []
        for expected in (2, 4):
            assert (await tick_once(store, limit=2)).more
            fired = [entry.name for entry in await store.inbox(owner.id)]
            assert fired == [f"nap {n}" for n in range(expected)]
        await tick_once(store, limit=2)
        assert len(await store.inbox(owner.id)) == 5
        assert not (await tick_once(store, limit=2)).more

    async def test_an_empty_store_has_nothing_to_tick(self, store: DurableStore) -> None:
        before = (await store.live()).at
        ticked = await tick_once(store)
        assert (list(ticked.doorbells), list(ticked.touched), ticked.more) == ([], [], False)
        assert ticked.next_at is None
        assert before <= ticked.now <= (await store.live()).at

    # -- setting, moving, deleting

    @pytest.mark.parametrize("status", [status for status in CheckpointStatus if status.final])
    async def test_a_final_record_deletes_its_timer(
        self, store: DurableStore, status: CheckpointStatus
    ) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[timer("nap", owner.now + SOON)])
        await owner.commit(PARK, checkpoints=[record("nap", status=status)])
        await self._stays_asleep(store, owner.id)

    async def test_a_final_record_with_a_wake_up_is_no_timer(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(PARK, checkpoints=[record("nap", wake_at=owner.now)])
        await self._stays_asleep(store, owner.id)

    async def test_an_open_record_without_a_wake_up_deletes_its_timer(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[timer("nap", owner.now + SOON)])
        await owner.commit(PARK, checkpoints=[timer("nap", None)])
        await self._stays_asleep(store, owner.id)

    async def test_an_open_record_that_is_replaced_moves_its_timer_away(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[timer("nap", owner.now + SOON)])
        later = owner.now + LATER
        await owner.commit(PARK, checkpoints=[timer("nap", later)])
        await self.pass_time(store, SOON)
        assert (await tick(store)).next_at == later
        assert await unread(store, owner.id) == []

    async def test_an_open_record_that_is_replaced_moves_its_timer_near(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[timer("nap", owner.now + LATER)])
        await owner.commit(PARK, checkpoints=[timer("nap", owner.now)])
        assert (await tick(store)).next_at is None
        assert [entry.name for entry in await unread(store, owner.id)] == ["nap"]

    async def test_a_record_that_retries_twice_has_a_timer_each_time(self, store: DurableStore) -> None:
        owner = await own(store)
        for _ in range(2):
            retrying = record("a", status=CheckpointStatus.RETRYING, wake_at=owner.now)
            await owner.commit(checkpoints=[retrying])
            await tick(store)
            await self.pass_time(store, 1)
        assert [entry.name for entry in await store.inbox(owner.id)] == ["a", "a"]

    async def test_a_dropped_record_takes_nothing_else_with_it(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[record("a"), timer("nap", owner.now)])
        await owner.commit(PARK, drop=["a"])
        await tick(store)
        assert [entry.name for entry in await unread(store, owner.id)] == ["nap"]

    async def test_two_executions_have_a_timer_of_one_name_each(self, store: DurableStore) -> None:
        one, two = await own(store), await own(store)
        later = two.now + LATER
        await one.commit(PARK, checkpoints=[timer("nap", one.now)])
        await two.commit(PARK, checkpoints=[timer("nap", later)])
        await tick(store)
        assert (len(await unread(store, one.id)), len(await unread(store, two.id))) == (1, 0)
        await (await own(store, one.id)).commit(PARK, checkpoints=[record("nap")])
        assert (await tick(store)).next_at == later

    async def test_a_closed_execution_has_no_timers(self, store: DurableStore) -> None:
        owner = await own(store, await create(store, timeout_ms=SOON))
        await owner.commit(checkpoints=[timer("nap", owner.now + SOON)])
        await owner.commit(Close(ExecutionStatus.COMPLETED), checkpoints=[timer("late", owner.now + SOON)])
        assert (await tick(store)).next_at is None
        await self.pass_time(store, SOON)
        await tick(store)
        assert list(await store.inbox(owner.id)) == []

    async def test_a_closed_execution_that_is_opened_again_has_no_old_timers(
        self, store: DurableStore
    ) -> None:
        owner = await own(store, await create(store, timeout_ms=SOON))
        await owner.commit(checkpoints=[timer("nap", owner.now + SOON)])
        await owner.commit(Close(ExecutionStatus.FAILED))
        await post(store, owner.id, reopen())
        assert (await tick(store)).next_at is None
        await self.pass_time(store, SOON)
        await tick(store)
        assert [entry.name for entry in await store.inbox(owner.id)] == ["retry"]

    async def test_a_continue_drops_timers_but_not_the_deadline(self, store: DurableStore) -> None:
        owner = await own(store, await create(store, timeout_ms=LATER))
        await owner.commit(checkpoints=[timer("nap", owner.now + SOON)])
        before = await row(store, owner.id)
        await owner.commit(Continue(b"{}"))
        assert (await row(store, owner.id)).deadline_at == before.deadline_at
        assert (await tick(store)).next_at == before.deadline_at
        await (await own(store, owner.id)).commit(PARK)
        await self.pass_time(store, SOON)
        assert (await tick(store)).next_at == before.deadline_at
        assert await unread(store, owner.id) == []

    async def _stays_asleep(self, store: DurableStore, execution_id: str) -> None:
        assert (await tick(store)).next_at is None
        await self.pass_time(store, SOON)
        assert list((await tick(store)).doorbells) == []
        assert (await row(store, execution_id)).state is State.PARKED
        assert await unread(store, execution_id) == []

    # -- what a timer wakes

    @pytest.mark.parametrize(
        ("next", "state"),
        [
            (Run(), State.OWNED),
            (PARK, State.READY),
            (Block(ExecutionStatus.PAUSED), State.BLOCKED),
            (Ready(2**53, ExecutionStatus.RETRYING, 2), State.READY),
        ],
        ids=["owned", "parked", "blocked", "retrying"],
    )
    async def test_a_timer_wakes_a_parked_execution_only(
        self, store: DurableStore, next: Run | Park | Block | Ready, state: State
    ) -> None:
        owner = await own(store)
        await owner.commit(next, checkpoints=[timer("nap", owner.now)])
        ticked = await tick(store)
        assert [bell.id for bell in ticked.doorbells] == ([owner.id] if next is PARK else [])
        assert owner.id in ticked.touched
        assert [entry.name for entry in await unread(store, owner.id)] == ["nap"]
        assert (await row(store, owner.id)).state is state
        assert [bell.id for bell in await due(store)] == ([owner.id] if next is PARK else [])

    async def test_a_timer_that_fired_keeps_its_owner_from_parking(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[timer("nap", owner.now)])
        await tick(store)
        answer = await owner.commit(PARK)
        assert answer.owned
        assert [entry.name for entry in answer.inbox] == ["nap"]

    async def test_the_first_of_a_signal_and_a_timer_is_first_in_the_inbox(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(PARK, checkpoints=[timer("timeout", owner.now + SOON)])
        await signal(store, owner.id, "early")
        await self.pass_time(store, SOON)
        await tick(store)
        await signal(store, owner.id, "late")
        assert [entry.name for entry in await unread(store, owner.id)] == ["early", "timeout", "late"]

    # -- the timeout of a run

    @pytest.mark.parametrize("situation", situations(Situation.MISSING, Situation.CLOSED))
    async def test_a_timeout_is_announced_and_not_early(
        self, store: DurableStore, situation: Situation
    ) -> None:
        subject = await bring(store, situation, timeout_ms=LATER // 2)
        ticked = await tick(store)
        assert ticked.next_at == (await row(store, subject.id)).deadline_at
        assert (list(ticked.doorbells), await unread(store, subject.id)) == ([], [])

    @pytest.mark.parametrize(
        ("situation", "rings"),
        [
            (Situation.NEW, False),
            (Situation.DELAYED, True),
            (Situation.RELEASED, False),
            (Situation.RETRYING, True),
            (Situation.OWNED, False),
            (Situation.PARKED, True),
            (Situation.BLOCKED, True),
        ],
    )
    async def test_a_timeout_reaches_every_open_execution(
        self, store: DurableStore, situation: Situation, rings: bool
    ) -> None:
        subject = await bring(store, situation, timeout_ms=SOON)
        deadline_at = (await row(store, subject.id)).deadline_at
        assert deadline_at is not None
        await self.pass_time(store, SOON)
        ticked = await tick(store)
        assert [bell.id for bell in ticked.doorbells] == ([subject.id] if rings else [])
        [entry] = await unread(store, subject.id)
        assert (entry.kind, entry.name) == (MessageKind.TIMER, TIMEOUT_TIMER)
        assert entry.at >= deadline_at
        if situation is not Situation.OWNED:
            await own(store, subject.id)
        await tick(store)
        assert len(await store.inbox(subject.id)) == 1
