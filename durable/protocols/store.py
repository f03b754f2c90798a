"""`DurableStore`: the only truth, in few verbs, each one an atomic decision.

    create ─▶ READY ──claim──▶ OWNED ──commit PARK──▶ PARKED ──post / timer──▶ READY
                ▲                │ ├───commit READY──▶ READY (at an instant: a retry, a release)
                │                │ ├───commit BLOCK──▶ BLOCKED (needs repair, or paused) ──operator, cancel──▶ READY
                └──owner died────┘ └───commit CLOSE──▶ CLOSED ──operator──▶ READY

What makes it safe, in every implementation:

* **Fence.** A claim carries a random nonce. A commit is accepted only from the nonce that owns the execution now, and
  only on top of the version (`ver`) that it has seen. Leases decide who *may* claim, never whether a write is good.
* **One commit.** Checkpoints, consumed inbox entries, timers, outgoing messages and the next state are written in one
  transaction or not at all.
* **One inbox.** Whatever reaches an execution from outside is appended to its inbox. Its order decides every race.
* **Park is a compare.** `Park` holds only if nothing came since `Batch.seen`; else the owner goes on with what came.
* **Repeatable.** Every write may be sent again after an unknown outcome (a timeout, a dead connection): the same
  `op_id`, nonce or message id gets the first answer and changes nothing.
* **Opaque.** Payloads are bytes that no store looks into. Reads give copies that share nothing with the store.

All instants are milliseconds since the epoch on the store's clock. A verb that cannot reach the store raises
`StoreUnavailable`, one whose outcome is unknown raises `OutcomeUnknown`; the only legal reaction to the second is the
same call again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Protocol

from durable.models import ExecutionStatus
from durable.protocols._record import quick

# ---- what is stored ------------------------------------------------------------------------------------------------


class State(StrEnum):
    """What the store decides by. `ExecutionStatus` is the finer word that users see."""

    READY = "ready"
    """May be claimed from `available_at` on."""
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
    CANCEL = "cancel"
    OPERATOR = "operator"

    @property
    def refusable(self) -> bool:
        """Whether a full inbox refuses it. What ends a wait or an execution gets in: there must be a way out."""
        return self in (MessageKind.SIGNAL, MessageKind.EVENT)


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


# ---- what a commit carries -----------------------------------------------------------------------------------------


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
    claimable at once. The deadline of the run stays."""

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


@dataclass(frozen=True, slots=True)
class Emit:
    """Store an event, if its id is new."""

    id: str
    name: str
    data: bytes


Out = Start | Post | Watch | Emit


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


# ---- answers -------------------------------------------------------------------------------------------------------


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
    """The instant since when it is ready, 0 where that is not known."""


@quick
@dataclass(frozen=True, slots=True)
class Created:
    id: str
    doorbell: Doorbell | None
    """None when it is not claimable yet."""
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
    """Held by another nonce, not ready (yet), closed or gone: nothing to do here."""

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


# ---- the port ------------------------------------------------------------------------------------------------------


class DurableStore(Protocol):
    """Keeps executions. Every method is atomic: a process that dies halfway leaves all of it or nothing."""

    async def open(self) -> None:
        """Connect, and create or migrate the schema. Called again after `close`, it connects again.

        Raises: `StoreUnavailable` when it cannot be reached or written, or holds something that is not ours, or a
        newer schema; the hint names the remedy.
        """
        ...

    async def close(self) -> None:
        """Let accepted calls finish and disconnect. Called twice: nothing happens."""
        ...

    async def capabilities(self) -> Capabilities: ...

    # -- writes

    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Exists:
        """Store a new execution, ready from its instant on, with its timeout's timer.

        With a key, the (workflow, key) is looked up and taken in the same write: of many callers at once, one gets
        `Created`, the others `Exists` with the winner's id. The same `op_id` again: `Created`, with the same id.
        """
        ...

    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        """Own a ready execution, if its instant has come. It leaves the ready index and is shown as running.

        Of many callers at once one gets it. The same nonce again, while it still owns: the same answer. The first
        claim of all sets `started_at`. The owner keeps it until it commits it away or its worker's lease has ended
        and `tick` has noticed.
        """
        ...

    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        """Write a batch and move on: the heart of it all. In this order, in one transaction:

        1. `op_id` is that of the last accepted commit: the answer to it, again.
        2. `nonce` does not own the execution: `Fenced`. Whether a lease has expired is not asked.
        3. `ver` is not the stored one, or a checkpoint is already there and final (and not in `drop`): `Diverged`.
        4. Something is above a limit: `Full`.
        5. All is written; `ver` + 1; `crashes` = 0. Entries in `consume` are no longer unread. Out messages are
           applied, or put into an outbox when they concern another partition, and delivered from there before this
           returns, if that succeeds; what is left there is relayed later.
        6. `Park`, but the inbox holds unread entries after `seen`: all else is written and the owner stays owner.
           `Block`, or `Ready` at a later instant, but one of those entries has reach `BLOCKED` or more: ready at once.
        """
        ...

    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        """Append to the inbox, and wake the execution if its state is within the message's reach.

        A message id that the execution has seen: `NotPosted(duplicate=True)`, also after it was consumed. Closed
        and out of reach, or missing: `NotPosted`, nothing stored. A woken execution is ready now; a message of reach
        `BLOCKED` or more also makes one ready now that waits for a later instant (a delayed start, a retry), and a
        `CANCEL` closes one that was never claimed as cancelled, with the message's data as its error.

        Raises: `StoreFull` at 10,000 unread entries, for a signal or an event.
        """
        ...

    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        """Append the message of each due timer (oldest first, at most `limit`), once; and make ready again, with
        `crashes` + 1, what is owned since before `live.at` by a worker that is not in `live`. Any process may call
        it at any time; two at once do each thing once. The message of a run's timeout has reach `BLOCKED`, any
        other's reach is `PARKED`."""
        ...

    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        """Doorbells of ready executions whose instant has come: greater priority first, then the longest ready.

        Each is not returned again within `again_ms`, to anybody, unless it becomes ready anew; it stays in the
        index until it is claimed, so a doorbell that got lost is rung again.
        """
        ...

    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        """Hold the worker's lease for `ttl_ms` from now; 0 ends it.

        Blocking, and called from a thread of its own, over a connection of its own: an event loop that is busy or
        blocked does not cost the lease. Raises `StoreUnavailable`, to be tried again.
        """
        ...

    async def relay(self, partition: int, *, limit: int) -> Ticked:
        """Carry what commits have left in the outbox, because they died or could not reach it, to where it belongs;
        each arrives once, however often this is called or dies halfway. With one partition there is nothing to do."""
        ...

    async def prune(self, *, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
        """Delete executions that closed before an instant with all that is theirs, each atomically; how many."""
        ...

    # -- reads

    async def live(self) -> Live: ...

    async def get(self, execution_id: str) -> ExecutionRow | None: ...

    async def history(self, execution_id: str) -> Sequence[Checkpoint]:
        """In order of `seq`."""
        ...

    async def inbox(self, execution_id: str) -> Sequence[InboxEntry]:
        """All entries, consumed ones too, in order."""
        ...

    async def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        """For each execution, the unread entries after a sequence number; only those that have any."""
        ...

    async def value(self, execution_id: str, name: str) -> bytes | None: ...

    async def query(self, query: Query) -> Rows:
        """A page of executions, by index."""
        ...

    async def counts(self) -> Mapping[ExecutionStatus, int]:
        """Number of executions per status; statuses with none may be missing."""
        ...

    async def event(self, event_id: str) -> Emit | None: ...

    async def check(self) -> Sequence[str]:
        """What contradicts itself in the store, a sentence each; empty when all is well. Reads everything: slow."""
        ...
