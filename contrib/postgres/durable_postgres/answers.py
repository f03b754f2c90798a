"""What the database answers, as the records of the port."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from durable.errors import StoreFull
from durable.models import ExecutionStatus
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    Claimed,
    Committed,
    Created,
    Diverged,
    Doorbell,
    ExecutionRow,
    Exists,
    Fenced,
    Full,
    InboxEntry,
    Joined,
    MessageKind,
    NotClaimed,
    NotPosted,
    Posted,
    Receipt,
    Sent,
    State,
    Ticked,
)
from durable_postgres.driver import Row
from durable_postgres.texts import given, given_or_none

MOST: Final = 10_000
"""Checkpoints of an execution, and unread messages."""

# Calling an enum's class costs as much as reading a row.
_STATES: Final = {state.value: state for state in State}
STATUSES: Final = {status.value: status for status in ExecutionStatus}
_CHECKPOINT_STATUSES: Final = {status.value: status for status in CheckpointStatus}
_KINDS: Final = {kind.value: kind for kind in MessageKind}


def created(answer: Row) -> Created | Joined | Exists:
    code, id, is_so, _, _, _, at, _, bells, touched, next_at, *_ = answer
    id = given(id)
    if code == "exists":
        return Exists(id, is_so)
    rung = bells_of(bells)
    own = next((bell for bell in rung if bell.id == id), None)
    if code == "joined":
        return Joined(id, own, at)
    others = tuple(bell for bell in rung if bell.id != id)
    return Created(id, own, at, others, tuple(each for each in ids_of(touched) if each != id), next_at)


def got(answer: Row) -> ExecutionRow | None:
    shown = answer[-1]
    return None if shown is None or shown[1] is None else row_of(shown)


def claimed(answer: Row) -> Claimed | NotClaimed:
    code, _, knows_history, _, _, state, _, now, _, _, _, inbox, history, shown = answer
    if code != "claimed":
        return NotClaimed(_STATES.get(state))
    return Claimed(row_of(shown), None if knows_history else history_of(history), inbox_of(inbox), now)


def committed(answer: Row) -> Committed | Fenced | Diverged | Full:
    code, _, owned, ver, size, what, _, now, bells, touched, next_at, inbox, _, _ = answer
    match code:
        case "committed":
            return Committed(
                ver,
                owned,
                inbox_of(inbox),
                now,
                bells_of(bells),
                tuple(dict.fromkeys(ids_of(touched))),
                next_at,
            )
        case "fenced":
            return Fenced()
        case "diverged":
            return Diverged()
        case _:
            return Full(what, size, MOST)


def posted(execution_id: str, answer: Row) -> Posted | NotPosted:
    """Raises: `StoreFull`."""
    code, _, is_so, seq, _, state, _, _, bells, _, next_at, *_ = answer
    if code == "full":
        raise StoreFull(
            f"execution {execution_id} has {MOST:,} unread messages",
            "let it read some, or cancel it; the call may be repeated then",
        )
    if code == "not posted":
        return NotPosted(_STATES.get(state), duplicate=is_so)
    rung = bells_of(bells)
    own = next((bell for bell in rung if bell.id == execution_id), None)
    return Posted(seq, own, is_so, tuple(bell for bell in rung if bell.id != execution_id), next_at)


def sent(answer: Row) -> Sent:
    receipts, bells, touched, next_at = answer
    told = [Receipt(ids_of(ids), duplicate) for ids, duplicate in receipts]
    return Sent(told, bells_of(bells), ids_of(touched), next_at)


def ticked(answer: Row) -> Ticked:
    bells, touched, more, next_at, now = answer
    return Ticked(bells_of(bells), ids_of(touched), more, next_at, now)


def bells_of(bells: Iterable[Row] | None) -> tuple[Doorbell, ...]:
    if not bells:
        return ()
    return tuple(
        Doorbell(given(id), given(workflow), given(version), given(queue), priority, crashes, ready_at)
        for id, workflow, version, queue, priority, crashes, ready_at in bells
    )


def ids_of(ids: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(given(id) for id in ids) if ids else ()


def history_of(records: Iterable[Row] | None) -> Sequence[Checkpoint]:
    if not records:
        return ()
    return [
        Checkpoint(
            given(step_id),
            given(kind),
            given(name),
            _CHECKPOINT_STATUSES[status],
            data,
            attempts,
            started_at,
            finished_at,
            wake_at,
            seq,
        )
        for step_id, kind, name, status, data, attempts, started_at, finished_at, wake_at, seq in records
    ]


def inbox_of(entries: Iterable[Row] | None) -> Sequence[InboxEntry]:
    if not entries:
        return ()
    return [
        InboxEntry(seq, given(id), _KINDS[kind], given(name), data, at, given_or_none(consumed_by))
        for seq, id, kind, name, data, at, consumed_by in entries
    ]


def row_of(shown: Row) -> ExecutionRow:
    """Of what the view `durable.shown` has."""
    _, _, *columns = shown
    (id, workflow, version, queue, priority, key, tags, options, input, parent_id, state, status) = columns[
        :12
    ]
    return ExecutionRow(
        given(id),
        given(workflow),
        given(version),
        given(queue),
        priority,
        given_or_none(key),
        tags_of(tags),
        options,
        input,
        given_or_none(parent_id),
        _STATES[state],
        STATUSES[status],
        *_rest(columns[12:]),
    )


def _rest(columns: Sequence[Any]) -> tuple[Any, ...]:
    attempt, generation, ver, op_id, nonce, worker, *plain, code, held_by, cause = columns
    return (
        attempt,
        generation,
        ver,
        given(op_id),
        given_or_none(nonce),
        given_or_none(worker),
        *plain,
        given_or_none(code),
        given_or_none(held_by),
        cause,
    )


def tags_of(text: str) -> Mapping[str, str]:
    return {} if text == "{}" else {given(name): given(value) for name, value in json.loads(text).items()}
