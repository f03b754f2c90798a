"""Events: stored once, and given to everyone whom they concern."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from durable.models import ExecutionStatus
from durable.protocols import (
    Close,
    Continue,
    DurableStore,
    Emit,
    EventRow,
    Exists,
    Join,
    Listen,
    MessageKind,
    Park,
    Sent,
    State,
    Subscriber,
    Unlisten,
    keyed_id,
)
from durable.testing.contracts.store.acts import (
    Owner,
    carry,
    complete,
    create,
    event_of,
    ids,
    new,
    own,
    row,
    unread,
)
from durable.testing.contracts.store.suite import StoreSuite

PARK = Park(ExecutionStatus.WAITING)


def paid(id: str | None = None, *, topics: Sequence[str] = (), shapes: Sequence[str] = ("order",)) -> Emit:
    return Emit(ids.nonce() if id is None else id, "paid", b'{"order":1}', shapes, topics)


def listen(
    topic: str = "", *, step_id: str = "wait", shape: str | None = None, seen: int | None = 0
) -> Listen:
    shape = shape if shape is not None else "order" if topic else ""
    return Listen("paid", step_id, topic, shape, seen)


async def send(store: DurableStore, *events: Emit, op_id: str | None = None) -> Sent:
    """Send, and let it reach everybody."""
    sent = await store.send(events, op_id=op_id or ids.nonce())
    carried = await carry(store)
    return replace(sent, doorbells=[*sent.doorbells, *carried.doorbells])


async def listener(store: DurableStore, *listens: Listen) -> Owner:
    """One that is parked, and listens."""
    owner = await own(store)
    await owner.commit(PARK, out=listens)
    return owner


async def told(store: DurableStore, owner: Owner) -> list[EventRow | None]:
    """The events that it was told of, None for each time that it was told to look."""
    entries = [entry for entry in await store.inbox(owner.id) if entry.kind is MessageKind.EVENT]
    assert all(entry.name.startswith("wait") for entry in entries)
    return [EventRow.unpack(entry.data) if entry.data else None for entry in entries]


class Eventing(StoreSuite):
    # -- storing

    async def test_a_sent_event_is_stored(self, store: DurableStore) -> None:
        before = (await store.live()).at
        sent = await send(store, paid("e"))
        assert [(list(each.execution_ids), each.duplicate) for each in sent.receipts] == [([], False)]
        stored = await event_of(store, "paid", "e")
        assert (stored.name, stored.id, stored.data, stored.seq) == ("paid", "e", b'{"order":1}', 1)
        assert before <= stored.at <= (await store.live()).at

    async def test_an_id_is_known_once_for_each_name(self, store: DurableStore) -> None:
        await send(store, paid("e"))
        again = await send(store, Emit("e", "paid", b"other"))
        assert again.receipts[0].duplicate
        assert (await event_of(store, "paid", "e")).data == b'{"order":1}'
        other = await send(store, Emit("e", "refunded", b"other"))
        assert not other.receipts[0].duplicate

    async def test_the_same_operation_again_gets_the_first_answer(self, store: DurableStore) -> None:
        event = replace(paid("e"), starts=[new()])
        first = await send(store, event, op_id="op")
        again = await send(store, event, op_id="op")
        assert [list(each.execution_ids) for each in first.receipts] == [[event.starts[0].id]]
        assert not again.receipts[0].duplicate
        assert list(again.receipts[0].execution_ids) == list(first.receipts[0].execution_ids)

    async def test_of_many_at_once_with_one_id_one_is_no_duplicate(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        events = [replace(paid("e"), starts=[new(workflow="order", key="e")]) for _ in range(20)]
        sent = await asyncio.gather(
            *[peers[i % len(peers)].send([event], op_id=ids.nonce()) for i, event in enumerate(events)]
        )
        await carry(store)
        assert [each.receipts[0].duplicate for each in sent].count(False) == 1
        assert len({tuple(each.receipts[0].execution_ids) for each in sent}) == 1
        [execution_id] = sent[0].receipts[0].execution_ids
        assert (await row(store, execution_id)).state is State.READY

    async def test_several_are_sent_in_one_go(self, store: DurableStore) -> None:
        await send(store, paid("known"))
        events = [paid("a"), Emit("b", "refunded", b""), paid("known"), paid("c")]
        sent = await send(store, *events)
        assert [each.duplicate for each in sent.receipts] == [False, False, True, False]
        for event in events:
            assert await store.event(event.name, event.id) is not None
        seqs = [(await event_of(store, "paid", id)).seq for id in ("known", "a", "c")]
        assert seqs == [1, 2, 3]

    async def test_a_commit_sends_as_a_client_does(self, store: DurableStore) -> None:
        waiting = await listener(store, listen("o=1"))
        spec = new()
        owner = await own(store)
        await owner.commit(out=[replace(paid("e", topics=["o=1"]), starts=[spec])])
        assert [event.id for event in await told(store, waiting) if event] == ["e"]
        assert (await row(store, spec.id)).state is State.READY
        stored = await event_of(store, "paid", "e")
        assert list(stored.execution_ids) == [spec.id, waiting.id]

    async def test_events_that_are_old_are_pruned(self, store: DurableStore) -> None:
        waiting = await listener(store, listen("o=1"))
        await send(store, paid("old"))
        await self.pass_time(store, 2)
        now = (await store.live()).at
        await send(store, paid("new"))
        assert await store.prune_events(before=now, limit=100) == 1
        assert await store.prune_events(before=now, limit=100) == 0
        assert await store.event("paid", "old") is None
        assert await store.event("paid", "new") is not None
        assert not (await send(store, paid("old", topics=["o=1"]))).receipts[0].duplicate
        assert [event.id for event in await told(store, waiting) if event] == ["old"]

    # -- starting

    async def test_it_starts_what_it_starts_and_its_receipt_says_so(self, store: DurableStore) -> None:
        specs = [new(), new(workflow="report")]
        sent = await send(store, replace(paid(), starts=specs))
        assert list(sent.receipts[0].execution_ids) == [spec.id for spec in specs]
        assert {bell.id for bell in sent.doorbells} == {spec.id for spec in specs}
        for spec in specs:
            assert (await row(store, spec.id)).state is State.READY

    async def test_a_duplicate_starts_nothing_and_gets_the_first_receipt(self, store: DurableStore) -> None:
        first = await send(store, replace(paid("e"), starts=[new()]))
        spec = new()
        again = await send(store, replace(paid("e"), starts=[spec]))
        assert list(again.receipts[0].execution_ids) == list(first.receipts[0].execution_ids)
        assert await store.get(spec.id) is None

    async def test_a_receipt_names_the_pending_one_that_was_joined(self, store: DurableStore) -> None:
        group = Join("g", 600_000)
        specs = [new(id=keyed_id("order", "g", again=ids.nonce()[:8]), join=group) for _ in range(2)]
        await send(store, replace(paid("a"), starts=[specs[0]]))
        second = await send(store, replace(paid("b"), starts=[specs[1]]))
        assert list(second.receipts[0].execution_ids) == [specs[0].id]
        again = await send(store, paid("b"))
        assert list(again.receipts[0].execution_ids) == [specs[0].id]

    async def test_subscribers_are_known_to_those_who_plan(self, store: DurableStore) -> None:
        one, two = Subscriber("paid", "order", b"1", ("order",)), Subscriber("paid", "report", b"2")
        other = Subscriber("refunded", "order", b"3")
        await store.subscribe([one, two, other])
        await store.subscribe([one])
        plan = await store.plan("paid")
        assert (set(plan.subscribers), list(plan.shapes)) == ({one, two}, ["order"])
        assert set(await store.subscribers()) == {one, two, other}
        changed = replace(one, data=b"changed", shapes=())
        await store.subscribe([changed], [two])
        assert list((await store.plan("paid")).subscribers) == [changed]
        nothing = await store.plan("nothing")
        assert (list(nothing.shapes), list(nothing.subscribers)) == ([], [])

    # -- listening

    async def test_who_listens_for_a_topic_is_told_once_and_wakes(self, store: DurableStore) -> None:
        one, two = await listener(store, listen("o=1")), await listener(store, listen("o=2"))
        sent = await send(store, paid("e", topics=["o=1"]))
        assert list(sent.receipts[0].execution_ids) == [one.id]
        assert [bell.id for bell in sent.doorbells] == [one.id]
        await send(store, paid("f", topics=["o=1"]))
        [event] = await told(store, one)
        assert event is not None
        assert (event.name, event.id, event.data, event.seq) == ("paid", "e", b'{"order":1}', 1)
        assert await told(store, two) == []
        assert (await row(store, two.id)).state is State.PARKED

    async def test_who_listens_for_any_is_told_of_any(self, store: DurableStore) -> None:
        one = await listener(store, listen())
        await send(store, Emit("x", "refunded", b""), paid("e", shapes=()))
        assert [event.id for event in await told(store, one) if event] == ["e"]

    async def test_several_who_listen_for_one_topic_are_all_told(self, store: DurableStore) -> None:
        all = [await listener(store, listen("o=1")) for _ in range(3)]
        sent = await send(store, paid("e", topics=["o=1"]))
        assert set(sent.receipts[0].execution_ids) == {each.id for each in all}
        for each in all:
            assert len(await told(store, each)) == 1

    async def test_two_steps_of_one_execution_listen_on_their_own(self, store: DurableStore) -> None:
        one = await listener(store, listen("o=1", step_id="wait-a"), listen("o=2", step_id="wait-b"))
        await send(store, paid("e", topics=["o=2"]))
        [entry] = await unread(store, one.id)
        assert entry.name == "wait-b"
        await send(store, paid("f", topics=["o=1"]))
        assert [entry.name for entry in await unread(store, one.id)] == ["wait-b", "wait-a"]

    async def test_who_listens_no_more_is_not_told(self, store: DurableStore) -> None:
        one = await own(store)
        await one.commit(out=[listen("o=1")])
        await one.commit(out=[Unlisten("paid", "wait")])
        await one.commit(out=[Unlisten("paid", "wait")])
        await send(store, paid(topics=["o=1"]))
        assert await told(store, one) == []

    async def test_what_has_ended_listens_no_more(self, store: DurableStore) -> None:
        one = await own(store)
        await one.commit(out=[listen("o=1")])
        await one.commit(Close(ExecutionStatus.COMPLETED))
        sent = await send(store, paid(topics=["o=1"]))
        assert list(sent.receipts[0].execution_ids) == []
        assert await told(store, one) == []

    async def test_what_begins_anew_listens_only_for_its_cancel(self, store: DurableStore) -> None:
        on = Listen("paid", "__cancel", "o=2", "order", seen=None, cancel=b"why")
        one = await own(store, await create(store, listens=[on]))
        await one.commit(out=[listen("o=1")])
        await one.commit(Continue(b"{}"))
        sent = await send(store, paid(topics=["o=1"]), paid(topics=["o=2"]))
        assert [list(each.execution_ids) for each in sent.receipts] == [[], [one.id]]

    async def test_an_event_that_came_before_one_listened_is_pointed_out(self, store: DurableStore) -> None:
        await send(store, paid("e", topics=["o=1"]))
        one = await own(store)
        answer = await one.commit(PARK, out=[listen("o=1")])
        assert await told(store, one) == [None]
        [entry] = await unread(store, one.id)
        assert entry.name == "wait"
        assert answer.owned or (await row(store, one.id)).state is State.READY

    async def test_what_one_has_looked_at_is_not_pointed_out(self, store: DurableStore) -> None:
        await send(store, paid("e", topics=["o=1"]), paid("f", topics=["o=2"]))
        one = await listener(store, listen("o=1", seen=1))
        assert await told(store, one) == []
        two = await listener(store, listen("o=1", seen=None))
        assert await told(store, two) == []
        await send(store, paid("g", topics=["o=1"]))
        assert [event.id for event in await told(store, two) if event] == ["g"]

    async def test_an_event_whose_sender_did_not_know_the_shape_is_pointed_out(
        self, store: DurableStore
    ) -> None:
        one = await listener(store, listen("t=9", shape="tenant"))
        known = await listener(store, listen("o=1"))
        await send(store, paid("e", topics=["o=2"], shapes=["order"]))
        assert await told(store, one) == [None]
        assert await told(store, known) == []
        await send(store, paid("f", topics=["t=9"], shapes=["order", "tenant"]))
        assert [event and event.id for event in await told(store, one)] == [None, "f"]
        assert "tenant" in (await store.plan("paid")).shapes

    async def test_listening_from_the_creation_on(self, store: DurableStore) -> None:
        on = Listen("cancelled", "cancel", "o=1", "order", seen=None, cancel=b"why")
        waiting = await create(store, listens=[on])
        running = await own(store, await create(store, listens=[on]))
        other = await create(store, listens=[replace(on, topic="o=2")])
        ended = await complete(store, listens=[on])
        await send(store, Emit("e", "cancelled", b"", ["order"], ["o=1"]))
        stored = await row(store, waiting)
        assert (stored.status, stored.error) == (ExecutionStatus.CANCELLED, b"why")
        [entry] = await unread(store, running.id)
        assert (entry.kind, entry.data) == (MessageKind.CANCEL, b"why")
        assert (await row(store, other)).state is State.READY
        assert (await row(store, ended)).status is ExecutionStatus.COMPLETED

    async def test_an_event_between_looking_and_listening_is_not_missed(
        self, store: DurableStore, peers: Sequence[DurableStore]
    ) -> None:
        for number in range(20):
            one = await own(store)
            looked = await store.look("paid", shape="order", topic=f"o={number}", since=0)
            wait = listen(f"o={number}", seen=looked.seq)
            event = paid(topics=[f"o={number}"])
            await asyncio.gather(one.commit(PARK, out=[wait]), peers[-1].send([event], op_id=ids.nonce()))
            await carry(store)
            assert len(await told(store, one)) >= 1

    # -- looking

    async def test_one_finds_what_came_since_an_instant(self, store: DurableStore) -> None:
        await send(store, paid("old", topics=["o=1"]))
        await self.pass_time(store, 2)
        since = (await store.live()).at
        await send(
            store,
            paid("a", topics=["o=1"]),
            paid("b", topics=["o=2"]),
            paid("c", shapes=[]),
            paid("d", topics=["o=1"]),
        )
        looked = await store.look("paid", shape="order", topic="o=1", since=since)
        assert [event.id for event in looked.events] == ["a", "c", "d"]
        assert (looked.seq, looked.more) == (5, False)
        any = await store.look("paid", shape="", topic="", since=since)
        assert [event.id for event in any.events] == ["a", "b", "c", "d"]

    async def test_one_looks_page_by_page(self, store: DurableStore) -> None:
        await send(store, *[paid(f"{n}", topics=["o=1"]) for n in range(5)])
        found: list[str] = []
        after, more = 0, True
        while more:
            page = await store.look("paid", shape="order", topic="o=1", since=0, after=after, limit=2)
            assert len(page.events) <= 2
            found += [event.id for event in page.events]
            after, more = page.seq, page.more
        assert found == [f"{n}" for n in range(5)]

    async def test_nothing_is_found_where_nothing_came(self, store: DurableStore) -> None:
        looked = await store.look("paid", shape="", topic="", since=0)
        assert (list(looked.events), looked.seq, looked.more) == ([], 0, False)

    async def test_a_start_with_a_known_key_is_named_by_its_first_execution(
        self, store: DurableStore
    ) -> None:
        first = await create(store, key="k")
        answer = await store.create(new(key="k"), op_id=ids.nonce())
        assert isinstance(answer, Exists)
        sent = await send(store, replace(paid(), starts=[new(key="k")]))
        assert list(sent.receipts[0].execution_ids) == [first]
