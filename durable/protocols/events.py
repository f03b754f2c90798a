"""Events: stored once, and given to everyone whom they concern.

An event is a name, an id, and an opaque payload. Who waits for those of a name with certain values in them says so by a
*topic*, an opaque text that is computed from the values; the *shape* of a topic says which values these are,
without them. Who sends an event computes its topic in each shape that is asked for by that name (`plan`), so the
store compares texts and looks into nothing. A shape that was new to the sender is not lost: its listeners are told
to look for themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from durable.protocols._record import quick


@quick
@dataclass(frozen=True, slots=True)
class Listen:
    """Wait for an event. Told once, then it listens no more; told to *look*, it goes on listening.

    The message has kind `EVENT` and the name `step_id`. Of an event that has the topic: id `event:<seq>:<step_id>`
    and the packed event as its data. To look: id `look:<seq>:<step_id>` and no data. With a `cancel` it is a
    `CANCEL` message of reach `BLOCKED` instead, with that as its data, and there is no looking.
    """

    event: str
    step_id: str
    topic: str = ""
    """Empty: any event of the name."""
    shape: str = ""
    seen: int | None = 0
    """The `seq` up to which the listener has looked for itself. If there are later events that it might wait for, it is
    told to look, in the write that registers it. None: only what comes from now on."""
    cancel: bytes | None = None


@quick
@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as it is stored."""

    name: str
    id: str
    data: bytes
    seq: int
    """Counts from 1 within the name."""
    at: int
    execution_ids: Sequence[str] = ()
    """The executions that it started or was joined to, then those that waited for it."""

    def pack(self) -> bytes:
        """A line of words, then the opaque data."""
        return f"{self.seq} {self.at} {self.name} {self.id}\n".encode() + self.data

    @classmethod
    def unpack(cls, packed: bytes) -> EventRow:
        """What a listener is told; without the executions."""
        head, _, data = packed.partition(b"\n")
        seq, at, name, id = head.decode().split(" ", 3)
        return cls(name, id, data, int(seq), int(at))


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A workflow that events of a name start. What is in `data` the engine knows."""

    event: str
    workflow: str
    data: bytes = b""
    shapes: Sequence[str] = ()
    """That listeners of this workflow will ask for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What concerns events of one name: a sender needs it."""

    shapes: Sequence[str]
    subscribers: Sequence[Subscriber]


@dataclass(frozen=True, slots=True)
class Looked:
    """A page of events for one who looks, in order of `seq`."""

    events: Sequence[EventRow]
    seq: int
    """Looked at up to here."""
    more: bool
