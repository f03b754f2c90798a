"""What people ask about executions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from durable.client import Client, execution_of
from durable.clock import Clock, to_datetime
from durable.duration import to_instant_ms
from durable.engine.operator_acts import PAUSE
from durable.errors import ExecutionNotFound, InvalidInput, ReplayMismatch
from durable.history import History
from durable.ids import Ids
from durable.models import (
    Execution,
    ExecutionDetail,
    ExecutionStatus,
    Health,
    LimitInfo,
    Page,
    QueueInfo,
    WorkerRecord,
)
from durable.names import check_name, did_you_mean
from durable.operator.detail import detail_of, explanation, limit_info, shown_instant
from durable.presence import Presence, is_mark, worker_record
from durable.protocols import DurableQueue, DurableStore, ExecutionRow, GateKind, MessageKind, Query, State
from durable.workflow import Registry

_MOST_LISTED = 1000
_MOST_STUCK = 100
_STUCK = (ExecutionStatus.PARKED, ExecutionStatus.COMPENSATION_FAILED)

Statuses = str | ExecutionStatus | Sequence[str | ExecutionStatus]


class Questions:
    """Each gives what is stored at this moment."""

    def __init__(
        self,
        store: DurableStore,
        queue: DurableQueue,
        client: Client,
        clock: Clock,
        ids: Ids,
        registry: Registry,
    ) -> None:
        self._store = store
        self._queue = queue
        self._client = client
        self._clock = clock
        self._ids = ids
        self._registry = registry

    async def get_execution_detail(self, execution_id: str) -> ExecutionDetail:
        """The execution, its steps, what it waits for, its signals, and its audit entries in order."""
        row = await self._row(execution_id)
        history = await self._store.history(execution_id)
        inbox = await self._store.inbox(execution_id)
        return detail_of(row, history, inbox, self._clock.now_ms())

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
            status=statuses(status),
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
        if row.status is ExecutionStatus.PAUSED:
            return "an operator has paused it"
        if row.status is ExecutionStatus.RUNNING and PAUSE in await self.unread_acts(execution_id):
            return "an operator has paused it, and the steps that run are still to end"
        if row.state is State.READY and row.available_at <= self._clock.now_ms():
            live = await self._store.live()
            workers = [Presence.unpack(worker.info) for worker in live.workers.values()]
            from_queue = f"{row.workflow} version {row.version} from queue {row.queue!r}"
            if not any(about.takes(row) for about in workers):
                return f"no worker runs {from_queue}"
            return f"it waits for a worker that runs {from_queue}, and that has a free slot"
        return explanation(row, open_waits)

    async def explain_held(self, executions: Iterable[Execution]) -> Mapping[str, str]:
        """Why each of those is held that flow control holds back, in one sentence, by the name of what holds them
        (`Execution.held_by`)."""
        names = {each.held_by for each in executions if each.held_by is not None}
        return {name: await self._held_back(name) for name in sorted(names)}

    async def queues(self) -> Sequence[QueueInfo]:
        """What waits in each queue, those that are paused among them."""
        depths = {depth.queue: depth for depth in await self._store.depths()}
        paused = {name for name in await self._store.paused_queues() if not is_mark(name)}
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

    async def workers(self) -> Sequence[WorkerRecord]:
        """The workers that are alive, by id, each as it was at its last beat: five times in the length of its lease."""
        live = await self._store.live()
        return [worker_record(live.workers[id], live.at) for id in sorted(live.workers)]

    async def health(self) -> Health:
        """How all of it stands. A look at the store, whose questions are asked together, and one at the broker."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        counts, queues, live, first_timer, stuck = await asyncio.gather(
            self.counts(),
            self.queues(),
            self._store.live(),
            self._store.first_timer(),
            self.list_stuck(limit=_MOST_STUCK),
        )
        store_took = timedelta(seconds=loop.time() - began)
        at = to_datetime(live.at)
        oldest = (each.oldest_at for each in queues if each.oldest_at is not None and not each.paused)
        late_since = at if first_timer is None else to_datetime(first_timer)
        return Health(
            at=at,
            counts=counts,
            queues=queues,
            workers=[worker_record(live.workers[id], live.at) for id in sorted(live.workers)],
            ready_age=max(at - min(oldest, default=at), timedelta()),
            timer_lag=max(at - late_since, timedelta()),
            stuck=stuck.items,
            mismatches=sum(each.code == ReplayMismatch.code for each in stuck.items),
            dead_letters=await self._queue.dead_letters(),
            store_took=store_took,
        )

    async def held_limits(self, *, after: str = "", limit: int = 100) -> Sequence[LimitInfo]:
        """The limits at which somebody holds a slot or waits, in order; `after`: the `rule|key` of the last one
        seen."""
        return [limit_info(row) for row in await self._store.gates(after=after, limit=limit)]

    async def limits(self) -> Mapping[str, int]:
        """What `set_limit` has set, by rule."""
        return await self._store.limits()

    async def _held_back(self, name: str) -> str:
        gate = await self._store.gate(name)
        rule, _, key = name.partition("|")
        what = f"{rule} of {key}" if key else rule
        if gate is None:
            return f"it is about to pass {what}"
        if gate.kind is GateKind.RATE:
            opens_at = "" if gate.next_at is None else f" until {shown_instant(gate.next_at)}"
            return f"it is throttled by {what}{opens_at}, with {gate.waiting} in line"
        holders = ", ".join(
            f"{each.execution_id} since {shown_instant(each.since)}" for each in gate.holdings[:3]
        )
        return f"it waits for a slot of {what}, held by {holders or 'nobody'} ({gate.held} of {gate.limit})"

    async def unread_acts(self, execution_id: str) -> Sequence[str]:
        """The acts that nobody has applied yet, in order."""
        news = (await self._store.peek({execution_id: 0})).get(execution_id, ())
        return [entry.name for entry in news if entry.kind is MessageKind.OPERATOR]

    async def _row(self, execution_id: str) -> ExecutionRow:
        check_name(execution_id, "the id of an execution")
        row = await self._store.get(execution_id)
        if row is None:
            raise ExecutionNotFound(execution_id)
        return row


def statuses(status: Statuses | None) -> tuple[ExecutionStatus, ...]:
    """Those that are named; none for None.

    Raises:
        InvalidInput: one of them is no status.
    """
    given = () if status is None else (status,) if isinstance(status, str) else tuple(status)
    try:
        return tuple(ExecutionStatus(one) for one in given)
    except ValueError:
        raise InvalidInput(f"unknown status in {[str(s) for s in given]}", _nearest(given)) from None


def _nearest(given: Sequence[str]) -> str:
    """What somebody may have meant who gave statuses that there are not."""
    known = [str(status) for status in ExecutionStatus]
    near = "".join(did_you_mean(one, known) for one in given if one not in known)
    return f"{near}known are {', '.join(known)}"
