"""The data of checkpoints that hold more than a value: what a wait brought, which child was started.

All is JSON. A payload in it is the sender's own bytes, put in and taken out unread.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic_core import from_json, to_json

from durable.protocols import Checkpoint, CheckpointStatus, EventRow

_NAME, _PAYLOAD = b'{"name":"', b'","payload":'
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


def pack_choice(branch: str | None, result: bytes | None = None) -> bytes:
    """The branch that a switch took (None: the default), and what came of it."""
    head = b'{"branch":' + to_json(branch)
    return head + (b"}" if result is None else b',"result":' + result + b"}")


def unpack_choice(data: bytes) -> tuple[str | None, bytes]:
    record = from_json(data)
    branch: str | None = record["branch"]
    return branch, data[len(b'{"branch":') + len(to_json(branch)) + len(b',"result":') : -1]
