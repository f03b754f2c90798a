"""The operator: what people ask about executions, and do to them, from nothing but the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import cast, final

from pydantic_core import from_json, to_json

from durable.client import Client, execution_of
from durable.clock import Clock, to_datetime
from durable.codec import load_error, plain
from durable.duration import Duration, to_instant_ms, to_ms
from durable.engine.frames import unpack_event, unpack_received
from durable.engine.operator_acts import FORCE_FAIL, RETRY, RETRY_ROLLBACK
from durable.errors import ExecutionNotFound, InvalidInput, WrongStatus
from durable.history import History
from durable.ids import Ids
from durable.models import (
    AuditEntry,
    Execution,
    ExecutionDetail,
    ExecutionStatus,
    LimitInfo,
    Page,
    QueueInfo,
    SignalRecord,
    Slot,
    StepRecord,
)
from durable.names import check_name, check_own_name
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    DurableStore,
    ExecutionRow,
    GateKind,
    GateRow,
    InboxEntry,
    Message,
    MessageKind,
    Query,
    Reach,
    State,
)

_MOST_LISTED = 1000
_PRUNED_AT_ONCE = 100
_AUDITED = (MessageKind.SIGNAL, MessageKind.CANCEL, MessageKind.OPERATOR)
_STUCK = (ExecutionStatus.PARKED, ExecutionStatus.COMPENSATION_FAILED)

Statuses = str | ExecutionStatus | Sequence[str | ExecutionStatus]


@final
class Operator:
    """Every verb takes an execution's id and raises `ExecutionNotFound` when there is none, `WrongStatus` when the verb
    does not apply to where the execution is. What it does is stored when it returns, with who did it."""

    def __init__(self, store: DurableStore, client: Client, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._ids = ids

    # ---- questions

    async def get_execution_detail(self, execution_id: str) -> ExecutionDetail:
        """The execution, its steps, what it waits for, its signals, and its audit entries in order."""
        row = await self._row(execution_id)
        history = await self._store.history(execution_id)
        inbox = await self._store.inbox(execution_id)
        steps = [_step_record(c) for c in history if not c.step_id.startswith("__")]
        waiting = () if row.status.final else [s for s in steps if s.finished_at is None and _waits(s)]
        signals = [
            SignalRecord(entry.name, plain(entry.data), to_datetime(entry.at), entry.consumed_by)
            for entry in inbox
            if entry.kind is MessageKind.SIGNAL
        ]
        return ExecutionDetail(execution_of(row), steps, waiting, signals, _audit(row, history, inbox))

    async def get_history(self, execution_id: str) -> History:
        """All that is recorded of an execution, to be exported or replayed elsewhere."""
        check_name(execution_id, "the id of an execution")
        return await History.read(self._store, execution_id)

    async def list_executions(
        self,
        *,
        status: Statuses | None = None,
        workflow: str | None = None,
        tags: Mapping[str, str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        id_prefix: str | None = None,
        parent_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Execution]:
        """A page of executions, the newest first. `since` and `until` bound their creation; `parent_id` picks
        the children of one execution.

        Raises:
            InvalidInput: an unknown status, a naive datetime, a limit that is not 1 to 1,000, a bad cursor.
        """
        if not 1 <= limit <= _MOST_LISTED:
            raise InvalidInput(f"limit must be 1 to {_MOST_LISTED}, not {limit!r}")
        query = Query(
            status=_statuses(status),
            workflow=workflow,
            tags=tags or {},
            since=None if since is None else to_instant_ms(since, what="since"),
            until=None if until is None else to_instant_ms(until, what="until"),
            id_prefix=id_prefix,
            parent_id=parent_id,
            limit=limit,
            cursor=cursor,
        )
        rows = await self._store.query(query)
        return Page([execution_of(row) for row in rows.rows], rows.cursor)

    async def list_stuck(self, *, limit: int = 50, cursor: str | None = None) -> Page[Execution]:
        """Executions that need a person: parked for repair, or with a compensation that failed."""
        return await self.list_executions(status=_STUCK, limit=limit, cursor=cursor)

    async def counts(self) -> Mapping[ExecutionStatus, int]:
        """How many executions are in each status; every status is there."""
        found = await self._store.counts()
        return {status: found.get(status, 0) for status in ExecutionStatus}

    async def explain(self, execution_id: str) -> str:
        """Why it is where it is, in one sentence."""
        row = await self._row(execution_id)
        history = await self._store.history(execution_id)
        open_waits = [
            c for c in history if not c.status.final and c.kind != "switch" and c.step_id[:2] != "__"
        ]
        if row.state is State.READY and row.held_by is not None:
            return await self._held_back(row.held_by)
        if row.state is State.READY and row.queue in await self._store.paused_queues():
            return f"queue {row.queue!r} is paused"
        return _explanation(row, open_waits, self._clock.now_ms())

    async def explain_held(self, executions: Iterable[Execution]) -> Mapping[str, str]:
        """Why each of those is held that flow control holds back, in one sentence, by the name of what holds them
        (`Execution.held_by`)."""
        names = {each.held_by for each in executions if each.held_by is not None}
        return {name: await self._held_back(name) for name in sorted(names)}

    async def queues(self) -> Sequence[QueueInfo]:
        """What waits in each queue, those that are paused among them."""
        depths = {depth.queue: depth for depth in await self._store.depths()}
        paused = set(await self._store.paused_queues())
        return [
            QueueInfo(
                queue,
                depth.ready if (depth := depths.get(queue)) else 0,
                depth.held if depth else 0,
                to_datetime(depth.oldest_at) if depth and depth.oldest_at is not None else None,
                queue in paused,
            )
            for queue in sorted({*depths, *paused})
        ]

    async def held_limits(self, *, after: str = "", limit: int = 100) -> Sequence[LimitInfo]:
        """The limits at which somebody holds a slot or waits, in order; `after`: the `rule|key` of the last one
        seen."""
        return [_limit_info(row) for row in await self._store.gates(after=after, limit=limit)]

    async def limits(self) -> Mapping[str, int]:
        """What `set_limit` has set, by rule."""
        return await self._store.limits()

    # ---- acts

    async def retry(self, execution_id: str, *, by: str = "") -> None:
        """Run a failed or parked execution again: completed steps keep their results, failed ones run again."""
        await self._act(execution_id, RETRY, (ExecutionStatus.FAILED, ExecutionStatus.PARKED), {"by": by})

    async def retry_rollback(self, execution_id: str, *, by: str = "") -> None:
        """Go on with the rollback of an execution whose compensation failed, from the one that failed."""
        await self._act(execution_id, RETRY_ROLLBACK, (ExecutionStatus.COMPENSATION_FAILED,), {"by": by})

    async def force_fail(self, execution_id: str, reason: str, *, by: str = "") -> None:
        """End an execution as failed, whatever it is doing, with this reason. No compensation runs."""
        going = tuple(status for status in ExecutionStatus if not status.final)
        await self._act(execution_id, FORCE_FAIL, going, {"reason": reason, "by": by})

    async def prune(
        self, older_than: Duration = "30d", status: Statuses | None = None, *, limit: int | None = None
    ) -> int:
        """Delete executions that ended longer ago than `older_than`, with all that is theirs; how many."""
        statuses = _statuses(status) or tuple(s for s in ExecutionStatus if s.final)
        if not_final := [s for s in statuses if not s.final]:
            raise InvalidInput(f"only executions that have ended are pruned, not {', '.join(not_final)}")
        before = self._clock.now_ms() - to_ms(older_than, what="older_than")
        pruned = 0
        while limit is None or pruned < limit:
            most = _PRUNED_AT_ONCE if limit is None else min(_PRUNED_AT_ONCE, limit - pruned)
            count = await self._store.prune(before=before, status=statuses, limit=most)
            pruned += count
            if count < most:
                break
        return pruned

    async def set_limit(self, rule: str, limit: int | None) -> None:
        """Let a rule of flow control have this limit from now on, for each of its keys, whatever the code says;
        None: what the code says. Rules are called `report/concurrency`, `report/throttle`, `report/rate_limit`,
        `scope/<name>` and `limit/<name>`. Who may go on because of it does so within a sweep; who holds a slot
        keeps it.

        Raises:
            InvalidInput: the limit is below 1, or the rule is no name.
        """
        check_name(rule, "the name of a rule")
        if limit is not None and limit < 1:
            raise InvalidInput(
                f"the limit of {rule} must be 1 or more, not {limit!r}", "to stop all, pause the queue"
            )
        await self._store.set_limit(rule, limit)

    async def pause_queue(self, queue: str) -> None:
        """Let workers claim nothing from a queue; what they run goes on. They know within a sweep."""
        await self._store.pause_queue(check_own_name(queue, "queue"), True)

    async def resume_queue(self, queue: str) -> None:
        """Let workers claim from a queue again."""
        await self._store.pause_queue(check_own_name(queue, "queue"), False)

    async def _held_back(self, name: str) -> str:
        gate = await self._store.gate(name)
        rule, _, key = name.partition("|")
        what = f"{rule} of {key}" if key else rule
        if gate is None:
            return f"it is about to pass {what}"
        if gate.kind is GateKind.RATE:
            opens_at = "" if gate.next_at is None else f" until {_instant(gate.next_at)}"
            return f"it is throttled by {what}{opens_at}, with {gate.waiting} in line"
        holders = ", ".join(f"{each.execution_id} since {_instant(each.since)}" for each in gate.holdings[:3])
        return f"it waits for a slot of {what}, held by {holders or 'nobody'} ({gate.held} of {gate.limit})"

    async def _act(
        self,
        execution_id: str,
        verb: str,
        applies_to: Sequence[ExecutionStatus],
        details: Mapping[str, object],
    ) -> None:
        row = await self._row(execution_id)
        if row.status not in applies_to:
            raise WrongStatus(execution_id, verb, row.status)
        step_id = (
            load_error(row.error).step_id if row.error and row.status is ExecutionStatus.PARKED else None
        )
        data = to_json({**details, "from": row.status, "step_id": step_id})
        message = Message(self._ids.nonce(), MessageKind.OPERATOR, verb, data, Reach.CLOSED)
        await self._client.post(execution_id, message)

    async def _row(self, execution_id: str) -> ExecutionRow:
        check_name(execution_id, "the id of an execution")
        row = await self._store.get(execution_id)
        if row is None:
            raise ExecutionNotFound(execution_id)
        return row


def _statuses(status: Statuses | None) -> tuple[ExecutionStatus, ...]:
    given = () if status is None else (status,) if isinstance(status, str) else tuple(status)
    try:
        return tuple(ExecutionStatus(one) for one in given)
    except ValueError:
        known = ", ".join(ExecutionStatus)
        raise InvalidInput(f"unknown status in {[str(s) for s in given]}", f"known are {known}") from None


def _step_record(checkpoint: Checkpoint) -> StepRecord:
    failed = checkpoint.status in (CheckpointStatus.FAILED, CheckpointStatus.RETRYING)
    return StepRecord(
        id=checkpoint.step_id,
        kind=checkpoint.kind,
        status=checkpoint.status,
        attempts=checkpoint.attempts,
        result=None if failed else _shown_result(checkpoint),
        error=load_error(checkpoint.data) if failed and checkpoint.data else None,
        started_at=to_datetime(checkpoint.started_at),
        finished_at=None if checkpoint.finished_at is None else to_datetime(checkpoint.finished_at),
        name=checkpoint.name,
        wake_at=None if checkpoint.wake_at is None else to_datetime(checkpoint.wake_at),
    )


def _shown_result(checkpoint: Checkpoint) -> object:
    data = checkpoint.data
    if checkpoint.kind in ("child", "wait_for") and checkpoint.status is CheckpointStatus.COMPLETED:
        data = data.partition(b"\n")[2] or data  # after the outcome's first line
    elif checkpoint.kind == "step" and checkpoint.status is CheckpointStatus.OPEN:
        return None
    elif checkpoint.kind == "wait_for_event" and data:
        event = unpack_event(data)
        data = b"null" if event is None else event.data
    elif checkpoint.kind == "wait_for_signal" and data:
        received = unpack_received(data)
        data = b"null" if received is None else received[1]
    return plain(data) if data else None


def _waits(step: StepRecord) -> bool:
    return step.kind != "switch" and (step.kind != "step" or step.status != CheckpointStatus.COMPLETED)


def _audit(row: ExecutionRow, history: Sequence[Checkpoint], inbox: Sequence[InboxEntry]) -> list[AuditEntry]:
    """What happened, in order. The history is in the order of its commits, and what came from outside goes between."""
    entries = [AuditEntry(to_datetime(row.created_at), "created", row.workflow)]
    if row.started_at is not None:
        entries.append(AuditEntry(to_datetime(row.started_at), "start_attempt", "1"))
    outside = [entry for entry in reversed(inbox) if entry.kind in _AUDITED]
    for checkpoint in history:
        at = checkpoint.started_at if checkpoint.finished_at is None else checkpoint.finished_at
        while outside and outside[-1].at <= at:
            entries.append(_came(outside.pop()))
        entries.extend(_happened(checkpoint, to_datetime(at)))
    entries.extend(_came(entry) for entry in reversed(outside))
    if row.finished_at is not None:
        entries.append(AuditEntry(to_datetime(row.finished_at), row.status, row.workflow))
    return entries


def _happened(checkpoint: Checkpoint, at: datetime) -> Iterator[AuditEntry]:
    if checkpoint.kind == "attempt":
        number = int(checkpoint.step_id.partition(":")[2])
        yield AuditEntry(at, "retry", str(number), {"error": str(load_error(checkpoint.data))})
        yield AuditEntry(at, "start_attempt", str(number + 1))
    elif checkpoint.kind != "end":
        noted = _mapping(plain(checkpoint.data) if checkpoint.kind == "note" else None)
        yield AuditEntry(at, checkpoint.kind, checkpoint.step_id, {"status": str(checkpoint.status), **noted})


def _came(entry: InboxEntry) -> AuditEntry:
    details = _mapping(plain(entry.data) if entry.kind is MessageKind.OPERATOR else None)
    return AuditEntry(to_datetime(entry.at), entry.kind, entry.name, details)


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _explanation(row: ExecutionRow, waits: Sequence[Checkpoint], now: int) -> str:
    if row.state is State.READY and row.available_at <= now:
        return (
            f"it waits for a worker that runs {row.workflow} version {row.version} from queue {row.queue!r}"
        )
    match row.status:
        case ExecutionStatus.PENDING:
            return f"it begins at {to_datetime(row.available_at).isoformat(timespec='seconds')}"
        case ExecutionStatus.RUNNING:
            return f"it is being run by worker {row.worker}" if row.worker else "it is about to go on"
        case ExecutionStatus.RETRYING | ExecutionStatus.SLEEPING | ExecutionStatus.WAITING:
            what = ", ".join(_waited_for(c) for c in waits) or "its next attempt"
            until = (
                f", until {to_datetime(row.wake_at or row.available_at).isoformat(timespec='seconds')}"
                if row.wake_at or not waits
                else ""
            )
            return f"it waits for {what}{until}"
        case ExecutionStatus.PARKED:
            why = load_error(row.error).message if row.error else "a value or a replay"
            return f"it is parked until somebody repairs it: {why}"
        case ExecutionStatus.PAUSED:
            return "an operator has paused it"
        case _:
            why = f": {load_error(row.error).message}" if row.error else ""
            return f"it has ended as {row.status}{why}"


def _limit_info(row: GateRow) -> LimitInfo:
    rule, _, key = row.name.partition("|")
    return LimitInfo(
        rule,
        key,
        row.limit,
        [Slot(each.execution_id, each.step_id, to_datetime(each.since)) for each in row.holdings],
        row.held,
        row.waiting,
        None if row.oldest_at is None else to_datetime(row.oldest_at),
        None if row.next_at is None else to_datetime(row.next_at),
    )


def _instant(at: int) -> str:
    return to_datetime(at).isoformat(timespec="seconds")


def _waited_for(c: Checkpoint) -> str:
    match c.kind:
        case "sleep":
            return f"the timer {c.step_id!r}"
        case "wait_for_signal":
            return f"signal {c.name!r}"
        case "wait_for_event":
            return f"event {c.name!r}"
        case "step" if c.status is CheckpointStatus.OPEN:
            return f"the limit {from_json(c.data)['limit']!r} of step {c.step_id!r}"
        case "child" | "wait_for":
            return f"the execution of {c.name!r}"
        case _:
            return f"the next try of {c.step_id!r} (attempt {c.attempts + 1})"
