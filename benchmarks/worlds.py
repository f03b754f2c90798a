"""Where a workload runs: a `Durable` on a backend in a directory of its own, and other processes on the same store."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from durable import Durable, ExecutionStatus, Handle
from durable.workflow import AnyWorkflow

CONCURRENCY = 100
_ROOT = Path(__file__).parents[1]
_PATIENCE = 300.0
"""Seconds after which another process that says nothing has failed."""


@dataclass(frozen=True)
class World:
    """A backend with nothing in it."""

    backend: str
    url: str
    directory: Path

    @property
    def has_processes(self) -> bool:
        """Whether other processes can work on its store."""
        return self.backend != "memory"

    def durable(self, *workflows: AnyWorkflow, **settings: Any) -> Durable:
        return open_durable(self.url, workflows, **settings)


@contextmanager
def world(backend: str) -> Iterator[World]:
    with TemporaryDirectory(prefix="durable-bench-") as name:
        directory = Path(name)
        synchronous = backend.removeprefix("sqlite-")
        url = f"sqlite:///{directory / 'bench.db'}?synchronous={synchronous}"
        yield World(backend, f"memory://{uuid4().hex}" if backend == "memory" else url, directory)


def open_durable(url: str, workflows: Iterable[AnyWorkflow], **settings: Any) -> Durable:
    return Durable(workflows, store=url, **{"concurrency": CONCURRENCY, **settings})


async def until_waiting(handle: Handle[Any]) -> None:
    """Come back when the execution waits, and that is stored."""
    async with asyncio.timeout(_PATIENCE):
        status = await handle.status()
        while status.status is not ExecutionStatus.WAITING:
            await asyncio.sleep(0.005)
            status = await handle.status()


class Process:
    """Another process of ours, which answers in lines of JSON and ends when its standard input does."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> Any:
        """The next thing that it says."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), _PATIENCE)
        assert line, f"the process ended with {await self._process.wait()} and said nothing"
        return json.loads(line)

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    async def kill(self) -> None:
        """`kill -9`; it is gone when this returns."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def ended(self) -> int:
        return await asyncio.wait_for(self._process.wait(), _PATIENCE)


@asynccontextmanager
async def process(module: str, *args: object) -> AsyncIterator[Process]:
    """`python -m <module> <args>`; killed on the way out."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, *map(str, args)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    other = Process(started)
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
