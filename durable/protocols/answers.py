"""What a store answers, and what it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from durable.models import ExecutionStatus
from durable.protocols._record import quick
from durable.protocols.execution import Checkpoint, ExecutionRow, InboxEntry, State


@quick
@dataclass(frozen=True, slots=True)
class Doorbell:
    """ "This execution is ready": enough for a worker to know whether to care."""

    id: str
    workflow: str
    version: str
    queue: str
    priority: int = 0
    crashes: int = 0
    """Claims in a row that ended in a dead owner: it may be what kills them."""
    ready_at: int = field(default=0, compare=False)
    """The instant since when it is ready, 0 where that is not known. Not before any claim that it had until then: one
    that is older than a claim was answered by it."""


@quick
@dataclass(frozen=True, slots=True)
class Created:
    id: str
    doorbell: Doorbell | None
    """None when it is not claimable yet."""
    available_at: int
    doorbells: Sequence[Doorbell] = ()
    """Others that this made ready: a pending one of its group that begins without it."""
    touched: Sequence[str] = ()
    """Others that this left something for: one that it replaces."""
    next_at: int | None = None
    """When a rate lets somebody pass that this left waiting at it: call `tick` then."""


@dataclass(frozen=True, slots=True)
class Joined:
    """It has joined the pending execution of its group, and nothing was created."""

    id: str
    doorbell: Doorbell | None
    """When the pending one begins now."""
    available_at: int


@dataclass(frozen=True, slots=True)
class Exists:
    """The key is taken (or the id, when there is no key)."""

    id: str
    same_input: bool


@quick
@dataclass(frozen=True, slots=True)
class Claimed:
    row: ExecutionRow
    history: Sequence[Checkpoint] | None
    """In order of `seq`. None when the caller's `have_op` is still the last commit: its memory is good."""
    inbox: Sequence[InboxEntry]
    """All unread entries, in order."""
    now: int
    """The store's clock."""


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """Held by another nonce or at a gate, not ready (yet), closed or gone: nothing to do here."""

    state: State | None
    """None: there is no such execution."""


@quick
@dataclass(frozen=True, slots=True)
class Committed:
    ver: int
    owned: bool
    """Still this nonce's: after `Run`, and after a `Park` that found something new in the inbox."""
    inbox: Sequence[InboxEntry]
    """Unread entries after `Batch.seen`, in order."""
    now: int
    doorbells: Sequence[Doorbell] = ()
    """Executions that this commit made ready, to be rung by the caller (itself too, after `Ready(0)`)."""
    touched: Sequence[str] = ()
    """Executions that this commit left something for, or closed, to be hinted on the bus by the caller."""
    next_at: int | None = None
    """When a rate lets somebody pass that this left waiting at it: call `tick` then."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Another nonce owns it, or nobody: stop quietly."""


@dataclass(frozen=True, slots=True)
class Diverged:
    """The version or a final checkpoint is not what the owner believes: forget everything, claim again."""


@dataclass(frozen=True, slots=True)
class Full:
    """A limit of the store is reached; nothing was written."""

    what: str
    size: int
    limit: int


@quick
@dataclass(frozen=True, slots=True)
class Posted:
    seq: int
    doorbell: Doorbell | None
    """When the message made it ready."""
    closed: bool = False
    """A cancel of an execution that no worker ever claimed ends it on the spot."""
    doorbells: Sequence[Doorbell] = ()
    """Others that this made ready: they were in line behind one that it ended."""
    next_at: int | None = None
    """When a rate lets somebody pass that this left waiting at it: call `tick` then."""


@dataclass(frozen=True, slots=True)
class NotPosted:
    """A duplicate (`state` is where the execution is), or nobody there to take it (CLOSED, or None: missing)."""

    state: State | None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Ticked:
    doorbells: Sequence[Doorbell]
    touched: Sequence[str]
    more: bool
    """The limit was reached; there is more to do now."""
    next_at: int | None
    """The next instant at which a timer is due or a delayed execution becomes ready."""
    now: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an event that was sent."""

    execution_ids: Sequence[str]
    """As `EventRow.execution_ids`: of the first one of its id, also for a duplicate."""
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Sent:
    """Events were stored, each once."""

    receipts: Sequence[Receipt]
    """In the order of the events."""
    doorbells: Sequence[Doorbell]
    touched: Sequence[str]
    next_at: int | None = None
    """When a rate lets somebody pass that this left waiting at it: call `tick` then."""


@dataclass(frozen=True, slots=True)
class Depth:
    """What waits in a queue."""

    queue: str
    ready: int
    """Claimable now, and not claimed."""
    held: int
    """Waiting at gates."""
    oldest_at: int | None
    """Since when the longest of the claimable ones is ready."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    id: str
    until: int
    """The lease holds to this instant."""
    info: bytes = b""


@dataclass(frozen=True, slots=True)
class Live:
    """The workers whose lease held at `at`."""

    workers: Mapping[str, WorkerInfo]
    at: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a worker takes: the queues it serves and the workflows it has, as `name@version`."""

    queues: Sequence[str]
    workflows: frozenset[str]

    def wants(self, bell: Doorbell) -> bool:
        return bell.queue in self.queues and f"{bell.workflow}@{bell.version}" in self.workflows


@dataclass(frozen=True, slots=True)
class Query:
    """A filter over executions; None matches all. Pages are ordered newest first."""

    status: Sequence[ExecutionStatus] = ()
    workflow: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    since: int | None = None
    until: int | None = None
    id_prefix: str | None = None
    parent_id: str | None = None
    limit: int = 50
    cursor: str | None = None
    """Opaque: from the page before."""


@dataclass(frozen=True, slots=True)
class Rows:
    rows: Sequence[ExecutionRow]
    cursor: str | None
    """None: this is the last page."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store is, for people and for the worker's loops."""

    name: str
    grade: str
    """D0 lost with the process, D1 survives kill -9, D2 survives power loss; `reliability`: see the guarantees."""
    partitions: int = 1
    shared: bool = False
    """Other processes may see the same executions."""
    notes: Sequence[str] = ()
    """What an operator should know, a sentence each."""
    connection: str = ""
    """It is a `TransactionalStore`, of connections of this kind: "sqlite3.Connection"."""
