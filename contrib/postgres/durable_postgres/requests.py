"""What the store is asked, as values of the types that the functions in the database take.

Of a record that occurs twice in a batch only the last is sent, at its place: one statement writes a row once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from durable.protocols import (
    Batch,
    Block,
    Checkpoint,
    Close,
    Continue,
    Emit,
    Free,
    Gate,
    Listen,
    Message,
    NewExecution,
    Next,
    Out,
    Park,
    Post,
    Ready,
    Run,
    Seek,
    Start,
    Unlisten,
    Watch,
)
from durable_postgres.texts import stored, stored_or_none

Fields = tuple[object, ...]
"""A composite value, as the driver takes it."""

_NOWHERE: Final = -1
"""A version that no execution has."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a verb, to be served together with others."""

    op_id: str | None
    """That a repeat is known by; None: it only reads."""
    fields: Fields
    """Of a `durable.request`."""
    ids: tuple[str, ...]
    """The executions that it is known to change."""
    gated: bool = False
    """Gates are sought or left."""
    size: int = 0
    """Bytes of payload, roughly."""


def create(spec: NewExecution, op_id: str) -> Request:
    fields = (
        "create",
        stored(spec.id),
        None,
        None,
        stored(op_id),
        None,
        None,
        None,
        spec_of(spec),
        *_NO_MESSAGE,
    )
    size = len(spec.input) + len(spec.options) + sum(len(each.data) for each in spec.history)
    return Request(op_id, fields, (stored(spec.id),), bool(spec.gates), size)


def claim(execution_id: str, nonce: str, worker: str, have_op: str | None) -> Request:
    id = stored(execution_id)
    fields = (
        "claim",
        id,
        stored(nonce),
        stored(worker),
        None,
        stored_or_none(have_op),
        None,
        None,
        None,
        *_NO_MESSAGE,
    )
    return Request(nonce, fields, (id,))


def get(execution_id: str) -> Request:
    return Request(None, ("get", stored(execution_id), *(None,) * 24), ())


def post(execution_id: str, message: Message) -> Request:
    id = stored(execution_id)
    fields = ("post", id, None, None, None, None, None, None, None, message_of(message), *_NO_BATCH)
    return Request(message.id, fields, (id,), size=len(message.data))


def commit(execution_id: str, nonce: str, ver: int, op_id: str, batch: Batch) -> Request:
    id = stored(execution_id)
    records = records_of(batch.checkpoints)
    if records is None:
        records, ver = [], _NOWHERE
    consumed = dict(reversed(batch.consume))
    next, status, at, attempt, result, error, code = next_of(batch.next)
    fields = (
        "commit",
        id,
        stored(nonce),
        None,
        stored(op_id),
        None,
        ver,
        batch.seen,
        None,
        None,
        records,
        len(batch.checkpoints),
        any(each.wake_at is not None and not each.status.final for each in batch.checkpoints),
        [stored(step_id) for step_id in batch.drop],
        list(consumed),
        [stored(consumer) for consumer in consumed.values()],
        [stored(name) for name in batch.values],
        list(batch.values.values()),
        [sending(out) for out in batch.out],
        next,
        status,
        at,
        attempt,
        result,
        error,
        stored_or_none(code),
    )
    others = tuple(
        stored(out.to if isinstance(out, Post) else out.target)
        for out in batch.out
        if isinstance(out, Post | Watch)
    )
    gated = any(
        isinstance(out, Seek | Free) or (isinstance(out, Start) and out.spec.gates) for out in batch.out
    )
    size = sum(len(each.data) for each in batch.checkpoints) + len(result or b"") + len(error or b"")
    return Request(op_id, fields, (id, *map(stored, others)), gated, size)


_NO_BATCH: Final[Fields] = (None,) * 16
_NO_MESSAGE: Final[Fields] = (None, *_NO_BATCH)


def next_of(
    next: Next,
) -> tuple[str, str | None, int | None, int | None, bytes | None, bytes | None, str | None]:
    """Its kind; status, instant, attempt; result, error and code. The input of a `Continue` stands for its result."""
    match next:
        case Run():
            return "run", None, None, None, None, None, None
        case Park(status, wake_at):
            return "park", status.value, wake_at, None, None, None, None
        case Block(status, error, code):
            return "block", status.value, None, None, None, error, code
        case Ready(at_ms, status, attempt):
            return "ready", status.value, at_ms, attempt, None, None, None
        case Close(status, result, error, code):
            return "close", status.value, None, None, result, error, code
        case Continue(input):
            return "continue", None, None, None, input, None, None


def records_of(checkpoints: Sequence[Checkpoint]) -> list[Fields] | None:
    """None: a final record is replaced within the batch."""
    found: dict[str, Checkpoint] = {}
    places: dict[str, int] = {}
    for place, each in enumerate(checkpoints, 1):
        before = found.get(each.step_id)
        if before is not None and before.status.final:
            return None
        found[each.step_id], places[each.step_id] = each, place
    return [
        (
            stored(each.step_id),
            stored(each.kind),
            stored(each.name),
            each.status.value,
            each.data,
            each.attempts,
            each.started_at,
            each.finished_at,
            each.wake_at,
            places[each.step_id],
        )
        for each in found.values()
    ]


def spec_of(spec: NewExecution) -> Fields:
    return (
        stored(spec.id),
        stored(spec.workflow),
        stored(spec.version),
        spec.input,
        stored(spec.queue),
        spec.priority,
        stored(spec.key) if spec.key else None,
        spec.reuse_closed_key,
        json.dumps({stored(name): stored(value) for name, value in spec.tags.items()}) if spec.tags else "{}",
        [tag_of(name, value) for name, value in spec.tags.items()],
        spec.options,
        spec.delay_ms,
        spec.at_ms,
        spec.timeout_ms,
        stored(spec.parent_id) if spec.parent_id else None,
        gates_of(spec.gates),
        None
        if spec.join is None
        else (stored(spec.join.group), spec.join.wait_ms, spec.join.most_ms, spec.join.size, spec.join.items),
        [listen_of(listen) for listen in spec.listens],
        spec.cause,
        records_of(spec.history) or [],
        [stored(name) for name in spec.values],
        list(spec.values.values()),
    )


def tag_of(name: str, value: str) -> str:
    """A tag as it is indexed."""
    return json.dumps([stored(name), stored(value)])


def message_of(message: Message) -> Fields:
    return (
        stored(message.id),
        message.kind.value,
        stored(message.name),
        message.data,
        message.reach.value,
    )


def listen_of(listen: Listen) -> Fields:
    return (
        stored(listen.event),
        stored(listen.step_id),
        stored(listen.topic),
        stored(listen.shape),
        listen.seen,
        listen.cancel,
    )


def emit_of(emit: Emit) -> Fields:
    return (
        stored(emit.id),
        stored(emit.name),
        emit.data,
        [stored(shape) for shape in emit.shapes],
        [stored(topic) for topic in emit.topics],
        [spec_of(spec) for spec in emit.starts],
        f"{emit.name} {emit.id}\n".encode(),
    )


def gates_of(gates: Iterable[Gate]) -> str:
    packed = [
        {
            "name": stored(gate.name),
            "rule": stored(gate.rule),
            "kind": gate.kind.value,
            "limit": gate.limit,
            "per_ms": gate.per_ms,
            "burst": gate.burst,
            "when_full": gate.when_full.value,
            "keeps": gate.keeps,
            "refusal": gate.refusal.hex(),
        }
        for gate in gates
    ]
    return json.dumps(packed)


def sending(out: Out) -> Fields:
    """Kind, target, step id, message id, gates, spec, message, emit, listen."""
    match out:
        case Start(spec):
            return ("start", None, None, None, None, spec_of(spec), None, None, None)
        case Post(to, message):
            return ("post", stored(to), None, None, None, None, message_of(message), None, None)
        case Watch(target, step_id):
            return ("watch", stored(target), stored(step_id), None, None, None, None, None, None)
        case Emit():
            return ("emit", None, None, None, None, None, None, emit_of(out), None)
        case Listen():
            return ("listen", None, None, None, None, None, None, None, listen_of(out))
        case Unlisten(event, step_id):
            return ("unlisten", stored(event), stored(step_id), None, None, None, None, None, None)
        case Seek(step_id, gates, message_id):
            return (
                "seek",
                None,
                stored(step_id),
                stored(message_id),
                gates_of(gates),
                None,
                None,
                None,
                None,
            )
        case Free(step_id):
            return ("free", None, stored(step_id), None, None, None, None, None, None)
