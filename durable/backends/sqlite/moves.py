"""The moves of executions. What may happen is decided by the verbs; here it happens, and none of it can be refused."""

from __future__ import annotations

import json
from typing import Final, final

from durable.backends.sqlite import statements as sql
from durable.backends.sqlite.head import BLOCKED, CLOSED, NO_END, OWNED, PARKED, READY, End, Head
from durable.backends.sqlite.schema import BELL_NONE, NEVER
from durable.backends.sqlite.unit import Unit
from durable.models import ExecutionStatus
from durable.protocols import (
    TIMEOUT_TIMER,
    Block,
    Checkpoint,
    Close,
    Doorbell,
    Message,
    MessageKind,
    NewExecution,
    Outcome,
    Park,
    Reach,
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


def insert(unit: Unit, spec: NewExecution, op_id: str) -> tuple[Head, bool]:
    """Add an execution whose id is free, and whose key is or may be taken over; can it be claimed now?"""
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
    is_ready = head.make_ready(max(now + spec.delay_ms, spec.at_ms or 0), now)
    unit.insert(head, spec, op_id, json.dumps(dict(spec.tags)) if spec.tags else "{}")
    if spec.timeout_ms is not None:
        head.deadline_at = now + spec.timeout_ms
        unit.add_timer(head, TIMEOUT_TIMER, head.deadline_at, 0)
    return head, is_ready


def make_ready(unit: Unit, head: Head, at: int, effects: Effects) -> None:
    """Let it be claimed from `at` on. It goes on showing the status that it has, unless it had ended."""
    if head.state == CLOSED:
        _reopen(unit, head)
    if head.make_ready(at, unit.now):
        effects.doorbells[head.id] = head.doorbell()
    unit.moved(head)


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


def park(unit: Unit, head: Head, park: Park) -> None:
    head.leave(PARKED)
    head.status = park.status._value_
    if park.wake_at is not None:
        head.wake_at = park.wake_at
    unit.moved(head)


def block(unit: Unit, head: Head, block: Block) -> None:
    head.leave(BLOCKED)
    head.status = block.status._value_
    unit.ended(head, End(None, block.error, block.code))


def close(unit: Unit, head: Head, close: Close, effects: Effects) -> None:
    """End it: its timers are deleted and its watchers told."""
    head.leave(CLOSED)
    head.status = close.status._value_
    head.finished_at = unit.now
    end = End(close.result, close.error, close.code)
    unit.ended(head, end)
    if head.timers or head.deadline_at != NEVER:
        unit.change(sql.DROP_TIMERS, head)
        head.timers = 0
    effects.touched[head.id] = None
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
        make_ready(unit, head, unit.now, effects)


def _wakes(head: Head, reach: Reach, now: int) -> bool:
    state = head.state
    if state == PARKED:
        return True
    if state == OWNED or reach is Reach.PARKED:
        return False
    if state == READY:
        return head.available_at > now
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
