"""Hostile values: whatever text and bytes users come up with, it comes back, and nothing in it is obeyed."""

from __future__ import annotations

import asyncio

import pytest

from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Block,
    Checkpoint,
    CheckpointStatus,
    Close,
    Committed,
    Continue,
    DurableStore,
    Emit,
    Exists,
    NotPosted,
    Outcome,
    Park,
    Query,
    Ready,
    State,
    Wanted,
    Watch,
)
from durable.testing.contracts.store.acts import (
    LATER,
    create,
    due,
    event_of,
    ids,
    message,
    new,
    own,
    post,
    record,
    row,
    tick,
    timer,
    unread,
)
from durable.testing.contracts.store.suite import StoreSuite

TEXTS = {
    "quotes": "'\"`; drop table executions; --",
    "braces": "}{ {ns:p00} ${x} {{7*7}}",
    "line ends": "a\r\nb\n\tc\u2028d",
    "escapes": "%00%0a%s \\x00 \\",
    "nul": "a\x00b",
    "control": "\x01\x1b[31m\x7f",
    "wildcards": "%_*?[a-z]",
    "paths": "../../etc/passwd",
    "right to left": "\u202eabc\u2066 שלום",
    "emoji": "👩‍👩‍👧 🏴‍☠️",
    "four bytes": "𝕏𐍈",
    "combining": "e\u0301\ufeff\u200b",
    "spaces": "  a  ",
    "number": "1e3",
    "json": '[{"a": null}]',
    "markup": "<script>alert(1)</script>",
    "long": "ä" * 512,
}
PAYLOADS = {
    "every byte": bytes(range(256)),
    "no bytes": b"",
    "empty list": b"[]",
    "empty object": b"{}",
    "null": b"null",
    "big numbers": b"[1234567890123456789, 12345678901.123456, 1e400, -0.0]",
    "not utf-8": b"\xff\xfe\xc3\x28\xed\xa0\x80",
    "protocol": b"$5\r\nhello\r\n*1\r\n",
    "ends in nul": b"a\x00",
    "half a mebibyte": bytes(range(256)) * 2048,
}
LEGAL_ID = "Aa0._:/#[]-"
INSTANTS = [0, 2**31 - 1, 2**31, 10**15, 2**53 - 1, 2**53]


class HostileValues(StoreSuite):
    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_any_text_is_a_key(self, store: DurableStore, text: str) -> None:
        execution = await create(store, key=text)
        assert (await row(store, execution)).key == text
        answer = await store.create(new(key=text), op_id=ids.nonce())
        assert answer == Exists(execution, same_input=True)
        await create(store, key=text + ".")
        await create(store, key=text[:-1])

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_any_text_is_a_tag(self, store: DurableStore, text: str) -> None:
        execution = await create(store, tags={text: text, "plain": text})
        await create(store, tags={text + ".": text, "plain": text + "."})
        assert (await row(store, execution)).tags == {text: text, "plain": text}
        for tags in ({text: text}, {"plain": text}):
            assert [each.id for each in (await store.query(Query(tags=tags))).rows] == [execution]

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_any_text_names_a_step_its_timer_and_its_consumer(
        self, store: DurableStore, text: str
    ) -> None:
        owner = await own(store)
        await owner.commit(
            checkpoints=[
                Checkpoint(text, text, text, CheckpointStatus.OPEN, wake_at=owner.now),
                record(text + "."),
            ]
        )
        await tick(store)
        assert [entry.name for entry in await unread(store, owner.id)] == [text]
        await owner.commit(checkpoints=[record(text, b"done")], consume=[(1, text)])
        history = await store.history(owner.id)
        assert [(stored.step_id, stored.name) for stored in history] == [
            (text + ".", text + "."),
            (text, text),
        ]
        assert [entry.consumed_by for entry in await store.inbox(owner.id)] == [text]
        await owner.commit(drop=[text])
        assert [stored.step_id for stored in await store.history(owner.id)] == [text + "."]

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_any_text_names_a_message(self, store: DurableStore, text: str) -> None:
        execution = await create(store)
        await post(store, execution, message(text, id=text))
        await post(store, execution, message(text, id=text + "."))
        again = await store.post(execution, message("other", id=text))
        assert again == NotPosted(State.READY, duplicate=True)
        assert [(entry.id, entry.name) for entry in await unread(store, execution)] == [
            (text, text),
            (text + ".", text),
        ]

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_any_text_names_a_value_an_event_and_a_code(self, store: DurableStore, text: str) -> None:
        owner = await own(store)
        event = Emit(text, text, b"")
        await owner.commit(
            Close(ExecutionStatus.FAILED, code=text), values={text: b"1", text + ".": b"2"}, out=[event]
        )
        assert await store.value(owner.id, text) == b"1"
        stored = await event_of(store, text, text)
        assert (stored.id, stored.name) == (text, text)
        assert (await row(store, owner.id)).code == text

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_any_text_names_a_worker_a_nonce_and_an_operation(
        self, store: DurableStore, text: str
    ) -> None:
        await asyncio.to_thread(store.beat, text, ttl_ms=LATER)
        assert set((await store.live()).workers) == {text}
        execution = await create(store)
        await store.claim(execution, nonce=text, worker=text)
        stored = await row(store, execution)
        assert (stored.worker, stored.nonce) == (text, text)
        batch = Batch(seen=0, next=Park(ExecutionStatus.WAITING))
        for _ in range(2):
            answer = await store.commit(execution, nonce=text, ver=0, op_id=text, batch=batch)
            assert isinstance(answer, Committed)
        assert (await row(store, execution)).op_id == text

    async def test_texts_that_differ_in_form_only_are_different(self, store: DurableStore) -> None:
        texts = ["é", "e\u0301", "K", "k", "\u212a", "ß", "ss", "a", "a\x00", "a ", "\ufeffa"]
        owner = await own(store)
        await owner.commit(
            checkpoints=[record(text) for text in texts], values={text: text.encode() for text in texts}
        )
        assert [stored.step_id for stored in await store.history(owner.id)] == texts
        for text in texts:
            assert await store.value(owner.id, text) == text.encode()
            await post(store, owner.id, message(id=text))

    async def test_every_legal_id_and_name_works(self, store: DurableStore) -> None:
        names = [LEGAL_ID, LEGAL_ID[::-1], "x" * 200, "0", "-", "#", "a:b", "a:b:c", "//", "[]"]
        for name in names:
            spec = new(id=name, workflow=name, version=name, queue=name, parent_id=name, key=name)
            await store.create(spec, op_id=ids.nonce())
        for name in names:
            wanted = Wanted((name,), frozenset({f"{name}@{name}"}))
            assert [bell.id for bell in await due(store, wanted=wanted)] == [name]
            assert [each.id for each in (await store.query(Query(workflow=name))).rows] == [name]
            assert [each.id for each in (await store.query(Query(parent_id=name))).rows] == [name]
            watcher = await own(store)
            await watcher.commit(Park(ExecutionStatus.WAITING), out=[Watch(name, name)])
            await (await own(store, name)).commit(Close(ExecutionStatus.COMPLETED))
            [told] = (await own(store, watcher.id)).inbox
            assert (told.id, told.name) == (f"watch:{name}:{name}", name)
            assert Outcome.unpack(told.data).workflow == name

    @pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
    async def test_any_bytes_are_a_payload(self, store: DurableStore, payload: bytes) -> None:
        execution = await create(store, input=payload, options=payload, key="k")
        again = await store.create(new(input=payload, key="k"), op_id=ids.nonce())
        assert again == Exists(execution, same_input=True)
        other = await store.create(new(input=payload + b"\x00", key="k"), op_id=ids.nonce())
        assert other == Exists(execution, same_input=False)
        await post(store, execution, message(data=payload))
        owner, watcher = await own(store, execution), await own(store)
        await watcher.commit(Park(ExecutionStatus.WAITING), out=[Watch(owner.id, "join")])
        assert [entry.data for entry in owner.inbox] == [payload]
        await owner.commit(
            checkpoints=[record("a", payload), record("b", payload, CheckpointStatus.RETRYING)],
            values={"v": payload},
            out=[Emit("e", "paid", payload)],
        )
        assert [stored.data for stored in await store.history(owner.id)] == [payload, payload]
        assert await store.value(owner.id, "v") == payload
        assert (await event_of(store, "paid", "e")).data == payload
        await owner.commit(Close(ExecutionStatus.COMPLETED, payload, payload))
        stored = await row(store, owner.id)
        assert (stored.input, stored.options, stored.result, stored.error) == (payload,) * 4
        [told] = await unread(store, watcher.id)
        assert Outcome.unpack(told.data).data == payload

    @pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
    async def test_any_bytes_are_an_error_and_a_next_input(self, store: DurableStore, payload: bytes) -> None:
        blocked, continued = await own(store), await own(store)
        await blocked.commit(Block(ExecutionStatus.PARKED, payload))
        await continued.commit(Continue(payload))
        assert (await row(store, blocked.id)).error == payload
        assert (await row(store, continued.id)).input == payload

    @pytest.mark.parametrize("instant", INSTANTS)
    async def test_instants_are_exact(self, store: DurableStore, instant: int) -> None:
        owner = await own(store)
        given = Checkpoint("a", "step", "a", CheckpointStatus.COMPLETED, b"", instant, instant, instant)
        await owner.commit(checkpoints=[given])
        [stored] = await store.history(owner.id)
        assert (stored.attempts, stored.started_at, stored.finished_at) == (instant, instant, instant)
        later = max(instant, owner.now + LATER)
        await owner.commit(checkpoints=[timer("nap", later)])
        assert (await tick(store)).next_at == later
        await owner.commit(Park(ExecutionStatus.SLEEPING, instant), checkpoints=[record("nap")])
        assert (await row(store, owner.id)).wake_at == instant
        await post(store, owner.id, message())
        await (await own(store, owner.id)).commit(Ready(later, ExecutionStatus.RETRYING, attempt=instant + 1))
        stored_row = await row(store, owner.id)
        assert (stored_row.available_at, stored_row.attempt) == (later, instant + 1)
        assert (await tick(store)).next_at == later

    @pytest.mark.parametrize("timeout_ms", [LATER, 2**31, 10**15, 2**52])
    async def test_deadlines_are_exact(self, store: DurableStore, timeout_ms: int) -> None:
        created = await row(store, await create(store, timeout_ms=timeout_ms))
        assert created.deadline_at == created.created_at + timeout_ms
        assert (await tick(store)).next_at == created.deadline_at

    @pytest.mark.parametrize("priority", [-(2**31), -1, 0, 1, 2**31 - 1])
    async def test_priorities_are_exact(self, store: DurableStore, priority: int) -> None:
        execution = await create(store, priority=priority)
        assert (await row(store, execution)).priority == priority
        assert [bell.priority for bell in await due(store)] == [priority]
