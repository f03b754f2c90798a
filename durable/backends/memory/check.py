"""What contradicts itself in the tables."""

from __future__ import annotations

from collections.abc import Iterator

from durable.backends.memory.record import Record
from durable.backends.memory.tables import Tables, timer_message_id
from durable.protocols import TIMEOUT_TIMER, MessageKind, State


def contradictions(tables: Tables) -> Iterator[str]:
    """A sentence for each. Every index is compared with what the executions themselves say."""
    records = tables.executions.values()
    for record in records:
        yield from _in_itself(record)

    if {record.number: record for record in records} != tables.numbers:
        yield "the order of creation is not that of the executions"
    for (workflow, key), record in tables.keys.items():
        if (workflow, key) != (record.spec.workflow, record.spec.key) or record not in records:
            yield f"key {key!r} of workflow {workflow} leads to another execution"

    yield from tables.ready.contradictions()
    claimable = {record for record in records if record.state is State.READY and not record.is_held}
    if set(tables.ready.members()) != claimable:
        yield "the ready index does not hold exactly what is ready"
    yield from _held(tables)
    listening = {(name, *listener) for name, log in tables.events.items() for listener, _ in log.listeners()}
    if listening != {(event, record.id, step) for record in records for event, step in record.listening}:
        yield "the index of listeners does not hold exactly those that listen"
    owned = {(worker, record) for worker, theirs in tables.owned.items() for record in theirs}
    if owned != {(record.worker, record) for record in records if record.state is State.OWNED}:
        yield "the index by worker does not hold exactly what is owned"
    closed = {(status, *item) for status, agenda in tables.closed.items() for item in agenda.ranks().items()}
    if closed != {(record.status, record, record.finished_at) for record in records if _is_closed(record)}:
        yield "the index of the ended does not hold exactly what is closed"
    timers = {(record.id, step_id): at for record in records for step_id, at in record.timers.items()}
    if tables.timers.ranks() != timers:
        yield "the index of timers does not hold exactly those of the executions"
    for target_id in tables.watchers:
        target = tables.executions.get(target_id)
        if target is None or _is_closed(target):
            yield f"{target_id}: watched, though it will never close"
    watches = {(target, watcher, step) for target, of in tables.watchers.items() for watcher, step in of}
    if watches != {(target, record.id, step) for record in records for target, step in record.watching}:
        yield "the index of watchers does not hold exactly those that watch"


def _held(tables: Tables) -> Iterator[str]:
    yield from tables.gates.contradictions()
    for record in tables.executions.values():
        seeker = tables.gates.seeker((record.id, ""))
        waits_at = None if seeker is None or seeker.waits_at is None else seeker.waits_at.name
        is_opening = record in tables.opening
        if record.is_held and (record.waits_at is None) == (not is_opening):
            yield f"{record.id}: held, and waits neither for its instant nor at a gate, or for both"
        if record.waits_at is not None and record.waits_at != waits_at:
            yield f"{record.id}: waits at {record.waits_at}, and seeks {waits_at}"
        if record.seeking and _is_closed(record):
            yield f"{record.id}: closed, with slots"


def _is_closed(record: Record) -> bool:
    return record.state is State.CLOSED


def _in_itself(record: Record) -> Iterator[str]:
    """What does not fit together within one execution."""
    is_owned = record.state is State.OWNED
    if (record.nonce is not None, record.worker is not None) != (is_owned, is_owned):
        yield f"{record.id}: {record.state}, nonce {record.nonce}, worker {record.worker}"
    if (record.status.final, record.finished_at is not None) != (_is_closed(record), _is_closed(record)):
        yield f"{record.id}: {record.state}, {record.status}, finished at {record.finished_at}"
    if record.wake_at is not None and record.state is not State.PARKED:
        yield f"{record.id}: {record.state}, to wake at {record.wake_at}"
    if (record.answer is None, record.op_id == "") != (record.ver == 0, record.ver == 0):
        yield f"{record.id}: version {record.ver}, last operation {record.op_id!r}"

    if list(record.inbox) != sorted(record.inbox) or max(record.inbox, default=0) > record.inbox_seq:
        yield f"{record.id}: inbox out of order"
    unread = {seq: entry for seq, entry in record.inbox.items() if entry.consumed_by is None}
    if list(record.unread.items()) != list(unread.items()) or not record.urgent.keys() <= unread.keys():
        yield f"{record.id}: the unread entries are not those that nobody consumed"

    numbers = [checkpoint.seq for checkpoint in record.history.values()]
    if numbers != sorted(set(numbers)) or max(numbers, default=0) > record.history_seq:
        yield f"{record.id}: history out of order"
    fired = {entry.id for entry in record.inbox.values() if entry.kind is MessageKind.TIMER}
    expected: dict[str, int | None] = {
        step_id: checkpoint.wake_at
        for step_id, checkpoint in record.history.items()
        if checkpoint.wake_at is not None and not checkpoint.status.final
        if checkpoint.seq > record.stopped_seq and timer_message_id(step_id, checkpoint.seq) not in fired
    }
    if TIMEOUT_TIMER in record.timers:
        expected[TIMEOUT_TIMER] = record.deadline_at
    if record.timers != expected:
        yield f"{record.id}: the timers are not those of the open checkpoints"
    if record.timers and _is_closed(record):
        yield f"{record.id}: closed, with timers"
