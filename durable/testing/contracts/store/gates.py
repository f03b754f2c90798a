"""Gates: who passes, who waits in line, and when a slot is free again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from durable.models import ExecutionStatus
from durable.protocols import (
    Claimed,
    Close,
    Created,
    DurableStore,
    Free,
    Gate,
    GateKind,
    GateRow,
    Live,
    MessageKind,
    Next,
    NotClaimed,
    Park,
    Posted,
    Ready,
    Seek,
    State,
    WhenFull,
)
from durable.testing.contracts.store.acts import (
    LATER,
    NEXTS,
    SOON,
    WORKER,
    Owner,
    Spec,
    cancel,
    carry,
    create,
    due,
    ids,
    message,
    new,
    own,
    post,
    reopen,
    row,
    signal,
    tick,
    unread,
)
from durable.testing.contracts.store.suite import StoreSuite

PARK = Park(ExecutionStatus.WAITING)
DONE = Close(ExecutionStatus.COMPLETED, b"42")


def slots(
    limit: int = 1,
    key: str = "",
    *,
    rule: str = "order/slots",
    when_full: WhenFull = WhenFull.WAIT,
    keeps: bool = False,
) -> Gate:
    return Gate(rule, key, GateKind.SLOTS, limit, when_full=when_full, keeps=keeps, refusal=b"full")


def rate(limit: int, per_ms: int, burst: int = 0, key: str = "") -> Gate:
    return Gate("order/rate", key, GateKind.RATE, limit, per_ms, burst)


def window(limit: int, per_ms: int, key: str = "") -> Gate:
    return Gate("order/window", key, GateKind.WINDOW, limit, per_ms, refusal=b"dropped")


async def takes(store: DurableStore, execution_id: str) -> Owner | None:
    """Its owner, if it can be claimed now."""
    nonce = ids.nonce()
    answer = await store.claim(execution_id, nonce=nonce, worker=WORKER)
    if isinstance(answer, NotClaimed):
        assert answer.state in (State.READY, State.CLOSED), answer
        return None
    return Owner(store, execution_id, nonce, answer.row.ver, answer.row.inbox_seq, answer.now, answer.inbox)


async def is_held(store: DurableStore, execution_id: str, gate: Gate) -> bool:
    """Whether it waits at this gate, and cannot be claimed."""
    stored = await row(store, execution_id)
    if stored.held_by is None:
        return False
    assert stored.held_by == gate.name
    assert stored.state is State.READY
    assert await takes(store, execution_id) is None
    return True


async def gate_row(store: DurableStore, gate: Gate) -> GateRow:
    found = await store.gate(gate.name)
    assert found is not None
    return found


class Gating(StoreSuite):
    # -- slots

    async def test_an_execution_that_finds_all_slots_taken_is_held_and_named_to_nobody(
        self, store: DurableStore
    ) -> None:
        gate = slots(2)
        first, second, third = [await create(store, gates=[gate]) for _ in range(3)]
        assert await is_held(store, third, gate)
        assert {bell.id for bell in await due(store)} == {first, second}
        assert await takes(store, first)
        assert await takes(store, second)
        assert (await row(store, third)).status is ExecutionStatus.PENDING

    @pytest.mark.parametrize("next", ["park", "block", "retry", "close"])
    async def test_who_is_owner_no_more_gives_its_slot_to_the_first_in_line(
        self, store: DurableStore, next: str
    ) -> None:
        gate = slots()
        first, second, third = [await create(store, gates=[gate]) for _ in range(3)]
        owner = await own(store, first)
        answer = await owner.commit(NEXTS[next])
        assert [bell.id for bell in answer.doorbells] == [second]
        assert await is_held(store, third, gate)
        assert await takes(store, second)

    @pytest.mark.parametrize("next", ["release", "continue"])
    async def test_who_is_ready_at_once_again_goes_behind_those_in_line(
        self, store: DurableStore, next: str
    ) -> None:
        gate = slots()
        first, second = [await create(store, gates=[gate]) for _ in range(2)]
        await (await own(store, first)).commit(NEXTS[next])
        assert await is_held(store, first, gate)
        await (await own(store, second)).commit(DONE)
        assert await takes(store, first)

    async def test_an_owner_that_goes_on_keeps_its_slot(self, store: DurableStore) -> None:
        gate = slots()
        first, second = [await create(store, gates=[gate]) for _ in range(2)]
        owner = await own(store, first)
        await owner.commit()
        await signal(store, first)
        assert (await owner.commit(PARK)).owned  # news: it was not parked
        assert await is_held(store, second, gate)

    async def test_what_is_woken_seeks_its_slot_again(self, store: DurableStore) -> None:
        gate = slots()
        first, second = [await create(store, gates=[gate]) for _ in range(2)]
        await (await own(store, first)).commit(PARK)
        other = await own(store, second)
        posted = await signal(store, first)
        assert posted.doorbell is None
        assert await is_held(store, first, gate)
        answer = await other.commit(DONE)
        assert [bell.id for bell in answer.doorbells] == [first]
        owner = await own(store, first)
        assert [entry.name for entry in owner.inbox] == ["go"]

    async def test_a_slot_that_is_kept_is_free_only_at_the_end(self, store: DurableStore) -> None:
        gate = slots(keeps=True)
        first, second = [await create(store, gates=[gate]) for _ in range(2)]
        await (await own(store, first)).commit(PARK)
        assert await is_held(store, second, gate)
        await signal(store, first)
        await (await own(store, first)).commit(DONE)
        assert await takes(store, second)

    async def test_a_slot_outlives_its_owners_worker_and_goes_to_who_goes_on_with_it(
        self, store: DurableStore
    ) -> None:
        gate = slots()
        first, second = [await create(store, gates=[gate]) for _ in range(2)]
        await own(store, first)
        await self.pass_time(store, 2)
        await tick(store, live=Live({}, (await tick(store)).now + 1))
        await carry(store)
        assert await is_held(store, second, gate)
        owner = await own(store, first)
        await owner.commit(DONE)
        assert await takes(store, second)

    async def test_greater_priority_goes_first_in_line_and_then_who_came_first(
        self, store: DurableStore
    ) -> None:
        gate = slots()
        holder = await own(store, await create(store, gates=[gate]))
        waiting = [await create(store, gates=[gate], priority=priority) for priority in (0, 5, 0, 5)]
        order: list[str] = []
        for _ in waiting:
            await holder.commit(DONE)
            [claimable] = [
                each for each in waiting if each not in order and (await row(store, each)).held_by is None
            ]
            order.append(claimable)
            holder = await own(store, claimable)
        assert order == [waiting[1], waiting[3], waiting[0], waiting[2]]

    async def test_keys_and_rules_are_gates_of_their_own(self, store: DurableStore) -> None:
        one = [slots(key="a"), slots(key="b"), slots(key="a", rule="report/slots")]
        for gate in one:
            assert await takes(store, await create(store, gates=[gate]))
        for gate in one:
            assert await is_held(store, await create(store, gates=[gate]), gate)

    async def test_several_gates_are_passed_in_their_order_and_all_their_limits_hold(
        self, store: DurableStore
    ) -> None:
        tenants, all = [slots(2, key) for key in "ab"], slots(3, rule="all")
        of_a = [await create(store, gates=[tenants[0], all]) for _ in range(3)]
        of_b = [await create(store, gates=[tenants[1], all]) for _ in range(3)]
        owners = [await own(store, of_a[0]), await own(store, of_a[1]), await own(store, of_b[0])]
        assert await is_held(store, of_a[2], tenants[0])
        assert await is_held(store, of_b[1], all)
        assert await is_held(store, of_b[2], tenants[1])
        await owners[0].commit(DONE)  # its tenant's next is behind the other's in the line of all
        assert await is_held(store, of_a[2], all)
        assert await takes(store, of_b[1])

    async def test_what_is_delayed_seeks_when_its_instant_has_come(self, store: DurableStore) -> None:
        gate = slots()
        delayed = await create(store, gates=[gate], delay_ms=SOON)
        assert await takes(store, delayed) is None
        now = await create(store, gates=[gate])
        owner = await takes(store, now)
        assert owner is not None
        await self.pass_time(store, 2 * SOON)
        await tick(store)
        await carry(store)
        assert await is_held(store, delayed, gate)
        await owner.commit(DONE)
        assert await takes(store, delayed)

    async def test_a_delayed_one_is_rung_when_its_instant_has_come(self, store: DurableStore) -> None:
        delayed = await create(store, gates=[slots()], delay_ms=10 * SOON)
        assert (await tick(store)).next_at is not None
        await self.pass_time(store, 11 * SOON)
        rung = [*(await tick(store)).doorbells, *(await carry(store)).doorbells]
        assert [bell.id for bell in rung] == [delayed]
        assert await takes(store, delayed)

    # -- messages to those that are held

    async def test_a_cancel_ends_what_is_held_and_was_never_claimed_and_the_line_goes_on(
        self, store: DurableStore
    ) -> None:
        gate = slots()
        first, second, third = [await create(store, gates=[gate]) for _ in range(3)]
        assert (await post(store, second, cancel(b"why"))).closed
        await (await own(store, first)).commit(DONE)
        assert await takes(store, third)
        assert (await row(store, second)).held_by is None

    async def test_a_cancel_of_one_that_passed_and_was_never_claimed_gives_its_slot_back(
        self, store: DurableStore
    ) -> None:
        gate = slots()
        first, second = [await create(store, gates=[gate]) for _ in range(2)]
        posted = await post(store, first, cancel(b"why"))
        assert posted.closed
        assert await takes(store, second)

    @pytest.mark.parametrize("urgent", [cancel(), reopen()], ids=["cancel", "operator"])
    async def test_what_is_urgent_goes_past_the_gate(self, store: DurableStore, urgent: object) -> None:
        gate = slots()
        first, second = [await create(store, gates=[gate]) for _ in range(2)]
        await (await own(store, first)).commit(PARK)
        other = await own(store, second)
        await signal(store, first)
        assert await is_held(store, first, gate)
        told = (
            message("x", kind=MessageKind.OPERATOR, reach=reopen().reach) if urgent == reopen() else cancel()
        )
        posted = await store.post(first, told)
        assert isinstance(posted, Posted)
        await carry(store)
        owner = await own(store, first)
        await owner.commit(DONE)  # it gives back what it does not hold: nothing
        third = await create(store, gates=[gate])
        assert await is_held(store, third, gate)
        await other.commit(DONE)
        assert await takes(store, third)

    # -- who finds a gate full

    async def test_a_new_one_is_refused_where_the_gate_says_so(self, store: DurableStore) -> None:
        gate = slots(when_full=WhenFull.REFUSE)
        first, second = [await create(store, gates=[gate]) for _ in range(2)]
        refused = await row(store, second)
        assert (refused.state, refused.status, refused.error) == (
            State.CLOSED,
            ExecutionStatus.CANCELLED,
            b"full",
        )
        await (await own(store, first)).commit(PARK)
        third = await own(store, await create(store, gates=[gate]))
        await signal(store, first)  # one that goes on is not new
        assert await is_held(store, first, gate)
        await third.commit(DONE)
        assert await takes(store, first)

    async def test_what_is_refused_gives_back_what_it_holds(self, store: DurableStore) -> None:
        before, gate = slots(2, rule="before"), slots(when_full=WhenFull.REFUSE)
        for _ in range(2):
            await create(store, gates=[before, gate])
        assert (await gate_row(store, before)).held == 1

    async def test_the_oldest_makes_room_for_the_newest_where_the_gate_says_so(
        self, store: DurableStore
    ) -> None:
        gate = slots(when_full=WhenFull.REPLACE)
        first = await create(store, gates=[gate])
        owner = await own(store, first)
        second = await create(store, gates=[gate])
        [told] = await unread(store, first)
        assert (told.kind, told.data) == (MessageKind.CANCEL, b"full")
        assert await is_held(store, second, gate)
        third = await create(store, gates=[gate])
        assert (await row(store, second)).status is ExecutionStatus.CANCELLED
        assert len(await unread(store, first)) == 1
        await owner.commit(Close(ExecutionStatus.CANCELLED), consume=[(1, "__cancel")])
        assert await takes(store, third)

    # -- rates and windows

    async def test_a_rate_lets_its_burst_pass_and_then_one_after_the_other(self, store: DurableStore) -> None:
        gate = rate(1, LATER, burst=2)
        created = [await create(store, gates=[gate]) for _ in range(4)]
        for each in created[:3]:
            assert await takes(store, each)
        assert await is_held(store, created[3], gate)
        opens_at = (await gate_row(store, gate)).next_at
        assert opens_at is not None
        assert opens_at - (await row(store, created[0])).created_at == pytest.approx(LATER, abs=1_000)
        assert ((await tick(store)).next_at or 0) <= opens_at

    async def test_a_rate_lets_the_first_in_line_pass_when_its_instant_has_come(
        self, store: DurableStore
    ) -> None:
        gate = rate(1, 20 * SOON)
        first, second, third = [await create(store, gates=[gate]) for _ in range(3)]
        await self.pass_time(store, 21 * SOON)
        rung = [*(await tick(store)).doorbells, *(await carry(store)).doorbells]
        assert [bell.id for bell in rung] == [second]
        assert await takes(store, second)
        assert await is_held(store, third, gate)
        assert await takes(store, first)

    async def test_a_rate_counts_an_execution_once(self, store: DurableStore) -> None:
        gate = rate(1, LATER)
        first = await create(store, gates=[gate])
        await (await own(store, first)).commit(Ready(0, ExecutionStatus.PENDING, attempt=1))
        await (await own(store, first)).commit(PARK)
        await signal(store, first)
        assert await takes(store, first)

    async def test_a_window_refuses_what_is_too_much_in_it(self, store: DurableStore) -> None:
        gate = window(2, 20 * SOON)
        created = [await create(store, gates=[gate]) for _ in range(3)]
        assert [(await row(store, each)).status for each in created] == [
            ExecutionStatus.PENDING,
            ExecutionStatus.PENDING,
            ExecutionStatus.CANCELLED,
        ]
        assert (await row(store, created[2])).error == b"dropped"
        await self.pass_time(store, 21 * SOON)
        assert await takes(store, await create(store, gates=[gate]))

    async def test_one_that_goes_on_is_not_refused_by_a_window_and_waits_in_line(
        self, store: DurableStore
    ) -> None:
        gate = window(1, 20 * SOON)
        first = await create(store, gates=[gate], delay_ms=LATER)
        await post(store, first, message("x", kind=MessageKind.OPERATOR, reach=reopen().reach))
        await (await own(store, first)).commit(PARK, consume=[(1, "x")])  # it went past, and was not counted
        await create(store, gates=[gate])
        await signal(store, first)
        assert await is_held(store, first, gate)
        await self.pass_time(store, 21 * SOON)
        await tick(store)
        await carry(store)
        assert await takes(store, first)

    async def test_many_at_once_pass_a_window_exactly_as_often_as_it_allows(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        gate = window(5, LATER)
        specs = [new(gates=[gate]) for _ in range(20)]
        await asyncio.gather(
            *[peers[i % len(peers)].create(spec, op_id=ids.nonce()) for i, spec in enumerate(specs)]
        )
        await carry(store)
        statuses = [(await row(store, spec.id)).status for spec in specs]
        assert statuses.count(ExecutionStatus.PENDING) == 5
        assert statuses.count(ExecutionStatus.CANCELLED) == 15

    async def test_many_at_once_take_exactly_as_many_slots_as_there_are(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        gate = slots(3)
        specs = [new(gates=[gate]) for _ in range(20)]
        await asyncio.gather(
            *[peers[i % len(peers)].create(spec, op_id=ids.nonce()) for i, spec in enumerate(specs)]
        )
        await carry(store)
        answers = await asyncio.gather(
            *[store.claim(spec.id, nonce=f"n-{spec.id}", worker=WORKER) for spec in specs]
        )
        owned = [answer.row.id for answer in answers if isinstance(answer, Claimed)]
        assert len(owned) == 3
        ended = 0
        while owned:
            await asyncio.gather(*[Owner(store, each, f"n-{each}").commit(DONE) for each in owned])
            ended += len(owned)
            left = [spec for spec in specs if (await row(store, spec.id)).state is State.READY]
            answers = await asyncio.gather(
                *[store.claim(spec.id, nonce=f"n-{spec.id}", worker=WORKER) for spec in left]
            )
            owned = [answer.row.id for answer in answers if isinstance(answer, Claimed)]
            assert len(owned) == min(3, len(left))
        assert ended == 20

    async def test_a_repeated_create_passes_once(self, store: DurableStore) -> None:
        gate, op_id = slots(2), ids.nonce()
        spec = new(gates=[gate])
        first = await store.create(spec, op_id=op_id)
        await carry(store)
        again = await store.create(spec, op_id=op_id)
        assert isinstance(first, Created)
        assert isinstance(again, Created)
        await carry(store)
        assert (await gate_row(store, gate)).held == 1

    # -- steps

    async def test_a_step_is_told_when_it_has_passed(self, store: DurableStore) -> None:
        gate = slots(rule="openai")
        one, two = await own(store), await own(store)
        answer = await one.commit(PARK, out=[Seek("ask", [gate], "m1")])
        entries = [*answer.inbox] or await unread(store, one.id)
        assert [(entry.kind, entry.name, entry.id) for entry in entries] == [(MessageKind.GATE, "ask", "m1")]
        await two.commit(PARK, out=[Seek("ask", [gate], "m2")])
        assert await unread(store, two.id) == []
        assert (await row(store, two.id)).state is State.PARKED
        await self._free(store, one, [Free("ask")])
        assert [entry.id for entry in await unread(store, two.id)] == ["m2"]
        assert (await row(store, two.id)).state is State.READY

    @pytest.mark.parametrize("next", ["close", "continue"])
    async def test_the_slots_of_its_steps_are_free_when_an_execution_ends_or_begins_anew(
        self, store: DurableStore, next: str
    ) -> None:
        gate = slots(rule="openai")
        one, two = await own(store), await own(store)
        await one.commit(out=[Seek("ask", [gate], "m1")])
        await two.commit(PARK, out=[Seek("ask", [gate], "m2"), Seek("again", [gate], "m3")])
        await self._end(store, one, NEXTS[next])
        assert [entry.id for entry in await unread(store, two.id)] == ["m2"]

    async def test_a_step_of_a_dead_owner_keeps_its_slot(self, store: DurableStore) -> None:
        gate = slots(rule="openai")
        one = await own(store)
        await one.commit(out=[Seek("ask", [gate], "m1")])
        await self.pass_time(store, 2)
        await tick(store, live=Live({}, (await tick(store)).now + 1))
        await carry(store)
        [holding] = (await gate_row(store, gate)).holdings
        assert (holding.execution_id, holding.step_id) == (one.id, "ask")

    async def test_a_rate_counts_each_time_that_a_step_seeks_it(self, store: DurableStore) -> None:
        gate = Gate("openai", "", GateKind.RATE, 1, LATER, 1)
        one = await own(store)
        for number in range(3):
            await one.commit(out=[Seek(f"ask#{number}", [gate], f"m{number}")])
        told = [entry.id for entry in await store.inbox(one.id)]
        assert told == ["m0", "m1"]

    async def _free(self, store: DurableStore, owner: Owner, out: list[Free]) -> None:
        if (await row(store, owner.id)).state is State.READY:
            owner = await own(store, owner.id)
        await owner.commit(out=out)

    async def _end(self, store: DurableStore, owner: Owner, next: Next) -> None:
        seen = (await row(store, owner.id)).inbox_seq
        await owner.commit(next, consume=[(seq, "ask") for seq in range(1, seen + 1)])

    # -- limits, and what is known

    async def test_a_limit_can_be_changed_and_restored(self, store: DurableStore) -> None:
        gate = slots(1)
        created = [await create(store, gates=[gate]) for _ in range(3)]
        await store.set_limit(gate.rule, 2)
        assert await store.limits() == {gate.rule: 2}
        rung = [*(await tick(store)).doorbells, *(await carry(store)).doorbells]
        assert created[1] in {bell.id for bell in rung}
        assert (await gate_row(store, gate)).limit == 2
        first = await own(store, created[0])
        await store.set_limit(gate.rule, None)
        assert await store.limits() == {}
        await first.commit(DONE)
        assert await is_held(store, created[2], gate)

    async def test_a_limit_is_known_before_anybody_seeks(self, store: DurableStore) -> None:
        gate = slots(5)
        await store.set_limit(gate.rule, 1)
        first, second = [await create(store, gates=[gate]) for _ in range(2)]
        assert await takes(store, first)
        assert await is_held(store, second, gate)

    async def test_a_gate_tells_who_holds_its_slots_and_who_waits(self, store: DurableStore) -> None:
        gate = slots(1, "a")
        assert await store.gate(gate.name) is None
        first, second = [await create(store, gates=[gate]) for _ in range(2)]
        found = await gate_row(store, gate)
        assert [(each.execution_id, each.step_id) for each in found.holdings] == [(first, "")]
        assert (found.name, found.kind, found.limit, found.held, found.waiting) == (
            gate.name,
            GateKind.SLOTS,
            1,
            1,
            1,
        )
        assert found.oldest_at is not None
        assert list(await store.gates()) == [found]
        assert list(await store.gates(after=gate.name)) == []
        await (await own(store, first)).commit(DONE)
        await (await own(store, second)).commit(DONE)
        assert list(await store.gates()) == []

    async def test_gates_are_listed_in_order_and_by_pages(self, store: DurableStore) -> None:
        made = [slots(key=key) for key in "cabd"]
        for gate in made:
            await create(store, gates=[gate])
        names = sorted(gate.name for gate in made)
        page = [each.name for each in await store.gates(limit=3)]
        assert page == names[:3]
        assert [each.name for each in await store.gates(after=page[-1])] == names[3:]

    async def test_depths_tell_what_waits_in_each_queue(self, store: DurableStore) -> None:
        gate = slots()
        await create(store, queue="email")
        await create(store, queue="media", gates=[gate])
        held = await create(store, queue="media", gates=[gate])
        await create(store, queue="media", delay_ms=LATER)
        await own(store, await create(store, queue="done"))
        depths = [(each.queue, each.ready, each.held) for each in await store.depths()]
        assert depths == [("email", 1, 0), ("media", 1, 1)]
        assert await is_held(store, held, gate)

    async def test_depths_count_all_that_is_held_whatever_its_workflow_and_priority(
        self, store: DurableStore
    ) -> None:
        gate = slots(1, keeps=True)
        await own(store, await create(store, gates=[gate]))
        for queue, number in (("a", 7), ("b", 4)):
            for n in range(number):
                of: Spec = {
                    "queue": queue,
                    "workflow": f"order{n % 3}",
                    "priority": n % 2,
                    "gates": [gate],
                }
                await create(store, **of)
                delayed: Spec = {**of, "delay_ms": LATER}
                await create(store, **delayed)
        await create(store, queue="c", gates=[gate], delay_ms=LATER)
        depths = [(each.queue, each.ready, each.held) for each in await store.depths()]
        assert depths == [("a", 0, 7), ("b", 0, 4)]

    async def test_queues_are_paused_and_resumed(self, store: DurableStore) -> None:
        assert list(await store.paused_queues()) == []
        await store.pause_queue("media", True)
        await store.pause_queue("email", True)
        await store.pause_queue("email", True)
        assert list(await store.paused_queues()) == ["email", "media"]
        await store.pause_queue("email", False)
        assert list(await store.paused_queues()) == ["media"]

    async def test_nothing_is_left_of_gates_when_all_has_ended(self, store: DurableStore) -> None:
        gate = slots(1)
        created = [await create(store, gates=[gate]) for _ in range(3)]
        for each in created:
            await (await own(store, each)).commit(DONE)
        assert (await tick(store)).next_at is None
        assert await store.gate(gate.name) is None
