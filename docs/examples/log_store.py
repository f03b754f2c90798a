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
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from typing_extensions import override

from durable import Context, Durable, StoreUnavailable, protocols, workflow
from durable.backends import Backend
from durable.backends.memory import MemoryBus, MemoryStore
from durable.backends.wrapped import WrappedStore
from durable.clock import Clock, VirtualClock
from durable.models import ExecutionStatus
from durable.protocols import (
    Capabilities,
    Diverged,
    Exists,
    Fenced,
    Full,
    NotClaimed,
    NotPosted,
    Ticked,
)

T = TypeVar("T")
KINDS = {kind.__name__: kind for kind in vars(protocols).values() if isinstance(kind, type)}
KINDS["ExecutionStatus"] = ExecutionStatus
READS = frozenset(
    [
        "live",
        "get",
        "history",
        "inbox",
        "peek",
        "value",
        "query",
        "counts",
        "event",
        "plan",
        "look",
        "subscribers",
        "schedule",
        "schedules",
        "due_schedules",
        "gate",
        "gates",
        "limits",
        "paused_queues",
        "depths",
        "first_timer",
        "check",
    ]
)
FLEETING = {"due", "relay"}
"""What need not outlive the process: which doorbells were rung. (Nor need leases: see `beat`.)"""


class LogStore(WrappedStore):
    """Keeps executions in the file at `path`. One process at a time may open it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        # The log knows when each write happened, so that it has the same effect again.
        self._time = VirtualClock(0)
        super().__init__(MemoryStore(self._time))
        self._log: BinaryIO | None = None
        self._next_at: int | None = -1
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
        self._time = VirtualClock(0)
        self.within = MemoryStore(self._time)
        while lines and lines[-1][-1:] != b"\n":  # the process died while it wrote this
            self._log.truncate(self._log.tell() - len(lines.pop()))
        for line in lines:
            verb, now, places, names = load(json.loads(line))
            self._time.advance_to(now)
            await getattr(self.within, verb)(*places, **names)

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

    @override
    async def through(self, verb: str, call: partial[Coroutine[Any, Any, T]]) -> T:
        # A caller who is cancelled stops waiting; the write goes on, or memory and log would differ.
        return await asyncio.shield(asyncio.create_task(self._applied(verb, call)))

    async def _applied(self, verb: str, call: partial[Coroutine[Any, Any, T]]) -> T:
        async with self._turn:
            now = self._now()
            answer = await call()
            if verb not in READS | FLEETING and self._has_changed_something(answer):
                line = json.dumps(dump([verb, now, call.args, call.keywords])).encode() + b"\n"
                try:
                    await asyncio.to_thread(self._append, line)
                except OSError as error:
                    self._shut()  # what memory has now is not in the log: only a new `open` knows the truth
                    raise StoreUnavailable(f"{self._path}: {error.strerror}", "open it again") from error
            return answer

    def _has_changed_something(self, answer: object) -> bool:
        match answer:
            case Ticked(next_at=next_at):
                before, self._next_at = self._next_at, next_at  # it may have let somebody stand in line
                return bool(answer.doorbells or answer.touched or next_at != before)
            case Exists() | NotClaimed() | Fenced() | Diverged() | Full() | NotPosted() | 0:
                return False
            case _:
                return True

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

    @override
    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        self._now()
        super().beat(worker, ttl_ms=ttl_ms, info=info)


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
