"""Committing: who may, on top of what, and that a batch is written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from durable.models import ExecutionStatus
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    Close,
    Committed,
    Diverged,
    DurableStore,
    Emit,
    Fenced,
    Full,
    Park,
    Post,
    Ready,
    Start,
    Watch,
)
from durable.testing.contracts.store.acts import (
    LATER,
    NEXTS,
    SOON,
    Owner,
    Situation,
    bring,
    create,
    ids,
    message,
    new,
    own,
    post,
    record,
    row,
    signal,
    situations,
    snapshot,
    tick,
    timer,
)
from durable.testing.contracts.store.suite import StoreSuite

FINAL = [status for status in CheckpointStatus if status.final]
NOT_FINAL = [status for status in CheckpointStatus if not status.final]


async def assert_refused(
    store: DurableStore, owner: Owner, answer: object, checkpoints: Sequence[Checkpoint] = ()
) -> None:
    """Send batches that touch all there is, each of them twice, and find no trace of them."""
    other, child = await bring(store, Situation.PARKED), new()
    before, next_at = await snapshot(store), (await tick(store)).next_at
    for next in NEXTS.values():
        batch = owner.batch(
            next,
            checkpoints=[record("refused"), timer("refused nap", SOON), *checkpoints],
            consume=[(1, "refused")],
            out=[
                Start(child),
                Post(other.id, message()),
                Watch(other.id, "refused"),
                Emit(child.id, "refused", b""),
            ],
            values={"refused": b""},
        )
        op_id = ids.nonce()
        assert await owner.send(batch, op_id=op_id) == answer
        assert await owner.send(batch, op_id=op_id) == answer
    assert await snapshot(store) == before
    assert await store.event("refused", child.id) is None
    assert await store.value(owner.id, "refused") is None
    assert (await tick(store)).next_at == next_at
    await post(store, other.id, message())
    await (await own(store, other.id)).commit(Close(ExecutionStatus.COMPLETED))
    assert "refused" not in {entry.name for entry in await store.inbox(owner.id)}


class Committing(StoreSuite):
    # -- the fence

    @pytest.mark.parametrize("situation", situations(Situation.OWNED))
    async def test_who_does_not_own_it_is_fenced_and_nothing_is_written(
        self, store: DurableStore, situation: Situation
    ) -> None:
        await assert_refused(store, await bring(store, situation), Fenced())

    async def test_who_has_a_successor_is_fenced_even_on_the_right_version(self, store: DurableStore) -> None:
        stale = await bring(store, Situation.RELEASED)
        owner = await own(store, stale.id)
        await signal(store, owner.id)
        assert owner.ver == stale.ver
        await assert_refused(store, stale, Fenced())
        await owner.commit(checkpoints=[record("a")])

    async def test_a_stranger_is_fenced_on_any_version(self, store: DurableStore) -> None:
        stranger = replace(await own(store), nonce=ids.nonce())
        await assert_refused(store, stranger, Fenced())
        await assert_refused(store, replace(stranger, ver=7), Fenced())

    async def test_a_dead_owner_that_nobody_missed_yet_may_still_commit(self, store: DurableStore) -> None:
        owner = await own(store)
        await self.pass_time(store, SOON)
        live = await store.live()
        assert not live.workers
        await owner.commit(checkpoints=[record("a")])
        await tick(store, live=live)
        await assert_refused(store, owner, Fenced())

    # -- the version

    @pytest.mark.parametrize("off", [-1, 1], ids=["too low", "too high"])
    async def test_another_version_diverges_and_nothing_is_written(
        self, store: DurableStore, off: int
    ) -> None:
        owner = await own(store)
        await signal(store, owner.id)
        await owner.commit(checkpoints=[record("a")])
        await assert_refused(store, replace(owner, ver=owner.ver + off), Diverged())
        await owner.commit(checkpoints=[record("b")])

    async def test_each_accepted_commit_is_one_version(self, store: DurableStore) -> None:
        owner = await own(store)
        for number in range(1, 4):
            assert (await owner.commit(op_id=f"op {number}")).ver == number
            stored = await row(store, owner.id)
            assert (stored.ver, stored.op_id) == (number, f"op {number}")

    async def test_messages_do_not_change_the_version(self, store: DurableStore) -> None:
        owner = await own(store)
        await signal(store, owner.id)
        await owner.commit()
        await signal(store, owner.id)
        await owner.commit()

    # -- records

    @pytest.mark.parametrize("data", [b"first", b"second"], ids=["same bytes", "other bytes"])
    @pytest.mark.parametrize("status", FINAL)
    async def test_a_final_record_never_changes_and_the_rest_of_the_batch_is_not_written(
        self, store: DurableStore, status: CheckpointStatus, data: bytes
    ) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[record("a", b"first", status)])
        await assert_refused(store, owner, Diverged(), [record("a", data, status)])
        await owner.commit(checkpoints=[record("b")])

    @pytest.mark.parametrize("status", NOT_FINAL)
    async def test_a_final_record_is_not_opened_again(
        self, store: DurableStore, status: CheckpointStatus
    ) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[record("a")])
        await assert_refused(store, owner, Diverged(), [record("a", status=status, wake_at=SOON)])

    @pytest.mark.parametrize("second", list(CheckpointStatus))
    @pytest.mark.parametrize("first", NOT_FINAL)
    async def test_a_record_that_is_not_final_is_replaced(
        self, store: DurableStore, first: CheckpointStatus, second: CheckpointStatus
    ) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[record("a", b"1", first)])
        await owner.commit(checkpoints=[record("a", b"2", second)])
        [stored] = await store.history(owner.id)
        assert (stored.status, stored.data) == (second, b"2")

    async def test_a_record_comes_back_as_it_was_given(self, store: DurableStore) -> None:
        owner = await own(store)
        given = [
            Checkpoint("a", "step", "charge", CheckpointStatus.RETRYING, b"\xff", 3, 5, 7, owner.now + LATER),
            Checkpoint("b", "sleep", "", CheckpointStatus.COMPLETED),
        ]
        await owner.commit(checkpoints=given)
        assert [replace(stored, seq=0) for stored in await store.history(owner.id)] == given

    async def test_history_is_in_the_order_of_commits_and_a_replaced_record_moves_to_the_end(
        self, store: DurableStore
    ) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[record("c"), timer("b", None)])
        await owner.commit(checkpoints=[record("a")])
        first = await store.history(owner.id)
        assert [(stored.seq, stored.step_id) for stored in first] == [(1, "c"), (2, "b"), (3, "a")]
        await owner.commit(checkpoints=[record("b")])
        second = await store.history(owner.id)
        assert [stored.step_id for stored in second] == ["c", "a", "b"]
        assert [stored.seq for stored in second] == sorted({stored.seq for stored in second})

    async def test_a_dropped_record_is_forgotten_and_can_be_written_again(self, store: DurableStore) -> None:
        owner = await own(store)
        failed = record("a", b"boom", CheckpointStatus.FAILED)
        await owner.commit(checkpoints=[failed, record("b")])
        await owner.commit(drop=["a"])
        assert [stored.step_id for stored in await store.history(owner.id)] == ["b"]
        await owner.commit(checkpoints=[record("a", b"fine")])
        assert [stored.data for stored in await store.history(owner.id)] == [b"", b"fine"]

    async def test_a_record_is_dropped_and_written_in_one_batch(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[record("a", b"wrong"), record("b")])
        await owner.commit(drop=["a"], checkpoints=[record("a", b"amended")])
        history = await store.history(owner.id)
        assert [(stored.step_id, stored.data) for stored in history] == [("b", b""), ("a", b"amended")]
        await assert_refused(store, owner, Diverged(), [record("a", b"again")])

    async def test_dropping_what_is_not_there_drops_nothing(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[record("a")])
        await owner.commit(drop=["b"])
        assert [stored.step_id for stored in await store.history(owner.id)] == ["a"]

    async def test_two_executions_have_a_record_of_one_name_each(self, store: DurableStore) -> None:
        one, two = await own(store), await own(store)
        await one.commit(checkpoints=[record("a", b"1")])
        await two.commit(checkpoints=[record("a", b"2")])
        assert [stored.data for stored in await store.history(one.id)] == [b"1"]
        assert [stored.data for stored in await store.history(two.id)] == [b"2"]

    # -- values

    async def test_a_value_is_readable_and_replaced_by_the_next_one(self, store: DurableStore) -> None:
        owner = await own(store)
        assert await store.value(owner.id, "progress") is None
        await owner.commit(values={"progress": b"0.4", "empty": b""})
        await owner.commit(values={"progress": b"0.8"})
        assert await store.value(owner.id, "progress") == b"0.8"
        assert await store.value(owner.id, "empty") == b""
        await owner.commit(Close(ExecutionStatus.COMPLETED))
        assert await store.value(owner.id, "progress") == b"0.8"

    async def test_a_value_belongs_to_one_execution(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(values={"progress": b"0.4"})
        assert await store.value(await create(store), "progress") is None
        assert await store.value(ids.execution_id(), "progress") is None

    # -- the inbox

    @pytest.mark.parametrize("seen", [0, 1, 2, 3])
    async def test_a_commit_returns_the_unread_messages_after_what_was_seen(
        self, store: DurableStore, seen: int
    ) -> None:
        owner = await own(store)
        for number in range(1, 4):
            await signal(store, owner.id, f"s{number}")
        answer = await owner.commit(seen=seen, consume=[(2, "a")])
        assert [entry.seq for entry in answer.inbox] == [seq for seq in (1, 3) if seq > seen]

    async def test_a_consumed_message_names_its_step_and_is_unread_no_longer(
        self, store: DurableStore
    ) -> None:
        owner = await own(store)
        await signal(store, owner.id, "a")
        await signal(store, owner.id, "b")
        await owner.commit(consume=[(1, "wait")])
        assert [entry.consumed_by for entry in await store.inbox(owner.id)] == ["wait", None]
        await owner.commit(Ready(0, ExecutionStatus.PENDING, attempt=1))
        assert [entry.name for entry in (await own(store, owner.id)).inbox] == ["b"]

    async def test_a_commit_on_the_last_version_says_the_time(self, store: DurableStore) -> None:
        owner = await own(store)
        before = (await store.live()).at
        await owner.commit(Park(ExecutionStatus.WAITING))
        assert before <= owner.now <= (await store.live()).at

    # -- limits

    @pytest.mark.parametrize("number", [1_000, 10_001])
    async def test_a_batch_of_any_length_is_stored_whole_or_refused_whole(
        self, store: DurableStore, number: int
    ) -> None:
        owner = await own(store)
        before = await snapshot(store)
        answer = await owner.send(
            owner.batch(checkpoints=[record(f"step {index}") for index in range(number)])
        )
        if isinstance(answer, Full):
            assert answer.size > answer.limit
            assert answer.what
            assert await snapshot(store) == before
            await owner.commit(checkpoints=[record("a")])
        else:
            assert isinstance(answer, Committed)
            assert len(await store.history(owner.id)) == number

    @pytest.mark.parametrize("size", [1 << 20, 1 << 24], ids=["1 MiB", "16 MiB"])
    async def test_a_payload_of_any_size_is_stored_whole_or_refused_whole(
        self, store: DurableStore, size: int
    ) -> None:
        owner = await own(store)
        before = await snapshot(store)
        answer = await owner.send(owner.batch(checkpoints=[record("a", bytes(size))]))
        if isinstance(answer, Full):
            assert answer.size > answer.limit
            assert await snapshot(store) == before
            await owner.commit(checkpoints=[record("a")])
        else:
            assert isinstance(answer, Committed)
            assert [stored.data for stored in await store.history(owner.id)] == [bytes(size)]
