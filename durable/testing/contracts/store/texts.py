"""Hostile texts where nothing is stored by them: they ask for what is not there, and travel from one to another."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from durable.errors import InvalidInput
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Block,
    Claimed,
    DurableStore,
    Fenced,
    NotClaimed,
    NotPosted,
    Outcome,
    Park,
    Post,
    Query,
    Start,
    State,
    Wanted,
    Watch,
)
from durable.testing.contracts.store.acts import (
    LATER,
    Situation,
    bring,
    create,
    due,
    ids,
    message,
    new,
    own,
    record,
    row,
    snapshot,
    unread,
)
from durable.testing.contracts.store.suite import StoreSuite
from durable.testing.contracts.store.values import TEXTS

ALL_TEXTS = {
    **TEXTS,
    "no text": "",
    "very long": "x" * 100_000,
    "redis": "{ns}:meta\r\n*1\r\n$8\r\nFLUSHALL\r\n",
    "lua": "']] redis.call('FLUSHALL') --[[",
    "like": "a' OR '1'='1' ESCAPE '\\",
    "format": "%s%n{0}{x!r}%(a)s",
    "percent": "%2e%2e%2f%252e",
    "lone marks": "\u0300\u202d\u200d\ufffe\uffff",
}

any_text = pytest.mark.parametrize("text", ALL_TEXTS.values(), ids=ALL_TEXTS)


class HostileTexts(StoreSuite):
    @any_text
    async def test_any_text_asks_for_an_execution_that_is_not_there(
        self, store: DurableStore, text: str
    ) -> None:
        await create(store, key="k", tags={"a": "b"})
        before = await snapshot(store)
        assert await store.get(text) is None
        assert list(await store.history(text)) == []
        assert list(await store.inbox(text)) == []
        assert await store.peek({text: 0}) == {}
        assert await store.value(text, text) is None
        assert await store.event(text, text) is None
        assert await store.claim(text, nonce=text, worker=text, have_op=text) == NotClaimed(None)
        batch = Batch(seen=0, checkpoints=[record(text)])
        assert await store.commit(text, nonce=text, ver=0, op_id=text, batch=batch) == Fenced()
        assert await store.post(text, message(text, id=text)) == NotPosted(None)
        assert await snapshot(store) == before

    @any_text
    async def test_any_text_filters_out_what_it_does_not_name(self, store: DurableStore, text: str) -> None:
        execution = await create(store, tags={"a": "b"})
        for query in (
            Query(workflow=text),
            Query(parent_id=text),
            Query(tags={text: "b"}),
            Query(tags={"a": text}),
            Query(tags={"a": "b"}, workflow=text),
        ):
            assert list((await store.query(query)).rows) == [], query
        found = (await store.query(Query(id_prefix=text))).rows
        assert [each.id for each in found] == ([execution] if text == "" else [])

    @any_text
    async def test_any_text_is_a_cursor_or_is_refused_as_none(self, store: DurableStore, text: str) -> None:
        await create(store)
        before = await snapshot(store)
        with contextlib.suppress(InvalidInput):
            assert len((await store.query(Query(cursor=text))).rows) <= 1
        assert await snapshot(store) == before

    @any_text
    async def test_any_text_is_wanted_and_nothing_else_is_rung(self, store: DurableStore, text: str) -> None:
        execution = await create(store)
        strange = [
            Wanted((text,), frozenset({"order@1"})),
            Wanted(("default",), frozenset({text, f"order@{text}", f"{text}@1"})),
            Wanted((text, text), frozenset({text})),
        ]
        for wanted in strange:
            assert await due(store, wanted=wanted) == [], wanted
        both = Wanted((text, "default"), frozenset({text, "order@1"}))
        assert [bell.id for bell in await due(store, wanted=both)] == [execution]

    @any_text
    async def test_any_text_travels_in_what_a_commit_sends(self, store: DurableStore, text: str) -> None:
        sender, target = await own(store), await bring(store, Situation.PARKED)
        child = new(key=text or None, tags={text: text}, input=text.encode(), options=text.encode())
        await sender.commit(
            out=[
                Start(child),
                Post(target.id, message(text, text.encode(), id=text)),
                Post(text, message(text)),
                Watch(child.id, text),
            ]
        )
        started = await row(store, child.id)
        assert (started.key, started.tags, started.input) == (text or None, {text: text}, text.encode())
        [entry] = await unread(store, target.id)
        assert (entry.id, entry.name, entry.data) == (text, text, text.encode())
        assert (await row(store, target.id)).state is State.READY
        await (await own(store, child.id)).commit(Park(ExecutionStatus.WAITING))
        await sender.commit(out=[Watch(f"{text}?", text)])
        [told] = await unread(store, sender.id)
        assert (told.id, told.name) == (f"watch:{text}?:{text}", text)
        assert Outcome.unpack(told.data).status is None

    @any_text
    async def test_any_text_says_why_it_is_blocked(self, store: DurableStore, text: str) -> None:
        owner = await own(store)
        await owner.commit(Block(ExecutionStatus.PAUSED, text.encode(), text))
        stored = await row(store, owner.id)
        assert (stored.error, stored.code) == (text.encode(), text)

    @any_text
    async def test_any_text_is_remembered_or_not_as_the_last_commit(
        self, store: DurableStore, text: str
    ) -> None:
        owner = await own(store)
        await owner.commit(checkpoints=[record("a")], op_id=f"{text}!")
        for have_op, knows in ((text, False), (f"{text}!", True)):
            answer = await store.claim(owner.id, nonce=owner.nonce, worker="w", have_op=have_op)
            assert isinstance(answer, Claimed)
            assert (answer.history is None) == knows

    @any_text
    async def test_any_bytes_say_who_a_worker_is(self, store: DurableStore, text: str) -> None:
        await asyncio.to_thread(store.beat, "w", ttl_ms=LATER, info=text.encode())
        await asyncio.to_thread(store.beat, f"w{text}", ttl_ms=LATER, info=b"other")
        live = await store.live()
        assert live.workers["w"].info == (text.encode() if text else b"other")
        await asyncio.to_thread(store.beat, f"w{text}", ttl_ms=0)
        assert set((await store.live()).workers) == ({"w"} if text else set())
        assert ids.nonce() not in live.workers
