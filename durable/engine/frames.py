"""The data of checkpoints that hold more than a value: what a wait brought, which child was started.

All is JSON. A payload in it is the sender's own bytes, put in and taken out unread.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic_core import from_json, to_json

from durable.models import ErrorRecord
from durable.protocols import Checkpoint, CheckpointStatus, EventRow

_NAME, _PAYLOAD = b'{"name":"', b'","payload":'
_USED_CTX = b',"used_ctx":true'
_MOST_TRIES, _LONGEST_MESSAGE = 20, 500
TIMEOUT_FRAME = b'{"timeout":true}'


def pack_received(name: str, payload: bytes) -> bytes:
    """What a wait for signals got. `name` is a checked name, with nothing in it to escape."""
    return _NAME + name.encode() + _PAYLOAD + (payload or b"null") + b"}"


def unpack_received(data: bytes) -> tuple[str, bytes] | None:
    """Name and payload, or None for a timeout."""
    if data == TIMEOUT_FRAME:
        return None
    name, _, rest = data.removeprefix(_NAME).partition(_PAYLOAD)
    return name.decode(), rest[:-1]


@dataclass(frozen=True, slots=True)
class Try:
    """A try of a step that failed, and after which another one followed."""

    number: int
    started_at: int
    finished_at: int
    error: ErrorRecord
    """Without what would rebuild it."""


def pack_tries(before: bytes, number: int, started_at: int, finished_at: int, error: ErrorRecord) -> bytes:
    """The tries so far with this one: the first of all, and the last ones."""
    tries: list[object] = from_json(before) if before and number > 1 else []
    tries.append(
        [number, started_at, finished_at, error.error_type, error.message[:_LONGEST_MESSAGE], error.code]
    )
    return to_json(tries if len(tries) <= _MOST_TRIES else [tries[0], *tries[1 - _MOST_TRIES :]])


def unpack_tries(data: bytes) -> list[Try]:
    return [
        Try(number, started_at, finished_at, ErrorRecord(error_type, message, code=code))
        for number, started_at, finished_at, error_type, message, code in from_json(data)
    ]


def pack_limit(name: str, *, passed: bool) -> bytes:
    """A step that waits for a named limit, or has passed it."""
    return to_json({"limit": name, "passed": passed})


def pack_event(row: EventRow) -> bytes:
    """What a wait for an event got. Its id and name are checked, with nothing in them to escape."""
    head = f'{{"name":"{row.name}","id":"{row.id}","seq":{row.seq},"at":{row.at},"payload":'
    return head.encode() + row.data + b"}"


def unpack_event(data: bytes) -> EventRow | None:
    """None for a timeout, or for what is still awaited."""
    if data == TIMEOUT_FRAME or not data:
        return None
    head, _, payload = data.partition(b',"payload":')
    found = from_json(head + b"}")
    return EventRow(found["name"], found["id"], payload[:-1], found["seq"], found["at"])


@dataclass(frozen=True, slots=True)
class Child:
    """A child execution as its parent recorded it."""

    id: str
    detached: bool

    def pack(self) -> bytes:
        return to_json({"child": self.id, "detached": self.detached})

    @classmethod
    def unpack(cls, data: bytes) -> Child:
        record = from_json(data)
        return cls(record["child"], record["detached"])


def open_child(checkpoint: Checkpoint) -> Child | None:
    """The child that a checkpoint stands for and that may still run; None for any other checkpoint."""
    if checkpoint.kind == "start" or (
        checkpoint.kind == "child" and checkpoint.status is CheckpointStatus.OPEN
    ):
        return Child.unpack(checkpoint.data)
    return None


@dataclass(frozen=True, slots=True)
class Choice:
    """The branch that a switch took, and what came of it."""

    branch: str | None
    """None: the default."""
    result: bytes | None = None
    """None while it runs."""
    used_ctx: bool = False
    """Whether the branch has used names, tasks or chance of the body around it: then a replay must run it again, or all
    that follows would get others."""

    def pack(self) -> bytes:
        head = b'{"branch":' + to_json(self.branch) + (_USED_CTX if self.used_ctx else b"")
        return head + (b"}" if self.result is None else b',"result":' + self.result + b"}")

    @classmethod
    def unpack(cls, data: bytes) -> Choice:
        branch: str | None = from_json(data)["branch"]
        rest = data[len(b'{"branch":') + len(to_json(branch)) :]
        used_ctx = rest.startswith(_USED_CTX)
        result = rest.removeprefix(_USED_CTX).removeprefix(b',"result":')[:-1]
        return cls(branch, result or None, used_ctx)
