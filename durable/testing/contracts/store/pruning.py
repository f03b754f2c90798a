"""Pruning: closed executions go with all that is theirs, and nothing else goes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from durable.models import ExecutionStatus
from durable.protocols import Close, DurableStore, Exists, NotPosted, Park, Watch
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
    message,
    new,
    own,
    post,
    record,
    reopen,
    row,
    signal,
    situations,
    snapshot,
    tick,
    timer,
)
from durable.testing.contracts.store.suite import StoreSuite

ALWAYS = 2**53
ENDS = [status for status in ExecutionStatus if status.final]


async def prune(
    store: DurableStore, *, before: int = ALWAYS, status: Sequence[ExecutionStatus] = ENDS, limit: int = 100
) -> int:
    return await store.prune(before=before, status=status, limit=limit)


class Pruning(StoreSuite):
    async def test_all_that_belongs_to_a_closed_execution_goes(self, store: DurableStore) -> None:
        owner = await own(store, await create(store, key="k", tags={"a": "b"}, timeout_ms=LATER))
        target = await create(store)
        await post(store, owner.id, message(id="m"))
        await owner.commit(
            Close(ExecutionStatus.COMPLETED),
            checkpoints=[record("a"), timer("nap", owner.now + LATER)],
            values={"v": b"1"},
            out=[Watch(target, "join")],
        )
        assert await prune(store) == 1
        assert await store.get(owner.id) is None
        assert list(await store.history(owner.id)) == []
        assert list(await store.inbox(owner.id)) == []
        assert await store.value(owner.id, "v") is None
        assert [each.id for each in await everything(store)] == [target]
        assert await store.post(owner.id, message(id="m")) == NotPosted(None)
        assert (await tick(store)).next_at is None
        await (await own(store, target)).commit(Close(ExecutionStatus.COMPLETED))

    async def test_a_pruned_key_is_free(self, store: DurableStore) -> None:
        old = await complete(store, key="k")
        await prune(store)
        assert await create(store, key="k") != old

    async def test_a_pruned_id_is_free_and_begins_with_nothing(self, store: DurableStore) -> None:
        owner, target = await own(store, await create(store, id="x")), await own(store)
        await post(store, owner.id, message(id="m"))
        await owner.commit(
            Close(ExecutionStatus.FAILED),
            checkpoints=[record("a")],
            values={"v": b"1"},
            out=[Watch(target.id, "join")],
        )
        await prune(store)
        await create(store, id="x")
        again = await own(store, "x")
        assert (again.ver, list(again.inbox), list(await store.history("x"))) == (0, [], [])
        assert await store.value("x", "v") is None
        await target.commit(Close(ExecutionStatus.COMPLETED))
        assert (await post(store, "x", message(id="m"))).seq == 1

    async def test_a_key_in_use_again_outlives_its_old_execution(self, store: DurableStore) -> None:
        await complete(store, key="k")
        young = await create(store, key="k", reuse_closed_key=True)
        assert await prune(store) == 1
        assert await store.create(new(key="k"), op_id=ids.nonce()) == Exists(young, same_input=True)

    @pytest.mark.parametrize("situation", situations(Situation.MISSING, Situation.CLOSED))
    async def test_what_is_open_stays(self, store: DurableStore, situation: Situation) -> None:
        await bring(store, situation, key="k")
        before = await snapshot(store)
        assert await prune(store, status=list(ExecutionStatus)) == 0
        assert await snapshot(store) == before

    async def test_what_was_opened_again_stays(self, store: DurableStore) -> None:
        execution = await complete(store)
        await post(store, execution, reopen())
        assert await prune(store, status=list(ExecutionStatus)) == 0
        await (await own(store, execution)).commit(Close(ExecutionStatus.COMPLETED))
        assert await prune(store) == 1

    async def test_what_closed_later_stays(self, store: DurableStore) -> None:
        old = await row(store, await complete(store))
        await self.pass_time(store, SOON)
        young = await row(store, await complete(store))
        assert old.finished_at is not None
        assert young.finished_at is not None
        assert await prune(store, before=old.finished_at) == 0
        assert await prune(store, before=young.finished_at) == 1
        assert [each.id for each in await everything(store)] == [young.id]

    @pytest.mark.parametrize("status", ENDS)
    async def test_only_the_named_statuses_go(self, store: DurableStore, status: ExecutionStatus) -> None:
        for end in ENDS:
            await (await own(store)).commit(Close(end))
        assert await prune(store, status=[status]) == 1
        assert {each.status for each in await everything(store)} == set(ENDS) - {status}

    async def test_what_was_cancelled_before_it_began_goes(self, store: DurableStore) -> None:
        await post(store, await create(store, key="k"), cancel())
        assert await prune(store, status=[ExecutionStatus.CANCELLED]) == 1
        await create(store, key="k")

    async def test_no_more_than_the_limit_go_at_a_time(self, store: DurableStore) -> None:
        for _ in range(7):
            await complete(store)
        assert [await prune(store, limit=3) for _ in range(4)] == [3, 3, 1, 0]

    async def test_a_watcher_keeps_what_it_was_told(self, store: DurableStore) -> None:
        child, parent = await own(store), await own(store)
        await parent.commit(Park(ExecutionStatus.WAITING), out=[Watch(child.id, "join")])
        await child.commit(Close(ExecutionStatus.COMPLETED, b"42"))
        await prune(store)
        assert [entry.name for entry in (await own(store, parent.id)).inbox] == ["join"]
        await signal(store, parent.id)
