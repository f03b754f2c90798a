"""`Record`: one execution with all that is its own, as the memory store keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from durable.models import ExecutionStatus
from durable.protocols import (
    Checkpoint,
    Committed,
    Created,
    Doorbell,
    ExecutionRow,
    InboxEntry,
    Joined,
    Listen,
    NewExecution,
    Outcome,
    Query,
    Reach,
    State,
)

Lane = tuple[str, str]
"""A queue and a `workflow@version`: what a worker has to want."""


@dataclass(slots=True, eq=False)
class Record:
    """Mutable and never handed out: `row` and its kind give copies."""

    spec: NewExecution
    """As created; what may change since, or belongs to the caller, is in `input` and `tags`."""
    number: int
    """Its place in the order of creation."""
    created_op: str
    created: Created
    """The answer to `created_op`."""
    lane: Lane
    input: bytes
    cause: bytes
    tags: Mapping[str, str]
    created_at: int
    available_at: int
    deadline_at: int | None

    state: State = State.READY
    is_held: bool = False
    """Ready, but it has not passed its gates."""
    waits_at: str | None = None
    """While held: the name of the gate at which it stands in line."""
    readiness: tuple[int, int, int] = (0, 0, 0)
    """While ready: its rank in its lane."""
    status: ExecutionStatus = ExecutionStatus.PENDING
    attempt: int = 1
    generation: int = 0
    ver: int = 0
    op_id: str = ""
    answer: Committed | None = None
    """The answer to `op_id`."""
    nonce: str | None = None
    worker: str | None = None
    owned_at: int = 0
    crashes: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    wake_at: int | None = None
    result: bytes | None = None
    error: bytes | None = None
    code: str | None = None

    history: dict[str, Checkpoint] = field(default_factory=dict[str, Checkpoint])
    """In order of `seq`: what is replaced moves to the end."""
    history_seq: int = 0
    """Goes on counting when the history is dropped."""
    timers: dict[str, int] = field(default_factory=dict[str, int])
    """The instants of its timers, by step id. One that fired, or that an end stopped, never comes back."""
    stopped_seq: int = 0
    """The checkpoints up to this one had lost their timers to an end."""
    inbox: dict[int, InboxEntry] = field(default_factory=dict[int, InboxEntry])
    unread: dict[int, InboxEntry] = field(default_factory=dict[int, InboxEntry])
    inbox_seq: int = 0
    urgent: dict[int, None] = field(default_factory=dict[int, None])
    """Those of the unread whose messages reach further than a parked execution."""
    seen: dict[str, None] = field(default_factory=dict[str, None])
    """The ids of all messages posted to it."""
    told: dict[str, None] = field(default_factory=dict[str, None])
    """The ids of the unread entries that tell an end."""
    watching: dict[tuple[str, str], None] = field(default_factory=dict[tuple[str, str], None])
    """Target id and step id of each end that it is still to be told."""
    values: dict[str, bytes] = field(default_factory=dict[str, bytes])
    items: int = 0
    """While it is pending for a batch: how many it has."""
    joined: dict[str, Joined] = field(default_factory=dict[str, Joined])
    """The answers to those that joined it, by their operations."""
    listening: dict[tuple[str, str], Listen] = field(default_factory=dict[tuple[str, str], Listen])
    """By the event's name and the step id."""
    seeking: dict[str, None] = field(default_factory=dict[str, None])
    """The steps that hold slots or stand in lines; empty for the execution itself."""

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def doorbell(self) -> Doorbell:
        """While ready."""
        spec = self.spec
        return Doorbell(
            spec.id, spec.workflow, spec.version, spec.queue, spec.priority, self.crashes, self.available_at
        )

    def row(self) -> ExecutionRow:
        """What a reader sees of it."""
        spec = self.spec
        return ExecutionRow(
            id=spec.id,
            workflow=spec.workflow,
            version=spec.version,
            queue=spec.queue,
            priority=spec.priority,
            key=spec.key,
            tags=dict(self.tags),
            options=spec.options,
            input=self.input,
            parent_id=spec.parent_id,
            state=self.state,
            status=self.status,
            attempt=self.attempt,
            generation=self.generation,
            ver=self.ver,
            op_id=self.op_id,
            nonce=self.nonce,
            worker=self.worker,
            crashes=self.crashes,
            inbox_seq=self.inbox_seq,
            created_at=self.created_at,
            available_at=self.available_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            wake_at=self.wake_at,
            deadline_at=self.deadline_at,
            result=self.result,
            error=self.error,
            code=self.code,
            held_by=self.waits_at,
            cause=self.cause,
        )

    def outcome(self) -> Outcome:
        """How it ended, for its watchers."""
        data = self.result if self.status is ExecutionStatus.COMPLETED else self.error
        return Outcome(self.status, self.spec.workflow, self.attempt, data or b"")

    def consume(self, seq: int, step_id: str) -> None:
        """Let an unread entry be read by a step."""
        entry = self.unread.pop(seq, None)
        if entry is not None:
            self.inbox[seq] = replace(entry, consumed_by=step_id)
            self.urgent.pop(seq, None)
            self.told.pop(entry.id, None)

    def is_open_to(self, reach: Reach) -> bool:
        """Is a message of this reach taken at all?"""
        return self.state is not State.CLOSED or reach is Reach.CLOSED

    def is_woken_by(self, reach: Reach, now: int) -> bool:
        """Does a message of this reach make it ready?"""
        match self.state:
            case State.PARKED:
                return True
            case State.BLOCKED:
                return reach is not Reach.PARKED
            case State.READY:
                return reach is not Reach.PARKED and (self.is_held or self.available_at > now)
            case State.CLOSED:
                return reach is Reach.CLOSED
            case State.OWNED:
                return False

    def has_urgent_news(self, seen: int) -> bool:
        """Has a message come since that would have woken it from any wait for an instant or an operator?"""
        return any(seq > seen for seq in self.urgent)

    def matches(self, query: Query) -> bool:
        spec = self.spec
        return (
            (not query.status or self.status in query.status)
            and query.workflow in (None, spec.workflow)
            and query.parent_id in (None, spec.parent_id)
            and (query.since is None or query.since <= self.created_at)
            and (query.until is None or self.created_at < query.until)
            and (query.id_prefix is None or spec.id.startswith(query.id_prefix))
            and query.tags.items() <= self.tags.items()
        )

    def unread_after(self, seen: int) -> tuple[InboxEntry, ...]:
        """Unread entries with a greater sequence number, in order."""
        if self.inbox_seq <= seen or not self.unread:
            return ()
        tail: list[InboxEntry] = []
        for seq in reversed(self.unread):
            if seq <= seen:
                break
            tail.append(self.unread[seq])
        return tuple(reversed(tail))
