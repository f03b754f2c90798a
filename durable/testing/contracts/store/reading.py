"""Reading: pages of executions, counts, and that what is read shares nothing with the store."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import cast

import pytest

from durable.models import ExecutionStatus
from durable.protocols import DurableStore, Query
from durable.testing.contracts.store.acts import (
    LATER,
    SOON,
    Situation,
    bring,
    cancel,
    complete,
    create,
    everything,
    ids,
    own,
    post,
    record,
    row,
    signal,
    snapshot,
)
from durable.testing.contracts.store.suite import StoreSuite


async def found(store: DurableStore, query: Query) -> list[str]:
    """The ids on every page of a query."""
    page = await store.query(query)
    result = [each.id for each in page.rows]
    while page.cursor is not None:
        assert len(page.rows) <= query.limit
        page = await store.query(replace(query, cursor=page.cursor))
        result += [each.id for each in page.rows]
    return result


class Reading(StoreSuite):
    # -- filters

    async def test_an_empty_query_finds_everything_newest_first(self, store: DurableStore) -> None:
        created: list[str] = []
        for _ in range(5):
            created.append(await create(store))
            await self.pass_time(store, 1)
        assert await found(store, Query()) == created[::-1]

    async def test_a_query_of_an_empty_store_finds_nothing(self, store: DurableStore) -> None:
        page = await store.query(Query())
        assert (list(page.rows), page.cursor) == ([], None)

    async def test_a_query_returns_rows_as_get_does(self, store: DurableStore) -> None:
        execution = await complete(store, tags={"a": "b"}, key="k", timeout_ms=SOON)
        assert list((await store.query(Query())).rows) == [await row(store, execution)]

    async def test_a_query_by_status(self, store: DurableStore) -> None:
        pending, parked = await create(store), (await bring(store, Situation.PARKED)).id
        completed = await complete(store)
        cancelled = await create(store)
        await post(store, cancelled, cancel())
        running = (await own(store)).id
        for status, expected in {
            ExecutionStatus.PENDING: [pending],
            ExecutionStatus.WAITING: [parked],
            ExecutionStatus.COMPLETED: [completed],
            ExecutionStatus.CANCELLED: [cancelled],
            ExecutionStatus.RUNNING: [running],
            ExecutionStatus.FAILED: [],
        }.items():
            assert await found(store, Query(status=[status])) == expected
        several = Query(status=[ExecutionStatus.COMPLETED, ExecutionStatus.PENDING])
        assert set(await found(store, several)) == {pending, completed}

    async def test_a_query_by_workflow(self, store: DurableStore) -> None:
        order, invoice = await create(store), await create(store, workflow="invoice", version="7")
        assert await found(store, Query(workflow="order")) == [order]
        assert await found(store, Query(workflow="invoice")) == [invoice]
        assert await found(store, Query(workflow="Order")) == []

    async def test_a_query_by_tags_finds_what_has_all_of_them(self, store: DurableStore) -> None:
        both = await create(store, tags={"a": "1", "b": "2"})
        one = await create(store, tags={"a": "1"})
        await create(store, tags={"a": "2", "b": "1"})
        await create(store)
        assert set(await found(store, Query(tags={"a": "1"}))) == {both, one}
        assert await found(store, Query(tags={"a": "1", "b": "2"})) == [both]
        assert await found(store, Query(tags={"a": "1", "c": ""})) == []

    async def test_a_query_by_instants_of_creation(self, store: DurableStore) -> None:
        created: list[str] = []
        between: list[int] = []
        for _ in range(3):
            created.append(await create(store))
            await self.pass_time(store, 2)
            between.append((await store.live()).at - 1)
            await self.pass_time(store, 2)
        assert await found(store, Query(since=between[0])) == [created[2], created[1]]
        assert await found(store, Query(until=between[0])) == [created[0]]
        assert await found(store, Query(since=between[0], until=between[1])) == [created[1]]
        assert await found(store, Query(since=between[2])) == []

    async def test_a_query_by_the_beginning_of_an_id(self, store: DurableStore) -> None:
        names = ["run_1", "run_2", "runs", "RUN_1", "run-1", "run[a]", "runa", "run/x", "other.run_1"]
        for name in names:
            await create(store, id=name)
        for prefix in ["run_", "run", "run[a]", "run[", "RUN", "run_1", "r", "", "run_10", "n_1", "run/"]:
            expected = {name for name in names if name.startswith(prefix)}
            assert set(await found(store, Query(id_prefix=prefix))) == expected, prefix

    async def test_a_query_by_parent(self, store: DurableStore) -> None:
        parent = await create(store)
        children = {await create(store, parent_id=parent) for _ in range(3)}
        await create(store, parent_id=ids.execution_id())
        assert set(await found(store, Query(parent_id=parent))) == children

    async def test_all_filters_of_a_query_hold_together(self, store: DurableStore) -> None:
        parent = await create(store)
        wanted = await complete(store, id="a1", tags={"t": "1"}, parent_id=parent)
        await complete(store, id="b1", tags={"t": "1"}, parent_id=parent)
        await complete(store, id="a2", tags={"t": "2"}, parent_id=parent)
        await complete(store, id="a3", tags={"t": "1"})
        await create(store, id="a4", tags={"t": "1"}, parent_id=parent)
        await complete(store, id="a5", tags={"t": "1"}, parent_id=parent, workflow="invoice")
        now = (await store.live()).at
        query = Query(
            [ExecutionStatus.COMPLETED], "order", {"t": "1"}, now - 60_000, now + 60_000, "a", parent, 1
        )
        assert await found(store, query) == [wanted]

    # -- pages

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
    async def test_pages_hold_each_execution_once(self, store: DurableStore, limit: int) -> None:
        created = [await create(store) for _ in range(7)]
        assert len((await store.query(Query(limit=limit))).rows) == min(limit, 7)
        assert sorted(await found(store, Query(limit=limit))) == sorted(created)

    async def test_pages_of_a_filtered_query_hold_each_match_once(self, store: DurableStore) -> None:
        matches: list[str] = []
        for number in range(12):
            created = await create(store, tags={"odd": str(number % 2)})
            matches += [created] if number % 2 else []
            await self.pass_time(store, number % 3)
        query = Query(tags={"odd": "1"}, limit=2)
        assert sorted(await found(store, query)) == sorted(matches)

    async def test_a_page_is_not_moved_by_what_is_created_meanwhile(self, store: DurableStore) -> None:
        created = [await create(store) for _ in range(6)]
        await self.pass_time(store, 1)
        page = await store.query(Query(limit=2))
        seen = [each.id for each in page.rows]
        while page.cursor is not None:
            await self.pass_time(store, 1)
            await create(store)
            page = await store.query(Query(limit=2, cursor=page.cursor))
            seen += [each.id for each in page.rows]
        assert sorted(seen) == sorted(created)

    async def test_a_page_is_not_moved_by_what_is_deleted_meanwhile(self, store: DurableStore) -> None:
        for _ in range(3):
            await complete(store)
            await self.pass_time(store, 1)
        stays = [await create(store) for _ in range(2)]
        page = await store.query(Query(limit=3))
        await store.prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=100)
        assert {each.id for each in page.rows} > set(stays)
        if page.cursor is not None:
            assert list((await store.query(Query(limit=3, cursor=page.cursor))).rows) == []

    # -- counts

    async def test_counts_follow_every_transition(self, store: DurableStore) -> None:
        async def counted() -> dict[ExecutionStatus, int]:
            return {status: number for status, number in (await store.counts()).items() if number}

        assert await counted() == {}
        for situation in Situation:
            await bring(store, situation)
        rows = await everything(store)
        expected = dict.fromkeys(ExecutionStatus, 0)
        for each in rows:
            expected[each.status] += 1
        assert await counted() == {status: number for status, number in expected.items() if number}
        assert sum((await counted()).values()) == len(rows) == len(Situation) - 1

    # -- copies

    async def test_what_was_handed_in_can_be_changed_afterwards(self, store: DurableStore) -> None:
        tags, values = {"a": "b"}, {"v": b"1"}
        owner = await own(store, await create(store, tags=tags))
        history = [record("a")]
        await owner.commit(checkpoints=history, values=values)
        tags["a"], values["v"] = "changed", b"changed"
        history.clear()
        assert (await row(store, owner.id)).tags == {"a": "b"}
        assert await store.value(owner.id, "v") == b"1"
        assert len(await store.history(owner.id)) == 1

    async def test_what_was_read_can_be_changed_without_effect(self, store: DurableStore) -> None:
        owner = await own(store, await create(store, tags={"a": "b"}))
        await owner.commit(checkpoints=[record("a")])
        await signal(store, owner.id)
        await asyncio.to_thread(store.beat, "w", ttl_ms=LATER)
        before = deepcopy(await snapshot(store))
        page = await store.query(Query())
        reads: list[object] = [
            await store.history(owner.id),
            await store.inbox(owner.id),
            (await store.peek({owner.id: 0}))[owner.id],
            page.rows,
            (await row(store, owner.id)).tags,
            page.rows[0].tags,
            await store.counts(),
            (await store.live()).workers,
        ]
        for read in reads:
            with suppress(AttributeError, TypeError):  # an immutable one is just as good
                cast("list[object]", read).clear()
        assert await snapshot(store) == before
        assert "w" in (await store.live()).workers

    async def test_reads_of_nobody_are_empty(self, store: DurableStore) -> None:
        missing = ids.execution_id()
        assert await store.get(missing) is None
        assert list(await store.history(missing)) == []
        assert list(await store.inbox(missing)) == []
        assert await store.value(missing, "v") is None
        assert await store.event(missing, missing) is None
