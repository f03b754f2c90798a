"""What contradicts itself about events and schedules; as `check`, for a store at rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from durable.backends.redis.events import shape_mark
from durable.backends.redis.keys import Partition
from durable.backends.redis.pages import scan
from durable.backends.redis.records import as_bytes, as_int, as_pairs, as_words
from durable.backends.redis.verbs import Verbs
from durable.backends.redis.wire import Reply

_NO_SHAPE = shape_mark("").encode()


async def about_events(verbs: Verbs) -> AsyncIterator[str]:
    """A sentence for each."""
    parts = verbs.space.partitions
    registered: set[tuple[bytes, bytes]] = set()
    """Listeners, with the letters with which they began to listen."""
    for part in parts:
        logs = {name for letters in ("el", "ev", "ea") async for name in _names(verbs, part, letters)}
        for name in sorted(logs):
            async for sentence in _log(verbs, part, name):
                yield f"events {name}: {sentence}"
        async for name in _names(verbs, part, "eh"):
            keys = verbs.space.of_events(name)
            listeners = as_pairs(await _read(verbs, "HGETALL", keys.listeners))
            own = {listener: packed.partition(b"\n")[0].split(b" ") for listener, packed in listeners}
            marks = [
                mark + listener
                for listener, (_, *more) in own.items()
                if more
                for mark in (more[2], *([more[3]] if more[1] == b"e" and more[3] != _NO_SHAPE else []))
            ]
            if sorted(as_words(await _read(verbs, "ZRANGE", keys.unlisten[1], 0, -1))) != sorted(marks):
                yield f"events {name}: the index does not hold exactly who listens"
            registered |= {
                (listener + b"\0" + name.encode(), words[0] if len(words) > 1 else b"")
                for listener, words in own.items()
            }
    lengths = await asyncio.gather(*[_read(verbs, "XLEN", part.outbox) for part in parts])
    if not any(map(as_int, lengths)) and registered != await _listening(verbs):
        yield "those who are known to listen are not those who do"
    async for sentence in _schedules(verbs):
        yield sentence


async def _log(verbs: Verbs, part: Partition, name: str) -> AsyncIterator[str]:
    keys = verbs.space.of_events(name)
    log, data, about, oldest = await asyncio.gather(
        _read(verbs, "ZRANGE", keys.look[0], 0, -1, "WITHSCORES"),
        _read(verbs, "HKEYS", keys.data),
        _read(verbs, "HGETALL", keys.about),
        _read(verbs, "ZSCORE", part.event_names, name),
    )
    members = as_pairs(log)
    ids = sorted(member[16:] for member, _ in members)
    more = dict(as_pairs(about))
    if ids != sorted(as_words(data)) or any(
        sorted(field[1:] for field in more if field[:1] == letter) != ids for letter in (b"m", b"s")
    ):
        yield "an event is not everywhere where it should be"
        return
    if any(
        more.get(b"m" + member[16:], b"").split(b" ")[1:3] != _place(member, at) for member, at in members
    ):
        yield "an event does not stand where it says"
    numbers = [int(member[:16]) for member, _ in members]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        yield "the log has gaps"
    if oldest is None or float(as_bytes(oldest)) != float(members[0][1]):
        yield "it is not known which is the oldest"


def _place(member: bytes, at: bytes) -> list[bytes]:
    return [b"%d" % int(member[:16]), b"%d" % int(float(at))]


async def _listening(verbs: Verbs) -> set[tuple[bytes, bytes]]:
    """Who says of itself that it listens, and since which letter."""
    found: set[tuple[bytes, bytes]] = set()
    for part in verbs.space.partitions:
        async for execution_id in _names(verbs, part, "e"):
            for field, token in as_pairs(
                await _read(verbs, "HGETALL", verbs.space.of(execution_id).listening)
            ):
                name, _, step_id = field.partition(b"\0")
                found.add((b"\0".join((execution_id.encode(), step_id, name)), token[1:]))
    return found


async def _schedules(verbs: Verbs) -> AsyncIterator[str]:
    keys = verbs.space.schedules
    rows, ids, due, answers = await asyncio.gather(
        _read(verbs, "HGETALL", keys.rows),
        _read(verbs, "ZRANGE", keys.ids, 0, -1),
        _read(verbs, "ZRANGE", keys.due, 0, -1),
        _read(verbs, "HKEYS", keys.answers),
    )
    nexts = {id: packed.partition(b"\n")[0].split(b" ")[1] for id, packed in as_pairs(rows)}
    if sorted(nexts) != sorted(as_words(ids)) or sorted(nexts) != sorted(as_words(answers)):
        yield "a schedule is not everywhere where it should be"
    if sorted(id for id, at in nexts.items() if at != b"-") != sorted(as_words(due)):
        yield "the index of due schedules does not hold exactly those that have an instant"


async def _names(verbs: Verbs, part: Partition, letters: str) -> AsyncIterator[str]:
    """What stands behind the letters in the names of keys."""
    prefix = f"{part.prefix}{letters}:"
    found = {key async for key in scan(verbs, part, f"{letters}:*")}
    for key in sorted(found):
        yield key.removeprefix(prefix)


async def _read(verbs: Verbs, command: str, key: str, *words: str | int) -> Reply:
    return await verbs.wire.call(command, key, *words, key=key)
