"""The next state: what each commit leaves the execution as."""

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
    NotClaimed,
    Park,
    Ready,
    Run,
    State,
)
from durable.testing.contracts.store.acts import (
    LATER,
    SOON,
    WORKER,
    cancel,
    create,
    due,
    ids,
    message,
    own,
    post,
    record,
    reopen,
    row,
    signal,
    tick,
    timer,
)
from durable.testing.contracts.store.suite import StoreSuite

UNHURRIED = [Block(ExecutionStatus.PAUSED), Ready(2**53, ExecutionStatus.RETRYING, attempt=2)]
ENDS = [status for status in ExecutionStatus if status.final]


class NextStates(StoreSuite):
    @pytest.mark.parametrize(
        ("next", "state", "status"),
        [
            (Run(), State.OWNED, ExecutionStatus.RUNNING),
            (Park(ExecutionStatus.SLEEPING), State.PARKED, ExecutionStatus.SLEEPING),
            (Park(ExecutionStatus.WAITING), State.PARKED, ExecutionStatus.WAITING),
            (Block(ExecutionStatus.PAUSED), State.BLOCKED, ExecutionStatus.PAUSED),
            (Block(ExecutionStatus.PARKED), State.BLOCKED, ExecutionStatus.PARKED),
            (Ready(0, ExecutionStatus.PENDING, 1), State.READY, ExecutionStatus.PENDING),
            (Ready(2**53, ExecutionStatus.RETRYING, 2), State.READY, ExecutionStatus.RETRYING),
            *[(Close(status), State.CLOSED, status) for status in ENDS],
        ],
        ids=lambda value: str(value) if isinstance(value, str) else type(value).__name__,
    )
    async def test_a_commit_leaves_the_state_and_the_status_that_it_says(
        self, store: DurableStore, next: Next, state: State, status: ExecutionStatus
    ) -> None:
        owner = await own(store)
        answer = await owner.commit(next)
        assert answer.owned == (state is State.OWNED)
        stored = await row(store, owner.id)
        assert (stored.state, stored.status, stored.ver) == (state, status, 1)
        refused = await store.claim(owner.id, nonce=ids.nonce(), worker=WORKER)
        assert isinstance(refused, NotClaimed) == (next != Ready(0, ExecutionStatus.PENDING, 1))

    async def test_a_running_owner_keeps_its_claim(self, store: DurableStore) -> None:
        owner = await own(store)
        before = await row(store, owner.id)
        await owner.commit(Run())
        after = await row(store, owner.id)
        assert (after.nonce, after.worker, after.started_at) == (owner.nonce, WORKER, before.started_at)

    # -- Park

    async def test_a_park_holds_when_nothing_came(self, store: DurableStore) -> None:
        owner = await own(store)
        assert not (await owner.commit(Park(ExecutionStatus.WAITING))).owned
        assert await due(store) == []

    @pytest.mark.parametrize("number", [1, 3])
    async def test_a_park_does_not_hold_when_something_came_and_all_else_is_written(
        self, store: DurableStore, number: int
    ) -> None:
        owner = await own(store)
        names = [f"s{index}" for index in range(number)]
        for name in names:
            await signal(store, owner.id, name)
        answer = await owner.commit(
            Park(ExecutionStatus.WAITING),
            checkpoints=[record("a"), timer("nap", owner.now + LATER)],
            values={"v": b"1"},
        )
        assert answer.owned
        assert [entry.name for entry in answer.inbox] == names
        stored = await row(store, owner.id)
        assert (stored.state, stored.status, stored.ver) == (State.OWNED, ExecutionStatus.RUNNING, 1)
        assert [entry.step_id for entry in await store.history(owner.id)] == ["a", "nap"]
        assert await store.value(owner.id, "v") == b"1"
        assert not (await owner.commit(Park(ExecutionStatus.WAITING))).owned

    async def test_a_park_holds_beside_unread_messages_that_the_owner_has_seen(
        self, store: DurableStore
    ) -> None:
        owner = await own(store)
        await signal(store, owner.id, "not waited for")
        assert (await owner.commit(Park(ExecutionStatus.WAITING))).owned
        assert not (await owner.commit(Park(ExecutionStatus.WAITING))).owned
        await signal(store, owner.id, "waited for")
        assert [entry.name for entry in (await own(store, owner.id)).inbox] == [
            "not waited for",
            "waited for",
        ]

    async def test_a_park_with_a_message_that_the_claim_returned_holds(self, store: DurableStore) -> None:
        execution = await create(store)
        await signal(store, execution)
        assert not (await (await own(store, execution)).commit(Park(ExecutionStatus.WAITING))).owned

    async def test_consumed_messages_do_not_keep_the_owner_awake(self, store: DurableStore) -> None:
        owner = await own(store)
        await signal(store, owner.id)
        await owner.commit(consume=[(1, "wait")])
        answer = await owner.commit(Park(ExecutionStatus.WAITING), seen=1)
        assert (answer.owned, list(answer.inbox)) == (False, [])

    async def test_a_message_after_the_park_wakes_it(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(Park(ExecutionStatus.WAITING))
        posted = await signal(store, owner.id)
        assert posted.doorbell is not None
        assert [bell.id for bell in await due(store)] == [owner.id]
        assert [entry.name for entry in (await own(store, owner.id)).inbox] == ["go"]

    async def test_a_wake_up_is_shown_while_parked(self, store: DurableStore) -> None:
        owner = await own(store)
        wake_at = owner.now + LATER
        await owner.commit(Park(ExecutionStatus.SLEEPING, wake_at))
        assert (await row(store, owner.id)).wake_at == wake_at
        await signal(store, owner.id)
        await own(store, owner.id)
        assert (await row(store, owner.id)).wake_at is None

    async def test_the_wake_up_that_a_park_shows_is_no_timer(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(Park(ExecutionStatus.SLEEPING, owner.now))
        await tick(store)
        assert (await row(store, owner.id)).state is State.PARKED

    # -- Block

    async def test_a_block_says_why(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(Block(ExecutionStatus.PARKED, b"mismatch", "replay_mismatch"))
        stored = await row(store, owner.id)
        assert (stored.error, stored.code, stored.finished_at) == (b"mismatch", "replay_mismatch", None)

    # -- Ready

    async def test_a_release_rings_the_doorbell_of_the_execution_itself(self, store: DurableStore) -> None:
        owner = await own(store)
        answer = await owner.commit(Ready(0, ExecutionStatus.PENDING, attempt=1))
        assert [bell.id for bell in answer.doorbells] == [owner.id]
        assert [bell.id for bell in await due(store)] == [owner.id]
        await own(store, owner.id)

    async def test_a_retry_waits_for_its_instant(self, store: DurableStore) -> None:
        owner = await own(store)
        at = owner.now + LATER
        answer = await owner.commit(Ready(at, ExecutionStatus.RETRYING, attempt=2))
        assert list(answer.doorbells) == []
        stored = await row(store, owner.id)
        assert (stored.available_at, stored.attempt) == (at, 2)
        assert (await tick(store)).next_at == at
        assert await due(store) == []

    # -- what comes unseen before a Block or a Ready

    @pytest.mark.parametrize("next", UNHURRIED, ids=["block", "retry"])
    async def test_a_cancel_that_the_owner_had_not_seen_is_not_waited_over(
        self, store: DurableStore, next: Block | Ready
    ) -> None:
        owner = await own(store)
        await post(store, owner.id, cancel())
        answer = await owner.commit(next)
        assert not answer.owned
        assert [bell.id for bell in answer.doorbells] == [owner.id]
        assert [bell.id for bell in await due(store)] == [owner.id]
        assert [entry.kind for entry in (await own(store, owner.id)).inbox] == [MessageKind.CANCEL]

    @pytest.mark.parametrize("seen", [0, 1], ids=["unseen signal", "seen cancel"])
    @pytest.mark.parametrize("next", UNHURRIED, ids=["block", "retry"])
    async def test_any_other_unread_message_is_waited_over(
        self, store: DurableStore, next: Block | Ready, seen: int
    ) -> None:
        owner = await own(store)
        await post(store, owner.id, cancel() if seen else message())
        answer = await owner.commit(next, seen=seen)
        assert (answer.owned, list(answer.doorbells)) == (False, [])
        assert await due(store) == []

    # -- Close

    @pytest.mark.parametrize("status", ENDS)
    async def test_a_close_is_the_end(self, store: DurableStore, status: ExecutionStatus) -> None:
        owner = await own(store)
        await self.pass_time(store, SOON)
        answer = await owner.commit(Close(status, b"result", b"error", "code"))
        assert owner.id in answer.touched
        stored = await row(store, owner.id)
        assert (stored.result, stored.error, stored.code) == (b"result", b"error", "code")
        assert stored.finished_at == owner.now
        assert await due(store) == []

    async def test_a_close_without_a_result_differs_from_one_with_an_empty_result(
        self, store: DurableStore
    ) -> None:
        without, empty = await own(store), await own(store)
        await without.commit(Close(ExecutionStatus.COMPLETED))
        await empty.commit(Close(ExecutionStatus.COMPLETED, b"", b"", ""))
        stored = await row(store, without.id)
        assert (stored.result, stored.error, stored.code) == (None, None, None)
        stored = await row(store, empty.id)
        assert (stored.result, stored.error, stored.code) == (b"", b"", "")

    async def test_a_close_keeps_unread_messages_on_record(self, store: DurableStore) -> None:
        owner = await own(store)
        await signal(store, owner.id, "late")
        answer = await owner.commit(Close(ExecutionStatus.COMPLETED))
        assert [entry.name for entry in answer.inbox] == ["late"]
        assert [entry.consumed_by for entry in await store.inbox(owner.id)] == [None]

    async def test_what_an_operator_opens_again_can_run_and_end_again(self, store: DurableStore) -> None:
        owner = await own(store)
        await owner.commit(
            Close(ExecutionStatus.FAILED, error=b"boom"), checkpoints=[record("a")], values={"v": b"1"}
        )
        assert (await post(store, owner.id, reopen())).doorbell is not None
        stored = await row(store, owner.id)
        assert (stored.state, stored.status.final, stored.finished_at) == (State.READY, False, None)
        again = await own(store, owner.id)
        assert (again.ver, [entry.name for entry in again.inbox]) == (1, ["retry"])
        assert [entry.step_id for entry in await store.history(owner.id)] == ["a"]
        assert await store.value(owner.id, "v") == b"1"
        await again.commit(Close(ExecutionStatus.COMPLETED, b"42"))
        stored = await row(store, owner.id)
        assert (stored.status, stored.result, stored.error) == (ExecutionStatus.COMPLETED, b"42", None)

    # -- Continue

    async def test_a_continue_begins_anew_under_the_same_id(self, store: DurableStore) -> None:
        owner = await own(store, await create(store, key="k", tags={"a": "b"}, input=b"one"))
        await owner.commit(checkpoints=[record("a")], values={"v": b"1"})
        await owner.commit(Ready(0, ExecutionStatus.RETRYING, attempt=2))
        before = await row(store, owner.id)
        owner = await own(store, owner.id)
        answer = await owner.commit(Continue(b"two"))
        assert not answer.owned
        assert [bell.id for bell in answer.doorbells] == [owner.id]
        stored = await row(store, owner.id)
        assert (stored.state, stored.generation, stored.attempt) == (State.READY, 1, 1)
        assert (stored.input, stored.ver) == (b"two", before.ver + 1)
        assert (stored.key, stored.tags, stored.created_at, stored.started_at) == (
            before.key,
            before.tags,
            before.created_at,
            before.started_at,
        )
        assert list(await store.history(owner.id)) == []
        assert await store.value(owner.id, "v") is None
        await (await own(store, owner.id)).commit(checkpoints=[record("a")], values={"v": b"2"})

    async def test_a_continue_keeps_unread_messages_in_order(self, store: DurableStore) -> None:
        owner = await own(store)
        for name in ("a", "b", "c"):
            await signal(store, owner.id, name)
        await owner.commit(Continue(b"two"), consume=[(2, "wait")])
        assert (await signal(store, owner.id, "d")).seq == 4
        owner = await own(store, owner.id)
        assert [(entry.seq, entry.name) for entry in owner.inbox] == [(1, "a"), (3, "c"), (4, "d")]

    async def test_a_continue_counts_on(self, store: DurableStore) -> None:
        owner = await own(store)
        for generation in range(1, 4):
            await owner.commit(Continue(b"%d" % generation))
            owner = await own(store, owner.id)
            assert (await row(store, owner.id)).generation == generation
