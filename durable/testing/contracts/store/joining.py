"""Groups: what joins a pending execution instead of being created."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from durable.models import ExecutionStatus
from durable.protocols import Created, DurableStore, Join, Joined, NewExecution, keyed_id
from durable.testing.contracts.store.acts import (
    LATER,
    SOON,
    cancel,
    carry,
    due,
    everything,
    ids,
    new,
    own,
    post,
    row,
    tick,
)
from durable.testing.contracts.store.suite import StoreSuite


def debounced(
    input: bytes, *, wait_ms: int = LATER, most_ms: int | None = None, group: str = "g"
) -> NewExecution:
    return joining(input, Join(group, wait_ms, most_ms))


def batched(
    input: bytes, *, size: int, wait_ms: int = LATER, items: int = 1, group: str = "g"
) -> NewExecution:
    return joining(input, Join(group, wait_ms, size=size, items=items))


def joining(input: bytes, join: Join) -> NewExecution:
    id = keyed_id("order", join.group, again=ids.nonce()[:8])
    return new(id=id, input=input, join=join, cause=b"cause of " + input)


async def make(store: DurableStore, spec: NewExecution) -> Created:
    answer = await store.create(spec, op_id=ids.nonce())
    assert isinstance(answer, Created), answer
    return answer


async def join(store: DurableStore, spec: NewExecution) -> Joined:
    answer = await store.create(spec, op_id=ids.nonce())
    assert isinstance(answer, Joined), answer
    return answer


class Joining(StoreSuite):
    # -- debounce

    async def test_the_last_one_wins_and_puts_the_beginning_off(self, store: DurableStore) -> None:
        first = await make(store, debounced(b"1"))
        assert first.doorbell is None
        await self.pass_time(store, 2)
        second = await join(store, debounced(b"2"))
        assert (second.id, second.doorbell) == (first.id, None)
        assert second.available_at > first.available_at
        stored = await row(store, first.id)
        assert (stored.input, stored.cause, stored.available_at) == (b"2", b"cause of 2", second.available_at)
        assert len(await everything(store)) == 1

    async def test_it_is_put_off_no_longer_than_its_most(self, store: DurableStore) -> None:
        first = await make(store, debounced(b"1", most_ms=LATER + 1))
        await self.pass_time(store, SOON)
        second = await join(store, debounced(b"2", most_ms=LATER + 1))
        assert second.available_at == first.available_at + 1

    async def test_what_is_due_is_joined_no_more(self, store: DurableStore) -> None:
        first = await make(store, debounced(b"1", wait_ms=SOON))
        await self.pass_time(store, 2 * SOON)
        second = await make(store, debounced(b"2"))
        assert second.id != first.id
        assert (await row(store, first.id)).input == b"1"
        await own(store, first.id)
        third = await join(store, debounced(b"3", wait_ms=LATER))
        assert third.id == second.id

    async def test_what_was_cancelled_is_joined_no_more(self, store: DurableStore) -> None:
        first = await make(store, debounced(b"1"))
        await post(store, first.id, cancel())
        assert (await make(store, debounced(b"2"))).id != first.id

    async def test_groups_do_not_mix(self, store: DurableStore) -> None:
        one, two = (
            await make(store, debounced(b"1", group="a")),
            await make(store, debounced(b"2", group="b")),
        )
        assert one.id != two.id
        assert (await join(store, debounced(b"3", group="b"))).id == two.id
        assert (await row(store, one.id)).input == b"1"

    async def test_it_is_rung_when_it_is_due(self, store: DurableStore) -> None:
        first = await make(store, debounced(b"1", wait_ms=SOON))
        await join(store, debounced(b"2", wait_ms=SOON))
        assert await due(store) == []
        assert (await tick(store)).next_at is not None
        await self.pass_time(store, 2 * SOON)
        assert [bell.id for bell in await due(store)] == [first.id]

    # -- batch

    async def test_inputs_are_added_behind_a_line_feed(self, store: DurableStore) -> None:
        first = await make(store, batched(b"[1]", size=5))
        second = await join(store, batched(b"[2,3]", size=5, items=2))
        assert second == Joined(first.id, None, first.available_at)
        stored = await row(store, first.id)
        assert (stored.input, stored.cause) == (b"[1]\n[2,3]", b"cause of [1]\ncause of [2,3]")

    async def test_a_batch_begins_when_it_is_full(self, store: DurableStore) -> None:
        first = await make(store, batched(b"[1]", size=3))
        await join(store, batched(b"[2]", size=3))
        third = await join(store, batched(b"[3]", size=3))
        assert third.doorbell is not None
        assert third.doorbell.id == first.id
        await own(store, first.id)
        assert (await make(store, batched(b"[4]", size=3))).id != first.id

    async def test_a_batch_is_never_more_than_full(self, store: DurableStore) -> None:
        first = await make(store, batched(b"[1,2]", size=3, items=2))
        second = await make(store, batched(b"[3,4]", size=3, items=2))
        assert second.doorbell is None
        assert [bell.id for bell in second.doorbells] == [first.id]
        await own(store, first.id)
        assert (await join(store, batched(b"[5]", size=3))).id == second.id

    async def test_what_fills_a_batch_alone_begins_at_once(self, store: DurableStore) -> None:
        alone = await make(store, batched(b"[1,2,3]", size=3, items=3))
        assert alone.doorbell is not None
        await own(store, alone.id)

    async def test_many_at_once_are_in_one_batch_each_and_none_is_lost(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        specs = [batched(b"[%d]" % number, size=7) for number in range(30)]
        await asyncio.gather(
            *[peers[i % len(peers)].create(spec, op_id=ids.nonce()) for i, spec in enumerate(specs)]
        )
        rows = await everything(store)
        assert sorted(len(each.input.split(b"\n")) for each in rows) == [2, 7, 7, 7, 7]
        assert sorted(b"".join(each.input for each in rows)) == sorted(
            b"".join(spec.input for spec in specs) + b"\n" * (30 - len(rows))
        )

    # -- both

    async def test_a_repeated_join_counts_once(self, store: DurableStore) -> None:
        first_spec, spec = batched(b"[1]", size=9), batched(b"[2]", size=9)
        first = await store.create(first_spec, op_id="first")
        answer = await store.create(spec, op_id="second")
        assert await store.create(spec, op_id="second") == answer
        assert await store.create(first_spec, op_id="first") == first
        assert isinstance(first, Created)
        assert (await row(store, first.id)).input == b"[1]\n[2]"

    async def test_a_repeated_join_is_known_after_the_pending_one_began(self, store: DurableStore) -> None:
        first = await make(store, batched(b"[1]", size=2))
        spec = batched(b"[2]", size=2)
        answer = await store.create(spec, op_id="second")
        await own(store, first.id)
        again = await store.create(spec, op_id="second")
        assert isinstance(answer, Joined)
        assert isinstance(again, Joined)
        assert again.id == answer.id
        assert len(await everything(store)) == 1

    async def test_a_pending_one_is_pending(self, store: DurableStore) -> None:
        first = await make(store, debounced(b"1"))
        await carry(store)
        assert (await row(store, first.id)).status is ExecutionStatus.PENDING
