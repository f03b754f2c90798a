"""`MemoryStore`: the reference of the store port, in plain dicts and heaps.

What a verb may do is decided here, in the order of the port's docstrings; `Tables` does it. No verb ever
suspends, so each is atomic on the loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Final, final

from typing_extensions import override

from durable.backends.memory.check import contradictions
from durable.backends.memory.index import until
from durable.backends.memory.intake import Intake
from durable.backends.memory.record import Record
from durable.backends.memory.tables import Effects, Tables
from durable.clock import Clock, SystemClock
from durable.errors import InvalidInput, StoreFull, shown
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Block,
    Capabilities,
    Checkpoint,
    Claimed,
    Close,
    Committed,
    Continue,
    Created,
    Depth,
    Diverged,
    Doorbell,
    Due,
    DurableStore,
    Emit,
    EventRow,
    ExecutionRow,
    Exists,
    Fenced,
    Free,
    Full,
    GateRow,
    InboxEntry,
    Joined,
    Listen,
    Live,
    Looked,
    Message,
    NewExecution,
    NotClaimed,
    NotPosted,
    Out,
    Park,
    Plan,
    Post,
    Posted,
    Query,
    Ready,
    Rows,
    Run,
    Saved,
    ScheduleRow,
    Seek,
    Sent,
    Start,
    State,
    Subscriber,
    Ticked,
    Unlisten,
    Wanted,
    Watch,
    WorkerInfo,
)

MAX_CHECKPOINTS: Final = 10_000
MAX_UNREAD: Final = 10_000

_CAPABILITIES: Final = Capabilities(
    name="memory",
    grade="D0",
    notes=("Everything is lost when the process ends: for tests and development.",),
)


@final
class MemoryStore(DurableStore):
    """Executions in this process, gone with it.

    A store without a `name` has data of its own. Those with one name and one namespace share theirs, until
    the process ends; they belong on one event loop. Other threads may call `beat` and nothing else.
    """

    def __init__(self, clock: Clock | None = None, namespace: str = "default", *, name: str = "") -> None:
        self._clock = clock or SystemClock()
        self._tables = _shared.setdefault((name, namespace), Tables()) if name else Tables()
        self._intake = Intake(self._tables)

    @override
    async def open(self) -> None:
        pass

    @override
    async def close(self) -> None:
        pass

    @override
    async def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    # -- writes

    @override
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Joined | Exists:
        return self._intake.create(spec, op_id, Effects(self._clock.now_ms()))

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        record = self._tables.executions.get(execution_id)
        if record is None:
            return NotClaimed(None)
        now = self._clock.now_ms()
        if record.nonce != nonce:
            if record.state is not State.READY or record.is_held or record.available_at > now:
                return NotClaimed(record.state)
            self._tables.own(record, nonce, worker, now)
        knows_history = record.ver > 0 and record.op_id == have_op
        return Claimed(
            row=record.row(),
            history=None if knows_history else tuple(record.history.values()),
            inbox=tuple(record.unread.values()),
            now=now,
        )

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        record = self._tables.executions.get(execution_id)
        if record is None:
            return Fenced()
        if record.answer is not None and record.op_id == op_id:
            return record.answer
        if record.nonce != nonce:
            return Fenced()
        if record.ver != ver or _changes_a_final_checkpoint(record, batch):
            return Diverged()
        if (full := self._above_a_limit(record, batch)) is not None:
            return full

        effects = Effects(self._clock.now_ms())
        for step_id in batch.drop:
            self._tables.forget(record, step_id)
        for checkpoint in batch.checkpoints:
            self._tables.write(record, checkpoint)
        for seq, step_id in batch.consume:
            record.consume(seq, step_id)
        record.values.update(batch.values)
        for out in batch.out:
            self._send(record, out, op_id, effects)
        record.ver += 1
        record.op_id = op_id
        record.crashes = 0
        news = record.unread_after(batch.seen)
        owned = self._go_on(record, batch, news, effects)
        record.answer = Committed(
            ver=record.ver,
            owned=owned,
            inbox=news,
            now=effects.now,
            doorbells=tuple(effects.doorbells),
            touched=tuple(effects.touched),
            next_at=self._tables.gates.next_at(),
        )
        return record.answer

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        record = self._tables.executions.get(execution_id)
        if record is None:
            return NotPosted(None)
        if message.id in record.seen:
            return NotPosted(record.state, duplicate=True)
        if not record.is_open_to(message.reach):
            return NotPosted(record.state)
        if len(record.unread) >= MAX_UNREAD and message.kind.refusable:
            raise StoreFull(
                f"execution {execution_id} has {MAX_UNREAD:,} unread messages",
                "let it read some, or cancel it; the call may be repeated then",
            )
        effects = Effects(self._clock.now_ms())
        self._tables.post(record, message, effects)
        bells = effects.doorbells
        return Posted(
            seq=record.inbox_seq,
            doorbell=next((bell for bell in bells if bell.id == execution_id), None),
            closed=record.state is State.CLOSED,
            doorbells=tuple(bell for bell in bells if bell.id != execution_id),
            next_at=self._tables.gates.next_at(),
        )

    @override
    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        effects = Effects(self._clock.now_ms())
        tables = self._tables
        for timer in islice(until(tables.timers, effects.now), limit):
            tables.fire(timer, effects)
        for record in list(islice(tables.deserted(live), limit)):
            record.crashes += 1
            tables.make_ready(record, effects.now, effects, passes=True)
        more = tables.open_gates(limit, effects)
        timer_at, ready_at = tables.timers.first_rank(), tables.ready.next_at(effects.now)
        later = (timer_at, ready_at, tables.opening.first_rank(), tables.gates.next_at())
        return Ticked(
            doorbells=tuple(effects.doorbells),
            touched=tuple(effects.touched),
            more=more or (timer_at is not None and timer_at <= effects.now) or any(tables.deserted(live)),
            next_at=min((at for at in later if at is not None), default=None),
            now=effects.now,
        )

    @override
    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        now = self._clock.now_ms()
        found = self._tables.ready.due(now, wanted, limit=limit, again_at=now + again_ms)
        return [record.doorbell for record in found]

    @override
    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        with self._tables.leases_lock:
            if ttl_ms > 0:
                self._tables.leases[worker] = WorkerInfo(worker, self._clock.now_ms() + ttl_ms, info)
            else:
                self._tables.leases.pop(worker, None)

    @override
    async def relay(self, partition: int, *, limit: int) -> Ticked:
        return Ticked(doorbells=(), touched=(), more=False, next_at=None, now=self._clock.now_ms())

    @override
    async def send(self, events: Sequence[Emit], *, op_id: str) -> Sent:
        effects = Effects(self._clock.now_ms())
        receipts = [
            self._intake.emit(event, f"{op_id}:{number}", effects) for number, event in enumerate(events)
        ]
        next_at = self._tables.gates.next_at()
        return Sent(receipts, tuple(effects.doorbells), tuple(effects.touched), next_at)

    @override
    async def subscribe(self, add: Sequence[Subscriber], remove: Sequence[Subscriber] = ()) -> None:
        for each in remove:
            self._tables.log(each.event).subscribers.pop(each.workflow, None)
        for each in add:
            self._tables.log(each.event).subscribers[each.workflow] = each

    @override
    async def save_schedule(
        self, row: ScheduleRow, *, op_id: str, starts: Sequence[NewExecution] = ()
    ) -> Saved | None:
        schedules = self._tables.schedules
        stored, last_op, answer = schedules.get(row.id, (None, "", None))
        if answer is not None and last_op == op_id:
            return answer
        if row.ver != (0 if stored is None else stored.ver):
            return None
        effects = Effects(self._clock.now_ms())
        ids = [
            self._intake.create(spec, f"{op_id}:{number}", effects).id for number, spec in enumerate(starts)
        ]
        next_at = self._tables.gates.next_at()
        saved = Saved(row.ver + 1, ids, tuple(effects.doorbells), tuple(effects.touched), next_at)
        schedules[row.id] = (replace(row, ver=saved.ver), op_id, saved)
        return saved

    @override
    async def remove_schedule(self, schedule_id: str) -> bool:
        return self._tables.schedules.pop(schedule_id, None) is not None

    @override
    async def set_limit(self, rule: str, limit: int | None) -> None:
        self._tables.gates.set_limit(rule, limit)

    @override
    async def pause_queue(self, queue: str, paused: bool) -> None:
        if paused:
            self._tables.paused_queues[queue] = None
        else:
            self._tables.paused_queues.pop(queue, None)

    @override
    async def prune_events(self, *, before: int, limit: int) -> int:
        pruned = 0
        for log in self._tables.events.values():
            pruned += log.prune(before, limit - pruned)
        return pruned

    @override
    async def prune(self, *, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
        closed = self._tables.closed
        ended = chain.from_iterable(until(closed[each], before - 1) for each in status if each in closed)
        deleted = list(islice(ended, limit))
        for record in deleted:
            self._tables.delete(record)
        return len(deleted)

    # -- what the writes have in common

    def _above_a_limit(self, record: Record, batch: Batch) -> Full | None:
        if len(record.history) + len(batch.checkpoints) > MAX_CHECKPOINTS:
            dropped, written = set(batch.drop), {checkpoint.step_id for checkpoint in batch.checkpoints}
            size = 0 if isinstance(batch.next, Continue) else len((record.history.keys() - dropped) | written)
            if size > MAX_CHECKPOINTS:
                return Full("checkpoints", size, MAX_CHECKPOINTS)
        if batch.out:
            posted = Counter(
                out.to for out in batch.out if isinstance(out, Post) and out.message.kind.refusable
            )
            for execution_id, number in posted.items():
                target = self._tables.executions.get(execution_id)
                if target is not None and len(target.unread) + number > MAX_UNREAD:
                    return Full("inbox", len(target.unread) + number, MAX_UNREAD)
        return None

    def _send(self, record: Record, out: Out, op_id: str, effects: Effects) -> None:
        match out:
            case Start(spec):
                self._intake.create(spec, op_id, effects)
            case Post(execution_id, message):
                target = self._tables.executions.get(execution_id)
                if target is not None and message.id not in target.seen and target.is_open_to(message.reach):
                    self._tables.post(target, message, effects)
            case Watch():
                self._tables.watch(record, out, effects)
            case Emit():
                self._intake.emit(out, op_id, effects)
            case Listen():
                self._tables.listen(record, out, effects)
            case Unlisten(event, step_id):
                self._tables.unlisten(record, event, step_id)
            case Seek():
                self._tables.seek(record, out, effects)
            case Free(step_id):
                self._tables.free(record, step_id, effects)

    def _go_on(self, record: Record, batch: Batch, news: Sequence[InboxEntry], effects: Effects) -> bool:
        """Enter the next state; is the owner still the owner?"""
        tables, now = self._tables, effects.now
        match batch.next:
            case Run():
                return True
            case Park() if news:
                return True
            case Park():
                tables.park(record, batch.next, effects)
            case Block():
                tables.block(record, batch.next, effects)
                if record.has_urgent_news(batch.seen):
                    tables.make_ready(record, now, effects)
            case Ready(at, status, attempt):
                record.status, record.attempt = status, attempt
                tables.make_ready(record, now if record.has_urgent_news(batch.seen) else at, effects)
            case Close():
                tables.close(record, batch.next, effects)
            case Continue(input):
                tables.restart(record, input, effects)
        return False

    # -- reads

    def next_at(self) -> int | None:
        """When there is something to be done here: now, while an execution is ready or owned; else when the next timer
        is due or the next execution becomes ready. None: all wait for messages, or have ended."""
        tables = self._tables
        instants = [record.available_at for record in tables.ready.members()]
        if tables.owned:
            instants.append(self._clock.now_ms())
        if (timer_at := tables.timers.first_rank()) is not None:
            instants.append(timer_at)
        return min(instants, default=None)

    @override
    async def live(self) -> Live:
        now = self._clock.now_ms()
        tables = self._tables
        with tables.leases_lock:
            tables.leases = {worker: lease for worker, lease in tables.leases.items() if lease.until > now}
            return Live(dict(tables.leases), now)

    @override
    async def get(self, execution_id: str) -> ExecutionRow | None:
        record = self._tables.executions.get(execution_id)
        return None if record is None else record.row()

    @override
    async def history(self, execution_id: str) -> Sequence[Checkpoint]:
        record = self._tables.executions.get(execution_id)
        return () if record is None else tuple(record.history.values())

    @override
    async def inbox(self, execution_id: str) -> Sequence[InboxEntry]:
        record = self._tables.executions.get(execution_id)
        return () if record is None else tuple(record.inbox.values())

    @override
    async def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        found: dict[str, Sequence[InboxEntry]] = {}
        for execution_id, seq in seen.items():
            record = self._tables.executions.get(execution_id)
            if record is not None and (news := record.unread_after(seq)):
                found[execution_id] = news
        return found

    @override
    async def value(self, execution_id: str, name: str) -> bytes | None:
        record = self._tables.executions.get(execution_id)
        return None if record is None else record.values.get(name)

    @override
    async def query(self, query: Query) -> Rows:
        numbers = self._tables.numbers
        oldest = next(iter(numbers), 0)
        newest = self._tables.last_number
        if query.cursor is not None:
            newest = min(newest, _number(query.cursor) - 1)
        matching = (
            record
            for number in range(newest, oldest - 1, -1)
            if (record := numbers.get(number)) is not None and record.matches(query)
        )
        page = list(islice(matching, query.limit))
        has_more = page and next(matching, None) is not None
        return Rows([record.row() for record in page], str(page[-1].number) if has_more else None)

    @override
    async def counts(self) -> Mapping[ExecutionStatus, int]:
        return Counter(record.status for record in self._tables.executions.values())

    @override
    async def event(self, name: str, event_id: str) -> EventRow | None:
        log = self._tables.events.get(name)
        found = None if log is None else log.by_id.get(event_id)
        return None if found is None else found.copy()

    @override
    async def plan(self, event: str) -> Plan:
        return self._tables.log(event).plan()

    @override
    async def look(
        self, event: str, *, shape: str, topic: str, since: int, after: int = 0, limit: int = 100
    ) -> Looked:
        return self._tables.log(event).look(shape=shape, topic=topic, since=since, after=after, limit=limit)

    @override
    async def subscribers(self) -> Sequence[Subscriber]:
        return [each for log in self._tables.events.values() for each in log.subscribers.values()]

    @override
    async def schedule(self, schedule_id: str) -> ScheduleRow | None:
        found = self._tables.schedules.get(schedule_id)
        return None if found is None else found[0]

    @override
    async def schedules(self, *, after: str = "", limit: int = 100) -> Sequence[ScheduleRow]:
        schedules = self._tables.schedules
        return [schedules[id][0] for id in sorted(id for id in schedules if id > after)[:limit]]

    @override
    async def due_schedules(self, *, limit: int) -> Due:
        now = self._clock.now_ms()
        waiting = [
            (row.next_at, row) for row, *_ in self._tables.schedules.values() if row.next_at is not None
        ]
        waiting.sort(key=lambda each: each[0])
        due = [row for at, row in waiting if at <= now]
        return Due(due[:limit], min((at for at, _ in waiting if at > now), default=None), now)

    @override
    async def gate(self, name: str) -> GateRow | None:
        return self._tables.gates.row(name)

    @override
    async def gates(self, *, after: str = "", limit: int = 100) -> Sequence[GateRow]:
        return list(self._tables.gates.rows(after, limit))

    @override
    async def limits(self) -> Mapping[str, int]:
        return dict(self._tables.gates.limits)

    @override
    async def paused_queues(self) -> Sequence[str]:
        return sorted(self._tables.paused_queues)

    @override
    async def depths(self) -> Sequence[Depth]:
        now = self._clock.now_ms()
        waiting: dict[str, list[Record]] = {}
        for record in self._tables.executions.values():
            if record.state is State.READY and record.available_at <= now:
                waiting.setdefault(record.spec.queue, []).append(record)
        return [
            Depth(
                queue,
                ready=sum(not record.is_held for record in records),
                held=sum(record.is_held for record in records),
                oldest_at=min(
                    (record.available_at for record in records if not record.is_held), default=None
                ),
            )
            for queue, records in sorted(waiting.items())
        ]

    @override
    async def first_timer(self) -> int | None:
        return self._tables.timers.first_rank()

    @override
    async def check(self) -> Sequence[str]:
        return list(contradictions(self._tables))


_shared: Final[dict[tuple[str, str], Tables]] = {}
"""By name and namespace."""


def _number(cursor: str) -> int:
    if not cursor.isdecimal():
        raise InvalidInput(f"{shown(cursor)} is no cursor of this store", "use the cursor of the page before")
    return int(cursor)


def _changes_a_final_checkpoint(record: Record, batch: Batch) -> bool:
    written: dict[str, Checkpoint] = {}
    for checkpoint in batch.checkpoints:
        step_id = checkpoint.step_id
        stored = None if step_id in batch.drop else record.history.get(step_id)
        before = written.get(step_id, stored)
        if before is not None and before.status.final:
            return True
        written[step_id] = checkpoint
    return False
