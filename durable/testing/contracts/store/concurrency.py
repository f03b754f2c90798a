"""Many at once: whatever races, one order of events explains what everybody was told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from durable.models import ExecutionStatus
from durable.protocols import (
    Claimed,
    Close,
    Committed,
    Created,
    Diverged,
    DurableStore,
    Emit,
    Exists,
    Fenced,
    Live,
    Next,
    NotClaimed,
    NotPosted,
    Out,
    Park,
    Post,
    Posted,
    Run,
    Start,
    State,
    Watch,
)
from durable.testing.contracts.store.acts import (
    LATER,
    WANTED,
    WORKER,
    Situation,
    bring,
    cancel,
    carry,
    complete,
    create,
    due,
    everything,
    ids,
    message,
    new,
    own,
    partitions,
    record,
    reopen,
    row,
    tick,
    tick_once,
    timer,
    unread,
)
from durable.testing.contracts.store.suite import StoreSuite

PARK = Park(ExecutionStatus.WAITING)
DONE = Close(ExecutionStatus.COMPLETED, b"42")
MANY = 50
ROUNDS = 15


def crowd(peers: Sequence[DurableStore], number: int) -> list[DurableStore]:
    """So many callers, evenly spread over the processes."""
    return [peers[index % len(peers)] for index in range(number)]


class Concurrency(StoreSuite):
    """The races. Each of them is between all of `peers`."""

    # -- create and claim

    @pytest.mark.parametrize("reuse", [False, True], ids=["new key", "reused key"])
    async def test_of_many_creates_with_one_key_one_wins(
        self, store: DurableStore, peers: Sequence[DurableStore], reuse: bool
    ) -> None:
        if reuse:
            await bring(store, Situation.CLOSED, key="k")
        answers = await asyncio.gather(
            *[
                peer.create(new(key="k", reuse_closed_key=reuse), op_id=ids.nonce())
                for peer in crowd(peers, MANY)
            ]
        )
        [winner] = [answer.id for answer in answers if isinstance(answer, Created)]
        assert answers.count(Exists(winner, same_input=True)) == MANY - 1
        assert len(await everything(store)) == 1 + reuse

    async def test_of_many_sendings_of_one_create_all_are_told_the_same(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        spec, op_id = new(key="k"), ids.nonce()
        answers = await asyncio.gather(*[peer.create(spec, op_id=op_id) for peer in crowd(peers, 10)])
        assert [isinstance(answer, Created) for answer in answers] == [True] * 10
        assert {answer.id for answer in answers} == {spec.id}

    async def test_of_many_claimers_one_wins(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        execution = await create(store)
        answers = await asyncio.gather(
            *[
                peer.claim(execution, nonce=ids.nonce(), worker=f"w{number}")
                for number, peer in enumerate(crowd(peers, MANY))
            ]
        )
        [winner] = [answer for answer in answers if isinstance(answer, Claimed)]
        assert answers.count(NotClaimed(State.OWNED)) == MANY - 1
        assert await row(store, execution) == winner.row

    # -- commit

    @pytest.mark.parametrize("next", [Run(), PARK], ids=["run", "park"])
    async def test_of_many_commits_on_one_version_one_is_accepted(
        self, store: DurableStore, peers: Sequence[DurableStore], next: Next
    ) -> None:
        owner = await own(store)
        answers = await asyncio.gather(
            *[
                peer.commit(
                    owner.id,
                    nonce=owner.nonce,
                    ver=0,
                    op_id=ids.nonce(),
                    batch=owner.batch(next, checkpoints=[record(f"step {number}")]),
                )
                for number, peer in enumerate(crowd(peers, 20))
            ]
        )
        assert len([answer for answer in answers if isinstance(answer, Committed)]) == 1
        assert answers.count(Fenced() if next is PARK else Diverged()) == 19
        assert len(await store.history(owner.id)) == 1
        assert (await row(store, owner.id)).ver == 1

    async def test_of_many_sendings_of_one_commit_all_are_told_the_same(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        owner = await own(store)
        batch, op_id = owner.batch(checkpoints=[record("a")]), ids.nonce()
        answers = await asyncio.gather(
            *[
                peer.commit(owner.id, nonce=owner.nonce, ver=0, op_id=op_id, batch=batch)
                for peer in crowd(peers, 10)
            ]
        )
        assert [answer.ver for answer in answers if isinstance(answer, Committed)] == [1] * 10

    async def test_many_owners_commit_side_by_side(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        owners = [await own(peer) for peer in crowd(peers, 20)]
        for number in range(3):
            await asyncio.gather(*[owner.commit(checkpoints=[record(f"step {number}")]) for owner in owners])
        assert {owner.ver for owner in owners} == {3}
        assert {len(await store.history(owner.id)) for owner in owners} == {3}

    async def test_many_senders_start_one_execution_post_one_message_and_emit_one_event(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        target, child = await bring(store, Situation.PARKED), new()
        senders = [await own(peer) for peer in crowd(peers, 6)]
        out: list[Out] = [Start(child), Post(target.id, message(id="m")), Emit("e", "paid", b"")]
        await asyncio.gather(*[sender.send(sender.batch(out=out)) for sender in senders])
        await carry(store)
        assert len(await everything(store)) == len(senders) + 2
        assert len(await store.inbox(target.id)) == 1
        await own(store, target.id)
        await own(store, child.id)

    async def test_an_end_at_the_moment_of_watching_is_told_once(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for number in range(ROUNDS):
            target, watcher = await own(store), await own(peers[-1])
            end = target.send(target.batch(DONE))
            watch = watcher.send(watcher.batch(PARK, out=[Watch(target.id, "join")]))
            await asyncio.gather(*((end, watch) if number % 2 else (watch, end)))
            await carry(store)
            assert [entry.name for entry in await store.inbox(watcher.id)] == ["join"]
            assert (await row(store, watcher.id)).state is not State.PARKED

    # -- post

    async def test_many_messages_at_once_are_all_numbered(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        execution = await create(store)
        answers = await asyncio.gather(*[peer.post(execution, message()) for peer in crowd(peers, MANY)])
        assert {answer.seq for answer in answers if isinstance(answer, Posted)} == set(range(1, MANY + 1))
        assert [entry.seq for entry in await unread(store, execution)] == list(range(1, MANY + 1))

    async def test_of_many_posts_with_one_id_one_counts(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        parked = await bring(store, Situation.PARKED)
        answers = await asyncio.gather(*[peer.post(parked.id, message(id="m")) for peer in crowd(peers, 20)])
        [posted] = [answer for answer in answers if isinstance(answer, Posted)]
        assert posted.doorbell is not None
        assert answers.count(NotPosted(State.READY, duplicate=True)) == 19
        assert len(await store.inbox(parked.id)) == 1

    async def test_of_many_messages_the_first_wakes(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        parked = await bring(store, Situation.PARKED)
        answers = await asyncio.gather(*[peer.post(parked.id, message()) for peer in crowd(peers, 20)])
        woken_by = [answer.seq for answer in answers if isinstance(answer, Posted) and answer.doorbell]
        assert woken_by == [1]

    async def test_a_message_at_the_moment_of_parking_is_never_slept_over(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for number in range(ROUNDS):
            owner = await own(store)
            park, post = owner.send(owner.batch(PARK)), peers[-1].post(owner.id, message())
            answers = await asyncio.gather(*((park, post) if number % 2 else (post, park)))
            [committed] = [answer for answer in answers if isinstance(answer, Committed)]
            state = (await row(store, owner.id)).state
            assert state is (State.OWNED if committed.owned else State.READY)
            assert [entry.seq for entry in committed.inbox] == ([1] if committed.owned else [])

    async def test_a_message_at_the_moment_of_the_end_is_kept_or_refused(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for number in range(ROUNDS):
            owner = await own(store)
            end, post = owner.send(owner.batch(DONE)), peers[-1].post(owner.id, message())
            answers = await asyncio.gather(*((end, post) if number % 2 else (post, end)))
            kept = any(isinstance(answer, Posted) for answer in answers)
            assert kept != (NotPosted(State.CLOSED) in answers)
            assert len(await store.inbox(owner.id)) == kept
            assert (await row(store, owner.id)).status is ExecutionStatus.COMPLETED

    async def test_a_cancel_at_the_moment_of_the_first_claim_ends_it_or_reaches_the_owner(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for number in range(ROUNDS):
            execution = await create(store)
            claim = store.claim(execution, nonce=ids.nonce(), worker=WORKER)
            post = peers[-1].post(execution, cancel())
            answers = await asyncio.gather(*((claim, post) if number % 2 else (post, claim)))
            [posted] = [answer for answer in answers if isinstance(answer, Posted)]
            assert any(isinstance(answer, Claimed) for answer in answers) != posted.closed
            assert (NotClaimed(State.CLOSED) in answers) == posted.closed
            stored = await row(store, execution)
            assert stored.state is (State.CLOSED if posted.closed else State.OWNED)
            assert len(await store.inbox(execution)) == 1

    # -- the sweeps

    async def test_many_tickers_fire_each_timer_once(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        owners = [await own(store) for _ in range(5)]
        for owner in owners:
            await owner.commit(PARK, checkpoints=[timer(f"nap {number}", owner.now) for number in range(6)])
        for _ in range(2):
            await asyncio.gather(*[tick_once(peer, limit=4) for peer in crowd(peers, 6)])
        await tick(store)
        for owner in owners:
            names = sorted(entry.name for entry in await store.inbox(owner.id))
            assert names == [f"nap {number}" for number in range(6)]

    async def test_many_tickers_count_one_crash(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        owners = [await own(store) for _ in range(5)]
        live = Live({}, at=owners[-1].now + 1)
        ticks = await asyncio.gather(*[tick_once(peer, live=live) for peer in crowd(peers, 4)])
        rung = [bell.id for ticked in ticks for bell in ticked.doorbells]
        assert sorted(rung) == sorted(owner.id for owner in owners)
        assert {(await row(store, owner.id)).crashes for owner in owners} == {1}

    async def test_a_commit_against_a_takeover_has_one_winner(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for number in range(ROUNDS):
            owner = await own(store)
            commit = owner.send(owner.batch(PARK))
            takeover = tick_once(peers[-1], live=Live({}, at=owner.now + 1))
            answers = await asyncio.gather(*((commit, takeover) if number % 2 else (takeover, commit)))
            stored = await row(store, owner.id)
            if Fenced() in answers:
                assert (stored.state, stored.crashes, stored.ver) == (State.READY, 1, 0)
            else:
                assert (stored.state, stored.crashes, stored.ver) == (State.PARKED, 0, 1)

    async def test_many_workers_share_what_is_due(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        created = [await create(store) for _ in range(20)]
        rung = await asyncio.gather(*[due(peer, limit=20) for peer in crowd(peers, 6)])
        assert sorted(bell.id for bells in rung for bell in bells) == sorted(created)

    async def test_claims_meanwhile_hide_nothing_else_that_is_due(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for _ in range(ROUNDS):
            created = [await create(store) for _ in range(MANY)]
            claimed, rung = set(created[:30]), set[str]()

            async def ring(peer: DurableStore, partition: int, rung: set[str]) -> None:
                bells = await peer.due(partition, WANTED, limit=3, again_ms=LATER)
                rung.update(bell.id for bell in bells)
                if len(bells) == 3:  # else there are no more
                    await ring(peer, partition, rung)

            claims = [
                peer.claim(id, nonce=ids.nonce(), worker=WORKER)
                for id, peer in zip(created, crowd(peers, 30), strict=False)
            ]
            rings = [ring(peers[-1], partition, rung) for partition in await partitions(store)]
            await asyncio.gather(*claims, *rings)
            assert rung | claimed >= set(created)

    async def test_many_pruners_count_each_execution_once(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for _ in range(12):
            await complete(store)
        pruned = await asyncio.gather(
            *[
                peer.prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=100)
                for peer in crowd(peers, 4)
            ]
        )
        assert sum(pruned) == 12
        assert await everything(store) == []

    async def test_an_operator_at_the_moment_of_pruning_finds_all_or_nothing(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for number in range(6):
            ended = await bring(store, Situation.CLOSED)
            prune = store.prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=9)
            post = peers[-1].post(ended.id, reopen())
            answers = await asyncio.gather(*((prune, post) if number % 2 else (post, prune)))
            if NotPosted(None) in answers:
                assert 1 in answers
                assert await store.get(ended.id) is None
            else:
                assert 0 in answers
                await (await own(store, ended.id)).commit()
