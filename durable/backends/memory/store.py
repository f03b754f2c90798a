"""`MemoryStore`: the reference of the store port, in plain dicts and heaps.

What a verb may do is decided here, in the order of the port's docstrings; `Tables` does it. No verb ever
suspends, so each is atomic on the loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import Final, final

from typing_extensions import override

from durable.backends.memory.check import contradictions
from durable.backends.memory.index import until
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
    Diverged,
    Doorbell,
    DurableStore,
    Emit,
    ExecutionRow,
    Exists,
    Fenced,
    Full,
    InboxEntry,
    Live,
    Message,
    MessageKind,
    NewExecution,
    NotClaimed,
    NotPosted,
    Out,
    Park,
    Post,
    Posted,
    Query,
    Ready,
    Rows,
    Run,
    Start,
    State,
    Ticked,
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
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Exists:
        return self._create(spec, op_id, Effects(self._clock.now_ms()))

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        record = self._tables.executions.get(execution_id)
        if record is None:
            return NotClaimed(None)
        now = self._clock.now_ms()
        if record.nonce != nonce:
            if record.state is not State.READY or record.available_at > now:
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
        self._post(record, message, effects)
        return Posted(
            seq=record.inbox_seq,
            doorbell=next((bell for bell in effects.doorbells if bell.id == execution_id), None),
            closed=record.state is State.CLOSED,
        )

    @override
    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        effects = Effects(self._clock.now_ms())
        tables = self._tables
        for timer in islice(until(tables.timers, effects.now), limit):
            tables.fire(timer, effects)
        for record in list(islice(tables.deserted(live), limit)):
            record.crashes += 1
            tables.make_ready(record, effects.now, effects)
        timer_at, ready_at = tables.timers.first_rank(), tables.ready.next_at(effects.now)
        return Ticked(
            doorbells=tuple(effects.doorbells),
            touched=tuple(effects.touched),
            more=(timer_at is not None and timer_at <= effects.now) or any(tables.deserted(live)),
            next_at=min((at for at in (timer_at, ready_at) if at is not None), default=None),
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
    async def prune(self, *, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
        closed = self._tables.closed
        ended = chain.from_iterable(until(closed[each], before - 1) for each in status if each in closed)
        deleted = list(islice(ended, limit))
        for record in deleted:
            self._tables.delete(record)
        return len(deleted)

    # -- what the writes have in common

    def _create(self, spec: NewExecution, op_id: str, effects: Effects) -> Created | Exists:
        tables = self._tables
        same_id = tables.executions.get(spec.id)
        same_key = None if spec.key is None else tables.keys.get((spec.workflow, spec.key))
        for other in (same_id, same_key):
            if other is not None and other.created_op == op_id:
                return other.created
        if same_key is not None and not (spec.reuse_closed_key and same_key.state is State.CLOSED):
            return Exists(same_key.id, same_key.spec.input == spec.input)
        if same_id is not None:
            return Exists(same_id.id, same_id.spec.input == spec.input)
        return tables.insert(spec, op_id, effects)

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
                self._create(spec, op_id, effects)
            case Post(execution_id, message):
                target = self._tables.executions.get(execution_id)
                if target is not None and message.id not in target.seen and target.is_open_to(message.reach):
                    self._post(target, message, effects)
            case Watch():
                self._tables.watch(record, out, effects)
            case Emit():
                self._tables.events.setdefault(out.id, out)

    def _post(self, record: Record, message: Message, effects: Effects) -> None:
        record.seen[message.id] = None
        was_never_claimed = record.state is State.READY and record.started_at is None
        if message.kind is MessageKind.CANCEL and was_never_claimed:
            self._tables.append(record, message, effects)
            self._tables.close(record, Close(ExecutionStatus.CANCELLED, error=message.data), effects)
        else:
            self._tables.deliver(record, message, effects)

    def _go_on(self, record: Record, batch: Batch, news: Sequence[InboxEntry], effects: Effects) -> bool:
        """Enter the next state; is the owner still the owner?"""
        tables, now = self._tables, effects.now
        match batch.next:
            case Run():
                return True
            case Park() if news:
                return True
            case Park():
                tables.park(record, batch.next)
            case Block():
                tables.block(record, batch.next)
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
    async def event(self, event_id: str) -> Emit | None:
        return self._tables.events.get(event_id)

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
