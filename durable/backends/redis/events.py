"""Events: stored and looked up in the partition of their name, with who listens for them and whom they start."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, cast, final

from pydantic_core import from_json, to_json

from durable.backends.redis import scripts
from durable.backends.redis.keys import Partition
from durable.backends.redis.letters import Letter, Place, Rest, pack_out, unpack_letter
from durable.backends.redis.records import as_bytes, as_int, as_list, as_pairs, as_words, digest
from durable.backends.redis.verbs import Verbs
from durable.backends.redis.wire import Reply, Word
from durable.protocols import Emit, EventRow, Listen, Looked, NewExecution, Plan, Start, Subscriber

_MOST: Final = 256
"""Items that one run of a script handles."""
_PAGE: Final = 1_000


@final
@dataclass(frozen=True, slots=True)
class Emitted:
    """What became of an event, before its letters are delivered."""

    started: Sequence[str]
    waited: Sequence[str]
    """Who waited for it."""
    duplicate: bool
    letters: Sequence[Letter]
    """What it put into the outbox of its partition."""
    places: Sequence[Place]
    """Where the stored event names what it started."""


def topic_mark(topic: str) -> str:
    """By which a script compares topics."""
    return "T" + digest(topic.encode()).hex()


def shape_mark(shape: str) -> str:
    return "U" + digest(shape.encode()).hex()


async def emit(verbs: Verbs, event: Emit, op_id: str) -> Emitted:
    """Store it, if its id is new."""
    keys = verbs.space.of_events(event.name)
    # The topic of who waits for any.
    marks = [*map(topic_mark, ("", *event.topics)), *map(shape_mark, event.shapes)]
    op = digest(op_id.encode()).hex()
    code, started, waited, *letters = as_list(
        await verbs.wire.run(
            scripts.EMIT,
            keys.all,
            (
                event.name,
                event.id,
                op,
                " ".join(marks),
                f"{event.name} {event.id}\n".encode() + event.data,
                "",
                *pack_starts(event.starts),
            ),
            op_id=op_id,
        )
    )
    return Emitted(
        unpack_ids(started)[1:],
        unpack_ids(waited),
        code == b"d",
        unpack_letters(keys.part, letters),
        [Place(keys.about, f"s{event.id}", op, number) for number in range(1, len(event.starts) + 1)],
    )


async def leave(verbs: Verbs, events: Sequence[Emit], op_id: str) -> Sequence[Letter]:
    """Put them all into the outbox of the first one's partition."""
    part = verbs.space.of_events(events[0].name).part
    packed = [pack_out(event) for event in events]
    entries = await verbs.wire.run(scripts.LEAVE, (part.outbox,), (op_id, *packed), op_id=op_id)
    return [
        Letter(part, entry_id, "", f"{op_id}:{number}", event)
        for number, (entry_id, event) in enumerate(zip(as_words(entries), events, strict=True))
    ]


async def tell_rest(verbs: Verbs, rest: Rest) -> Sequence[Letter]:
    """Tell more of those who listen for an event."""
    keys = verbs.space.of_events(rest.event)
    args = (rest.event, rest.event_id, "", "", "", rest.cursor)
    _, *rest_of_reply = as_list(await verbs.wire.run(scripts.EMIT, keys.all, args, op_id=rest.event_id))
    return unpack_letters(keys.part, rest_of_reply[2:])


async def listen(verbs: Verbs, letter: Letter, listen: Listen) -> Sequence[Letter]:
    """Let the sender be told of events, if it has not ended its listening since."""
    keys = verbs.space.of_events(listen.event)
    listener = f"{letter.sender}\0{listen.step_id}"
    entries = await verbs.wire.run(
        scripts.LISTEN,
        keys.all,
        (
            listen.event,
            listener,
            letter.entry_id,
            "e" if listen.cancel is None else "c",
            topic_mark(listen.topic),
            shape_mark(listen.shape),
            listen.shape,
            "" if listen.seen is None else listen.seen,
            listen.cancel or b"",
        ),
        op_id=letter.token,
    )
    # A late letter must not outlive what came after it: its sender knows best.
    own = verbs.space.of(letter.sender).listening
    kept = await verbs.wire.call("HGET", own, f"{listen.event}\0{listen.step_id}", key=own)
    if kept is None or as_bytes(kept)[1:] != letter.entry_id:
        await unlisten(verbs, listen.event, listener, letter.entry_id)
    return unpack_letters(keys.part, [entries])


async def unlisten(verbs: Verbs, event: str, listener: str, token: Word) -> None:
    """Forget a listener, unless it has begun to listen again since the letter that the token is of."""
    keys = verbs.space.of_events(event)
    await verbs.wire.run(scripts.UNLISTEN, keys.unlisten, (listener, token), op_id=listener)


async def looked(verbs: Verbs, event: str, listener: str, token: str, seq: int) -> None:
    """Let later events be given to a listener as they are, now that it knows that it is to look."""
    listeners = verbs.space.of_events(event).listeners
    await verbs.wire.run(scripts.LOOKED, (listeners,), (listener, token, seq), op_id=listener)


async def name_start(verbs: Verbs, place: Place, execution_id: str) -> None:
    """Let a kept answer name the execution to which a start has led, though it has another id."""
    await verbs.wire.run(
        scripts.NAME,
        (place.answers,),
        (place.field, place.op, place.number, execution_id),
        op_id=execution_id,
    )


async def prune(verbs: Verbs, before: int, limit: int) -> int:
    pruned = 0
    for part in verbs.space.partitions:
        while pruned < limit:
            asked = min(limit - pruned, _MOST)
            key = part.event_names
            old = as_words(
                await verbs.wire.call("ZRANGEBYSCORE", key, "-inf", f"({before}", "LIMIT", 0, asked, key=key)
            )
            for name in old:
                keys = verbs.space.of_events(name.decode())
                args = (name, before, min(limit - pruned, _MOST))
                pruned += as_int(await verbs.wire.run(scripts.OUTDATE, keys.all, args, op_id="prune"))
                if pruned == limit:
                    return pruned
            if not old:
                break
    return pruned


# ---- reads


async def event(verbs: Verbs, name: str, event_id: str) -> EventRow | None:
    keys = verbs.space.of_events(name)
    data, about = await asyncio.gather(
        verbs.wire.call("HGET", keys.data, event_id, key=keys.data),
        verbs.wire.call("HMGET", keys.about, f"m{event_id}", f"s{event_id}", f"w{event_id}", key=keys.about),
    )
    if data is None or as_list(about)[0] is None:  # or it was deleted between the two
        return None
    return _unpack_event(name, (event_id.encode(), as_list(about)[0], data, *as_list(about)[1:]))


async def look(
    verbs: Verbs, name: str, *, shape: str, topic: str, since: int, after: int, limit: int
) -> Looked:
    keys = verbs.space.of_events(name)
    args = (topic_mark(topic), shape_mark(shape), since, after, limit)
    seq, more, found = as_list(await verbs.wire.run(scripts.LOOK, keys.look, args))
    rows = [_unpack_event(name, as_list(each)) for each in as_list(found)]
    return Looked(rows, int(as_bytes(seq)), bool(more))


async def plan(verbs: Verbs, name: str) -> Plan:
    keys = verbs.space.of_events(name)
    known, subscribed = await asyncio.gather(
        verbs.wire.call("HGETALL", keys.shapes, key=keys.shapes), _subscribers(verbs, keys.part)
    )
    subscribers = [each for each in subscribed if each.event == name]
    shapes = sorted(shape.decode() for mark, shape in as_pairs(known) if mark[:1] == b"U")
    declared = (shape for each in subscribers for shape in each.shapes)
    return Plan(tuple(dict.fromkeys((*shapes, *declared))), tuple(subscribers))


# ---- whom events start


async def subscribe(verbs: Verbs, add: Sequence[Subscriber], remove: Sequence[Subscriber]) -> None:
    def parts(subscribers: Iterable[Subscriber]) -> dict[Partition, list[Subscriber]]:
        found: dict[Partition, list[Subscriber]] = {}
        for each in subscribers:
            found.setdefault(verbs.space.of_events(each.event).part, []).append(each)
        return found

    await asyncio.gather(
        *[
            verbs.wire.call(
                "HDEL", part.subscribers, *map(_field, those), key=part.subscribers, op_id="subscribe"
            )
            for part, those in parts(remove).items()
        ]
    )
    await asyncio.gather(
        *[
            verbs.wire.call(
                "HSET",
                part.subscribers,
                *[word for each in those for word in (_field(each), _pack_subscriber(each))],
                key=part.subscribers,
                op_id="subscribe",
            )
            for part, those in parts(add).items()
        ]
    )


async def subscribers(verbs: Verbs) -> Sequence[Subscriber]:
    found = await asyncio.gather(*[_subscribers(verbs, part) for part in verbs.space.partitions])
    return [each for those in found for each in those]


async def _subscribers(verbs: Verbs, part: Partition) -> Sequence[Subscriber]:
    found = as_pairs(await verbs.wire.call("HGETALL", part.subscribers, key=part.subscribers))
    return [_unpack_subscriber(field, packed) for field, packed in sorted(found)]


def _field(subscriber: Subscriber) -> str:
    return f"{subscriber.event}\0{subscriber.workflow}"


def _pack_subscriber(subscriber: Subscriber) -> bytes:
    return to_json(list(subscriber.shapes)) + b"\n" + subscriber.data


def _unpack_subscriber(field: bytes, packed: bytes) -> Subscriber:
    name, _, workflow = field.decode().partition("\0")
    shapes, _, data = packed.partition(b"\n")
    return Subscriber(name, workflow, data, tuple(cast("list[str]", from_json(shapes))))


# ---- what events have in common with schedules


def pack_starts(specs: Sequence[NewExecution]) -> list[Word]:
    """Of each its id, and the letter."""
    return [word for spec in specs for word in (spec.id, pack_out(Start(spec)))]


def unpack_ids(reply: Reply) -> list[str]:
    packed = as_bytes(reply).decode()
    return packed.split("\0") if packed else []


def unpack_letters(part: Partition, replies: Sequence[Reply]) -> Sequence[Letter]:
    """The letters that a script says it has put into the outbox, if it says so."""
    return [unpack_letter(part, entry) for entries in replies for entry in as_list(entries)]


def _unpack_event(name: str, reply: Sequence[Reply]) -> EventRow:
    event_id, marks, data, started, waited = reply
    _, seq, at, _ = as_bytes(marks).split(b" ", 3)
    # In front of its data stand name and id, as who listens is told.
    _, _, own = as_bytes(data).partition(b"\n")
    ids = (*unpack_ids(started)[1:], *unpack_ids(waited or b""))
    return EventRow(name, as_bytes(event_id).decode(), own, int(seq), int(at), ids)
