"""`Reference`: what the port's docstrings say, as a program so plain that it can be read beside them.

It keeps one dict of executions and looks through all of it whenever it is asked something: no index, no cache, nothing
that could be forgotten. Each verb is a function of what is kept, the arguments and `now`; nothing else decides.

Where the port leaves a choice to a store (who of two equals comes first, when an outbox is emptied), the reference does
not make it: `Pair` compares what is left open as a set, or follows the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from durable.models import ExecutionStatus
from durable.protocols import (
    TIMEOUT_TIMER,
    Batch,
    Block,
    Checkpoint,
    Claimed,
    Close,
    Committed,
    Continue,
    Created,
    Diverged,
    Doorbell,
    Emit,
    ExecutionRow,
    Exists,
    Fenced,
    InboxEntry,
    Live,
    Message,
    MessageKind,
    NewExecution,
    NotClaimed,
    NotPosted,
    Out,
    Outcome,
    Park,
    Post,
    Posted,
    Query,
    Reach,
    Ready,
    Run,
    Start,
    State,
    Ticked,
    Wanted,
    Watch,
    WorkerInfo,
)

OUTCOMES: Final = {
    "create": {"created", "delayed", "again", "key taken", "key taken over", "id taken", "with a history"},
    "claim": {"owned", "again", "memory is good", "held", "not yet", "parked", "blocked", "closed", "missing"},
    "commit": {
        "again", "fenced", "diverged: version", "diverged: final", "missing",
        "run", "parked", "went on", "blocked", "blocked, ready at once", "ready now", "ready later",
        "ready at once", "closed", "continued",
    },
    "write": {
        "checkpoint", "replaced", "timer", "timer stopped", "dropped", "nothing to drop", "consumed",
        "nothing to consume",
    },
    "send": {
        "started", "not started", "emitted", "not emitted", "told at once", "told missing", "watching",
        "posted", "duplicate", "closed", "nobody",
    },
    "post": {"stored", "woke", "woke early", "unblocked", "reopened", "ended", "duplicate", "closed", "missing"},
    "tell": {"told", "told before", "watcher closed"},
    "tick": {"nothing", "fired", "timed out", "took over"},
    "due": {"nothing", "rung", "rung again"},
    "prune": {"nothing", "deleted"},
    "beat": {"held", "ended"},
    "live": {"nobody", "somebody"},
}  # fmt: skip
"""What can come of each verb, and of each part of a commit: a run of the model that misses one proves less."""


@dataclass(slots=True)
class Known:
    """One execution: the row that readers see, and what is behind it."""

    row: ExecutionRow
    spec: NewExecution
    create_op: str
    created: Created
    history: dict[str, Checkpoint] = field(default_factory=dict[str, Checkpoint])
    """In order of `seq`."""
    written: int = 0
    """The last `seq`."""
    timers: dict[str, int] = field(default_factory=dict[str, int])
    """Instants of those that have not fired, by step id."""
    inbox: list[InboxEntry] = field(default_factory=list[InboxEntry])
    reach: dict[int, Reach] = field(default_factory=dict[int, Reach])
    """By inbox sequence number."""
    settled: int = 0
    """The last inbox sequence number whose place in the order is certain."""
    seen: set[str] = field(default_factory=set[str])
    """The ids of all messages posted to it."""
    values: dict[str, bytes] = field(default_factory=dict[str, bytes])
    answer: Committed | None = None
    """To the last accepted commit."""
    owned_at: int = 0
    rung_until: int = 0
    was_rung: bool = False

    def unread(self, after: int = 0) -> tuple[InboxEntry, ...]:
        return tuple(entry for entry in self.inbox if entry.consumed_by is None and entry.seq > after)

    def is_urgent(self, after: int) -> bool:
        return any(self.reach[entry.seq] is not Reach.PARKED for entry in self.unread(after))

    def doorbell(self) -> Doorbell:
        spec = self.spec
        return Doorbell(spec.id, spec.workflow, spec.version, spec.queue, spec.priority, self.row.crashes)

    def outcome(self) -> Outcome:
        row = self.row
        data = row.result if row.status is ExecutionStatus.COMPLETED else row.error
        return Outcome(row.status, row.workflow, row.attempt, data or b"")


class Reference:
    """One namespace. `has_outbox`: what a commit sends arrives after it, not within it, as between partitions."""

    def __init__(self, now: int, *, has_outbox: bool, note: Callable[[str, str], None]) -> None:
        self.now = now
        self.executions: dict[str, Known] = {}
        self.keys: dict[tuple[str, str], str] = {}
        """Who has a (workflow, key)."""
        self.watches: dict[tuple[str, str, str], None] = {}
        """Target, watcher and step id, in the order in which they began."""
        self.events: dict[tuple[str, str], bytes] = {}
        """The payloads, by name and id."""
        self.leases: dict[str, WorkerInfo] = {}
        self.bells: dict[str, Doorbell] = {}
        """Rung by the verb that ran last."""
        self.touched: set[str] = set()
        """Hinted by the verb that ran last."""
        self._has_outbox = has_outbox
        self._outbox = deque[Callable[[], None]]()
        self._note = note

    # -- writes

    def create(self, spec: NewExecution, op_id: str) -> Created | Exists:
        self._begin()
        return self._create(spec, op_id)

    def claim(self, execution_id: str, nonce: str, worker: str, have_op: str | None) -> Claimed | NotClaimed:
        self._begin()
        known = self.executions.get(execution_id)
        if known is None:
            self._note("claim", "missing")
            return NotClaimed(None)
        row = known.row
        if row.nonce == nonce:
            self._note("claim", "again")
        elif row.state is not State.READY:
            self._note("claim", "held" if row.state is State.OWNED else row.state.value)
            return NotClaimed(row.state)
        elif row.available_at > self.now:
            self._note("claim", "not yet")
            return NotClaimed(row.state)
        else:
            self._note("claim", "owned")
            self._move(
                known,
                State.OWNED,
                status=ExecutionStatus.RUNNING,
                nonce=nonce,
                worker=worker,
                started_at=self.now if row.started_at is None else row.started_at,
                error=None,
                code=None,
            )
            known.owned_at = self.now
        remembers = known.row.ver > 0 and known.row.op_id == have_op
        if remembers:
            self._note("claim", "memory is good")
        history = None if remembers else tuple(known.history.values())
        return Claimed(known.row, history, known.unread(), self.now)

    def commit(
        self, execution_id: str, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged:
        self._begin()
        known = self.executions.get(execution_id)
        if known is None:
            self._note("commit", "missing")
            return Fenced()
        if known.answer is not None and known.row.op_id == op_id:
            self._note("commit", "again")
            return known.answer
        if known.row.nonce != nonce:
            self._note("commit", "fenced")
            return Fenced()
        if known.row.ver != ver:
            self._note("commit", "diverged: version")
            return Diverged()
        if self._changes_what_is_final(known, batch):
            self._note("commit", "diverged: final")
            return Diverged()

        for step_id in batch.drop:
            self._drop(known, step_id)
        for checkpoint in batch.checkpoints:
            self._write(known, checkpoint)
        for seq, step_id in batch.consume:
            self._consume(known, seq, step_id)
        known.values.update(batch.values)
        known.row = replace(known.row, ver=ver + 1, op_id=op_id, crashes=0)
        for out in batch.out:
            self._outbox.append(partial(self._send, execution_id, out, op_id))
        if not self._has_outbox:
            self._empty_outbox()
        news = known.unread(batch.seen)
        owned = self._go_on(known, batch, news)
        known.answer = Committed(ver + 1, owned, news, self.now)
        self._empty_outbox()
        return known.answer

    def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        self._begin()
        known = self.executions.get(execution_id)
        answer = self._post(execution_id, message, "post")
        self._empty_outbox()
        return (
            replace(answer, doorbell=self.bells.get(execution_id))
            if known and isinstance(answer, Posted)
            else answer
        )

    def tick(self, live: Live) -> Ticked:
        """All that there is to do now, in every partition."""
        self._begin()
        was_idle = True
        due = [
            (at, known, step_id)
            for known in self.executions.values()
            for step_id, at in known.timers.items()
            if at <= self.now
        ]
        for _, known, step_id in sorted(due, key=lambda timer: timer[0]):
            was_idle = False
            del known.timers[step_id]
            is_timeout = step_id == TIMEOUT_TIMER
            self._note("tick", "timed out" if is_timeout else "fired")
            seq = 0 if is_timeout else known.history[step_id].seq
            reach = Reach.BLOCKED if is_timeout else Reach.PARKED
            self._append(known, Message(f"timer:{step_id}:{seq}", MessageKind.TIMER, step_id, b"", reach))
        for known in self.executions.values():
            row = known.row
            if row.state is State.OWNED and row.worker not in live.workers and known.owned_at < live.at:
                was_idle = False
                self._note("tick", "took over")
                known.row = replace(row, crashes=row.crashes + 1)
                self._make_ready(known, self.now)
        if was_idle:
            self._note("tick", "nothing")
        return Ticked(
            tuple(self.bells.values()), tuple(self.touched), more=False, next_at=self.next_at(), now=self.now
        )

    def due(self, wanted: Wanted) -> list[Known]:
        """What may be rung now, in the order in which it is."""
        ready = [
            known
            for known in self.executions.values()
            if known.row.state is State.READY
            and known.row.available_at <= self.now
            and known.rung_until <= self.now
            and wanted.wants(known.doorbell())
        ]
        return sorted(ready, key=rank)

    def ring(self, rung: Collection[Known], again_ms: int) -> None:
        """These were returned by `due`."""
        self._begin()
        for known in rung:
            self._note("due", "rung again" if known.was_rung else "rung")
            known.rung_until = self.now + again_ms
            known.was_rung = True
        if not rung:
            self._note("due", "nothing")

    def beat(self, worker: str, ttl_ms: int, info: bytes) -> None:
        self._begin()
        self._note("beat", "held" if ttl_ms > 0 else "ended")
        self.leases.pop(worker, None)
        if ttl_ms > 0:
            self.leases[worker] = WorkerInfo(worker, self.now + ttl_ms, info)

    def prunable(self, before: int, status: Collection[ExecutionStatus]) -> set[str]:
        return {
            known.row.id
            for known in self.executions.values()
            if known.row.finished_at is not None
            and known.row.finished_at < before
            and known.row.status in status
        }

    def delete(self, execution_ids: Collection[str]) -> None:
        """`prune` took these."""
        self._begin()
        self._note("prune", "deleted" if execution_ids else "nothing")
        for execution_id in execution_ids:
            del self.executions[execution_id]
        self.keys = {key: holder for key, holder in self.keys.items() if holder not in execution_ids}
        self.watches = {watch: None for watch in self.watches if watch[1] not in execution_ids}

    # -- reads

    def live(self) -> Live:
        held = {worker: lease for worker, lease in self.leases.items() if lease.until > self.now}
        self._note("live", "somebody" if held else "nobody")
        return Live(held, self.now)

    def get(self, execution_id: str) -> ExecutionRow | None:
        known = self.executions.get(execution_id)
        return None if known is None else known.row

    def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        found = {id: self.executions[id].unread(seq) for id, seq in seen.items() if id in self.executions}
        return {execution_id: news for execution_id, news in found.items() if news}

    def matching(self, query: Query) -> list[ExecutionRow]:
        """All pages of a query together."""
        return [
            row
            for known in self.executions.values()
            if (row := known.row)
            and (not query.status or row.status in query.status)
            and query.workflow in (None, row.workflow)
            and query.parent_id in (None, row.parent_id)
            and (query.since is None or query.since <= row.created_at)
            and (query.until is None or row.created_at < query.until)
            and (query.id_prefix is None or row.id.startswith(query.id_prefix))
            and query.tags.items() <= row.tags.items()
        ]

    def counts(self) -> Mapping[ExecutionStatus, int]:
        statuses = [known.row.status for known in self.executions.values()]
        return {status: statuses.count(status) for status in statuses}

    def next_at(self) -> int | None:
        """The next instant of a timer, or of something delayed."""
        instants = [at for known in self.executions.values() for at in known.timers.values()]
        instants += [
            known.row.available_at
            for known in self.executions.values()
            if known.row.state is State.READY and known.row.available_at > self.now
        ]
        return min(instants, default=None)

    # -- creation

    def _create(self, spec: NewExecution, op_id: str) -> Created | Exists:
        by_id = self.executions.get(spec.id)
        holder = None if spec.key is None else self.keys.get((spec.workflow, spec.key))
        by_key = None if holder is None else self.executions[holder]
        for known in (by_id, by_key):
            if known is not None and known.create_op == op_id:
                self._note("create", "again")
                return known.created
        if by_key is not None and not (spec.reuse_closed_key and by_key.row.state is State.CLOSED):
            self._note("create", "key taken")
            return Exists(by_key.row.id, by_key.spec.input == spec.input)
        if by_id is not None:
            self._note("create", "id taken")
            return Exists(spec.id, by_id.spec.input == spec.input)

        if by_key is not None:
            self._note("create", "key taken over")
        available_at = max(self.now + spec.delay_ms, spec.at_ms or 0)
        row = ExecutionRow(
            id=spec.id,
            workflow=spec.workflow,
            version=spec.version,
            queue=spec.queue,
            priority=spec.priority,
            key=spec.key,
            tags=dict(spec.tags),
            options=spec.options,
            input=spec.input,
            parent_id=spec.parent_id,
            state=State.READY,
            status=ExecutionStatus.PENDING,
            attempt=1,
            generation=0,
            ver=0,
            op_id="",
            nonce=None,
            worker=None,
            crashes=0,
            inbox_seq=0,
            created_at=self.now,
            available_at=available_at,
            deadline_at=None if spec.timeout_ms is None else self.now + spec.timeout_ms,
        )
        known = Known(row, spec, op_id, Created(spec.id, None, available_at))
        self.executions[spec.id] = known
        if spec.key is not None:
            self.keys[spec.workflow, spec.key] = spec.id
        if row.deadline_at is not None:
            known.timers[TIMEOUT_TIMER] = row.deadline_at
        for checkpoint in spec.history:
            self._write(known, checkpoint)
        known.values.update(spec.values)
        if spec.history:
            self._note("create", "with a history")
        if available_at <= self.now:
            self._note("create", "created")
            self.bells[spec.id] = known.doorbell()
            known.created = replace(known.created, doorbell=known.doorbell())
        else:
            self._note("create", "delayed")
        return known.created

    # -- the parts of a commit

    def _changes_what_is_final(self, known: Known, batch: Batch) -> bool:
        there = {step_id: record for step_id, record in known.history.items() if step_id not in batch.drop}
        for checkpoint in batch.checkpoints:
            if checkpoint.step_id in there and there[checkpoint.step_id].status.final:
                return True
            there[checkpoint.step_id] = checkpoint
        return False

    def _drop(self, known: Known, step_id: str) -> None:
        self._note("write", "dropped" if step_id in known.history else "nothing to drop")
        if known.history.pop(step_id, None) is not None:
            known.timers.pop(step_id, None)

    def _write(self, known: Known, checkpoint: Checkpoint) -> None:
        step_id = checkpoint.step_id
        self._note("write", "replaced" if known.history.pop(step_id, None) else "checkpoint")
        known.written += 1
        known.history[step_id] = replace(checkpoint, seq=known.written)
        if known.timers.pop(step_id, None) is not None:
            self._note("write", "timer stopped")
        if checkpoint.wake_at is not None and not checkpoint.status.final:
            self._note("write", "timer")
            known.timers[step_id] = checkpoint.wake_at

    def _consume(self, known: Known, seq: int, step_id: str) -> None:
        is_unread = any(entry.seq == seq for entry in known.unread())
        self._note("write", "consumed" if is_unread else "nothing to consume")
        known.inbox = [
            replace(entry, consumed_by=step_id) if is_unread and entry.seq == seq else entry
            for entry in known.inbox
        ]

    def _go_on(self, known: Known, batch: Batch, news: Sequence[InboxEntry]) -> bool:
        """Enter the next state; is the owner still the owner?"""
        is_urgent = known.is_urgent(batch.seen)
        match batch.next:
            case Run():
                self._note("commit", "run")
                return True
            case Park() if news:
                self._note("commit", "went on")
                return True
            case Park(status, wake_at):
                self._note("commit", "parked")
                self._move(known, State.PARKED, status=status, wake_at=wake_at)
            case Block(status, error, code):
                self._note("commit", "blocked, ready at once" if is_urgent else "blocked")
                self._move(known, State.BLOCKED, status=status, error=error, code=code)
                if is_urgent:
                    self._make_ready(known, self.now)
            case Ready(at, status, attempt):
                known.row = replace(known.row, status=status, attempt=attempt)
                later = "ready at once" if is_urgent else "ready later"
                self._note("commit", later if at > self.now else "ready now")
                self._make_ready(known, self.now if is_urgent else at)
            case Close():
                self._note("commit", "closed")
                self._close(known, batch.next)
            case Continue(input):
                self._note("commit", "continued")
                known.history.clear()
                known.values.clear()
                known.timers = {id: at for id, at in known.timers.items() if id == TIMEOUT_TIMER}
                known.inbox = list(known.unread())
                generation = known.row.generation + 1
                known.row = replace(
                    known.row, input=input, generation=generation, attempt=1, status=ExecutionStatus.PENDING
                )
                self._make_ready(known, self.now)
        return False

    # -- moves

    def _move(self, known: Known, state: State, **changes: Any) -> None:
        """Leave the present state, with what belongs to it alone, for another."""
        fresh: dict[str, Any] = {"nonce": None, "worker": None, "wake_at": None}
        known.row = replace(known.row, state=state, **{**fresh, **changes})

    def _make_ready(self, known: Known, at: int) -> None:
        self._move(known, State.READY, available_at=max(at, self.now))
        known.rung_until, known.was_rung = 0, False
        if known.row.available_at <= self.now:
            self.bells[known.row.id] = known.doorbell()

    def _close(self, known: Known, close: Close) -> None:
        row = known.row
        self._move(
            known,
            State.CLOSED,
            status=close.status,
            result=close.result,
            error=close.error,
            code=close.code,
            finished_at=self.now,
        )
        known.timers.clear()
        self.touched.add(row.id)
        told = [watch for watch in self.watches if watch[0] == row.id]
        for watch in told:
            del self.watches[watch]
            self._deliver(partial(self._tell, *watch, known.outcome()))

    # -- messages

    def _post(self, to: str, message: Message, verb: str) -> Posted | NotPosted:
        """`verb` is who posts: a client, or a commit, which is told nothing."""
        known = self.executions.get(to)
        if known is None:
            self._note(verb, "missing" if verb == "post" else "nobody")
            return NotPosted(None)
        if message.id in known.seen:
            self._note(verb, "duplicate")
            return NotPosted(known.row.state, duplicate=True)
        if known.row.state is State.CLOSED and message.reach is not Reach.CLOSED:
            self._note(verb, "closed")
            return NotPosted(State.CLOSED)
        if verb == "send":
            self._note(verb, "posted")
        known.seen.add(message.id)
        row = known.row
        if message.kind is MessageKind.CANCEL and row.state is State.READY and row.started_at is None:
            self._note("post", "ended")
            self._append(known, message, wakes=False)
            self._close(known, Close(ExecutionStatus.CANCELLED, error=message.data))
        else:
            self._append(known, message)
        return Posted(known.row.inbox_seq, None, known.row.state is State.CLOSED)

    def _append(self, known: Known, message: Message, *, wakes: bool = True) -> None:
        """Put it into the inbox, and wake the execution if its state is within reach."""
        seq = known.row.inbox_seq + 1
        known.inbox.append(InboxEntry(seq, message.id, message.kind, message.name, message.data, self.now))
        known.reach[seq] = message.reach
        known.row = replace(known.row, inbox_seq=seq)
        self.touched.add(known.row.id)
        if not wakes:
            return
        is_far = message.reach is not Reach.PARKED
        match known.row.state:
            case State.PARKED:
                self._note("post", "woke")
                self._make_ready(known, self.now)
            case State.BLOCKED if is_far:
                self._note("post", "unblocked")
                self._make_ready(known, self.now)
            case State.READY if is_far and known.row.available_at > self.now:
                self._note("post", "woke early")
                self._make_ready(known, self.now)
            case State.CLOSED:
                self._note("post", "reopened")
                ended = {
                    "result": None,
                    "error": None,
                    "code": None,
                    "finished_at": None,
                    "deadline_at": None,
                }
                self._move(known, State.CLOSED, status=ExecutionStatus.PENDING, **ended)
                self._make_ready(known, self.now)
            case _:
                self._note("post", "stored")

    def _send(self, sender: str, out: Out, op_id: str) -> None:
        match out:
            case Start(spec):
                was_there = spec.id in self.executions
                answer = self._create(spec, f"{op_id} of {sender}")
                is_new = isinstance(answer, Created) and not was_there
                self._note("send", "started" if is_new else "not started")
            case Post(to, message):
                self._post(to, message, "send")
            case Emit(event_id, name, data):
                self._note("send", "not emitted" if (name, event_id) in self.events else "emitted")
                self.events.setdefault((name, event_id), data)
            case Watch(target, step_id):
                known = self.executions.get(target)
                if known is None:
                    self._note("send", "told missing")
                    missing = Outcome(None, "", 0, b"")
                    self._deliver(partial(self._tell, target, sender, step_id, missing))
                elif known.row.state is State.CLOSED:
                    self._note("send", "told at once")
                    self._deliver(partial(self._tell, target, sender, step_id, known.outcome()))
                else:
                    self._note("send", "watching")
                    self.watches[target, sender, step_id] = None
            case _:
                raise NotImplementedError(f"the model knows no {type(out).__name__}")

    def _tell(self, target: str, watcher: str, step_id: str, outcome: Outcome) -> None:
        known = self.executions.get(watcher)
        message = Message(f"watch:{target}:{step_id}", MessageKind.CHILD, step_id, outcome.pack())
        if known is None or (known.row.state is State.CLOSED):
            self._note("tell", "watcher closed")
        elif any(entry.id == message.id for entry in known.unread()):
            self._note("tell", "told before")
        else:
            self._note("tell", "told")
            self._append(known, message)

    # -- the outbox

    def _deliver(self, letter: Callable[[], None]) -> None:
        """To another execution: within this write, or after it."""
        if self._has_outbox:
            self._outbox.append(letter)
        else:
            letter()

    def _empty_outbox(self) -> None:
        while self._outbox:
            self._outbox.popleft()()

    def _begin(self) -> None:
        self.bells, self.touched = {}, set()


def rank(known: Known) -> tuple[int, int]:
    """Greater priority first, then the longest ready."""
    return -known.spec.priority, known.row.available_at


def ids_of(known: Iterable[Known]) -> set[str]:
    return {each.row.id for each in known}
