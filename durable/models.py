"""Records that users read. Each is a copy: changing one changes nothing that is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic

from typing_extensions import TypeVar, override

T = TypeVar("T", default=object)


class ExecutionStatus(StrEnum):
    """Where an execution is. The last four are final."""

    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"
    SLEEPING = "sleeping"
    """Waits for a timer."""
    WAITING = "waiting"
    """Waits for a signal, an event or a child."""
    PAUSED = "paused"
    PARKED = "parked"
    """Needs repair: a replay mismatch, or a value that cannot be stored."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    COMPENSATION_FAILED = "compensation_failed"

    @property
    def final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset(
    {
        ExecutionStatus.COMPLETED,
        ExecutionStatus.FAILED,
        ExecutionStatus.CANCELLED,
        ExecutionStatus.COMPENSATION_FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An error as it is stored: what kind, what it said, and what rebuilds it."""

    error_type: str
    """The class's qualified name, `module.Class`; a builtin's name alone, as a traceback has it."""
    message: str
    args: Sequence[object] = ()
    """The constructor's arguments when JSON can hold them; else empty and `rebuildable` is false."""
    rebuildable: bool = False
    code: str | None = None
    details: object = None
    step_id: str | None = None
    retry: bool = True
    """False when neither the step nor the run may try again."""
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    """Attributes of the exception that its arguments alone do not bring back."""

    @override
    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}" if self.message else self.error_type


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a workflow, as it is stored at this moment. `input` and `result` are plain JSON values."""

    id: str
    workflow: str
    version: str
    status: ExecutionStatus
    attempt: int
    generation: int
    input: object
    result: object
    error: ErrorRecord | None
    code: str | None
    tags: Mapping[str, str]
    queue: str
    priority: int
    parent_id: str | None
    key: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    wake_at: datetime | None
    held_by: str | None = None
    """The limit of flow control that holds it back, as `rule|key`."""
    rerun_of: str | None = None
    """The execution that it repeats, which is its `parent_id` as well."""
    rerun_from: str | None = None
    """The first step that was not copied from there; None: it began from the start."""


@dataclass(frozen=True, slots=True)
class StepTry:
    """A try of a step that failed, and after which another one followed."""

    number: int
    started_at: datetime
    finished_at: datetime
    error: ErrorRecord
    """What it raised; a long message is cut."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One checkpoint: a step, a sleep, a wait, a choice ... `started_at` and `finished_at` bound it."""

    id: str
    kind: str
    status: str
    """`open`, `retrying`, `completed`, `failed` or `cancelled`."""
    attempts: int
    result: object
    error: ErrorRecord | None
    started_at: datetime
    finished_at: datetime | None
    name: str = ""
    wake_at: datetime | None = None
    tries: Sequence[StepTry] = ()
    """Those before the last one: the first, and the last nineteen."""
    queued: timedelta = timedelta()
    """From the end of what came before it in its branch to its beginning: claims, commits, a limit, the body's code."""
    running: timedelta = timedelta()
    """In its body, over all tries that are known; nothing for a wait."""
    waiting: timedelta = timedelta()
    """Between its tries or, of a wait, from its beginning to its end."""


@dataclass(frozen=True, slots=True)
class SignalRecord:
    """A signal that was accepted, read or not."""

    name: str
    payload: object
    at: datetime
    consumed_by: str | None
    """The id of the wait that took it; None while unread."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that happened to an execution, in order."""

    at: datetime
    kind: str
    """`created`, `start_attempt`, `step`, `sleep`, `signal`, `note`, `retry`, `operator`, or a final status ..."""
    name: str = ""
    details: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of an execution went, from its creation to its end or to now."""

    total: timedelta
    your_code: timedelta
    """At least one step's body ran."""
    waiting: timedelta
    """No body ran, and it waited for a timer, a signal, an event, a child or its next try, or for its start."""
    overhead: timedelta
    """The rest: waiting for a worker, claims, commits, replays, and the body between its steps."""

    @property
    def durable(self) -> timedelta:
        """All but your code."""
        return self.waiting + self.overhead


@dataclass(frozen=True, slots=True)
class ExecutionDetail:
    """An execution with all that is known about it."""

    execution: Execution
    steps: Sequence[StepRecord]
    waits: Sequence[StepRecord]
    """What it waits for now: open sleeps, signals, children, retries."""
    signals: Sequence[SignalRecord]
    audit: Sequence[AuditEntry]
    timings: Timings = field(
        default_factory=lambda: Timings(timedelta(), timedelta(), timedelta(), timedelta())
    )


@dataclass(frozen=True, slots=True)
class BulkReport:
    """What an act came to for each of many executions."""

    verb: str
    done: Sequence[str]
    """The ids of those that it was done to or, in a dry run, would be."""
    refused: Mapping[str, str]
    """Why it was not, by id."""
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """How an execution failed, for the workflow that `on_failure=` names."""

    execution_id: str
    workflow: str
    step_id: str | None
    """The step whose error it was, where it was one's."""
    error_type: str
    message: str
    code: str | None
    details: object
    input: object
    """Of the execution, as plain JSON."""


@dataclass(frozen=True, slots=True)
class Cause:
    """An event that started an execution, or joined it."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an event that was sent."""

    id: str
    execution_ids: Sequence[str]
    """The executions that it started or joined, then those that waited for it; of the first event of its id."""
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it is stored at this moment. `input` is a plain JSON value."""

    id: str
    workflow: str
    cron: str | None
    interval: timedelta | None
    tz: str
    input: object
    paused: bool
    next_fire_at: datetime | None
    last_fire_at: datetime | None
    catchup: str = "latest"
    overlap: str = "allow"
    jitter: timedelta | None = None


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """What waits in a queue."""

    queue: str
    ready: int
    """Executions that a worker may claim now."""
    held: int
    """Executions that flow control holds back."""
    oldest_at: datetime | None
    """Since when the first of the ready ones is ready."""
    paused: bool


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot of a limit, and who holds it."""

    execution_id: str
    step_id: str
    """Empty when the execution itself holds it."""
    since: datetime


@dataclass(frozen=True, slots=True)
class LimitInfo:
    """One limit of flow control, for one key, as it is now."""

    rule: str
    """As `Operator.set_limit` takes it."""
    key: str
    limit: int
    slots: Sequence[Slot]
    """Those that are held, at most 100 of them, the longest first."""
    held: int
    waiting: int
    oldest_at: datetime | None
    """Since when the first in line waits."""
    opens_at: datetime | None
    """When a rate lets the next one pass."""


@dataclass(frozen=True, slots=True)
class CurrentWork:
    """An execution that holds a slot of a worker."""

    execution_id: str
    workflow: str
    step_id: str
    """A step whose body runs now; empty while none does."""
    since: datetime
    """When this worker claimed it."""


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker whose lease holds, as it was at its last beat. What another version does not say is empty."""

    id: str
    version: str
    """Of durable."""
    host: str
    pid: int
    queues: Sequence[str]
    workflows: Sequence[str]
    """What it can run, as `name@version`."""
    slots: int
    busy: int
    """Slots that are held."""
    draining: bool
    """It takes nothing new."""
    started_at: datetime | None
    beat_at: datetime
    until: datetime
    """Its lease holds to this instant, unless it beats again; then others take over what it runs."""
    work: Sequence[CurrentWork]
    """What it runs, the longest first, at most 10 of them."""


@dataclass(frozen=True, slots=True)
class Health:
    """How all of it stands, at one instant."""

    at: datetime
    """On the store's clock."""
    counts: Mapping[ExecutionStatus, int]
    """How many executions are in each status; every status is there."""
    queues: Sequence[QueueInfo]
    workers: Sequence[WorkerRecord]
    ready_age: timedelta
    """How long that has been ready which has waited longest for a worker, in queues that are not paused."""
    timer_lag: timedelta
    """How late the first timer is that should have fired; zero when none is due."""
    stuck: Sequence[Execution]
    """Executions that need a person: the newest, at most 100."""
    mismatches: int
    """How many of those do not fit their code."""
    dead_letters: int | None
    """Messages that the broker has put aside. None: it puts nothing aside, or it is away."""
    store_took: timedelta
    """How long the store needed to answer."""

    @property
    def need_repair(self) -> int:
        """How many executions need a person."""
        return self.counts[ExecutionStatus.PARKED] + self.counts[ExecutionStatus.COMPENSATION_FAILED]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; `cursor` asks for the next one, None when there is none."""

    items: Sequence[T]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """A registered workflow, for discovery."""

    name: str
    version: str
    queue: str
    tags: Mapping[str, str]
    input_schema: Mapping[str, object]
    output_schema: Mapping[str, object]
