"""Where a workload runs: a `Durable` on a backend with nothing in it, and other processes on the same store."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any
from uuid import uuid4

from benchmarks.servers import amqp_url, broker_run, postgres_url, redis_url
from durable import Durable, ExecutionStatus, Handle
from durable.workflow import AnyWorkflow

CONCURRENCY = 100
ROOT = Path(__file__).parents[1]
_PATIENCE = 300.0
"""Seconds after which another process that says nothing has failed."""


@dataclass(frozen=True)
class Place:
    """Where a `Durable` works. Another process is told by `text`."""

    store: str
    queue: str | None = None
    namespace: str = "default"

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Place:
        return cls(**json.loads(text))

    def durable(self, *workflows: AnyWorkflow, **settings: Any) -> Durable:
        mine = {
            "store": self.store,
            "queue": self.queue,
            "namespace": self.namespace,
            "concurrency": CONCURRENCY,
        }
        return Durable(workflows, **{**mine, **settings})


@dataclass(frozen=True)
class World:
    """A backend with nothing in it."""

    backend: str
    place: Place
    directory: Path

    @property
    def has_processes(self) -> bool:
        """Whether other processes can work on its store."""
        return self.backend != "memory"

    @property
    def has_redis(self) -> bool:
        return self.backend.startswith("redis")

    def durable(self, *workflows: AnyWorkflow, **settings: Any) -> Durable:
        return self.place.durable(*workflows, **settings)


@contextmanager
def world(backend: str) -> Iterator[World]:
    if backend == "memory":
        yield World(backend, Place(f"memory://{uuid4().hex}"), Path())
        return
    if backend.startswith("redis"):
        with broker_run() as run, redis_url(run) as store:
            queue = amqp_url(run) if "rabbitmq" in backend else None
            yield World(backend, Place(store, queue, f"bench-{uuid4().hex[:12]}"), Path())
        return
    if backend == "postgresql":
        with broker_run() as run, postgres_url(run) as store:
            yield World(backend, Place(store), Path())
        return
    with TemporaryDirectory(prefix="durable-bench-") as name:
        directory = Path(name)
        synchronous = backend.removeprefix("sqlite-")
        store = f"sqlite:///{directory / 'bench.db'}?synchronous={synchronous}"
        yield World(backend, Place(store), directory)


async def until_waiting(handle: Handle[Any]) -> None:
    """Come back when the execution waits, and that is stored."""
    async with asyncio.timeout(_PATIENCE):
        status = await handle.status()
        while status.status is not ExecutionStatus.WAITING:
            await asyncio.sleep(0.005)
            status = await handle.status()


async def until_counted(durable: Durable, status: ExecutionStatus, executions: int) -> int:
    """Come back when so many executions have the status, and say how many there are."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            counted = (await durable.operator.counts()).get(status, 0)
            if counted >= executions:
                return counted
            await asyncio.sleep(0.01)


class ProcessFailed(Exception):
    """Another process ended, or said nothing in time; the message has the last line of its complaints."""

    def __init__(self, what: str, complaints: str) -> None:
        super().__init__(f"{what}; {(complaints.splitlines() or ['it complained of nothing'])[-1]}")
        self.complaints = complaints


class Process:
    """Another process, which answers in lines of JSON and ends when its standard input does."""

    def __init__(self, process: asyncio.subprocess.Process, complaints: IO[bytes]) -> None:
        self._process = process
        self._complaints = complaints

    async def says(self) -> Any:
        """The next thing that it says. Raises: `ProcessFailed`."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _PATIENCE)
        except TimeoutError:
            raise ProcessFailed(f"it said nothing for {_PATIENCE:g} s", self._complained()) from None
        if not line:
            raise ProcessFailed(f"it ended with {await self._process.wait()}", self._complained())
        return json.loads(line)

    def go(self, word: str = "go") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())

    def _complained(self) -> str:
        self._complaints.seek(0)
        return self._complaints.read().decode(errors="replace").strip()

    async def kill(self) -> None:
        """`kill -9`; it is gone when this returns."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def interrupt(self) -> None:
        """As Ctrl-C does; come back when it has cleared up, or had its time to."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 30)

    async def ended(self) -> int:
        return await asyncio.wait_for(self._process.wait(), _PATIENCE)


@asynccontextmanager
async def process(module: str, *args: object) -> AsyncIterator[Process]:
    """`python -m <module> <args>`; killed on the way out."""
    async with program(sys.executable, "-m", module, *map(str, args), cwd=ROOT) as started:
        yield started


@asynccontextmanager
async def program(*command: str, cwd: Path) -> AsyncIterator[Process]:
    """A command; killed on the way out."""
    with TemporaryFile() as complaints:
        started = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            cwd=cwd,
        )
        other = Process(started, complaints)
        try:
            yield other
        finally:
            await other.kill()


def say(answer: object) -> None:
    """From such a process to the one that started it."""
    print(json.dumps(answer), flush=True)


async def told_to_go() -> bool:
    """Whether the one that started this process said `go`; false when it is gone."""
    return bool(await asyncio.to_thread(sys.stdin.readline))


def memory_mb() -> float:
    """What this process has in memory now, where the system tells; else the most that it had."""
    return _proc_mb("VmRSS")


def peak_memory_mb() -> float:
    return _proc_mb("VmHWM")


def _proc_mb(what: str) -> float:
    status = Path("/proc/self/status")
    lines: Sequence[str] = status.read_text().splitlines() if status.exists() else ()
    for line in lines:
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024 * 1024 if sys.platform == "darwin" else 1024)
