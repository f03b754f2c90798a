"""What contradicts itself in a namespace. It reads everything, and is meant for a store at rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import final

from durable.backends.redis.check_events import about_events
from durable.backends.redis.gate_check import Seeking, in_records, of_gate, of_groups
from durable.backends.redis.keys import Partition
from durable.backends.redis.pages import scan
from durable.backends.redis.records import (
    STATUS_LETTERS,
    as_pairs,
    as_words,
    unpack_consumed,
    unpack_entry,
    unpack_history,
    unpack_row,
)
from durable.backends.redis.verbs import Verbs, worker_place
from durable.backends.redis.wire import Word
from durable.protocols import TIMEOUT_TIMER, ExecutionRow, State


async def contradictions(verbs: Verbs) -> Sequence[str]:
    """A sentence for each."""
    found: list[str] = []
    seeking: dict[str, Seeking] = {}
    for part in verbs.space.partitions:
        found += [
            f"partition {part.number}: {sentence}" async for sentence in _in_partition(verbs, part, seeking)
        ]
    for part in verbs.space.partitions:
        names = {key.removeprefix(part.prefix)[3:] async for key in scan(verbs, part, "g?:*")}
        for name in names:
            found += [sentence async for sentence in of_gate(verbs, part, name, seeking)]
    found += [sentence async for sentence in in_records(verbs, seeking)]
    return [*found, *[sentence async for sentence in about_events(verbs)]]


@final
@dataclass(frozen=True, slots=True)
class _Own:
    """One execution, as it is stored."""

    row: ExecutionRow
    fields: dict[bytes, bytes]
    history_flags: dict[bytes, bytes]
    timers: set[bytes]
    is_watched: bool
    steps: dict[bytes, bytes]
    """Those that are at gates."""


async def _in_partition(verbs: Verbs, part: Partition, seeking: dict[str, Seeking]) -> AsyncIterator[str]:
    found = {key async for key in scan(verbs, part, "?:*")}
    executions: dict[str, _Own] = {}
    for key in found:
        letter, _, execution_id = key.removeprefix(part.prefix).partition(":")
        if letter == "x":
            sentences: list[str] = []
            executions[execution_id] = await _read(verbs, execution_id, sentences)
            for sentence in sentences:
                yield f"{execution_id}: {sentence}"
    for key in found:
        if key.removeprefix(part.prefix).partition(":")[2] not in executions:
            yield f"{key} belongs to no execution"

    mine = {
        execution_id: Seeking(execution_id, own.fields[b"st"], own.fields, own.steps)
        for execution_id, own in executions.items()
    }
    seeking.update(mine)
    async for sentence in of_groups(verbs, part, mine):
        yield sentence
    async for name, is_same in _indexes(verbs, part, executions):
        if not is_same:
            yield f"the index of {name} does not hold exactly what the executions say"
    keys = dict(as_pairs(await verbs.wire.call("HGETALL", part.keys, key=part.keys)))
    for field, holder in keys.items():
        held_by = executions.get(holder.decode())
        if held_by is None or held_by.fields.get(b"kf") != field:
            yield f"key {field!r} leads to another execution"
    for execution_id, own in executions.items():
        key_field = own.fields.get(b"kf")
        # One that has ended and was opened again may have lost its key to another meanwhile.
        never_ended = b"fa" not in own.fields
        if key_field is not None and never_ended and keys.get(key_field) != execution_id.encode():
            yield f"{execution_id}: its key does not lead to it"


async def _indexes(
    verbs: Verbs, part: Partition, executions: dict[str, _Own]
) -> AsyncIterator[tuple[str, bool]]:
    async def members(key: str) -> list[bytes]:
        return as_words(await verbs.wire.call("ZRANGE", key, 0, -1, key=key))

    waiting = [member for key in (part.ready, part.later, part.rung) for member in await members(key)]
    at_gates = as_words(await verbs.wire.call("ZRANGEBYSCORE", part.rung, "+inf", "+inf", key=part.rung))
    held: list[bytes] = []
    opening: list[bytes] = []
    ready: list[bytes] = []
    owned: list[bytes] = []
    closed: list[bytes] = []
    index: list[bytes] = []
    timers: list[bytes] = []
    for execution_id, own in executions.items():
        row, fields, name = own.row, own.fields, execution_id.encode()
        stamp = b"%016d%b" % (row.created_at, name)
        status = STATUS_LETTERS[row.status].encode()
        index += [prefix + stamp for prefix in (b"a", b"s" + status, *fields[b"ix"].split(b"\n"))]
        index.append(b"i%b\0%016d" % (name, row.created_at))
        timers += [name + b"\0" + step for step in own.timers]
        match row.state:
            case State.READY:
                ready.append(b"%b%016d%b\0%d" % (fields[b"rk"], row.available_at, name, row.crashes))
                if fields.get(b"hd"):
                    held.append(ready[-1])
                if fields.get(b"hd") == b"o":
                    opening.append(name + b"\0__gates")
            case State.OWNED:
                owned.append(b"%b%016d%b" % (worker_place(row.worker or ""), int(fields[b"oa"]), name))
            case State.CLOSED:
                closed.append(b"%b%016d%b" % (status, row.finished_at or 0, name))
            case _:
                pass
    yield "the ready", sorted(waiting) == sorted(ready)
    yield "the held", sorted(at_gates) == sorted(held)
    yield "the owned", sorted(await members(part.owned)) == sorted(owned)
    yield "the closed", sorted(await members(part.closed)) == sorted(closed)
    yield "queries", sorted(await members(part.index)) == sorted(set(index))
    ending = b"\0" + TIMEOUT_TIMER.encode()
    set_timers = [member for member in await members(part.timers) if not member.startswith(b"\0")]
    yield "openings", sorted(each for each in set_timers if each.endswith(b"\0__gates")) == sorted(opening)
    set_timers = [member for member in set_timers if not member.endswith(b"\0__gates")]
    yield "timers", sorted(each for each in set_timers if not each.endswith(ending)) == sorted(timers)
    deadlines = {each.removesuffix(ending).decode() for each in set_timers if each.endswith(ending)}
    yield "deadlines", all(_may_time_out(executions.get(each)) for each in deadlines)


def _may_time_out(own: _Own | None) -> bool:
    return own is not None and own.row.deadline_at is not None and own.row.state is not State.CLOSED


async def _read(verbs: Verbs, execution_id: str, sentences: list[str]) -> _Own:
    keys = verbs.space.of(execution_id)
    commands: list[tuple[Word, ...]] = [
        ("HGETALL", keys.x),
        ("HGETALL", keys.history),
        ("ZRANGE", keys.unread, 0, -1, "WITHSCORES"),
        ("HGETALL", keys.consumed),
        ("SMEMBERS", keys.timers),
        ("EXISTS", keys.watched),
        ("HGETALL", keys.seeking),
        ("EXISTS", keys.listening),
    ]
    x, history, unread, consumed, timers, watched, seeking, listening = await asyncio.gather(
        *[verbs.wire.call(*command, key=keys.x) for command in commands]
    )
    fields = dict(as_pairs(x))
    own = _Own(
        unpack_row(execution_id, fields),
        fields,
        {step: value[:1] for step, value in as_pairs(history)},
        set(as_words(timers)),
        bool(watched),
        dict(as_pairs(seeking)),
    )
    row = own.row
    if row.status.final != (row.state is State.CLOSED):
        sentences.append(f"{row.state}, and {row.status}")
    if own.is_watched and row.state is State.CLOSED:
        sentences.append("watched, though it will never close")
    if row.state is State.CLOSED and (own.steps or fields.get(b"hd")):
        sentences.append("closed, and at gates")
    if listening and row.state is State.CLOSED:
        sentences.append("listening, though it has ended")
    if own.timers and row.state is State.CLOSED:
        sentences.append("closed, with timers")
    if any(own.history_flags.get(step) != b"t" for step in own.timers):
        sentences.append("a timer is not that of an open checkpoint")
    if (row.op_id == "") != (row.ver == 0):
        sentences.append(f"version {row.ver}, last operation {row.op_id!r}")

    numbers = [record.seq for record in unpack_history(history)]
    if len(set(numbers)) < len(numbers) or max(numbers, default=0) > int(fields.get(b"hq", 0)):
        sentences.append("history out of order")
    entries = [unpack_entry(packed) for packed, _ in as_pairs(unread)]
    if [entry.seq for entry in entries] != [int(float(score)) for _, score in as_pairs(unread)]:
        sentences.append("inbox out of order")
    taken = [unpack_consumed(packed).seq for _, packed in as_pairs(consumed)]
    seqs = [*taken, *(entry.seq for entry in entries)]
    if len(set(seqs)) < len(seqs) or max(seqs, default=0) > row.inbox_seq:
        sentences.append("an entry of the inbox is there twice, or not counted")
    return own
