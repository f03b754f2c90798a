"""The ceiling without a server: dicts, and SQLite behind a thread."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import cast, final

from pydantic_core import from_json
from typing_extensions import override

from benchmarks.ceiling_writes import ACCEPT, COMMIT, FIRE, PARK, POST, Store, Write

_SCHEMA = """
CREATE TABLE executions (id TEXT PRIMARY KEY, fence TEXT, input BLOB, result BLOB) WITHOUT ROWID;
CREATE TABLE checkpoints (execution_id TEXT, step_id TEXT, value BLOB, PRIMARY KEY (execution_id, step_id))
    WITHOUT ROWID;
CREATE TABLE timers (execution_id TEXT PRIMARY KEY, wake_at REAL) WITHOUT ROWID;
CREATE INDEX timers_by_instant ON timers (wake_at);
CREATE TABLE signals (seq INTEGER PRIMARY KEY, execution_id TEXT, payload BLOB);
"""


@final
class MemoryStore(Store):
    """A dict for each table."""

    def __init__(self) -> None:
        self._executions: dict[object, dict[str, object]] = {}
        self._checkpoints: dict[object, dict[object, object]] = {}
        self._timers: dict[object, object] = {}
        self._signals: list[object] = []

    @override
    async def write(self, *writes: Write) -> None:
        for statement, about in writes:
            if statement is ACCEPT:
                id, fence, input = about
                assert id not in self._executions
                self._executions[id] = {"fence": fence, "input": input}
            elif statement is COMMIT:
                step_id, value, id, fence = about
                assert self._executions[id]["fence"] == fence
                self._checkpoints.setdefault(id, {})[step_id] = value
            elif statement is POST:
                self._signals.append(about)
            elif statement is PARK:
                wake_at, id, fence = about
                assert self._executions[id]["fence"] == fence
                self._timers[id] = wake_at
            elif statement is FIRE:
                del self._timers[about[0]]
            else:
                result, id, fence = about
                assert self._executions[id]["fence"] == fence
                self._executions[id]["result"] = result

    @override
    async def result(self, id: str) -> object:
        result = self._executions[id]["result"]
        assert isinstance(result, bytes)
        return from_json(result)

    @override
    async def history(self, id: str) -> Sequence[object]:
        return [from_json(cast("bytes", value)) for value in self._checkpoints[id].values()]


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

    @override
    async def history(self, id: str) -> Sequence[object]:
        with sqlite3.connect(self._path) as db:
            found = db.execute("SELECT value FROM checkpoints WHERE execution_id = ?", (id,))
            return [from_json(value) for (value,) in found]

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
