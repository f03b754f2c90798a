"""`WrappedStore`: a store around another one, to look on, to get in the way, or to add to what it does."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

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
    """Does what the store `within` does.

    `beat`, which is called from another thread, `open`, `close` and `capabilities` do not pass `through`.
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
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Exists:
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
    async def event(self, event_id: str) -> Emit | None:
        return await self.through("event", partial(self.within.event, event_id))

    @override
    async def check(self) -> Sequence[str]:
        return await self.through("check", partial(self.within.check))
