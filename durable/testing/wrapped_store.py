"""`WrappedStore`: a store that looks on at another, or gets in its way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from typing_extensions import override

from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Capabilities,
    Checkpoint,
    Claimed,
    Committed,
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
    NewExecution,
    NotClaimed,
    NotPosted,
    Posted,
    Query,
    Rows,
    Ticked,
    Wanted,
)

T = TypeVar("T")


class WrappedStore(DurableStore):
    """Does what another store does. Subclasses override `through`, which every call but `beat` passes."""

    def __init__(self, store: DurableStore) -> None:
        self.within = store

    async def through(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
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
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Exists:
        return await self.through("create", lambda: self.within.create(spec, op_id=op_id))

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        return await self.through(
            "claim", lambda: self.within.claim(execution_id, nonce=nonce, worker=worker, have_op=have_op)
        )

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        return await self.through(
            "commit", lambda: self.within.commit(execution_id, nonce=nonce, ver=ver, op_id=op_id, batch=batch)
        )

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        return await self.through("post", lambda: self.within.post(execution_id, message))

    @override
    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        return await self.through("tick", lambda: self.within.tick(partition, live=live, limit=limit))

    @override
    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        return await self.through(
            "due", lambda: self.within.due(partition, wanted, limit=limit, again_ms=again_ms)
        )

    @override
    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        self.within.beat(worker, ttl_ms=ttl_ms, info=info)

    @override
    async def relay(self, partition: int, *, limit: int) -> Ticked:
        return await self.through("relay", lambda: self.within.relay(partition, limit=limit))

    @override
    async def prune(self, *, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
        return await self.through(
            "prune", lambda: self.within.prune(before=before, status=status, limit=limit)
        )

    @override
    async def live(self) -> Live:
        return await self.through("live", self.within.live)

    @override
    async def get(self, execution_id: str) -> ExecutionRow | None:
        return await self.through("get", lambda: self.within.get(execution_id))

    @override
    async def history(self, execution_id: str) -> Sequence[Checkpoint]:
        return await self.through("history", lambda: self.within.history(execution_id))

    @override
    async def inbox(self, execution_id: str) -> Sequence[InboxEntry]:
        return await self.through("inbox", lambda: self.within.inbox(execution_id))

    @override
    async def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        return await self.through("peek", lambda: self.within.peek(seen))

    @override
    async def value(self, execution_id: str, name: str) -> bytes | None:
        return await self.through("value", lambda: self.within.value(execution_id, name))

    @override
    async def query(self, query: Query) -> Rows:
        return await self.through("query", lambda: self.within.query(query))

    @override
    async def counts(self) -> Mapping[ExecutionStatus, int]:
        return await self.through("counts", self.within.counts)

    @override
    async def event(self, event_id: str) -> Emit | None:
        return await self.through("event", lambda: self.within.event(event_id))

    @override
    async def check(self) -> Sequence[str]:
        return await self.through("check", self.within.check)
