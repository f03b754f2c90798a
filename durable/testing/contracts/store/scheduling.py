"""Schedules: saved by who has read the last version, with what they start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from durable.protocols import DurableStore, Saved, ScheduleRow, State
from durable.testing.contracts.store.acts import LATER, SOON, carry, everything, ids, new, row
from durable.testing.contracts.store.suite import StoreSuite


async def save(store: DurableStore, row: ScheduleRow) -> ScheduleRow:
    """Save one that must be as it was read; as it is stored now."""
    saved = await store.save_schedule(row, op_id=ids.nonce())
    assert isinstance(saved, Saved)
    return replace(row, ver=saved.ver)


class Scheduling(StoreSuite):
    async def test_a_schedule_is_stored_and_changed_by_who_has_read_it(self, store: DurableStore) -> None:
        assert await store.schedule("daily") is None
        first = await save(store, ScheduleRow("daily", b"1", 5))
        assert first.ver == 1
        assert await store.schedule("daily") == first
        assert await store.save_schedule(ScheduleRow("daily", b"new", 5), op_id=ids.nonce()) is None
        second = await save(store, replace(first, data=b"2", next_at=None))
        assert await store.save_schedule(replace(first, data=b"late"), op_id=ids.nonce()) is None
        assert await store.schedule("daily") == second == ScheduleRow("daily", b"2", None, 2)

    async def test_what_it_starts_is_started_in_the_same_write(self, store: DurableStore) -> None:
        first = await save(store, ScheduleRow("daily", b"1", 5))
        specs = [new(), new(key="tick")]
        saved = await store.save_schedule(replace(first, next_at=6), op_id="op", starts=specs)
        assert saved is not None
        await carry(store)
        assert list(saved.execution_ids) == [spec.id for spec in specs]
        for spec in specs:
            assert (await row(store, spec.id)).state is State.READY
        refused = new()
        assert await store.save_schedule(first, op_id=ids.nonce(), starts=[refused]) is None
        await carry(store)
        assert await store.get(refused.id) is None

    async def test_the_same_operation_again_gets_the_first_answer(self, store: DurableStore) -> None:
        new_one, spec = ScheduleRow("daily", b"1", 5), new()
        first = await store.save_schedule(new_one, op_id="op", starts=[spec])
        again = await store.save_schedule(new_one, op_id="op", starts=[spec])
        await carry(store)
        assert first is not None
        assert again is not None
        assert (again.ver, list(again.execution_ids)) == (first.ver, list(first.execution_ids))
        assert len(await everything(store)) == 1

    async def test_of_many_at_once_one_moves_it(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for instant in range(1, 6):
            current = await store.schedule("daily") or ScheduleRow("daily", b"", 0)
            saved = await asyncio.gather(
                *[
                    peers[i % len(peers)].save_schedule(
                        replace(current, next_at=instant), op_id=ids.nonce(), starts=[new(key=f"{instant}")]
                    )
                    for i in range(10)
                ]
            )
            assert sum(answer is not None for answer in saved) == 1
        await carry(store)
        assert len(await everything(store)) == 5

    async def test_one_that_is_removed_is_gone_and_can_be_new_again(self, store: DurableStore) -> None:
        assert not await store.remove_schedule("daily")
        await save(store, ScheduleRow("daily", b"1", 5))
        assert await store.remove_schedule("daily")
        assert await store.schedule("daily") is None
        assert list((await store.due_schedules(limit=10)).rows) == []
        assert (await save(store, ScheduleRow("daily", b"2", 5))).ver == 1

    async def test_they_are_listed_in_order_of_their_ids_and_by_pages(self, store: DurableStore) -> None:
        for id in ("c", "a", "d", "b"):
            await save(store, ScheduleRow(id, b"", None))
        assert [row.id for row in await store.schedules(limit=3)] == ["a", "b", "c"]
        assert [row.id for row in await store.schedules(after="c")] == ["d"]
        assert list(await store.schedules(after="d")) == []

    async def test_those_that_are_due_come_first_due_first(self, store: DurableStore) -> None:
        now = (await store.live()).at
        rows = [
            await save(store, ScheduleRow(id, b"", at))
            for id, at in [("later", now + LATER), ("b", 2), ("a", 1), ("paused", None), ("c", 3)]
        ]
        due = await store.due_schedules(limit=2)
        assert [row.id for row in due.rows] == ["a", "b"]
        assert list(due.rows) == [rows[2], rows[1]]
        assert due.next_at == now + LATER
        assert due.now >= now
        moved = await save(store, replace(rows[2], next_at=now + LATER))
        assert [row.id for row in (await store.due_schedules(limit=9)).rows] == ["b", "c"]
        await save(store, replace(moved, next_at=(await store.live()).at + SOON))
        await self.pass_time(store, 2 * SOON)
        assert [row.id for row in (await store.due_schedules(limit=9)).rows] == ["b", "c", "a"]
