"""The moves of executions. What may happen is decided by the verbs; here it happens, and none of it can be refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, final

from durable.backends.sqlite import events, gates, statements as sql
from durable.backends.sqlite.gates import Seeker
from durable.backends.sqlite.head import BLOCKED, CLOSED, NO_END, OWNED, PARKED, READY, End, Head
from durable.backends.sqlite.schema import BELL_DUE, BELL_HELD, BELL_NONE, BELL_OPENING, NEVER
from durable.backends.sqlite.unit import Unit
from durable.models import ExecutionStatus
from durable.protocols import (
    TIMEOUT_TIMER,
    Block,
    Checkpoint,
    Close,
    Doorbell,
    EventRow,
    Listen,
    Message,
    MessageKind,
    NewExecution,
    Outcome,
    Park,
    Reach,
    Seek,
    Watch,
)

_PENDING: Final = ExecutionStatus.PENDING.value
_RUNNING: Final = ExecutionStatus.RUNNING.value


@final
class Effects:
    """What a write means for others: whom its caller has to ring and to hint."""

    __slots__ = ("doorbells", "touched")

    def __init__(self) -> None:
        self.doorbells: dict[str, Doorbell] = {}
        self.touched: dict[str, None] = {}


# -- from state to state


def insert(unit: Unit, spec: NewExecution, op_id: str, effects: Effects) -> Head:
    """Add an execution whose id is free, and whose key is or may be taken over."""
    now = unit.now
    head = Head(
        n=0,
        id=spec.id,
        workflow=spec.workflow,
        version=spec.version,
        queue=spec.queue,
        priority=spec.priority,
        key=spec.key or "",
        parent_id=spec.parent_id or "",
        state=READY,
        status=_PENDING,
        attempt=1,
        generation=0,
        ver=0,
        op_id="",
        nonce="",
        worker="",
        crashes=0,
        inbox_seq=0,
        urgent_seq=0,
        unread=0,
        history_seq=0,
        records=0,
        timers=0,
        watchers=0,
        created_at=now,
        available_at=now,
        bell=BELL_NONE,
        ring_at=NEVER,
        owned_at=NEVER,
        started_at=NEVER,
        finished_at=NEVER,
        wake_at=NEVER,
        deadline_at=NEVER,
        end=NO_END,
    )
    begins_at = max(now + spec.delay_ms, spec.at_ms or 0)
    is_ready = not spec.gates and head.make_ready(begins_at, now)
    may_seek = bool(spec.gates) and head.hold(begins_at, now)
    unit.insert(head, spec, op_id, json.dumps(dict(spec.tags)) if spec.tags else "{}")
    if spec.timeout_ms is not None:
        head.deadline_at = now + spec.timeout_ms
        unit.add_timer(head, TIMEOUT_TIMER, head.deadline_at, 0)
    for checkpoint in spec.history:
        write(unit, head, checkpoint)
    for name, data in spec.values.items():
        unit.db.execute(sql.SET_VALUE, (head.n, name, data))
    for listen in spec.listens:
        begin_to_listen(unit, head, listen, effects)
    if spec.gates:
        gates.save(unit, Seeker(head.n, "", spec.gates))
        if may_seek:
            seek_own(unit, head, effects)
            is_ready = head.bell == BELL_DUE
    if is_ready:
        effects.doorbells[head.id] = head.doorbell()
    return head


def make_ready(unit: Unit, head: Head, at: int, effects: Effects, *, passes: bool = False) -> None:
    """Let it be claimed from `at` on, when it has passed its gates; `passes`: whatever gates it has, with what it
    holds. It goes on showing the status that it has, unless it had ended."""
    leave(unit, head, effects, keeps_slots=passes)
    if head.state == CLOSED:
        _reopen(unit, head)
    if unit.has_seekers and not passes and gates.load(unit, head.n, "") is not None:
        may_seek = head.hold(at, unit.now)
        unit.moved(head)
        if may_seek:
            seek_own(unit, head, effects)
        return
    if head.make_ready(at, unit.now):
        effects.doorbells[head.id] = head.doorbell()
    unit.moved(head)


def leave(unit: Unit, head: Head, effects: Effects, *, keeps_slots: bool = False) -> None:
    """Give back what an owner holds, unless it keeps it, and stand in no line."""
    if not unit.has_seekers:
        return
    if head.bell == BELL_HELD:
        gates.leave_line(unit, head.n, "")
    elif head.state == OWNED and not keeps_slots:
        advance(unit, gates.give_back(unit, head.n, "", ended=False), effects)


def own(unit: Unit, head: Head, nonce: str, worker: str) -> None:
    head.leave(OWNED)
    head.status = _RUNNING
    head.nonce, head.worker, head.owned_at = nonce, worker, unit.now
    if head.started_at == NEVER:
        head.started_at = unit.now
    if head.end is NO_END:
        unit.moved(head)
    else:
        unit.ended(head, NO_END)


def park(unit: Unit, head: Head, park: Park, effects: Effects) -> None:
    leave(unit, head, effects)
    head.leave(PARKED)
    head.status = park.status._value_
    if park.wake_at is not None:
        head.wake_at = park.wake_at
    unit.moved(head)


def block(unit: Unit, head: Head, block: Block, effects: Effects) -> None:
    leave(unit, head, effects)
    head.leave(BLOCKED)
    head.status = block.status._value_
    unit.ended(head, End(None, block.error, block.code))


def close(unit: Unit, head: Head, close: Close, effects: Effects) -> None:
    """End it: its timers are deleted, its slots given back, it listens no more, and its watchers are told."""
    leave(unit, head, effects)
    head.leave(CLOSED)
    head.status = close.status._value_
    head.finished_at = unit.now
    end = End(close.result, close.error, close.code)
    unit.ended(head, end)
    if head.timers or head.deadline_at != NEVER:
        unit.change(sql.DROP_TIMERS, head)
        head.timers = 0
    effects.touched[head.id] = None
    events.unlisten_all(unit, head.n, cancels_too=True)
    free_steps(unit, head, effects, and_itself=True)
    if head.watchers:
        head.watchers = 0
        watchers = unit.db.execute(sql.WATCHERS, (head.n,)).fetchall()
        unit.db.execute(sql.DROP_WATCHERS, (head.n,))
        for n, step_id in watchers:
            watcher = unit.head_by_n(n)
            if watcher is not None and watcher.state != CLOSED:
                tell(unit, watcher, head.id, step_id, head.outcome(end), effects)


def restart(unit: Unit, head: Head, input: bytes, effects: Effects) -> None:
    """Let it begin anew; unread messages and the deadline stay."""
    events.unlisten_all(unit, head.n, cancels_too=False)
    free_steps(unit, head, effects, and_itself=False)
    unit.change(sql.DROP_HISTORY, head)
    unit.change(sql.DROP_STEP_TIMERS, head)
    unit.change(sql.DROP_CONSUMED, head)
    unit.change(sql.DROP_VALUES, head)
    unit.change(sql.RESTART, head, input)
    head.given = None
    head.records = head.timers = 0
    head.generation += 1
    head.attempt = 1
    head.status = _PENDING
    make_ready(unit, head, unit.now, effects)


def _reopen(unit: Unit, head: Head) -> None:
    head.status = _PENDING
    head.finished_at = NEVER
    head.deadline_at = NEVER
    unit.ended(head, NO_END)


# -- messages


def append(unit: Unit, head: Head, message: Message, effects: Effects) -> None:
    """Put a message into the inbox."""
    unit.add_message(head, message, is_urgent=message.reach is not Reach.PARKED)
    unit.advanced(head)
    effects.touched[head.id] = None


def deliver(unit: Unit, head: Head, message: Message, effects: Effects) -> None:
    """Put a message into the inbox, and wake the execution if its state is within reach."""
    append(unit, head, message, effects)
    if _wakes(head, message.reach, unit.now):
        passes = head.is_held and message.reach is not Reach.PARKED
        make_ready(unit, head, unit.now, effects, passes=passes)


def _wakes(head: Head, reach: Reach, now: int) -> bool:
    state = head.state
    if state == PARKED:
        return True
    if state == OWNED or reach is Reach.PARKED:
        return False
    if state == READY:
        return head.is_held or head.available_at > now
    return state == BLOCKED or reach is Reach.CLOSED


def watch(unit: Unit, head: Head, watch: Watch, effects: Effects) -> None:
    """Tell it the end of another execution, now or when that comes."""
    target = unit.head(watch.target)
    if target is None:
        tell(unit, head, watch.target, watch.step_id, Outcome(None, "", 0, b""), effects)
    elif target.state == CLOSED:
        tell(unit, head, watch.target, watch.step_id, target.outcome(unit.end(target)), effects)
    else:
        unit.db.execute(sql.WATCH, (target.n, head.n, watch.step_id))
        target.watchers += 1
        unit.advanced(target)


def tell(unit: Unit, watcher: Head, target_id: str, step_id: str, outcome: Outcome, effects: Effects) -> None:
    """Post the end of a target to one watcher.

    A consumed entry of the same id is no duplicate: a later attempt of the run may wait for that end again.
    """
    message_id = f"watch:{target_id}:{step_id}"
    if not unit.has_unread(watcher, message_id):
        deliver(unit, watcher, Message(message_id, MessageKind.CHILD, step_id, outcome.pack()), effects)


def post(unit: Unit, head: Head, message: Message, effects: Effects) -> None:
    """Deliver a message that is not there yet; a cancel of what was never claimed ends it."""
    unit.add_message_id(head, message.id)
    if message.kind is MessageKind.CANCEL and head.state == READY and head.started_at == NEVER:
        append(unit, head, message, effects)
        close(unit, head, Close(ExecutionStatus.CANCELLED, error=message.data), effects)
    else:
        deliver(unit, head, message, effects)


def post_once(unit: Unit, head: Head, message: Message, effects: Effects) -> None:
    if head.state != CLOSED and not unit.has_message_id(head, message.id):
        post(unit, head, message, effects)


# -- gates


def seek_own(unit: Unit, head: Head, effects: Effects) -> None:
    """Let an execution seek its gates, its instant having come."""
    seeker = gates.load(unit, head.n, "")
    assert seeker is not None
    if head.bell == BELL_OPENING:
        head.hold(unit.now, unit.now)
        unit.moved(head)
    seeker.at = 0
    seek(unit, seeker, effects)


def seek_for_step(unit: Unit, head: Head, wanted: Seek, effects: Effects) -> None:
    free(unit, head, wanted.step_id, effects)
    seeker = Seeker(
        head.n, wanted.step_id, wanted.gates, message_id=wanted.message_id, priority=head.priority
    )
    seek(unit, seeker, effects)


def seek(unit: Unit, seeker: Seeker, effects: Effects) -> None:
    head = unit.head_by_n(seeker.n)
    assert head is not None
    verdict = gates.seek(unit, seeker)
    for n, _ in verdict.makes_room:
        other = unit.head_by_n(n)
        if other is not None and verdict.waits_at is not None:
            gate = verdict.waits_at
            reason = Message(
                f"replaced:{gate.name}", MessageKind.CANCEL, "cancel", gate.refusal, Reach.BLOCKED
            )
            post_once(unit, other, reason, effects)
    if verdict.refused_by is not None:
        close(unit, head, Close(ExecutionStatus.CANCELLED, error=verdict.refused_by.refusal), effects)
    elif verdict.waits_at is None and seeker.step_id:
        post_once(unit, head, Message(seeker.message_id, MessageKind.GATE, seeker.step_id), effects)
    elif verdict.waits_at is None and head.is_held:
        head.make_ready(unit.now, unit.now)
        effects.doorbells[head.id] = head.doorbell()
        unit.moved(head)


def advance(unit: Unit, names: Iterable[str], effects: Effects) -> None:
    """Let the first in line pass at these gates, as long as there is room."""
    for name in names:
        while (seeker := gates.next_in_line(unit, name)) is not None:
            seek(unit, seeker, effects)


def free(unit: Unit, head: Head, step_id: str, effects: Effects) -> None:
    """Give back what a step, or the ended execution itself, holds."""
    if unit.has_seekers:
        advance(unit, gates.give_back(unit, head.n, step_id, ended=True), effects)


def free_steps(unit: Unit, head: Head, effects: Effects, *, and_itself: bool) -> None:
    if unit.has_seekers:
        for step_id in gates.steps(unit, head.n, and_itself=and_itself):
            free(unit, head, step_id, effects)


# -- events


def begin_to_listen(unit: Unit, head: Head, listen: Listen, effects: Effects) -> None:
    """Let it be told of events, and to look if there is one that it has not looked at."""
    seq = events.listen(unit, head.n, listen)
    if seq is not None:
        send_to_look(unit, head, listen.step_id, seq, effects)


def tell_event(
    unit: Unit, head: Head, step_id: str, cancel: bytes | None, row: EventRow, effects: Effects
) -> None:
    """Give an event to one that listens for it, and listens no more."""
    events.unlisten(unit, head.n, row.name, step_id)
    message = Message(f"event:{row.seq}:{step_id}", MessageKind.EVENT, step_id, row.pack())
    if cancel is not None:
        message = Message(message.id, MessageKind.CANCEL, "cancel", cancel, Reach.BLOCKED)
    post_once(unit, head, message, effects)


def send_to_look(unit: Unit, head: Head, step_id: str, seq: int, effects: Effects) -> None:
    post_once(unit, head, Message(f"look:{seq}:{step_id}", MessageKind.EVENT, step_id), effects)


# -- checkpoints and their timers


def write(unit: Unit, head: Head, checkpoint: Checkpoint) -> None:
    """Put a checkpoint at the end of the history, in place of one of its name that is not final."""
    unit.add_checkpoint(head, checkpoint)
    if checkpoint.wake_at is not None and not checkpoint.status.final:
        head.timers += 1
        unit.add_timer(head, checkpoint.step_id, checkpoint.wake_at, head.history_seq)
    elif head.timers:
        head.timers -= unit.change(sql.DROP_TIMER, head, checkpoint.step_id)


def forget(unit: Unit, head: Head, step_id: str) -> None:
    """Drop a checkpoint, if it is there."""
    if unit.change(sql.DROP_CHECKPOINT, head, step_id):
        head.records -= 1
        if head.timers:
            head.timers -= unit.change(sql.DROP_TIMER, head, step_id)


def fire(unit: Unit, head: Head, step_id: str, seq: int, effects: Effects) -> None:
    """Deliver the message of a timer that was deleted."""
    is_timeout = step_id == TIMEOUT_TIMER
    if not is_timeout:
        head.timers -= 1
    reach = Reach.BLOCKED if is_timeout else Reach.PARKED
    deliver(unit, head, Message(f"timer:{step_id}:{seq}", MessageKind.TIMER, step_id, b"", reach), effects)
