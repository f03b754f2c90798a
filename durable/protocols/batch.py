"""What one commit carries: records, what was read of the inbox, what goes to others, and the next state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from durable.models import ExecutionStatus
from durable.protocols._record import quick
from durable.protocols.events import Listen
from durable.protocols.execution import Checkpoint, Message, NewExecution
from durable.protocols.gates import Gate


@dataclass(frozen=True, slots=True)
class Run:
    """The owner goes on."""


@quick
@dataclass(frozen=True, slots=True)
class Park:
    """Wait for the inbox, unless something came since `Batch.seen`. `wake_at` is only shown."""

    status: ExecutionStatus
    wake_at: int | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Wait for an operator (`parked`, `paused`); `error` says why."""

    status: ExecutionStatus
    error: bytes | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """Give the execution back, claimable from `at_ms` on (0: at once): a retry of the run, or a release."""

    at_ms: int
    status: ExecutionStatus
    attempt: int


@quick
@dataclass(frozen=True, slots=True)
class Close:
    """The end. Every timer is deleted, every watcher is told; unread messages stay on record."""

    status: ExecutionStatus
    result: bytes | None = None
    error: bytes | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Continue:
    """Begin anew under the same id: history and values dropped, `generation` + 1, attempt 1, unread messages kept,
    claimable at once. The deadline of the run stays. Its steps hold no slots and listen no more."""

    input: bytes


Next = Run | Park | Block | Ready | Close | Continue


@dataclass(frozen=True, slots=True)
class Start:
    """Create an execution, if its id is new."""

    spec: NewExecution


@dataclass(frozen=True, slots=True)
class Post:
    """Post a message to another execution; one that is closed or missing gets nothing, silently."""

    to: str
    message: Message


@dataclass(frozen=True, slots=True)
class Watch:
    """Post the end of `target` to this execution, now if it has ended (or does not exist), else when it ends: a
    `CHILD` message with id `watch:<target>:<step_id>`, name `step_id` and an `Outcome` as its data."""

    target: str
    step_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution ended, as its watchers are told."""

    status: ExecutionStatus | None
    """None: there is no such execution."""
    workflow: str
    attempt: int
    data: bytes
    """The encoded result of a completed one, else the encoded error."""

    def pack(self) -> bytes:
        """A line of ASCII words, then the opaque data."""
        return f"{self.status or 'missing'} {self.workflow or '-'} {self.attempt}\n".encode() + self.data

    @classmethod
    def unpack(cls, packed: bytes) -> Outcome:
        head, _, data = packed.partition(b"\n")
        status, workflow, attempt = head.decode().split(" ")
        return cls(None if status == "missing" else ExecutionStatus(status), workflow, int(attempt), data)


@quick
@dataclass(frozen=True, slots=True)
class Emit:
    """Store an event, if its id is new among those of its name; start what it starts, and tell who listens.

    A listener is told if its topic is empty or one of `topics`, and told to look if its shape is none of `shapes`.
    """

    id: str
    name: str
    data: bytes
    shapes: Sequence[str] = ()
    """That the sender knew."""
    topics: Sequence[str] = ()
    """Of this event, in these shapes; one for each at most."""
    starts: Sequence[NewExecution] = ()


@dataclass(frozen=True, slots=True)
class Unlisten:
    """Let this execution listen no more for events of a name with this step."""

    event: str
    step_id: str


@dataclass(frozen=True, slots=True)
class Seek:
    """Let a step pass gates: when it has passed the last, a `GATE` message with this id, named `step_id`, is posted
    to this execution. Its slots are given back by `Free`, or by the end of the execution. Never refused: it waits
    in line."""

    step_id: str
    gates: Sequence[Gate]
    message_id: str


@dataclass(frozen=True, slots=True)
class Free:
    """Give back the slots that a step of this execution holds, and let it wait in no line."""

    step_id: str


Out = Start | Post | Watch | Emit | Listen | Unlisten | Seek | Free


@quick
@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that one commit writes."""

    seen: int
    """The last inbox sequence number that the owner knows."""
    next: Next = Run()
    checkpoints: Sequence[Checkpoint] = ()
    drop: Sequence[str] = ()
    """Final records to forget: the failed ones, when a new attempt begins; those that an operator amends."""
    consume: Sequence[tuple[int, str]] = ()
    """(inbox seq, step id that took it)."""
    out: Sequence[Out] = ()
    values: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """What `ctx.set_value` makes readable from outside."""
