"""Events and schedules on Redis: whoever dies between two writes, all arrives, once; and any number may listen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import pytest

from durable.backends.redis.courier import Courier, Effects
from durable.backends.redis.events import emit, listen
from durable.backends.redis.letters import Letter
from durable.backends.redis.location import Location
from durable.backends.redis.store import RedisStore
from durable.backends.redis.verbs import Answer
from durable.backends.redis.wire import RedisWire
from durable.errors import OutcomeUnknown, StoreUnavailable
from durable.models import ExecutionStatus
from durable.protocols import (
    Close,
    DurableStore,
    Emit,
    EventRow,
    Listen,
    MessageKind,
    NewExecution,
    Out,
    Park,
    ScheduleRow,
    State,
    Unlisten,
)
from durable.testing.contracts.store.acts import (
    LATER,
    Owner,
    carry,
    contradictions,
    create,
    ids,
    new,
    own,
    row,
    unread,
)
from tests.backends.redis_keys import forget

pytestmark = pytest.mark.anyio

PARK: Final = Park(ExecutionStatus.WAITING)
DONE: Final = Close(ExecutionStatus.COMPLETED, b"42")
PAID: Final = Listen("paid", "wait", "o=1", "order")
ON_CANCEL: Final = Listen("paid", "__cancel", "o=1", "order", seen=None, cancel=b"why")
MANY: Final = 600
"""More than two runs of a script handle."""


def paid(id: str = "e", *starts: NewExecution) -> Emit:
    return Emit(id, "paid", b"\x00", ["order"], ["o=1"], starts)


@pytest.fixture
async def store(redis_url: str, namespace: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(Location.parse(f"{redis_url}?partitions=3"), namespace)
    await store.open()
    yield store
    await forget(store.verbs.wire, store.verbs.space)
    await store.close()


@contextmanager
def dying(store: RedisStore, monkeypatch: pytest.MonkeyPatch, after: int) -> Generator[list[str]]:
    """Nothing that the store does reaches the server after so many calls; the calls that did not."""
    wire, lost, left = store.verbs.wire, list[str](), after
    assert isinstance(wire, RedisWire)

    def dies(name: str, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def within(*args: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                lost.append(name)
                raise StoreUnavailable("it has died")
            return await call(*args, **options)

        return within

    with monkeypatch.context() as patch:
        for name in ("run", "call"):
            patch.setattr(wire, name, dies(name, getattr(wire, name)))
        yield lost


async def listener(store: DurableStore, *listens: Listen) -> Owner:
    owner = await own(store)
    await owner.commit(PARK, out=listens)
    return owner


async def heard(store: DurableStore, execution_id: str) -> list[str]:
    """The events that it was told of; 'look' each time that it was told to look."""
    entries = [each for each in await store.inbox(execution_id) if each.kind is not MessageKind.TIMER]
    return [
        EventRow.unpack(each.data).id if each.kind is MessageKind.EVENT and each.data else each.id[:4]
        for each in entries
    ]


async def settled(store: RedisStore) -> None:
    """Nothing is under way, and nothing contradicts itself."""
    await carry(store)
    courier = Courier(store.verbs)
    assert [len((await courier.read(part))[1]) for part in store.verbs.space.partitions] == [0, 0, 0]
    assert await contradictions(store) == []


@dataclass
class Scene:
    """What is there before somebody dies."""

    store: RedisStore
    waiting: Owner
    looking: Owner
    owner: Owner
    cancelled: str
    holder: str
    starts: Sequence[NewExecution] = field(default_factory=lambda: [new(key="k"), new()])

    @classmethod
    async def set(cls, store: RedisStore) -> Scene:
        return cls(
            store,
            waiting=await listener(store, PAID),
            looking=await listener(store, replace(PAID, topic="t=9", shape="tenant")),
            owner=await own(store),
            cancelled=await create(store, listens=[ON_CANCEL]),
            holder=await create(store, key="k"),
        )

    async def is_as_if_nothing_was(self) -> None:
        assert await self.store.event("paid", "e") is None
        assert await self.store.event("refunded", "r") is None
        assert await heard(self.store, self.waiting.id) == []
        assert await self.store.get(self.starts[1].id) is None

    async def is_all_done(self) -> None:
        """Once."""
        stored = await self.store.event("paid", "e")
        assert stored is not None
        started, waited = stored.execution_ids[:2], stored.execution_ids[2:]
        assert list(started) == [self.holder, self.starts[1].id]
        assert set(waited) == {self.waiting.id, self.cancelled}
        assert await heard(self.store, self.waiting.id) == ["e"]
        assert await heard(self.store, self.looking.id) == ["look"]
        assert (await row(self.store, self.cancelled)).status is ExecutionStatus.CANCELLED
        assert (await row(self.store, self.starts[1].id)).state is State.READY


Deaths = Callable[[int], Awaitable[list[str]]]


async def at_each_death(try_it: Deaths) -> None:
    """Try it with a death after each of its calls, and at last with none."""
    after = 0
    while await try_it(after):
        after += 1
    assert after > 3


async def test_of_events_that_are_sent_all_arrive_or_none(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def try_it(after: int) -> list[str]:
        await forget(store.verbs.wire, store.verbs.space)
        scene = await Scene.set(store)
        events = [paid("e", *scene.starts), Emit("r", "refunded", b"")]
        with dying(store, monkeypatch, after) as lost:
            try:
                await store.send(events, op_id="op")
            except (StoreUnavailable, OutcomeUnknown):
                assert lost
        await settled(store)
        if await store.event("refunded", "r") is None:
            await scene.is_as_if_nothing_was()
        else:
            await scene.is_all_done()
        again = await store.send(events, op_id="op")
        await settled(store)
        await scene.is_all_done()
        [first, second] = again.receipts
        assert not first.duplicate
        assert not second.duplicate
        assert list(first.execution_ids)[:2] == [scene.holder, scene.starts[1].id]
        return lost

    await at_each_death(try_it)


async def test_an_event_of_a_commit_arrives_once(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def try_it(after: int) -> list[str]:
        await forget(store.verbs.wire, store.verbs.space)
        scene = await Scene.set(store)
        batch = scene.owner.batch(DONE, out=[paid("e", *scene.starts), Emit("r", "refunded", b"")])
        with dying(store, monkeypatch, after) as lost:
            try:
                await scene.owner.send(batch)
            except (StoreUnavailable, OutcomeUnknown):
                assert lost
        await settled(store)
        if (await row(store, scene.owner.id)).state is State.OWNED:
            await scene.is_as_if_nothing_was()
        else:
            await scene.is_all_done()
        return lost

    await at_each_death(try_it)


async def test_who_begins_or_ends_to_listen_does_so_whoever_dies(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def try_it(after: int) -> list[str]:
        await forget(store.verbs.wire, store.verbs.space)
        await store.send([Emit("old", "early", b"")], op_id=ids.nonce())
        owner = await own(store)
        await owner.commit(out=[replace(PAID, event="left")])
        out = [PAID, Unlisten("left", "wait"), replace(PAID, event="early", topic="")]
        with dying(store, monkeypatch, after) as lost:
            try:
                await owner.send(owner.batch(out=out))
            except (StoreUnavailable, OutcomeUnknown):
                assert lost
        await settled(store)
        did = (await row(store, owner.id)).ver == 2
        assert await heard(store, owner.id) == ["look"] * did
        await store.send([paid(), Emit("f", "left", b"", ["order"], ["o=1"])], op_id=ids.nonce())
        await settled(store)
        assert await heard(store, owner.id) == (["look", "e"] if did else ["f"])
        return lost

    await at_each_death(try_it)


async def test_what_has_ended_listens_nowhere_whoever_dies(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def try_it(after: int) -> list[str]:
        await forget(store.verbs.wire, store.verbs.space)
        owner = await own(store, await create(store, listens=[ON_CANCEL]))
        await owner.commit(out=[PAID, replace(PAID, event="refunded")])
        with dying(store, monkeypatch, after) as lost:
            try:
                await owner.send(owner.batch(DONE))
            except (StoreUnavailable, OutcomeUnknown):
                assert lost
        await settled(store)
        sent = await store.send([paid()], op_id=ids.nonce())
        await settled(store)
        did = (await row(store, owner.id)).state is State.CLOSED
        assert bool(sent.receipts[0].execution_ids) != did
        assert bool(await unread(store, owner.id)) != did
        return lost

    await at_each_death(try_it)


async def test_what_listens_from_its_creation_on_does_so_whoever_dies(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def try_it(after: int) -> list[str]:
        await forget(store.verbs.wire, store.verbs.space)
        spec = new(listens=[ON_CANCEL, replace(ON_CANCEL, event="refunded")])
        with dying(store, monkeypatch, after) as lost:
            try:
                await store.create(spec, op_id="op")
            except (StoreUnavailable, OutcomeUnknown):
                assert lost
        await settled(store)
        did = await store.get(spec.id) is not None
        sent = await store.send([paid()], op_id=ids.nonce())
        await settled(store)
        assert list(sent.receipts[0].execution_ids) == [spec.id] * did
        return lost

    await at_each_death(try_it)


async def test_a_schedule_is_saved_with_its_starts_or_not_at_all(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def try_it(after: int) -> list[str]:
        await forget(store.verbs.wire, store.verbs.space)
        holder, starts = await create(store, key="k"), [new(key="k"), new(), new(listens=[ON_CANCEL])]
        daily = ScheduleRow("daily", b"", LATER)
        with dying(store, monkeypatch, after) as lost:
            try:
                await store.save_schedule(daily, op_id="op", starts=starts)
            except (StoreUnavailable, OutcomeUnknown):
                assert lost
        await settled(store)
        did = await store.schedule("daily") is not None
        assert [await store.get(spec.id) is not None for spec in starts] == [False, did, did]
        again = await store.save_schedule(daily, op_id="op", starts=starts)
        await settled(store)
        assert again is not None
        assert (again.ver, list(again.execution_ids)) == (1, [holder, starts[1].id, starts[2].id])
        return lost

    await at_each_death(try_it)


# ---- letters that come late


async def commit_and_keep(store: RedisStore, owner: Owner, *out: Out) -> Sequence[Letter]:
    """Commit, and give the letters that nobody has delivered."""
    answer = await store.verbs.commit(
        owner.id, owner.nonce, owner.ver, ids.nonce(), owner.batch(out=out, seen=9)
    )
    assert isinstance(answer, Answer)
    owner.ver = answer.committed.ver
    return answer.letters


async def deliver(store: RedisStore, letters: Sequence[Letter]) -> None:
    assert await Courier(store.verbs).deliver(letters, Effects()) == letters


async def test_a_late_letter_lets_nobody_listen_who_has_been_told(store: RedisStore) -> None:
    owner = await own(store)
    letters = await commit_and_keep(store, owner, PAID)
    await deliver(store, letters)
    emitted = await emit(store.verbs, paid("e"), "op")
    assert list(emitted.waited) == [owner.id]
    await deliver(store, letters)
    await settled(store)
    assert await heard(store, owner.id) == ["e"]
    await deliver(store, letters)
    await settled(store)
    assert list((await store.send([paid("f")], op_id="other")).receipts[0].execution_ids) == []


@pytest.mark.parametrize("is_late", [True, False])
async def test_a_late_letter_lets_nobody_listen_who_has_ended_that(store: RedisStore, is_late: bool) -> None:
    owner = await own(store)
    first = await commit_and_keep(store, owner, PAID)
    then = await commit_and_keep(store, owner, Unlisten("paid", "wait"))
    for letters in (then, first) if is_late else (first, then, first):
        await deliver(store, letters)
    await settled(store)
    assert list((await store.send([paid("e")], op_id="op")).receipts[0].execution_ids) == []


async def test_an_event_does_not_overtake_the_word_that_there_is_an_earlier_one(store: RedisStore) -> None:
    await store.send([paid("e")], op_id="op")
    owner = await own(store)
    [letter] = await commit_and_keep(store, owner, PAID)
    assert isinstance(letter.content, Listen)
    late = await listen(store.verbs, letter, letter.content)
    await store.send([paid("f")], op_id="other")
    await deliver(store, late)
    await settled(store)
    assert (await heard(store, owner.id))[0] == "look"
    assert "f" not in await heard(store, owner.id)
    await store.send([paid("g")], op_id="third")
    await settled(store)
    assert (await heard(store, owner.id))[-1] == "g"


async def test_a_late_letter_ends_no_listening_that_has_begun_anew(store: RedisStore) -> None:
    owner = await own(store)
    first = await commit_and_keep(store, owner, PAID)
    then = await commit_and_keep(store, owner, Unlisten("paid", "wait"))
    last = await commit_and_keep(store, owner, replace(PAID, topic="o=2"))
    for letters in (last, then, first):
        await deliver(store, letters)
    await settled(store)
    await store.send([paid("e"), replace(paid("f"), topics=["o=2"])], op_id="op")
    await settled(store)
    assert await heard(store, owner.id) == ["f"]


async def test_what_one_listened_for_before_is_not_told_though_it_was_under_way(store: RedisStore) -> None:
    owner = await own(store)
    await owner.commit(out=[PAID])
    emitted = await emit(store.verbs, paid("e"), "op")
    await owner.commit(out=[Unlisten("paid", "wait"), replace(PAID, topic="o=2")])
    await deliver(store, emitted.letters)
    await settled(store)
    assert await heard(store, owner.id) == []


async def test_what_was_deleted_is_not_taken_for_its_namesake(store: RedisStore) -> None:
    owner = await own(store, await create(store, id="x"))
    await owner.commit(out=[PAID])
    emitted = await emit(store.verbs, paid("e"), "op")
    await owner.commit(DONE)
    await store.prune(before=2**53, status=[ExecutionStatus.COMPLETED], limit=9)
    again = await own(store, await create(store, id="x"))
    await again.commit(out=[PAID])
    await deliver(store, emitted.letters)
    await settled(store)
    assert await heard(store, "x") == ["look"]
    await store.send([paid("f")], op_id="other")
    await settled(store)
    assert await heard(store, "x") == ["look", "f"]


# ---- any number


@pytest.mark.parametrize("after", [1, 2, 300, 1_000, 10_000])
async def test_an_event_reaches_any_number_that_listen_or_may_look(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    told = [replace(PAID, step_id=f"wait {number:03}") for number in range(MANY)]
    looks = [
        replace(PAID, step_id=f"look {number:03}", topic="t=9", shape="tenant") for number in range(MANY)
    ]
    owner = await listener(store, *told, *looks)
    with dying(store, monkeypatch, after) as lost:
        await store.send([paid()], op_id="op")
    assert bool(lost) == (after < 10_000)
    await settled(store)
    entries = await unread(store, owner.id)
    assert sorted(each.name for each in entries) == sorted(each.step_id for each in (*told, *looks))
    assert {each.name[:4] for each in entries if each.data} == {"wait"}
    stored = await store.event("paid", "e")
    assert stored is not None
    assert list(stored.execution_ids) == [owner.id] * MANY


async def test_who_listens_after_an_event_is_not_told_of_it_by_the_rest_of_its_letters(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = await listener(store, *[replace(PAID, step_id=f"{number:03}") for number in range(MANY)])
    with dying(store, monkeypatch, 1):
        await store.send([paid()], op_id="op")
    late = await own(store)
    await deliver(store, await commit_and_keep(store, late, replace(PAID, seen=None)))
    await settled(store)
    assert len(await unread(store, many.id)) == MANY
    assert await heard(store, late.id) == []
    await store.send([paid("f")], op_id="other")
    await settled(store)
    assert await heard(store, late.id) == ["f"]


async def test_one_listens_at_once_though_a_thousand_events_came_before(store: RedisStore) -> None:
    for number in range(0, 1_000, 100):
        events = [Emit(f"{number + i}", "paid", b"", ["order"], ["o=2"]) for i in range(100)]
        await store.send(events, op_id=ids.nonce())
    near, far = await listener(store, replace(PAID, seen=900)), await listener(store, PAID)
    assert await heard(store, near.id) == []
    # More than one look at all of them would take: it is to see for itself.
    assert await heard(store, far.id) == ["look"]
    looked = await store.look("paid", shape="order", topic="o=1", since=0, limit=10)
    assert (list(looked.events), looked.more) == ([], True)
    assert await store.prune_events(before=2**53, limit=700) == 700
    assert await store.prune_events(before=2**53, limit=700) == 300
    await settled(store)
