"""A fleet of worker processes on one store, to be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

from durable import Durable
from durable.backends import backend_for
from durable.clock import Clock, SystemClock
from durable.errors import StoreUnavailable
from durable.protocols import DurableStore, Query
from tests.brokers.password import PASSWORD
from tests.crash import workflows
from tests.crash.evidence import Ack, Evidence, Fault, Stored
from tests.crash.ledger import Entry, append, read_ledger
from tests.crash.node import NodeSettings
from tests.crash.recovery import Shift, undisturbed
from tests.crash.trace import Trace, read_trace

ROOT = Path(__file__).parents[2]
_BOOT_S = 30.0
_GONE_S = 10.0


class NodeGone(AssertionError):
    """A process has ended, and was to work."""


@final
class Nursery:
    """Where worker processes come from: see `node.nursery`. `end` leaves none of them behind."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.node"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._nodes: list[Node] = []

    def boot(self, settings: NodeSettings) -> Node:
        node = Node(self, settings, self.ask(boot=settings.dump()))
        self._nodes.append(node)
        return node

    def ask(self, **question: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """Called twice: nothing happens."""
        try:
            for node in self._nodes:
                node.end()
        finally:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()


@final
class Node:
    """One worker process. It is only reaped by `poll`, so that a signal never meets another process."""

    def __init__(self, nursery: Nursery, settings: NodeSettings, pid: int) -> None:
        self._nursery = nursery
        self._status: int | None = None
        self.settings = settings
        self.pid = pid
        self.log = Path(settings.log)

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        if self._status is None:
            self._status = self._nursery.ask(reap=self.pid)
        return self._status

    @property
    def alive(self) -> bool:
        return self.poll() is None

    @property
    def is_ready(self) -> bool:
        return Path(self.settings.ready).exists()

    @property
    def began(self) -> float:
        """When it began to work, on the monotonic clock."""
        return float(Path(self.settings.ready).read_text())

    async def ready(self) -> Node:
        """Itself, as soon as it works."""
        deadline = time.monotonic() + _BOOT_S
        while not self.is_ready:
            if not self.alive:
                raise NodeGone(f"it ended with {self.poll()} before it worked:\n{self.tail()}")
            assert time.monotonic() < deadline, f"a node did not come up:\n{self.tail()}"
            await asyncio.sleep(0.01)
        return self

    async def ready_or_gone(self) -> Node:
        """Itself, as soon as it works or has come to its crash point."""
        try:
            return await self.ready()
        except NodeGone:
            return self

    async def gone(self, within: float = _GONE_S) -> int:
        """Its exit status, as soon as it has ended."""
        deadline = time.monotonic() + within
        while (status := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"process {self.pid} did not end:\n{self.tail()}")
            await asyncio.sleep(0.005)
        return status

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def end(self) -> None:
        """Kill it, stopped or not, and reap it. Called twice: nothing happens."""
        self.send(signal.SIGKILL)
        deadline = time.monotonic() + _GONE_S
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.001)

    def tail(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


@dataclass(frozen=True)
class Site:
    """Where a fleet works: by URL, and what can be said afterwards of the servers or files."""

    url: str
    queue: str | None = None
    bus: str | None = None
    namespace: str = "default"
    outages: Collection[str] = ("redis killed", "redis paused")
    """The kinds of faults that keep everybody from the store while they last."""
    damage: Callable[[], list[str]] = list
    """What is wrong with them, when all is over."""


def sqlite_site(directory: Path) -> Site:
    database = directory / "store.db"
    # Whoever is stopped in the middle of a write holds the lock of the file.
    return Site(f"sqlite:///{database}", outages=("stop",), damage=lambda: damage(database))


@final
class Fleet:
    """Nodes on one site, with their ledger and their traces in one directory."""

    def __init__(self, nursery: Nursery, directory: Path, site: Site) -> None:
        self.directory = directory
        self.site = site
        self.ledger_path = directory / "ledger"
        self.nodes: list[Node] = []
        self.faults: list[Fault] = []
        self.acks: list[Ack] = []
        self.truces: list[tuple[float, float]] = []
        """From when to when each lasted."""
        self._nursery = nursery
        self._under_way = 0
        self._no_truce, self._at_rest = asyncio.Event(), asyncio.Event()
        self._no_truce.set()
        self._at_rest.set()

    def boot(self, **settings: Any) -> Node:
        """Start a process, and do not wait for it."""
        file = self.directory / f"node{len(self.nodes)}"
        told = NodeSettings(
            url=self.site.url,
            queue=self.site.queue,
            bus=self.site.bus,
            namespace=self.site.namespace,
            ledger=str(self.ledger_path),
            trace=f"{file}.trace",
            log=f"{file}.log",
            ready=f"{file}.ready",
        )
        node = self._nursery.boot(replace(told, **settings))
        self.nodes.append(node)
        return node

    async def node(self, **settings: Any) -> Node:
        return await self.boot(**settings).ready()

    def end(self) -> None:
        """Kill every node."""
        for node in self.nodes:
            node.end()

    # ---- faults

    @asynccontextmanager
    async def fault(self, kind: str, pid: int = 0) -> AsyncIterator[None]:
        """Around the harm that is done to a process, or to a server, and its healing. A truce is waited for."""
        await self._no_truce.wait()
        self._under_way += 1
        self._at_rest.clear()
        began = time.monotonic()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._at_rest.set()
            self.faults.append(Fault(kind, pid, began, time.monotonic()))

    async def truce(self, seconds: float) -> None:
        """Let no fault begin, and when those that are under way are over, leave all in peace for so long."""
        self._no_truce.clear()
        try:
            await self._at_rest.wait()
            began = time.monotonic()
            await asyncio.sleep(seconds)
            self.truces.append((began, time.monotonic()))
        finally:
            self._no_truce.set()

    @property
    def has_truce(self) -> bool:
        return not self._no_truce.is_set()

    async def kill(self, node: Node) -> None:
        async with self.fault("kill", node.pid):
            node.send(signal.SIGKILL)
            await node.gone()

    def killed(self) -> list[tuple[int, float]]:
        """The process ids of those that were, and when each was gone."""
        return [(fault.pid, fault.until) for fault in self.faults if fault.kind == "kill"]

    async def stop_for(self, node: Node, seconds: float) -> None:
        """Hold the process for a while, as a paused machine does."""
        async with self.fault("stop", node.pid):
            node.send(signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                node.send(signal.SIGCONT)

    async def terminate(self, node: Node) -> None:
        """Have it drain and end, as a deployment does."""
        async with self.fault("term", node.pid):
            node.send(signal.SIGTERM)
            status = await node.gone(60.0)
        assert status == 0, f"a node that was to drain ended with {status}:\n{node.tail()}"

    # ---- the test's own part

    def client(self, clock: Clock | None = None) -> Durable:
        site = self.site
        return Durable(
            [workflows],
            store=site.url,
            queue=site.queue,
            bus=site.bus,
            namespace=site.namespace,
            worker=False,
            clock=clock,
        )

    def store(self) -> DurableStore:
        opener = backend_for(self.site.url).open_store
        assert opener is not None
        return opener(self.site.url, namespace=self.site.namespace, clock=SystemClock())

    # ---- what there is to know

    def ledger(self) -> list[Entry]:
        return read_ledger(self.ledger_path)

    def trace(self) -> Trace:
        return read_trace(self.directory.glob("*.trace"))

    def logs(self) -> str:
        return "\n".join(node.tail(1_000_000) for node in self.nodes)

    async def evidence(self, **more: Any) -> Evidence:
        """Everything, read while no node works any more. What the nodes have logged shows no password."""
        assert PASSWORD not in self.logs()
        store = self.store()
        await store.open()
        try:
            stored = await read_all(store)
            complaints = [*await store.check(), *self.site.damage()]
        finally:
            await store.close()
        with (self.directory / "faults").open("wb") as file:  # for whoever looks into a failure
            for fault in self.faults:
                append(file.fileno(), asdict(fault))
        trace = self.trace()
        return Evidence(
            ledger=self.ledger(),
            trace=trace,
            acks=[*self.acks, *(Ack(**ack) for ack in trace.acks)],
            faults=self.faults,
            stored=stored,
            complaints=complaints,
            programs=workflows.PROGRAMS,
            **more,
        )

    def calm(self) -> list[Shift]:
        """When a process was there to work, and nothing kept it from it."""
        now = time.monotonic()
        over = [fault for fault in self.faults if fault.kind in ("kill", "term")]
        shifts = []
        for node in self.nodes:
            if node.is_ready:
                # In a long run process ids come again.
                ends = (fault.at for fault in over if fault.pid == node.pid and fault.at >= node.began)
                shifts.append(Shift(node.pid, node.began, min(ends, default=now)))
        return undisturbed(shifts, self.faults, self.site.outages)


async def read_all(store: DurableStore) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    cursor: str | None = None
    while True:
        page = await store.query(Query(limit=500, cursor=cursor))
        for row in page.rows:
            found[row.id] = Stored(row, await store.history(row.id), await store.inbox(row.id))
        cursor = page.cursor
        if cursor is None:
            return found


def damage(database: Path) -> list[str]:
    """What SQLite itself finds wrong with the file."""
    db = sqlite3.connect(database)
    try:
        return [
            f"integrity_check: {text}" for (text,) in db.execute("PRAGMA integrity_check") if text != "ok"
        ]
    finally:
        db.close()


def seed() -> int:
    """From the environment, so that a run can be repeated; else the same each day, and a new one for a long run."""
    given = os.environ.get("DURABLE_TEST_SEED")
    if given:
        return int(given)
    return random.SystemRandom().randrange(2**32) if os.environ.get("DURABLE_TEST_LONG") == "1" else 1


def spread(seconds: Iterable[float]) -> str:
    """As a person reads it."""
    values = sorted(seconds) or [0.0]
    p50, p99 = (values[min(int(len(values) * share), len(values) - 1)] for share in (0.5, 0.99))
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, at most {values[-1]:.2f} s"


async def until_all_ended(client: Durable, *, within: float) -> None:
    """Come back when no execution is left that has not ended, or when time is up: an invariant will tell."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with suppress(StoreUnavailable):
            counts = await client.operator.counts()
            if not any(number for status, number in counts.items() if not status.final):
                return
        await asyncio.sleep(0.1)
    with suppress(Exception):
        for status, number in (await client.operator.counts()).items():
            if number and not status.final:
                print(f"{number} executions are still {status}")
