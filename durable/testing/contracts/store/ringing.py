"""Ringing: which doorbells `due` returns, in which order, and how often."""

from __future__ import annotations

import pytest

from durable.models import ExecutionStatus
from durable.protocols import Created, DurableStore, Park, Ready, Wanted
from durable.testing.contracts.store.acts import (
    HELD,
    LATER,
    SOON,
    WANTED,
    Situation,
    bring,
    create,
    due,
    ids,
    new,
    own,
    partitions,
    signal,
    situations,
    tick,
)
from durable.testing.contracts.store.suite import StoreSuite


class Ringing(StoreSuite):
    @pytest.mark.parametrize("situation", situations())
    async def test_only_what_can_be_claimed_now_is_due(
        self, store: DurableStore, situation: Situation
    ) -> None:
        subject = await bring(store, situation)
        is_ready = situation in (Situation.NEW, Situation.RELEASED)
        assert [bell.id for bell in await due(store)] == ([subject.id] if is_ready else [])

    async def test_a_doorbell_that_got_lost_is_rung_again_as_it_was(self, store: DurableStore) -> None:
        answer = await store.create(new(priority=2), op_id=ids.nonce())
        assert isinstance(answer, Created)
        [rung] = await due(store, again_ms=SOON)
        assert rung == answer.doorbell
        assert rung.ready_at == answer.available_at
        await self.pass_time(store, SOON)
        assert await due(store, again_ms=LATER) == [answer.doorbell]
        await self.pass_time(store, SOON)
        assert await due(store) == []

    async def test_a_doorbell_that_was_rung_can_still_be_claimed(self, store: DurableStore) -> None:
        execution = await create(store)
        await due(store)
        await own(store, execution)

    @pytest.mark.parametrize("how", ["released", "woken", "taken over", "retried"])
    async def test_what_becomes_ready_anew_is_rung_at_once(self, store: DurableStore, how: str) -> None:
        owner = await own(store)
        await owner.commit(Ready(0, ExecutionStatus.PENDING, attempt=1))
        assert [bell.id for bell in await due(store)] == [owner.id]
        owner = await own(store, owner.id)
        claimed_at = owner.now
        match how:
            case "released":
                await owner.commit(Ready(0, ExecutionStatus.PENDING, attempt=1))
            case "woken":
                await owner.commit(Park(ExecutionStatus.WAITING))
                await signal(store, owner.id)
            case "taken over":
                await self.pass_time(store, 1)
                await tick(store, live=await store.live())
            case _:
                await owner.commit(Ready(owner.now + SOON, ExecutionStatus.RETRYING, attempt=2))
                await self.pass_time(store, SOON)
        [rung] = await due(store)
        assert rung.id == owner.id
        assert rung.ready_at >= claimed_at

    @pytest.mark.parametrize(
        "wanted",
        [
            Wanted(("mail",), frozenset({"order@1"})),
            Wanted(("default",), frozenset({"order@2"})),
            Wanted(("default",), frozenset({"invoice@1"})),
            Wanted(("default",), frozenset()),
            Wanted((), frozenset({"order@1"})),
        ],
        ids=["other queue", "other version", "other workflow", "no workflow", "no queue"],
    )
    async def test_what_a_worker_does_not_want_is_left_to_others(
        self, store: DurableStore, wanted: Wanted
    ) -> None:
        execution = await create(store)
        assert await due(store, wanted=wanted) == []
        assert [bell.id for bell in await due(store)] == [execution]

    async def test_a_worker_gets_all_that_it_wants(self, store: DurableStore) -> None:
        wanted = Wanted(("default", "mail"), frozenset({"order@1", "invoice@2"}))
        expected = {
            await create(store, queue="mail", workflow="invoice", version="2"),
            await create(store, queue="mail"),
            await create(store, workflow="invoice", version="2"),
        }
        await create(store, workflow="invoice", version="1")
        await create(store, queue="media")
        bells = await due(store, wanted=wanted)
        assert {bell.id for bell in bells} == expected
        assert all(wanted.wants(bell) for bell in bells)

    async def test_greater_priority_goes_first_then_the_longest_ready(self, store: DurableStore) -> None:
        order: dict[str, tuple[int, int]] = {}
        for number in range(12):
            priority = (0, 100, -3, 7)[number % 4]
            order[await create(store, priority=priority)] = (-priority, number)
            await self.pass_time(store, 1)
        for partition in await partitions(store):
            rung = [bell.id for bell in await store.due(partition, WANTED, limit=100, again_ms=LATER)]
            assert rung == sorted(rung, key=order.__getitem__)

    async def test_what_was_released_goes_behind_what_has_been_ready_for_longer(
        self, store: DurableStore
    ) -> None:
        released = await own(store)
        await self.pass_time(store, 1)
        waiting = [await create(store) for _ in range(5)]
        await self.pass_time(store, 1)
        await released.commit(Ready(0, ExecutionStatus.PENDING, attempt=1))
        for partition in await partitions(store):
            rung = [bell.id for bell in await store.due(partition, WANTED, limit=100, again_ms=LATER)]
            assert released.id not in rung[:-1]
            assert set(rung) <= {released.id, *waiting}

    async def test_no_more_than_the_limit_is_rung_and_the_rest_is_next(self, store: DurableStore) -> None:
        created = {await create(store) for _ in range(10)}
        rung: list[str] = []
        for partition in await partitions(store):
            while bells := await store.due(partition, WANTED, limit=3, again_ms=LATER):
                assert len(bells) <= 3
                rung += [bell.id for bell in bells]
        assert len(rung) == 10
        assert set(rung) == created

    async def test_what_nobody_here_wants_is_not_in_the_way(self, store: DurableStore) -> None:
        for _ in range(30):
            await create(store, workflow="unknown", priority=9)
            await create(store, queue="unserved", priority=9)
        execution = await create(store)
        assert [bell.id for bell in await due(store, limit=1)] == [execution]

    async def test_a_tick_does_not_ring_what_is_ready_already(self, store: DurableStore) -> None:
        await create(store)
        assert list((await tick(store, live=HELD)).doorbells) == []
