"""`Letter`: what one execution has to tell others, as it stands in the outbox of its partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast, final

from pydantic_core import from_json, to_json

from durable.backends.redis.keys import Partition
from durable.backends.redis.records import (
    KIND_LETTERS,
    REACH_LETTERS,
    as_bytes,
    as_list,
    as_words,
    unpack_outcome,
)
from durable.backends.redis.wire import Reply
from durable.protocols import (
    Emit,
    Message,
    MessageKind,
    NewExecution,
    Out,
    Outcome,
    Post,
    Reach,
    Start,
    Watch,
)

_KINDS: Final = {letter: kind for kind, letter in KIND_LETTERS.items()}
_REACHES: Final = {letter: reach for reach, letter in REACH_LETTERS.items()}
_SpecWords = tuple[
    str, str, str, str, int, str | None, bool, dict[str, str], int, int | None, int | None, str | None, int
]
_FIXED: Final = 12
"""The words of an entry about an end that stand before its watchers."""


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """An execution ended, and these had begun to watch it: watcher, step id and token of each."""

    target: str
    outcome: Outcome
    watchers: Sequence[tuple[str, str, str]]


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
    content: Out | Ended

    @property
    def token(self) -> str:
        return f"{self.part.number}:{self.entry_id.decode()} {self.incarnation}"

    @property
    def to(self) -> str:
        """The execution that is looked for first, or an event's id."""
        match self.content:
            case Start(spec):
                return spec.id
            case Post(to, _):
                return to
            case Watch(target, _) | Ended(target):
                return target
            case Emit(event_id):
                return event_id


def pack_out(out: Out) -> bytes:
    """A line of JSON, then the payload."""
    match out:
        case Start(spec):
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
                len(spec.input),
            ]
            return b"S" + to_json(words) + b"\n" + spec.input + spec.options
        case Post(to, message):
            kind, reach = KIND_LETTERS[message.kind], REACH_LETTERS[message.reach]
            return b"P" + to_json([to, message.id, kind, message.name, reach]) + b"\n" + message.data
        case Watch(target, step_id):
            return b"W" + to_json([target, step_id]) + b"\n"
        case Emit(event_id, name, data):
            return b"E" + to_json([event_id, name]) + b"\n" + data


def unpack_out(packed: bytes) -> Out:
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
            event_id, name = cast("list[str]", words)
            return Emit(event_id, name, body)


def _unpack_spec(words: object, body: bytes) -> NewExecution:
    (
        execution_id, workflow, version, queue, priority, key, reuse, tags, delay_ms, at_ms, timeout_ms,
        parent_id, size,
    ) = cast("_SpecWords", words)  # fmt: skip
    return NewExecution(
        id=execution_id,
        workflow=workflow,
        version=version,
        input=body[:size],
        queue=queue,
        priority=priority,
        key=key,
        reuse_closed_key=reuse,
        tags=tags,
        options=body[size:],
        delay_ms=delay_ms,
        at_ms=at_ms,
        timeout_ms=timeout_ms,
        parent_id=parent_id,
    )


def unpack_letter(part: Partition, entry: Reply) -> Letter:
    """An entry of the outbox: its id, and its fields and values."""
    entry_id, fields = as_list(entry)
    words = as_words(fields)
    if words[1] == b"T":
        target, status, workflow, attempt, data = words[3:_FIXED:2]
        watchers: list[tuple[str, str, str]] = []
        for watcher, token in zip(words[_FIXED::2], words[_FIXED + 1 :: 2], strict=True):
            watcher_id, _, step_id = watcher.decode().partition("\0")
            watchers.append((watcher_id, step_id, token.decode()))
        ended = Ended(target.decode(), unpack_outcome(status, workflow, attempt, data), watchers)
        return Letter(part, as_bytes(entry_id), target.decode(), "", ended)
    return Letter(part, as_bytes(entry_id), words[3].decode(), words[5].decode(), unpack_out(words[7]))


def told(target: str, step_id: str, outcome: Outcome) -> Message:
    """What a watcher gets."""
    return Message(f"watch:{target}:{step_id}", MessageKind.CHILD, step_id, outcome.pack(), Reach.PARKED)
