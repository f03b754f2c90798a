"""What a store keeps of an execution: its row, its history, its inbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from durable.models import ExecutionStatus
from durable.protocols._record import quick
from durable.protocols.events import Listen
from durable.protocols.gates import Gate, Join


class State(StrEnum):
    """What the store decides by. `ExecutionStatus` is the finer word that users see."""

    READY = "ready"
    """May be claimed from `available_at` on, once it has passed its gates."""
    OWNED = "owned"
    """Claimed by one worker, under one nonce."""
    PARKED = "parked"
    """Waits for anything in its inbox."""
    BLOCKED = "blocked"
    """Waits for an operator (or a cancel); ordinary messages are stored and wake nobody."""
    CLOSED = "closed"
    """Ended. Only an operator's message opens it again."""


class CheckpointStatus(StrEnum):
    """`OPEN` and `RETRYING` records may be replaced; the others are final and never change."""

    OPEN = "open"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self not in (CheckpointStatus.OPEN, CheckpointStatus.RETRYING)


class MessageKind(StrEnum):
    SIGNAL = "signal"
    TIMER = "timer"
    CHILD = "child"
    EVENT = "event"
    """What a `Listen` gets."""
    GATE = "gate"
    """A step has passed its gates."""
    CANCEL = "cancel"
    OPERATOR = "operator"

    @property
    def refusable(self) -> bool:
        """Whether a full inbox refuses it. What ends a wait or an execution gets in: there must be a way out."""
        return self is MessageKind.SIGNAL


class Reach(StrEnum):
    """The most settled state that a message wakes. Any message wakes a parked execution."""

    PARKED = "parked"
    BLOCKED = "blocked"
    CLOSED = "closed"


@quick
@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One record of an execution's history, keyed by `step_id`.

    An open or retrying checkpoint with a `wake_at` *is* a timer: the store indexes it, and at that instant appends a
    `TIMER` message named `step_id` to the inbox, once. Replacing the checkpoint with a final one deletes the timer.
    """

    step_id: str
    kind: str
    name: str
    """The function, signal, workflow ... that was recorded; replay compares it."""
    status: CheckpointStatus
    data: bytes = b""
    """The encoded result, or the encoded error of a failed or retrying one."""
    attempts: int = 1
    started_at: int = 0
    finished_at: int | None = None
    wake_at: int | None = None
    seq: int = 0
    """Position in the order of commits, from 1, given by the store. A record that is replaced moves to the end."""


@quick
@dataclass(frozen=True, slots=True)
class Message:
    """Something that reaches an execution from outside."""

    id: str
    """A second message with this id, to the same execution, is a duplicate for as long as that is retained."""
    kind: MessageKind
    name: str
    data: bytes = b""
    reach: Reach = Reach.PARKED


@quick
@dataclass(frozen=True, slots=True)
class InboxEntry:
    """A message as it was accepted: `seq` counts from 1 within the execution and decides every race."""

    seq: int
    id: str
    kind: MessageKind
    name: str
    data: bytes
    at: int
    consumed_by: str | None = None
    """The step id that took it; None while unread."""


@quick
@dataclass(frozen=True, slots=True)
class NewExecution:
    """What `create` stores."""

    id: str
    workflow: str
    version: str
    input: bytes
    queue: str = "default"
    priority: int = 0
    key: str | None = None
    """At most one execution for each (workflow, key). The id is a `keyed_id` of both then."""
    reuse_closed_key: bool = False
    """A key whose execution is closed starts a new one; the old one is kept."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    options: bytes = b""
    """The engine's own (retry policy, timeouts ...); opaque."""
    delay_ms: int = 0
    at_ms: int | None = None
    """Not claimable before this instant, nor before `delay_ms` after creation."""
    timeout_ms: int | None = None
    """From creation: then a `TIMER` message named `TIMEOUT_TIMER` is appended to the inbox."""
    parent_id: str | None = None
    gates: Sequence[Gate] = ()
    """What it passes before it is claimed, in this order, which is the same wherever two gates are both sought. Those
    that it keeps come first: it has them while it seeks the others again."""
    join: Join | None = None
    """With one, there is no `key`, and no delay of its own."""
    listens: Sequence[Listen] = ()
    """From its creation to its end."""
    cause: bytes = b""
    """What started it; opaque, a line for each."""
    history: Sequence[Checkpoint] = ()
    """Final records that it begins with, in this order: those of another execution that it repeats from somewhere on.
    Only `create` takes any, and only for one without a `join`."""
    values: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """With `history`: what that execution had made readable from outside."""


TIMEOUT_TIMER = "__timeout"


def keyed_id(workflow: str, key: str, again: str = "") -> str:
    """The id of an execution with a key; `again` tells those apart that reuse one.

    Up to a `:` it is a function of (workflow, key): a store that spreads its executions over partitions by that part
    of the id (`id_root`) has all of one key in one place, where it can decide about them in one write.
    """
    root = sha256(f"{workflow}\n{key}".encode()).hexdigest()[:20]
    return f"{root}:{again}" if again else root


def id_root(execution_id: str) -> str:
    """What the partition of an execution is to be a function of."""
    return execution_id.partition(":")[0]


@quick
@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """An execution as it is stored."""

    id: str
    workflow: str
    version: str
    queue: str
    priority: int
    key: str | None
    tags: Mapping[str, str]
    options: bytes
    input: bytes
    parent_id: str | None
    state: State
    status: ExecutionStatus
    attempt: int
    """The number of the run's current attempt, from 1."""
    generation: int
    """How often it continued as new, from 0."""
    ver: int
    """The number of commits accepted."""
    op_id: str
    """Of the last accepted commit, or empty."""
    nonce: str | None
    worker: str | None
    crashes: int
    """Claims in a row that ended in a dead owner, with no commit between."""
    inbox_seq: int
    created_at: int
    available_at: int
    started_at: int | None = None
    """The first claim."""
    finished_at: int | None = None
    wake_at: int | None = None
    """While parked: the earliest of its timers."""
    deadline_at: int | None = None
    result: bytes | None = None
    error: bytes | None = None
    code: str | None = None
    held_by: str | None = None
    """The name of the gate at which it waits, while it is held."""
    cause: bytes = b""
