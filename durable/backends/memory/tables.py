"""`Tables`: all that one namespace keeps, and the moves of executions that keep its indexes right.

The store decides what may happen; here it happens. Each move is complete in itself and none can fail.

    insert ─▶ READY ─ own ─▶ OWNED ─ park ─▶ PARKED ─ deliver ─▶ READY
                ▲              ├─── block ─▶ BLOCKED ─ deliver ─▶ READY
                └─ make_ready ─┴─── close ─▶ CLOSED ── deliver ─▶ READY

What is ready and has gates is held until it has passed them: it waits for its instant in `opening`, or in a line.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import final

from durable.backends.memory.events import EventLog
from durable.backends.memory.gates import Gates, Holder, Seeker
from durable.backends.memory.index import Agenda, ReadyIndex, until
from durable.backends.memory.record import Record
from durable.models import ExecutionStatus
from durable.protocols import (
    TIMEOUT_TIMER,
    Block,
    Checkpoint,
    Close,
    Created,
    Doorbell,
    EventRow,
    Gate,
    InboxEntry,
    Listen,
    Live,
    Message,
    MessageKind,
    NewExecution,
    Outcome,
    Park,
    Reach,
    Saved,
    ScheduleRow,
    Seek,
    State,
    Watch,
    WorkerInfo,
)

# A look-up in an enum's class costs as much as a heap operation, and these are on the way of every commit.
_READY, _OWNED, _PARKED, _BLOCKED, _CLOSED = State
_RUNNING = ExecutionStatus.RUNNING
_REACHES_PARKED = Reach.PARKED


@final
class Effects:
    """What one write means for others: whom its caller has to ring and to hint."""

    __slots__ = ("doorbells", "now", "touched")

    def __init__(self, now: int) -> None:
        self.now = now
        self.doorbells: list[Doorbell] = []
        self.touched: dict[str, None] = {}

    def add(self, others: Effects) -> None:
        self.doorbells += others.doorbells
        self.touched |= others.touched


@final
class Tables:
    """The executions of one namespace with every index over them."""

    def __init__(self) -> None:
        self.executions: dict[str, Record] = {}
        self.numbers: dict[int, Record] = {}
        """By order of creation, oldest first, with gaps where some were deleted."""
        self.last_number = 0
        self.keys: dict[tuple[str, str], Record] = {}
        """By workflow and key."""
        self.ready = ReadyIndex()
        self.owned: dict[str, dict[Record, None]] = {}
        """By worker, in the order in which they were claimed."""
        self.timers = Agenda[tuple[str, str], int]()
        """By execution id and step id, of executions that are not closed."""
        self.watchers: dict[str, dict[tuple[str, str], None]] = {}
        """By target, none of which is closed: the execution id and the step id of each watcher."""
        self.closed: dict[ExecutionStatus, Agenda[Record, int]] = {}
        """By the instant of the end."""
        self.gates = Gates[Effects](
            held=self._held, passed=self._passed, refused=self._refused, replaced=self._replaced
        )
        self.opening = Agenda[Record, int]()
        """What has gates and is to seek them at a later instant."""
        self.pending: dict[str, Record] = {}
        """By group: what the next may join, unless it is due or claimed by now."""
        self.joined: dict[str, Record] = {}
        """By the operation of what joined it."""
        self.events: dict[str, EventLog] = {}
        """By name."""
        self.schedules: dict[str, tuple[ScheduleRow, str, Saved]] = {}
        """Each with the operation of its last save, and the answer to that."""
        self.paused_queues: dict[str, None] = {}
        self.leases: dict[str, WorkerInfo] = {}
        self.leases_lock = threading.Lock()
        """`beat` comes from other threads; all else happens on the loop."""

    # -- creation and deletion

    def insert(self, spec: NewExecution, op_id: str, effects: Effects) -> Created:
        """Add an execution whose id and key are free, or whose key may be taken over."""
        now = effects.now
        self.last_number += 1
        available_at = max(now + spec.delay_ms, spec.at_ms or 0)
        doorbell = Doorbell(
            spec.id, spec.workflow, spec.version, spec.queue, spec.priority, ready_at=available_at
        )
        record = Record(
            spec=spec,
            number=self.last_number,
            created_op=op_id,
            created=Created(spec.id, doorbell if available_at <= now else None, available_at),
            lane=(spec.queue, f"{spec.workflow}@{spec.version}"),
            input=spec.input,
            cause=spec.cause,
            tags=dict(spec.tags),
            created_at=now,
            available_at=available_at,
            deadline_at=None if spec.timeout_ms is None else now + spec.timeout_ms,
        )
        self.executions[spec.id] = self.numbers[record.number] = record
        if spec.key is not None:
            self.keys[spec.workflow, spec.key] = record
        if record.deadline_at is not None:
            self._start_timer(record, TIMEOUT_TIMER, record.deadline_at)
        for checkpoint in spec.history:
            self.write(record, checkpoint)
        record.values.update(spec.values)
        for listen in spec.listens:
            self.listen(record, listen, effects)
        if not spec.gates:
            self.make_ready(record, available_at, effects)
            return record.created
        others = Effects(now)
        self.make_ready(record, available_at, others)
        own = [bell for bell in others.doorbells if bell.id == record.id]
        record.created = Created(
            record.id,
            own[0] if own else None,
            available_at,
            doorbells=tuple(bell for bell in others.doorbells if bell.id != record.id),
            touched=tuple(id for id in others.touched if id != record.id),
            next_at=self.gates.next_at(),
        )
        effects.add(others)
        return record.created

    def deserted(self, live: Live) -> Iterator[Record]:
        """What is owned since before `live.at` by workers that did not live then."""
        for worker, theirs in self.owned.items():
            if worker not in live.workers:
                yield from takewhile(lambda record: record.owned_at < live.at, theirs)

    def delete(self, record: Record) -> None:
        """Forget a closed execution with all that is its own."""
        self.closed[record.status].discard(record)
        for target_id, step_id in record.watching:
            del self.watchers[target_id][record.id, step_id]
        del self.executions[record.id], self.numbers[record.number]
        for op_id in record.joined:
            del self.joined[op_id]
        key = record.spec.key
        if key is not None and self.keys.get((record.spec.workflow, key)) is record:
            del self.keys[record.spec.workflow, key]

    # -- moves

    def make_ready(self, record: Record, at: int, effects: Effects, *, passes: bool = False) -> None:
        """Let it be claimed from `at` on, when it has passed its gates; `passes`: whatever gates it has, with what it
        holds. It goes on showing the status that it has."""
        now = effects.now
        self._leave(record, effects, keeps_slots=passes)
        record.state = _READY
        record.available_at = max(at, now)
        if not record.spec.gates or passes:
            self._make_claimable(record, effects)
            return
        record.is_held = True
        if record.available_at > now:
            self.opening.put(record, record.available_at)
        else:
            self.seek_own(record, effects)

    def _make_claimable(self, record: Record, effects: Effects) -> None:
        self.ready.add(record, effects.now)
        if record.available_at <= effects.now:
            effects.doorbells.append(record.doorbell)

    def own(self, record: Record, nonce: str, worker: str, now: int) -> None:
        """Give it to a worker."""
        self.ready.remove(record)
        record.state = _OWNED
        record.status = _RUNNING
        record.nonce, record.worker, record.owned_at = nonce, worker, now
        record.error = record.code = None
        if record.started_at is None:
            record.started_at = now
        self.owned.setdefault(worker, {})[record] = None

    def park(self, record: Record, park: Park, effects: Effects) -> None:
        """Let it wait for its inbox."""
        self._leave(record, effects)
        record.state = _PARKED
        record.status = park.status
        record.wake_at = park.wake_at

    def block(self, record: Record, block: Block, effects: Effects) -> None:
        """Let it wait for an operator."""
        self._leave(record, effects)
        record.state = _BLOCKED
        record.status = block.status
        record.error, record.code = block.error, block.code

    def restart(self, record: Record, input: bytes, effects: Effects) -> None:
        """Let it begin anew; unread messages and the deadline stay."""
        for step_id in list(record.timers):
            if step_id != TIMEOUT_TIMER:
                self._stop_timer(record, step_id)
        for step_id in [step_id for step_id in record.seeking if step_id]:
            self.free(record, step_id, effects)
        for (event, step_id), listen in list(record.listening.items()):
            if listen.cancel is None:
                self.unlisten(record, event, step_id)
        record.history.clear()
        record.values.clear()
        record.inbox = dict(record.unread)
        record.input = input
        record.generation += 1
        record.attempt = 1
        record.status = ExecutionStatus.PENDING
        self.make_ready(record, effects.now, effects)

    def close(self, record: Record, close: Close, effects: Effects) -> None:
        """End it: its timers stop for good, its slots are free, it listens no more, and its watchers are told."""
        self._leave(record, effects)
        record.state = _CLOSED
        record.status = close.status
        record.result, record.error, record.code = close.result, close.error, close.code
        record.finished_at = effects.now
        self.closed.setdefault(close.status, Agenda()).put(record, effects.now)
        for step_id in list(record.timers):
            self._stop_timer(record, step_id)
        record.stopped_seq = record.history_seq
        effects.touched[record.id] = None
        for event, step_id in list(record.listening):
            self.unlisten(record, event, step_id)
        for step_id in list(record.seeking):
            self.free(record, step_id, effects)
        for watcher_id, step_id in self.watchers.pop(record.id, ()):
            watcher = self.executions[watcher_id]
            del watcher.watching[record.id, step_id]
            if watcher.state is not _CLOSED:
                self.tell(watcher, record.id, step_id, record.outcome(), effects)

    def _leave(self, record: Record, effects: Effects, *, keeps_slots: bool = False) -> None:
        """Undo what belongs to its present state alone."""
        state = record.state
        if state is _READY:
            self.ready.remove(record)
            if record.is_held:
                record.is_held, record.waits_at = False, None
                self.opening.discard(record)
                self.gates.wait_no_more((record.id, ""))
        elif state is _OWNED and record.worker is not None:
            if record.spec.gates and not keeps_slots:
                self.gates.give_back((record.id, ""), effects.now, effects, ended=False)
            theirs = self.owned[record.worker]
            del theirs[record]
            if not theirs:
                del self.owned[record.worker]
            record.nonce = record.worker = None
        elif state is _PARKED:
            record.wake_at = None
        elif state is _CLOSED:
            self.closed[record.status].discard(record)
            record.status = ExecutionStatus.PENDING
            record.finished_at = record.result = record.error = record.code = None
            record.deadline_at = None

    # -- messages

    def deliver(self, record: Record, message: Message, effects: Effects) -> None:
        """Append to the inbox, and wake the execution if its state is within reach."""
        self.append(record, message, effects)
        if record.is_woken_by(message.reach, effects.now):
            passes = record.is_held and message.reach is not _REACHES_PARKED
            self.make_ready(record, effects.now, effects, passes=passes)

    def append(self, record: Record, message: Message, effects: Effects) -> None:
        """Append to the inbox, and wake nobody."""
        record.inbox_seq = seq = record.inbox_seq + 1
        entry = InboxEntry(seq, message.id, message.kind, message.name, message.data, effects.now)
        record.inbox[seq] = record.unread[seq] = entry
        if message.reach is not _REACHES_PARKED:
            record.urgent[seq] = None
        effects.touched[record.id] = None

    def watch(self, record: Record, watch: Watch, effects: Effects) -> None:
        """Tell it the end of another execution, now or when that comes."""
        target = self.executions.get(watch.target)
        if target is None:
            self.tell(record, watch.target, watch.step_id, Outcome(None, "", 0, b""), effects)
        elif target.state is _CLOSED:
            self.tell(record, watch.target, watch.step_id, target.outcome(), effects)
        else:
            self.watchers.setdefault(target.id, {})[record.id, watch.step_id] = None
            record.watching[target.id, watch.step_id] = None

    def tell(self, watcher: Record, target_id: str, step_id: str, outcome: Outcome, effects: Effects) -> None:
        """Post the end of a target to one watcher.

        A consumed entry of the same id is no duplicate: a later attempt may wait for that end again.
        """
        message_id = f"watch:{target_id}:{step_id}"
        if message_id not in watcher.told:
            watcher.told[message_id] = None
            self.deliver(watcher, Message(message_id, MessageKind.CHILD, step_id, outcome.pack()), effects)

    def post(self, record: Record, message: Message, effects: Effects) -> None:
        """Deliver a message that is not there yet; a cancel of what was never claimed ends it."""
        record.seen[message.id] = None
        was_never_claimed = record.state is _READY and record.started_at is None
        if message.kind is MessageKind.CANCEL and was_never_claimed:
            self.append(record, message, effects)
            self.close(record, Close(ExecutionStatus.CANCELLED, error=message.data), effects)
        else:
            self.deliver(record, message, effects)

    # -- gates

    def seek_own(self, record: Record, effects: Effects) -> None:
        """Let an execution seek its gates, its instant having come."""
        holder = (record.id, "")
        seeker = self.gates.seeker(holder) or Seeker(holder, record.spec.gates, record.spec.priority)
        seeker.at, seeker.is_new = 0, record.started_at is None
        record.seeking[""] = None
        self.gates.seek(seeker, effects.now, effects)

    def seek(self, record: Record, seek: Seek, effects: Effects) -> None:
        """Let a step of an execution seek gates."""
        self.free(record, seek.step_id, effects)
        record.seeking[seek.step_id] = None
        seeker = Seeker((record.id, seek.step_id), seek.gates, record.spec.priority, seek.message_id)
        self.gates.seek(seeker, effects.now, effects)

    def free(self, record: Record, step_id: str, effects: Effects) -> None:
        """Give back what a step, or the ended execution itself, holds."""
        if step_id in record.seeking:
            del record.seeking[step_id]
            self.gates.give_back((record.id, step_id), effects.now, effects, ended=True)

    def open_gates(self, limit: int, effects: Effects) -> bool:
        """Let those seek whose instant has come, and those pass who wait and may; is there more to do?"""
        for record in islice(until(self.opening, effects.now), limit):
            self.seek_own(record, effects)
        self.gates.tick(effects.now, effects)
        rank = self.opening.first_rank()
        return rank is not None and rank <= effects.now

    def _held(self, seeker: Seeker, gate: Gate) -> None:
        execution_id, step_id = seeker.holder
        if not step_id:
            self.executions[execution_id].waits_at = gate.name

    def _passed(self, seeker: Seeker, effects: Effects) -> None:
        execution_id, step_id = seeker.holder
        record = self.executions[execution_id]
        if step_id:
            message = Message(seeker.message_id, MessageKind.GATE, step_id)
            if message.id not in record.seen:
                self.post(record, message, effects)
        else:
            record.is_held, record.waits_at = False, None
            record.available_at = effects.now
            self._make_claimable(record, effects)

    def _refused(self, seeker: Seeker, gate: Gate, effects: Effects) -> None:
        record = self.executions[seeker.holder[0]]
        self.close(record, Close(ExecutionStatus.CANCELLED, error=gate.refusal), effects)

    def _replaced(self, holder: Holder, gate: Gate, effects: Effects) -> None:
        record = self.executions[holder[0]]
        message = Message(f"replaced:{gate.name}", MessageKind.CANCEL, "cancel", gate.refusal, Reach.BLOCKED)
        if message.id not in record.seen:
            self.post(record, message, effects)

    # -- events

    def log(self, event: str) -> EventLog:
        return self.events.setdefault(event, EventLog(event))

    def listen(self, record: Record, listen: Listen, effects: Effects) -> None:
        """Let it be told of events, and to look if there is one that it has not looked at."""
        self.unlisten(record, listen.event, listen.step_id)
        record.listening[listen.event, listen.step_id] = listen
        event = self.log(listen.event).listen((record.id, listen.step_id), listen)
        if event is not None:
            self.send_to_look(record, listen, event.row, effects)

    def unlisten(self, record: Record, event: str, step_id: str) -> None:
        listen = record.listening.pop((event, step_id), None)
        if listen is not None:
            self.events[event].unlisten((record.id, step_id), listen)

    def tell_event(self, record: Record, listen: Listen, row: EventRow, effects: Effects) -> None:
        """Give an event to one that listens for it, and listens no more."""
        self.unlisten(record, listen.event, listen.step_id)
        message = Message(f"event:{row.seq}:{listen.step_id}", MessageKind.EVENT, listen.step_id, row.pack())
        if listen.cancel is not None:
            message = Message(message.id, MessageKind.CANCEL, "cancel", listen.cancel, Reach.BLOCKED)
        if message.id not in record.seen:
            self.post(record, message, effects)

    def send_to_look(self, record: Record, listen: Listen, row: EventRow, effects: Effects) -> None:
        message = Message(f"look:{row.seq}:{listen.step_id}", MessageKind.EVENT, listen.step_id)
        if listen.cancel is None and message.id not in record.seen:
            self.post(record, message, effects)

    # -- checkpoints and their timers

    def write(self, record: Record, checkpoint: Checkpoint) -> None:
        """Put a checkpoint at the end of the history, in place of one of its name."""
        step_id = checkpoint.step_id
        record.history_seq += 1
        record.history.pop(step_id, None)
        record.history[step_id] = _numbered(checkpoint, record.history_seq)
        if checkpoint.wake_at is not None and not checkpoint.status.final:
            self._start_timer(record, step_id, checkpoint.wake_at)
        else:
            self._stop_timer(record, step_id)

    def forget(self, record: Record, step_id: str) -> None:
        """Drop a checkpoint, if it is there."""
        if record.history.pop(step_id, None) is not None:
            self._stop_timer(record, step_id)

    def fire(self, key: tuple[str, str], effects: Effects) -> None:
        """Deliver the message of a timer that was taken off `timers`."""
        execution_id, step_id = key
        record = self.executions[execution_id]
        del record.timers[step_id]
        is_timeout = step_id == TIMEOUT_TIMER
        message = Message(
            id=timer_message_id(step_id, 0 if is_timeout else record.history[step_id].seq),
            kind=MessageKind.TIMER,
            name=step_id,
            reach=Reach.BLOCKED if is_timeout else Reach.PARKED,
        )
        self.deliver(record, message, effects)

    def _start_timer(self, record: Record, step_id: str, at: int) -> None:
        record.timers[step_id] = at
        self.timers.put((record.id, step_id), at)

    def _stop_timer(self, record: Record, step_id: str) -> None:
        if record.timers.pop(step_id, None) is not None:
            self.timers.discard((record.id, step_id))


def timer_message_id(step_id: str, seq: int) -> str:
    """A checkpoint that is replaced is another timer: it has another `seq`."""
    return f"timer:{step_id}:{seq}"


def _numbered(checkpoint: Checkpoint, seq: int) -> Checkpoint:
    if checkpoint.seq == seq:  # its owner counts as we do
        return checkpoint
    return Checkpoint(
        checkpoint.step_id,
        checkpoint.kind,
        checkpoint.name,
        checkpoint.status,
        checkpoint.data,
        checkpoint.attempts,
        checkpoint.started_at,
        checkpoint.finished_at,
        checkpoint.wake_at,
        seq,
    )
