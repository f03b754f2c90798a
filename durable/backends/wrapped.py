"""`WrappedStore`: a store around another one, to look on, to get in the way, or to add to what it does."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar, cast

from typing_extensions import override

from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Capabilities,
    Checkpoint,
    Claimed,
    Committed,
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
    Full,
    GateRow,
    InboxEntry,
    Joined,
    Live,
    Looked,
    Message,
    NewExecution,
    NotClaimed,
    NotPosted,
    Plan,
    Posted,
    Query,
    Rows,
    Saved,
    ScheduleRow,
    Sent,
    Subscriber,
    Ticked,
    TransactionalStore,
    Wanted,
    Writes,
)

T = TypeVar("T")


class WrappedStore(TransactionalStore):
    """Does what the store `within` does, also in transactions if that can.

    `beat`, which is called from another thread, `open`, `close`, `capabilities`, `transaction` and `enlist` do not pass
    `through`.
    """

    def __init__(self, within: DurableStore) -> None:
        self.within = within

    async def through(self, verb: str, call: partial[Coroutine[Any, Any, T]]) -> T:
        """Make a call, and give its answer. `call` has its arguments, by name those that have no certain place."""
        return await call()

    @override
    async def open(self) -> None:
        await self.within.open()

    @override
    async def close(self) -> None:
        await self.within.close()

    @override
    async def capabilities(self) -> Capabilities:
        return await self.within.capabilities()

    @override
    def transaction(self) -> AbstractAsyncContextManager[object]:
        return cast("TransactionalStore", self.within).transaction()

    @override
    async def enlist(self, connection: object) -> Writes:
        return await cast("TransactionalStore", self.within).enlist(connection)

    @override
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Joined | Exists:
        return await self.through("create", partial(self.within.create, spec, op_id=op_id))

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        return await self.through(
            "claim", partial(self.within.claim, execution_id, nonce=nonce, worker=worker, have_op=have_op)
        )

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        return await self.through(
            "commit",
            partial(self.within.commit, execution_id, nonce=nonce, ver=ver, op_id=op_id, batch=batch),
        )

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        return await self.through("post", partial(self.within.post, execution_id, message))

    @override
    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        return await self.through("tick", partial(self.within.tick, partition, live=live, limit=limit))

    @override
    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        return await self.through(
            "due", partial(self.within.due, partition, wanted, limit=limit, again_ms=again_ms)
        )

    @override
    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        self.within.beat(worker, ttl_ms=ttl_ms, info=info)

    @override
    async def relay(self, partition: int, *, limit: int) -> Ticked:
        return await self.through("relay", partial(self.within.relay, partition, limit=limit))

    @override
    async def prune(self, *, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
        return await self.through(
            "prune", partial(self.within.prune, before=before, status=status, limit=limit)
        )

    @override
    async def live(self) -> Live:
        return await self.through("live", partial(self.within.live))

    @override
    async def get(self, execution_id: str) -> ExecutionRow | None:
        return await self.through("get", partial(self.within.get, execution_id))

    @override
    async def history(self, execution_id: str) -> Sequence[Checkpoint]:
        return await self.through("history", partial(self.within.history, execution_id))

    @override
    async def inbox(self, execution_id: str) -> Sequence[InboxEntry]:
        return await self.through("inbox", partial(self.within.inbox, execution_id))

    @override
    async def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        return await self.through("peek", partial(self.within.peek, seen))

    @override
    async def value(self, execution_id: str, name: str) -> bytes | None:
        return await self.through("value", partial(self.within.value, execution_id, name))

    @override
    async def query(self, query: Query) -> Rows:
        return await self.through("query", partial(self.within.query, query))

    @override
    async def counts(self) -> Mapping[ExecutionStatus, int]:
        return await self.through("counts", partial(self.within.counts))

    @override
    async def send(self, events: Sequence[Emit], *, op_id: str) -> Sent:
        return await self.through("send", partial(self.within.send, events, op_id=op_id))

    @override
    async def subscribe(self, add: Sequence[Subscriber], remove: Sequence[Subscriber] = ()) -> None:
        return await self.through("subscribe", partial(self.within.subscribe, add, remove))

    @override
    async def save_schedule(
        self, row: ScheduleRow, *, op_id: str, starts: Sequence[NewExecution] = ()
    ) -> Saved | None:
        return await self.through(
            "save_schedule", partial(self.within.save_schedule, row, op_id=op_id, starts=starts)
        )

    @override
    async def remove_schedule(self, schedule_id: str) -> bool:
        return await self.through("remove_schedule", partial(self.within.remove_schedule, schedule_id))

    @override
    async def set_limit(self, rule: str, limit: int | None) -> None:
        return await self.through("set_limit", partial(self.within.set_limit, rule, limit))

    @override
    async def pause_queue(self, queue: str, paused: bool) -> None:
        return await self.through("pause_queue", partial(self.within.pause_queue, queue, paused))

    @override
    async def prune_events(self, *, before: int, limit: int) -> int:
        return await self.through(
            "prune_events", partial(self.within.prune_events, before=before, limit=limit)
        )

    @override
    async def event(self, name: str, event_id: str) -> EventRow | None:
        return await self.through("event", partial(self.within.event, name, event_id))

    @override
    async def plan(self, event: str) -> Plan:
        return await self.through("plan", partial(self.within.plan, event))

    @override
    async def look(
        self, event: str, *, shape: str, topic: str, since: int, after: int = 0, limit: int = 100
    ) -> Looked:
        return await self.through(
            "look",
            partial(self.within.look, event, shape=shape, topic=topic, since=since, after=after, limit=limit),
        )

    @override
    async def subscribers(self) -> Sequence[Subscriber]:
        return await self.through("subscribers", partial(self.within.subscribers))

    @override
    async def schedule(self, schedule_id: str) -> ScheduleRow | None:
        return await self.through("schedule", partial(self.within.schedule, schedule_id))

    @override
    async def schedules(self, *, after: str = "", limit: int = 100) -> Sequence[ScheduleRow]:
        return await self.through("schedules", partial(self.within.schedules, after=after, limit=limit))

    @override
    async def due_schedules(self, *, limit: int) -> Due:
        return await self.through("due_schedules", partial(self.within.due_schedules, limit=limit))

    @override
    async def gate(self, name: str) -> GateRow | None:
        return await self.through("gate", partial(self.within.gate, name))

    @override
    async def gates(self, *, after: str = "", limit: int = 100) -> Sequence[GateRow]:
        return await self.through("gates", partial(self.within.gates, after=after, limit=limit))

    @override
    async def limits(self) -> Mapping[str, int]:
        return await self.through("limits", partial(self.within.limits))

    @override
    async def paused_queues(self) -> Sequence[str]:
        return await self.through("paused_queues", partial(self.within.paused_queues))

    @override
    async def depths(self) -> Sequence[Depth]:
        return await self.through("depths", partial(self.within.depths))

    @override
    async def first_timer(self) -> int | None:
        return await self.through("first_timer", partial(self.within.first_timer))

    @override
    async def check(self) -> Sequence[str]:
        return await self.through("check", partial(self.within.check))
