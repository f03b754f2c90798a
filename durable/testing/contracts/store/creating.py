"""Creating executions: what is stored, when it is ready, and whose key it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from durable.models import ExecutionStatus
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    Claimed,
    Close,
    Created,
    Diverged,
    Doorbell,
    DurableStore,
    Exists,
    NotClaimed,
    Query,
    State,
    keyed_id,
)
from durable.testing.contracts.store.acts import (
    LATER,
    SOON,
    WORKER,
    Situation,
    bring,
    cancel,
    complete,
    create,
    due,
    everything,
    gist,
    ids,
    new,
    own,
    post,
    record,
    reopen,
    row,
    situations,
    snapshot,
    tick,
)
from durable.testing.contracts.store.suite import StoreSuite

OPEN = situations(Situation.MISSING, Situation.CLOSED)


class Creating(StoreSuite):
    async def test_a_new_execution_is_ready_and_pending(self, store: DurableStore) -> None:
        before = (await store.live()).at
        created = await row(store, await create(store))
        assert (created.state, created.status) == (State.READY, ExecutionStatus.PENDING)
        assert (created.attempt, created.generation, created.ver, created.op_id) == (1, 0, 0, "")
        assert (created.nonce, created.crashes, created.inbox_seq) == (None, 0, 0)
        assert (created.started_at, created.finished_at, created.deadline_at) == (None, None, None)
        assert (created.result, created.error, created.code) == (None, None, None)
        assert before <= created.created_at <= (await store.live()).at
        assert created.available_at == created.created_at

    async def test_every_field_comes_back_as_it_was_given(self, store: DurableStore) -> None:
        spec = new(
            id=keyed_id("order/fulfil", "order:42"),
            workflow="order/fulfil",
            version="2024-01.b",
            input=b"\x00\xff",
            queue="fulfilment",
            priority=-7,
            key="order:42",
            tags={"tenant": "ä", "empty": ""},
            options=b"\xfe",
            parent_id=ids.execution_id(),
        )
        assert isinstance(await store.create(spec, op_id=ids.nonce()), Created)
        stored = await row(store, spec.id)
        assert (stored.workflow, stored.version, stored.input) == (spec.workflow, spec.version, spec.input)
        assert (stored.queue, stored.priority, stored.key) == (spec.queue, spec.priority, spec.key)
        assert (stored.tags, stored.options, stored.parent_id) == (spec.tags, spec.options, spec.parent_id)

    async def test_there_is_no_execution_that_was_not_created(self, store: DurableStore) -> None:
        await create(store)
        assert await store.get(ids.execution_id()) is None

    # -- when it is ready

    async def test_created_carries_the_doorbell_of_what_can_be_claimed(self, store: DurableStore) -> None:
        spec = new(queue="mail", priority=3)
        answer = await store.create(spec, op_id=ids.nonce())
        assert isinstance(answer, Created)
        assert answer.doorbell == Doorbell(spec.id, "order", "1", "mail", 3)
        assert answer.doorbell is not None
        assert answer.doorbell.ready_at == answer.available_at
        assert answer.available_at == (await row(store, spec.id)).available_at

    @pytest.mark.parametrize("given", ["delay_ms", "at_ms", "both"])
    async def test_a_delayed_execution_has_no_doorbell_and_cannot_be_claimed(
        self, store: DurableStore, given: str
    ) -> None:
        now = (await store.live()).at
        spec = new(
            delay_ms=0 if given == "at_ms" else LATER,
            at_ms=None if given == "delay_ms" else now + (LATER if given == "at_ms" else SOON),
        )
        answer = await store.create(spec, op_id=ids.nonce())
        assert isinstance(answer, Created)
        assert answer.doorbell is None
        stored = await row(store, spec.id)
        since = now if given == "at_ms" else stored.created_at
        assert stored.available_at == answer.available_at == since + LATER
        refused = await store.claim(spec.id, nonce=ids.nonce(), worker=WORKER)
        assert refused == NotClaimed(State.READY)
        assert await due(store) == []

    @pytest.mark.parametrize("given", ["delay_ms", "at_ms"])
    async def test_a_delayed_execution_can_be_claimed_from_its_instant_on(
        self, store: DurableStore, given: str
    ) -> None:
        at = (await store.live()).at + SOON
        created = await create(
            store, delay_ms=SOON if given == "delay_ms" else 0, at_ms=at if given == "at_ms" else None
        )
        await self.pass_time(store, SOON)
        assert [bell.id for bell in await due(store)] == [created]
        answer = await store.claim(created, nonce=ids.nonce(), worker=WORKER)
        assert isinstance(answer, Claimed)
        assert answer.now >= answer.row.available_at

    async def test_an_instant_that_has_passed_is_now(self, store: DurableStore) -> None:
        answer = await store.create(new(at_ms=1), op_id=ids.nonce())
        assert isinstance(answer, Created)
        assert answer.doorbell is not None
        assert isinstance(await store.claim(answer.id, nonce=ids.nonce(), worker=WORKER), Claimed)

    async def test_a_delayed_execution_tells_the_ticker_when_it_will_be_ready(
        self, store: DurableStore
    ) -> None:
        later = await row(store, await create(store, delay_ms=LATER))
        assert (await tick(store)).next_at == later.available_at
        sooner = await row(store, await create(store, delay_ms=LATER // 2))
        assert (await tick(store)).next_at == sooner.available_at

    async def test_a_timeout_counts_from_the_creation_of_a_delayed_one_too(self, store: DurableStore) -> None:
        created = await row(store, await create(store, timeout_ms=LATER, delay_ms=5))
        assert created.deadline_at == created.created_at + LATER

    # -- what it begins with

    async def test_it_begins_with_the_history_and_the_values_that_it_is_given(
        self, store: DurableStore
    ) -> None:
        given = [
            Checkpoint("b", "step", "charge", CheckpointStatus.COMPLETED, b"\x00\xff", 3, 1, 2),
            Checkpoint("a", "sleep", "", CheckpointStatus.CANCELLED, b"", 1, 5, 7),
            Checkpoint("__f", "step", "pay", CheckpointStatus.FAILED, b"{}", 2, 5, 9),
        ]
        spec = new(history=given, values={"progress": b"0.4", "empty": b""})
        op_id = ids.nonce()
        created = await store.create(spec, op_id=op_id)
        assert isinstance(created, Created)
        numbered = [replace(each, seq=seq) for seq, each in enumerate(given, start=1)]
        assert list(await store.history(spec.id)) == numbered
        assert await store.value(spec.id, "progress") == b"0.4"
        assert await store.value(spec.id, "empty") == b""
        assert (await row(store, spec.id)).ver == 0
        before = await snapshot(store)
        assert gist(await store.create(spec, op_id=op_id)) == gist(created)
        assert await store.create(spec, op_id=ids.nonce()) == Exists(spec.id, same_input=True)
        assert await snapshot(store) == before
        claimed = await store.claim(spec.id, nonce=ids.nonce(), worker=WORKER)
        assert isinstance(claimed, Claimed)
        assert list(claimed.history or ()) == numbered

    async def test_what_follows_a_given_history_is_written_behind_it(self, store: DurableStore) -> None:
        spec = new(history=[record("a"), record("b")])
        await store.create(spec, op_id=ids.nonce())
        owner = await own(store, spec.id)
        assert await owner.send(owner.batch(checkpoints=[record("a", b"again")])) == Diverged()
        await owner.commit(checkpoints=[record("c")])
        await owner.commit(drop=["a"], checkpoints=[record("a", b"again")])
        history = await store.history(spec.id)
        assert [stored.step_id for stored in history] == ["b", "c", "a"]
        assert [stored.seq for stored in history] == sorted({stored.seq for stored in history})
        await store.check()

    async def test_a_long_history_is_given_whole(self, store: DurableStore) -> None:
        spec = new(history=[record(f"s{number}", b"%d" % number) for number in range(1500)])
        await store.create(spec, op_id=ids.nonce())
        claimed = await store.claim(spec.id, nonce=ids.nonce(), worker=WORKER)
        assert isinstance(claimed, Claimed)
        assert [stored.data for stored in claimed.history or ()] == [b"%d" % number for number in range(1500)]

    # -- whose id it is

    @pytest.mark.parametrize("situation", situations(Situation.MISSING))
    async def test_a_taken_id_is_refused_and_keeps_what_it_has(
        self, store: DurableStore, situation: Situation
    ) -> None:
        taken = await bring(store, situation, input=b"first")
        before = await snapshot(store)
        second = new(id=taken.id, input=b"second", workflow="other")
        assert await store.create(second, op_id=ids.nonce()) == Exists(taken.id, same_input=False)
        assert await snapshot(store) == before

    async def test_a_taken_id_is_refused_with_a_key_that_is_free(self, store: DurableStore) -> None:
        taken = await create(store, id=keyed_id("order", "free"))
        before = await snapshot(store)
        assert isinstance(await store.create(new(id=taken, key="free"), op_id=ids.nonce()), Exists)
        assert await snapshot(store) == before
        assert await create(store, key="free") != taken

    # -- whose key it is

    @pytest.mark.parametrize("same_input", [True, False], ids=["same input", "other input"])
    @pytest.mark.parametrize("situation", situations(Situation.MISSING))
    async def test_a_taken_key_answers_with_its_execution(
        self, store: DurableStore, situation: Situation, same_input: bool
    ) -> None:
        first = await bring(store, situation, key="k", input=b"1")
        before = await snapshot(store)
        second = new(key="k", input=b"1" if same_input else b"2")
        assert await store.create(second, op_id=ids.nonce()) == Exists(first.id, same_input)
        assert await snapshot(store) == before

    @pytest.mark.parametrize("situation", OPEN)
    async def test_a_key_in_use_is_not_reused(self, store: DurableStore, situation: Situation) -> None:
        first = await bring(store, situation, key="k")
        answer = await store.create(new(key="k", reuse_closed_key=True), op_id=ids.nonce())
        assert answer == Exists(first.id, same_input=True)

    async def test_the_key_of_a_closed_execution_can_be_reused_and_the_old_one_stays(
        self, store: DurableStore
    ) -> None:
        old = await row(store, await complete(store, key="k", input=b"old"))
        young = await create(store, key="k", input=b"new", reuse_closed_key=True)
        assert young != old.id
        assert await store.get(old.id) == old
        again = new(key="k", input=b"new")
        assert await store.create(again, op_id=ids.nonce()) == Exists(young, same_input=True)
        again = new(key="k", input=b"old", reuse_closed_key=True)
        assert await store.create(again, op_id=ids.nonce()) == Exists(young, same_input=False)

    async def test_the_key_of_one_that_was_cancelled_before_it_began_can_be_reused(
        self, store: DurableStore
    ) -> None:
        await post(store, await create(store, key="k"), cancel())
        await create(store, key="k", reuse_closed_key=True)

    async def test_a_reused_key_can_be_reused_again(self, store: DurableStore) -> None:
        for _ in range(3):
            await complete(store, key="k", reuse_closed_key=True)
        assert len(await everything(store)) == 3

    @pytest.mark.parametrize("is_pruned", [False, True], ids=["", "after the other was deleted"])
    async def test_one_that_is_opened_again_leaves_its_key_to_who_has_it(
        self, store: DurableStore, is_pruned: bool
    ) -> None:
        old = await complete(store, key="k")
        young = await bring(store, Situation.CLOSED, key="k", reuse_closed_key=True)
        await post(store, old, reopen())
        if is_pruned:
            assert await store.prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=9) == 1
            await create(store, key="k")
        else:
            assert await store.create(new(key="k"), op_id=ids.nonce()) == Exists(young.id, same_input=True)

    async def test_one_key_for_two_workflows_is_two_executions(self, store: DurableStore) -> None:
        assert await create(store, key="k") != await create(store, key="k", workflow="invoice")

    async def test_one_key_for_two_versions_of_a_workflow_is_one_execution(self, store: DurableStore) -> None:
        first = await create(store, key="k", version="1")
        answer = await store.create(new(key="k", version="2"), op_id=ids.nonce())
        assert answer == Exists(first, same_input=True)

    async def test_executions_without_a_key_are_all_different(self, store: DurableStore) -> None:
        created = {await create(store) for _ in range(5)}
        assert len(created) == len((await store.query(Query())).rows) == 5

    async def test_keys_are_equal_only_to_the_letter(self, store: DurableStore) -> None:
        keys = ["k", "K", " k", "k ", "é", "e\u0301", "1", "01", "1.0", "k\u200b"]
        assert len({await create(store, key=key) for key in keys}) == len(keys)

    async def test_the_same_operation_again_creates_nothing_even_when_the_key_could_be_reused(
        self, store: DurableStore
    ) -> None:
        spec, op_id = new(key="k", reuse_closed_key=True), ids.nonce()
        assert isinstance(await store.create(spec, op_id=op_id), Created)
        await (await own(store, spec.id)).commit(Close(ExecutionStatus.COMPLETED))
        before = await snapshot(store)
        again = await store.create(spec, op_id=op_id)
        assert isinstance(again, Created)
        assert again.id == spec.id
        assert await snapshot(store) == before

    async def test_an_operation_that_is_late_does_not_take_the_key_back(self, store: DurableStore) -> None:
        spec, op_id = new(key="k"), ids.nonce()
        assert isinstance(await store.create(spec, op_id=op_id), Created)
        await (await own(store, spec.id)).commit(Close(ExecutionStatus.COMPLETED))
        young = await create(store, key="k", reuse_closed_key=True)
        again = await store.create(spec, op_id=op_id)
        assert isinstance(again, Created)
        assert again.id == spec.id
        assert await store.create(new(key="k"), op_id=ids.nonce()) == Exists(young, same_input=True)
