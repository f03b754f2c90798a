"""A worker process, and the nursery that makes them.

`python -m tests.crash.node` imports everything once and then forks a process for each line that it is sent, so that a
worker boots in some 30 ms instead of half a second of work. It reaps a process only when it is asked to: until then no
other process can get its id, and a signal cannot meet the wrong one.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic_core import to_json

from durable import Durable
from durable.backends import backend_for
from durable.clock import SystemClock
from durable.errors import OutcomeUnknown, StoreUnavailable
from durable.protocols import DurableStore
from tests.crash import workflows
from tests.crash.ledger import append, digest
from tests.crash.points import FaultyStore
from tests.crash.trace import TracingStore

T = TypeVar("T")

_DIE_WITH_PARENT = 1


@dataclass(frozen=True)
class NodeSettings:
    """What one worker process is told."""

    url: str
    """Of the store."""
    ledger: str
    trace: str
    log: str
    ready: str
    """A file that it makes when it has begun to work, and that says when that was, on the monotonic clock."""
    queue: str | None = None
    bus: str | None = None
    """None: the store's own."""
    namespace: str = "default"
    lease: float = 1.5
    sweep: float = 0.3
    drain: float = 5.0
    max_crashes: int = 1000
    concurrency: int = 20
    starts: Sequence[int] = ()
    """The first and the last number of the voyages that an API process starts, which runs none; empty: a worker."""
    crash_at: str = ""
    """As `FaultyStore` takes it."""
    unknown: str = ""

    def dump(self) -> dict[str, Any]:
        return asdict(self)


async def run(settings: NodeSettings) -> None:
    """Work until SIGTERM comes, then drain."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    store = FaultyStore(store_of(settings), crash_at=settings.crash_at, unknown=settings.unknown)
    async with worker(settings, TracingStore(store, settings.trace)):
        say_ready(settings)
        await stopping.wait()


def store_of(settings: NodeSettings) -> DurableStore:
    opener = backend_for(settings.url).open_store
    assert opener is not None
    return opener(settings.url, namespace=settings.namespace, clock=SystemClock())


def worker(settings: NodeSettings, store: DurableStore) -> Durable:
    return Durable(
        [workflows],
        store=store,
        queue=settings.queue,
        bus=settings.bus or settings.url,
        namespace=settings.namespace,
        lease=settings.lease,
        sweep=settings.sweep,
        drain=settings.drain,
        max_crashes=settings.max_crashes,
        concurrency=settings.concurrency,
    )


async def drive(settings: NodeSettings) -> None:
    """Start voyages, a good number at a time, give each its signal, and wait for their ends. What was acknowledged is
    written into `trace`."""
    durable = Durable(
        [workflows],
        store=settings.url,
        queue=settings.queue,
        bus=settings.bus,
        namespace=settings.namespace,
        worker=False,
    )
    acks = os.open(settings.trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    turn = asyncio.Semaphore(settings.concurrency)

    def acked(kind: str, execution: str, name: str, key: str = "", **more: Any) -> None:
        append(acks, {"what": "ack", "kind": kind, "execution": execution, "name": name, "key": key, **more})

    async def voyage(n: int) -> None:
        key = f"voyage:{n}"
        async with turn:
            job = workflows.Job(n, pause=n % 10 / 1000)
            handle = await insist(lambda: durable.start(workflows.voyage, job, key=key))
            acked("start", handle.id, "voyage", key, created=handle.created)
            await insist(lambda: handle.signal(workflows.Approved, f"ok{n}", key=key))
            acked("signal", handle.id, "approved", key)
            result = await insist(lambda: handle.result(timeout="2m"))
            acked("result", handle.id, "completed", value=digest(to_json(result)))

    async with durable:
        say_ready(settings)
        first, last = settings.starts
        await asyncio.gather(*(voyage(n) for n in range(first, last + 1)))


def say_ready(settings: NodeSettings) -> None:
    being_written = Path(f"{settings.ready}.new")
    being_written.write_text(str(time.monotonic()))
    being_written.rename(settings.ready)


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Each call has a key, so that it may be repeated until the store has answered."""
    while True:
        try:
            return await call()
        except (StoreUnavailable, OutcomeUnknown):
            await asyncio.sleep(0.1)


def nursery() -> None:
    """Answer each line of stdin by one of stdout: `{"boot": settings}` by a pid, `{"reap": pid}` by its exit status,
    null while it runs. It ends with its stdin, and its processes with it."""
    die_with_parent()
    for line in sys.stdin:
        asked = json.loads(line)
        if "boot" in asked:
            answer: int | None = os.fork()
            if answer == 0:
                be_a_node(NodeSettings(**asked["boot"]))
        else:
            pid, status = os.waitpid(asked["reap"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


def be_a_node(settings: NodeSettings) -> NoReturn:
    """What a forked process does instead of all else."""
    status = 1
    try:
        die_with_parent()
        log = os.open(settings.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for fd, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(fd, target)
        os.environ[workflows.LEDGER_PATH] = settings.ledger
        form = "%(created).3f %(levelname)s %(name)s %(message)s"
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=form)
        asyncio.run(drive(settings) if settings.starts else run(settings))
        status = 0
    except BaseException:
        logging.getLogger(__name__).exception("a node failed")
    finally:
        sys.stderr.flush()
        os._exit(status)


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


if __name__ == "__main__":
    nursery()
