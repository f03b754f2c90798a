"""A whole backend: a log in front of the memory store makes it durable.

Each write is applied in memory, appended to the log and flushed to the disk, and only then answered. Opening replays
the log. It is for one process, and its log grows: it is here to be read.
"""

import asyncio
import base64
import fcntl
import json
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from typing_extensions import override

from durable import Context, Durable, StoreUnavailable, protocols, workflow
from durable.backends import Backend
from durable.backends.memory import MemoryBus, MemoryStore
from durable.clock import Clock, VirtualClock
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
KINDS = {kind.__name__: kind for kind in vars(protocols).values() if isinstance(kind, type)}
KINDS["ExecutionStatus"] = ExecutionStatus


class LogStore(DurableStore):
    """Keeps executions in the file at `path`. One process at a time may open it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._log: BinaryIO | None = None
        self._turn = asyncio.Lock()
        """Held from a write until it is on the disk, and by reads: nobody sees what might still be lost."""

    # -- opening: replay what was written

    @override
    async def open(self) -> None:
        try:
            self._log = self._path.open("a+b")
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._log.seek(0)
            lines = self._log.read().splitlines(keepends=True)
        except OSError as error:
            self._shut()
            raise StoreUnavailable(f"{self._path}: {error.strerror}", "is it open elsewhere?") from error
        # The log knows when each write happened, so that it has the same effect again.
        self._time = VirtualClock(0)
        self._memory = MemoryStore(self._time)
        while lines and lines[-1][-1:] != b"\n":  # the process died while it wrote this
            self._log.truncate(self._log.tell() - len(lines.pop()))
        for line in lines:
            verb, now, arguments = load(json.loads(line))
            self._time.advance_to(now)
            await getattr(self._memory, verb)(**arguments)

    @override
    async def close(self) -> None:
        async with self._turn:
            self._shut()

    def _shut(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.close()

    @override
    async def capabilities(self) -> Capabilities:
        return Capabilities(name="log", grade="D2", notes=("One process, and a log that only grows.",))

    # -- every call takes its turn

    async def _read(self, call: Callable[[], Awaitable[T]]) -> T:
        async with self._turn:
            self._now()
            return await call()

    async def _write(self, verb: str, /, **arguments: object) -> Any:
        # A caller who is cancelled stops waiting; the write goes on, or memory and log would differ.
        return await asyncio.shield(asyncio.create_task(self._applied(verb, arguments)))

    async def _applied(self, verb: str, arguments: Mapping[str, object]) -> object:
        async with self._turn:
            now = self._now()
            answer = await getattr(self._memory, verb)(**arguments)
            if has_changed_something(answer):
                line = json.dumps(dump([verb, now, arguments])).encode() + b"\n"
                try:
                    await asyncio.to_thread(self._append, line)
                except OSError as error:
                    self._shut()  # what memory has now is not in the log: only a new `open` knows the truth
                    raise StoreUnavailable(f"{self._path}: {error.strerror}", "open it again") from error
            return answer

    def _append(self, line: bytes) -> None:
        assert self._log is not None
        self._log.write(line)
        self._log.flush()
        os.fsync(self._log.fileno())

    def _now(self) -> int:
        if self._log is None:
            raise StoreUnavailable(f"{self._path} is closed", "open it first")
        self._time.advance_to(self._clock.now_ms())
        return self._time.now_ms()

    # -- the port: writes

    @override
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Exists:
        return await self._write("create", spec=spec, op_id=op_id)

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        return await self._write(
            "claim", execution_id=execution_id, nonce=nonce, worker=worker, have_op=have_op
        )

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        return await self._write(
            "commit", execution_id=execution_id, nonce=nonce, ver=ver, op_id=op_id, batch=batch
        )

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        return await self._write("post", execution_id=execution_id, message=message)

    @override
    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        return await self._write("tick", partition=partition, live=live, limit=limit)

    @override
    async def prune(self, *, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
        return await self._write("prune", before=before, status=status, limit=limit)

    # -- what need not outlive the process: leases, and which doorbells were rung

    @override
    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        self._now()
        self._memory.beat(worker, ttl_ms=ttl_ms, info=info)

    @override
    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        return await self._read(lambda: self._memory.due(partition, wanted, limit=limit, again_ms=again_ms))

    @override
    async def relay(self, partition: int, *, limit: int) -> Ticked:
        return await self._read(lambda: self._memory.relay(partition, limit=limit))

    # -- reads

    @override
    async def live(self) -> Live:
        return await self._read(self._memory.live)

    @override
    async def get(self, execution_id: str) -> ExecutionRow | None:
        return await self._read(lambda: self._memory.get(execution_id))

    @override
    async def history(self, execution_id: str) -> Sequence[Checkpoint]:
        return await self._read(lambda: self._memory.history(execution_id))

    @override
    async def inbox(self, execution_id: str) -> Sequence[InboxEntry]:
        return await self._read(lambda: self._memory.inbox(execution_id))

    @override
    async def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        return await self._read(lambda: self._memory.peek(seen))

    @override
    async def value(self, execution_id: str, name: str) -> bytes | None:
        return await self._read(lambda: self._memory.value(execution_id, name))

    @override
    async def query(self, query: Query) -> Rows:
        return await self._read(lambda: self._memory.query(query))

    @override
    async def counts(self) -> Mapping[ExecutionStatus, int]:
        return await self._read(self._memory.counts)

    @override
    async def event(self, event_id: str) -> Emit | None:
        return await self._read(lambda: self._memory.event(event_id))

    @override
    async def check(self) -> Sequence[str]:
        return await self._read(self._memory.check)


def has_changed_something(answer: object) -> bool:
    match answer:
        case Ticked():
            return bool(answer.doorbells or answer.touched)
        case int():
            return answer > 0
        case _:
            return isinstance(answer, Created | Claimed | Committed | Posted)


# ---- records as JSON, and back: only of kinds that we know


def dump(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {type(value).__name__: {each.name: dump(getattr(value, each.name)) for each in fields(value)}}
    if isinstance(value, Enum):
        return {type(value).__name__: value.value}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"dict": [[dump(key), dump(each)] for key, each in value.items()]}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [dump(each) for each in value]
    return value


def load(value: Any) -> Any:
    if isinstance(value, list):
        return [load(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "dict":
        return {load(key): load(each) for key, each in content}
    if isinstance(content, dict):
        return KINDS[kind](**{name: load(each) for name, each in content.items()})
    return KINDS[kind](content)


# ---- joined by URL: log:///path/to/file


def open_store(url: str, *, namespace: str, clock: Clock) -> LogStore:
    return LogStore(Path(urlsplit(url).path).with_suffix(f".{namespace}"), clock)


def open_bus(url: str, *, namespace: str, clock: Clock) -> MemoryBus:
    return MemoryBus(namespace)


backend = Backend(open_store=open_store, open_bus=open_bus)


# ---- an execution that outlives its process


@workflow
async def greet(ctx: Context, name: str) -> str:
    return await ctx.step("greet", lambda: f"hello, {name}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        settings = {"store": LogStore(Path(directory, "log"), VirtualClock(0)), "bus": MemoryBus()}
        async with Durable([greet], **settings, worker=False) as durable:
            handle = await durable.start(greet, "ada")
        async with Durable([greet], **settings) as durable:
            print(await durable.wait(handle.id, timeout="10s"))


if __name__ == "__main__":
    asyncio.run(main())
