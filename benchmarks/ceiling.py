"""How fast could it be? Bare programs that make just the durable writes that no workflow engine can do without.

Accept, one commit for each step, completion; each commit checks the fence. The last step's commit and the completion
travel together. Nothing else is there: no replay, no retries, no queue, no wake-ups from elsewhere.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import statistics
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, final

from pydantic_core import from_json, to_json
from typing_extensions import override

from benchmarks.figures import Figure, count
from benchmarks.w1_throughput import increased
from benchmarks.worlds import CONCURRENCY, World

FIGURES = tuple(
    Figure(name, higher_is_better=name.endswith("/s"))
    for name in (
        "w1: executions/s",
        "w2: p50 ms",
        "w3: p50 ms",
        "w5: seconds",
        "w6: steps ms",
        "w6: children ms",
    )
)

_NONCE = "fence"

Write = tuple[str, tuple[object, ...]]
"""A statement, and what it is about. Memory understands the same four."""

_ACCEPT = "INSERT INTO executions (id, fence, input) VALUES (?, ?, ?)"
_COMMIT = (
    "INSERT INTO checkpoints (execution_id, step_id, value) "
    "SELECT id, ?, ? FROM executions WHERE id = ? AND fence = ?"
)
_POST = "INSERT INTO signals (execution_id, payload) VALUES (?, ?)"
_COMPLETE = "UPDATE executions SET result = ? WHERE id = ? AND fence = ?"

_SCHEMA = """
CREATE TABLE executions (id TEXT PRIMARY KEY, fence TEXT, input BLOB, result BLOB) WITHOUT ROWID;
CREATE TABLE checkpoints (execution_id TEXT, step_id TEXT, value BLOB, PRIMARY KEY (execution_id, step_id))
    WITHOUT ROWID;
CREATE TABLE signals (seq INTEGER PRIMARY KEY, execution_id TEXT, payload BLOB);
"""


def accept(id: str, input: object) -> Write:
    return _ACCEPT, (id, _NONCE, to_json(input))


def commit(id: str, step_id: str, value: object) -> Write:
    return _COMMIT, (step_id, to_json(value), id, _NONCE)


def post(id: str, payload: object) -> Write:
    return _POST, (id, to_json(payload))


def complete(id: str, result: object) -> Write:
    return _COMPLETE, (to_json(result), id, _NONCE)


class Store(Protocol):
    async def write(self, *writes: Write) -> None:
        """Come back when all of them are stored."""
        ...

    async def result(self, id: str) -> object: ...


@final
class MemoryStore(Store):
    """A dict for each table."""

    def __init__(self) -> None:
        self._executions: dict[object, dict[str, object]] = {}
        self._checkpoints: dict[tuple[object, object], object] = {}
        self._signals: list[object] = []

    @override
    async def write(self, *writes: Write) -> None:
        for statement, about in writes:
            if statement is _ACCEPT:
                id, fence, input = about
                assert id not in self._executions
                self._executions[id] = {"fence": fence, "input": input}
            elif statement is _COMMIT:
                step_id, value, id, fence = about
                assert self._executions[id]["fence"] == fence
                self._checkpoints[id, step_id] = value
            elif statement is _POST:
                self._signals.append(about)
            else:
                result, id, fence = about
                assert self._executions[id]["fence"] == fence
                self._executions[id]["result"] = result

    @override
    async def result(self, id: str) -> object:
        result = self._executions[id]["result"]
        assert isinstance(result, bytes)
        return from_json(result)


@final
class SqliteStore(Store):
    """A thread that puts all that waits into one transaction."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._path, self._synchronous = path, synchronous
        self._waiting: queue.SimpleQueue[tuple[Sequence[Write], asyncio.Future[None]] | None] = (
            queue.SimpleQueue()
        )
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @override
    async def write(self, *writes: Write) -> None:
        stored = self._loop.create_future()
        self._waiting.put((writes, stored))
        await stored

    @override
    async def result(self, id: str) -> object:
        with sqlite3.connect(self._path) as db:
            return from_json(db.execute("SELECT result FROM executions WHERE id = ?", (id,)).fetchone()[0])

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        db = sqlite3.connect(self._path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.executescript(_SCHEMA)
        going = True
        while going:
            batch = [self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get())
            going = None not in batch
            work = [each for each in batch if each is not None]
            db.execute("BEGIN IMMEDIATE")
            for writes, _ in work:
                for statement, about in writes:
                    assert db.execute(statement, about).rowcount == 1
            db.execute("COMMIT")
            if work:
                self._loop.call_soon_threadsafe(_tell, [stored for _, stored in work])
        db.close()


def _tell(stored: Sequence[asyncio.Future[None]]) -> None:
    for each in stored:
        if not each.done():
            each.set_result(None)


@asynccontextmanager
async def open_store(world: World) -> AsyncIterator[Store]:
    if world.backend == "memory":
        yield MemoryStore()
        return
    store = SqliteStore(world.directory / "ceiling.db", world.backend.removeprefix("sqlite-"))
    try:
        yield store
    finally:
        store.close()


async def measure(world: World, scale: float) -> dict[str, float]:
    async with open_store(world) as store:
        await _execution(store, "warm", 5, 0)
        return {
            "w1: executions/s": await _w1(store, count(2000, scale)),
            "w2: p50 ms": await _w2(store, count(300, scale)),
            "w3: p50 ms": await _w3(store, count(200, scale)),
            "w5: seconds": await _w5(store, count(2000, scale)),
            "w6: steps ms": await _w6_steps(store, count(200, scale)),
            "w6: children ms": await _w6_children(store, count(200, scale)),
        }


async def _execution(store: Store, id: str, steps: int, n: int) -> None:
    await store.write(accept(id, n))
    for step in range(steps - 1):
        n = (await increased(n))["n"]
        await store.write(commit(id, f"increase#{step}", {"n": n}))
    n = (await increased(n))["n"]
    await store.write(commit(id, "last", {"n": n}), complete(id, n))


async def _w1(store: Store, executions: int) -> float:
    numbers = iter(range(executions))

    async def work() -> None:
        for n in numbers:
            await _execution(store, f"w1-{n}", 5, n)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    seconds = time.perf_counter() - began
    for n in range(executions):
        assert n % 50 or await store.result(f"w1-{n}") == n + 5
    return executions / seconds


async def _w2(store: Store, executions: int) -> float:
    seconds: list[float] = []
    for n in range(executions):
        began = time.perf_counter()
        await _execution(store, f"w2-{n}", 1, n)
        seconds.append(time.perf_counter() - began)
    assert await store.result("w2-0") == 1
    return statistics.median(seconds) * 1000


async def _w3(store: Store, executions: int) -> float:
    seconds: list[float] = []
    for n in range(executions):
        id = f"w3-{n}"
        await store.write(accept(id, n))
        began = time.perf_counter()
        await store.write(post(id, 1000))
        await store.write(commit(id, "wait", 1000), complete(id, n + 1000))
        seconds.append(time.perf_counter() - began)
    assert await store.result("w3-0") == 1000
    return statistics.median(seconds) * 1000


async def _w5(store: Store, steps: int) -> float:
    began = time.perf_counter()
    await _execution(store, "w5", steps, 0)
    seconds = time.perf_counter() - began
    assert await store.result("w5") == steps
    return seconds


async def _w6_steps(store: Store, width: int) -> float:
    async def step(n: int) -> int:
        value = await increased(n)
        await store.write(commit("w6-steps", f"increase-{n}", value))
        return value["n"]

    began = time.perf_counter()
    await store.write(accept("w6-steps", width))
    results = await asyncio.gather(*(step(n) for n in range(width)))
    await store.write(complete("w6-steps", sum(results)))
    seconds = time.perf_counter() - began
    assert await store.result("w6-steps") == width * (width + 1) // 2
    return seconds * 1000


async def _w6_children(store: Store, width: int) -> float:
    began = time.perf_counter()
    await store.write(accept("w6-children", width))
    await asyncio.gather(*(_execution(store, f"w6-child-{n}", 1, n) for n in range(width)))
    await store.write(
        *(commit("w6-children", f"child-{n}", n + 1) for n in range(width)), complete("w6-children", width)
    )
    seconds = time.perf_counter() - began
    assert await store.result("w6-child-0") == 1
    return seconds * 1000
