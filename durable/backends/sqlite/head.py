"""`Head`: an execution as the writer holds it between reading and writing, and how rows become records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from durable.backends.sqlite.schema import BELL_DUE, BELL_HELD, BELL_LATER, BELL_NONE, BELL_OPENING, NEVER
from durable.models import ExecutionStatus
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    Committed,
    Doorbell,
    ExecutionRow,
    InboxEntry,
    MessageKind,
    Outcome,
    State,
)

# Calling an enum's class costs as much as reading a row.
STATES: Final = {state.value: state for state in State}
STATUSES: Final = {status.value: status for status in ExecutionStatus}
_CHECKPOINT_STATUSES: Final = {status.value: status for status in CheckpointStatus}
_KINDS: Final = {kind.value: kind for kind in MessageKind}

READY: Final = State.READY.value
OWNED: Final = State.OWNED.value
PARKED: Final = State.PARKED.value
BLOCKED: Final = State.BLOCKED.value
CLOSED: Final = State.CLOSED.value


class End(NamedTuple):
    """Columns that an execution has from its end, or its block, on."""

    result: bytes | None
    error: bytes | None
    code: str | None


NO_END: Final = End(None, None, None)


class Given(NamedTuple):
    """What only readers want to know."""

    input: bytes
    options: bytes
    tags: str
    """A JSON object."""
    cause: bytes = b""


@dataclass(slots=True, eq=False)
class Head:
    """The columns of `executions`, in their order. What is not there is empty, or `NEVER`.

    `given` and `end` may be large, and are None while they are not loaded.
    """

    n: int
    id: str
    workflow: str
    version: str
    queue: str
    priority: int
    key: str
    parent_id: str
    state: str
    status: str
    attempt: int
    generation: int
    ver: int
    op_id: str
    nonce: str
    worker: str
    crashes: int
    inbox_seq: int
    urgent_seq: int
    unread: int
    history_seq: int
    records: int
    timers: int
    watchers: int
    created_at: int
    available_at: int
    bell: int
    ring_at: int
    owned_at: int
    started_at: int
    finished_at: int
    wake_at: int
    deadline_at: int
    end: End | None = None
    given: Given | None = None
    answer: Committed | None = None
    """To the last commit, if it was made here and is small."""
    stored_status: str | None = None
    """None: not stored yet."""

    def all_columns(self, ns: int) -> tuple[object, ...]:
        """As `INSERT_HEADS` has them."""
        return (
            self.n,
            ns,
            self.id,
            self.workflow,
            self.version,
            self.queue,
            self.priority,
            self.key,
            1 if self.key else 0,
            self.parent_id,
            self.state,
            self.status,
            self.attempt,
            self.generation,
            self.ver,
            self.op_id,
            self.nonce,
            self.worker,
            self.crashes,
            self.inbox_seq,
            self.urgent_seq,
            self.unread,
            self.history_seq,
            self.records,
            self.timers,
            self.watchers,
            self.created_at,
            self.available_at,
            self.bell,
            self.ring_at,
            self.owned_at,
            self.started_at,
            self.finished_at,
            self.wake_at,
            self.deadline_at,
        )

    def counters(self) -> tuple[object, ...]:
        """What any write may change, as `ADVANCE_HEADS` has it."""
        return (
            self.n,
            self.ver,
            self.op_id,
            self.crashes,
            self.inbox_seq,
            self.urgent_seq,
            self.unread,
            self.history_seq,
            self.records,
            self.timers,
            self.watchers,
        )

    def situation(self) -> tuple[object, ...]:
        """What changes with the state, as `MOVE_HEADS` has it after the counters."""
        return (
            self.state,
            self.status,
            self.attempt,
            self.generation,
            self.nonce,
            self.worker,
            self.available_at,
            self.bell,
            self.ring_at,
            self.owned_at,
            self.started_at,
            self.finished_at,
            self.wake_at,
            self.deadline_at,
        )

    def doorbell(self) -> Doorbell:
        return Doorbell(
            self.id,
            self.workflow,
            self.version,
            self.queue,
            self.priority,
            self.crashes,
            self.available_at,
        )

    def leave(self, state: str) -> None:
        """Enter another state, with nothing that belongs to the present one."""
        self.state = state
        self.nonce = self.worker = ""
        self.bell = BELL_NONE
        self.ring_at = self.owned_at = self.wake_at = NEVER

    def make_ready(self, at: int, now: int) -> bool:
        """Let it be claimed from `at` on; whether that is now."""
        self.leave(READY)
        if at > now:
            self.available_at = self.ring_at = at
            self.bell = BELL_LATER
            return False
        self.available_at = now
        self.bell = BELL_DUE
        return True

    def hold(self, at: int, now: int) -> bool:
        """Let it be ready, and claimable only when it has passed its gates; whether it may seek them now."""
        self.leave(READY)
        self.available_at = self.ring_at = max(at, now)
        self.bell = BELL_OPENING if at > now else BELL_HELD
        return self.bell == BELL_HELD

    @property
    def is_held(self) -> bool:
        return self.bell in (BELL_OPENING, BELL_HELD)

    def outcome(self, end: End) -> Outcome:
        """How it ended, for its watchers."""
        status = STATUSES[self.status]
        data = end.result if status is ExecutionStatus.COMPLETED else end.error
        return Outcome(status, self.workflow, self.attempt, data or b"")


def execution_row(head: Head, given: Given, end: End) -> ExecutionRow:
    return ExecutionRow(
        head.id,
        head.workflow,
        head.version,
        head.queue,
        head.priority,
        head.key or None,
        tags_of(given.tags),
        given.options,
        given.input,
        head.parent_id or None,
        STATES[head.state],
        STATUSES[head.status],
        head.attempt,
        head.generation,
        head.ver,
        head.op_id,
        head.nonce or None,
        head.worker or None,
        head.crashes,
        head.inbox_seq,
        head.created_at,
        head.available_at,
        _instant(head.started_at),
        _instant(head.finished_at),
        _instant(head.wake_at),
        _instant(head.deadline_at),
        end.result,
        end.error,
        end.code,
        None,
        given.cause,
    )


def tag_text(name: str, value: str) -> str:
    """A tag as it is indexed. SQLite's JSON functions would cut a bare text at its first NUL."""
    return json.dumps([name, value])


def tags_of(text: str) -> Mapping[str, str]:
    tags: dict[str, str] = {} if text == "{}" else json.loads(text)
    return tags


def checkpoint(
    step_id: str,
    kind: str,
    name: str,
    status: str,
    data: bytes,
    attempts: int,
    started_at: int,
    finished_at: int,
    wake_at: int,
    seq: int,
) -> Checkpoint:
    return Checkpoint(
        step_id,
        kind,
        name,
        _CHECKPOINT_STATUSES[status],
        data,
        attempts,
        started_at,
        _instant(finished_at),
        _instant(wake_at),
        seq,
    )


def _instant(at: int) -> int | None:
    return None if at == NEVER else at


def inbox_entry(
    seq: int, id: str, kind: str, name: str, data: bytes, at: int, consumed_by: str | None
) -> InboxEntry:
    return InboxEntry(seq, id, _KINDS[kind], name, data, at, consumed_by)
