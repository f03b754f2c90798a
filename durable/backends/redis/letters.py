"""`Letter`: what one execution has to tell others, as it stands in the outbox of its partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast, final

from pydantic_core import from_json, to_json

from durable.backends.redis.gates import Passing, pack_gates, unpack_gates, unpack_passing
from durable.backends.redis.keys import Partition
from durable.backends.redis.records import (
    KIND_LETTERS,
    REACH_LETTERS,
    as_bytes,
    as_list,
    as_pairs,
    as_words,
    unpack_outcome,
)
from durable.backends.redis.wire import Reply
from durable.protocols import (
    Emit,
    Free,
    Join,
    Listen,
    Message,
    MessageKind,
    NewExecution,
    Out,
    Outcome,
    Post,
    Reach,
    Seek,
    Start,
    Unlisten,
    Watch,
)

_KINDS: Final = {letter: kind for kind, letter in KIND_LETTERS.items()}
_REACHES: Final = {letter: reach for reach, letter in REACH_LETTERS.items()}
_SpecWords = tuple[
    str, str, str, str, int, str | None, bool, dict[str, str], int, int | None, int | None, str | None,
]  # fmt: skip
_SPEC_WORDS: Final = 12
_JoinWords = tuple[str, int, int | None, int | None, int]
_FIXED: Final = 12
"""The words of an entry about an end that stand before its watchers."""
_HEARD: Final = 8
"""Of one about an event: before those who listened."""


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """An execution ended, and these had begun to watch it: watcher, step id and token of each."""

    target: str
    outcome: Outcome
    watchers: Sequence[tuple[str, str, str]]


@final
@dataclass(frozen=True, slots=True)
class Hearer:
    """A step that listened, by the letter with which it began to."""

    execution_id: str
    step_id: str
    token: str
    to_look: bool
    cancel: bytes | None


@final
@dataclass(frozen=True, slots=True)
class Heard:
    """An event came that concerns these, or may."""

    event: str
    seq: int
    packed: bytes
    hearers: Sequence[Hearer]

    def message(self, hearer: Hearer) -> Message:
        step_id = hearer.step_id
        if hearer.to_look:
            return Message(f"look:{self.seq}:{step_id}", MessageKind.EVENT, step_id)
        message_id = f"event:{self.seq}:{step_id}"
        if hearer.cancel is not None:
            return Message(message_id, MessageKind.CANCEL, "cancel", hearer.cancel, Reach.BLOCKED)
        return Message(message_id, MessageKind.EVENT, step_id, self.packed)


@final
@dataclass(frozen=True, slots=True)
class Rest:
    """More listen for an event than could be told at once: go on behind the cursor."""

    event: str
    event_id: str
    cursor: bytes


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where a kept answer names what a start has led to."""

    answers: str
    field: str
    op: str
    number: int
    """From 1."""


@final
@dataclass(frozen=True, slots=True)
class Letter:
    """It may be delivered any number of times; those to whom it goes know it by its token."""

    part: Partition
    """Of the sender."""
    entry_id: bytes
    """In the outbox."""
    sender: str
    incarnation: str
    """By which the sender is told from another execution of its id, after it was deleted."""
    content: Out | Ended | Heard | Rest | Passing
    place: Place | None = None
    """Of a start that is not an execution's."""

    @property
    def token(self) -> str:
        return f"{self.part.number}:{self.entry_id.decode()} {self.incarnation}"

    @property
    def to(self) -> str:
        """The execution that is looked for first; or the name of events, which no execution has as its id."""
        match self.content:
            case Start(spec):
                return spec.id
            case Post(to, _):
                return to
            case Watch(target, _) | Ended(target):
                return target
            case Emit(name=event) | Listen(event) | Unlisten(event) | Heard(event) | Rest(event):
                return f"{event}\0"
            case Passing():
                return self.content.to
            case Seek() | Free():
                raise TypeError(self.content)


def pack_out(out: Out) -> bytes:
    """A line of JSON, then the payload."""
    match out:
        case Start(spec):
            listens = [pack_out(listen) for listen in spec.listens]
            join, gates = spec.join, pack_gates(spec.gates)
            words = [
                spec.id,
                spec.workflow,
                spec.version,
                spec.queue,
                spec.priority,
                spec.key,
                spec.reuse_closed_key,
                dict(spec.tags),
                spec.delay_ms,
                spec.at_ms,
                spec.timeout_ms,
                spec.parent_id,
                [len(each) for each in (spec.input, spec.cause, gates, *listens)],
                join and (join.group, join.wait_ms, join.most_ms, join.size, join.items),
            ]
            return b"".join(
                (b"S", to_json(words), b"\n", spec.input, spec.cause, gates, *listens, spec.options)
            )
        case Post(to, message):
            kind, reach = KIND_LETTERS[message.kind], REACH_LETTERS[message.reach]
            return b"P" + to_json([to, message.id, kind, message.name, reach]) + b"\n" + message.data
        case Watch(target, step_id):
            return b"W" + to_json([target, step_id]) + b"\n"
        case Emit(event_id, name, data, shapes, topics, starts):
            packed = [pack_out(Start(spec)) for spec in starts]
            sizes = [len(each) for each in packed]
            head = to_json([event_id, name, list(shapes), list(topics), sizes])
            return b"".join((b"E", head, b"\n", *packed, data))
        case Listen(event, step_id, topic, shape, seen, cancel):
            # A script reads what stands before the JSON: whether it is for a cancel, and where it is kept.
            words = [topic, shape, seen, cancel is not None]
            head = _listening("L", "e" if cancel is None else "c", event, step_id)
            return b"".join((head, to_json(words), b"\n", cancel or b""))
        case Unlisten(event, step_id):
            return _listening("U", "-", event, step_id)
        case Seek() | Free():
            raise TypeError(out)


def _listening(verb: str, kind: str, event: str, step_id: str) -> bytes:
    field = f"{event}\0{step_id}".encode()
    return b"%b%b%d %b" % (verb.encode(), kind.encode(), len(field), field)


def _unpack_listening(packed: bytes) -> Listen | Unlisten:
    length, _, rest = packed[2:].partition(b" ")
    field, rest = rest[: int(length)], rest[int(length) :]
    event, _, step_id = field.decode().partition("\0")
    if packed[:1] == b"U":
        return Unlisten(event, step_id)
    head, _, cancel = rest.partition(b"\n")
    topic, shape, seen, cancels = cast("tuple[str, str, int | None, bool]", from_json(head))
    return Listen(event, step_id, topic, shape, seen, cancel if cancels else None)


def unpack_out(packed: bytes) -> Out:
    if packed[:1] in (b"L", b"U"):
        return _unpack_listening(packed)
    head, _, body = packed[1:].partition(b"\n")
    words: object = from_json(head)
    match packed[:1]:
        case b"S":
            return Start(_unpack_spec(words, body))
        case b"P":
            to, message_id, kind, name, reach = cast("list[str]", words)
            return Post(to, Message(message_id, _KINDS[kind], name, body, _REACHES[reach]))
        case b"W":
            return Watch(*cast("list[str]", words))
        case _:
            event_id, name, *more = cast("tuple[str, str, *tuple[list[str], ...]]", words)
            # An older schema wrote no more than that.
            shapes, topics, sizes = cast("tuple[list[str], list[str], list[int]]", more or ([], [], []))
            *packed_starts, data = _split(body, sizes)
            starts = tuple(cast("Start", unpack_out(each)).spec for each in packed_starts)
            return Emit(event_id, name, data, tuple(shapes), tuple(topics), starts)


def _split(body: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Pieces of these sizes, and what is behind them."""
    pieces: list[bytes] = []
    for size in sizes:
        pieces.append(body[:size])
        body = body[size:]
    return [*pieces, body]


def _unpack_spec(words: object, body: bytes) -> NewExecution:
    all_words = cast("list[object]", words)
    (
        execution_id, workflow, version, queue, priority, key, reuse, tags, delay_ms, at_ms, timeout_ms,
        parent_id,
    ) = cast("_SpecWords", tuple(all_words[:_SPEC_WORDS]))  # fmt: skip
    # An older schema wrote the size of the input, and nothing of what is behind it but the options.
    sizes, *joins = all_words[_SPEC_WORDS:]
    sizes = [sizes] if isinstance(sizes, int) else cast("list[int]", sizes)
    input, *more, options = _split(body, sizes)
    join = cast("_JoinWords | None", joins[0]) if joins else None
    return NewExecution(
        id=execution_id,
        workflow=workflow,
        version=version,
        input=input,
        queue=queue,
        priority=priority,
        key=key,
        reuse_closed_key=reuse,
        tags=tags,
        options=options,
        delay_ms=delay_ms,
        at_ms=at_ms,
        timeout_ms=timeout_ms,
        parent_id=parent_id,
        gates=unpack_gates(more[1]) if more else (),
        join=join and Join(*join),
        listens=tuple(cast("Listen", unpack_out(each)) for each in more[2:]),
        cause=more[0] if more else b"",
    )


def unpack_letter(part: Partition, entry: Reply) -> Letter:
    """An entry of the outbox: its id, and its fields and values."""
    entry_id, fields = as_list(entry)
    words = as_words(fields)
    if words[1] == b"G":
        passing = unpack_passing(as_bytes(entry_id), dict(as_pairs(fields)))
        return Letter(part, as_bytes(entry_id), passing.execution_id, "", passing)
    if words[1] == b"T":
        target, status, workflow, attempt, data = words[3:_FIXED:2]
        watchers: list[tuple[str, str, str]] = []
        for watcher, token in zip(words[_FIXED::2], words[_FIXED + 1 :: 2], strict=True):
            watcher_id, _, step_id = watcher.decode().partition("\0")
            watchers.append((watcher_id, step_id, token.decode()))
        ended = Ended(target.decode(), unpack_outcome(status, workflow, attempt, data), watchers)
        return Letter(part, as_bytes(entry_id), target.decode(), "", ended)
    match words[1]:
        case b"S":
            answers, field, op, number, packed = words[3::2]
            place = Place(answers.decode(), field.decode(), op.decode(), int(number))
            return Letter(part, as_bytes(entry_id), "", "", unpack_out(packed), place)
        case b"H":
            event, seq, packed = words[3:_HEARD:2]
            hearers = [
                _unpack_hearer(*hearer)
                for hearer in zip(words[_HEARD::2], words[_HEARD + 1 :: 2], strict=True)
            ]
            heard = Heard(event.decode(), int(seq), packed, hearers)
            return Letter(part, as_bytes(entry_id), "", "", heard)
        case b"M":
            event, event_id, cursor = words[3::2]
            return Letter(part, as_bytes(entry_id), "", "", Rest(event.decode(), event_id.decode(), cursor))
        case _:
            pass
    return Letter(part, as_bytes(entry_id), words[3].decode(), words[5].decode(), unpack_out(words[7]))


def _unpack_hearer(listener: bytes, packed: bytes) -> Hearer:
    token, _, what = packed.partition(b" ")
    execution_id, _, step_id = listener.decode().partition("\0")
    cancel = what[1:] if what[:1] == b"c" else None
    return Hearer(execution_id, step_id, token.decode(), what == b"l", cancel)


def told(target: str, step_id: str, outcome: Outcome) -> Message:
    """What a watcher gets."""
    return Message(f"watch:{target}:{step_id}", MessageKind.CHILD, step_id, outcome.pack(), Reach.PARKED)
