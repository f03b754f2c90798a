"""Processes that write a user's rows and executions together, and are killed around their commits.

`python -m tests.crash.transacting` forks a process for each line that it is sent, as the nursery of `node` does. Each
runs a worker and, beside it, a caller who starts executions in transactions of his own. `MortalStore` lets it kill
itself between the parts of a transaction.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from typing import Any, Final, NoReturn, Protocol, cast

from typing_extensions import override

from durable import Context, Durable, Retry, current_step, step, workflow
from durable.backends import backend_for
from durable.backends.sqlite.location import Location
from durable.backends.wrapped import WrappedStore
from durable.clock import SystemClock
from durable.errors import DurableError, OutcomeUnknown, StoreUnavailable
from durable.protocols import (
    Batch,
    Committed,
    Created,
    Diverged,
    DurableStore,
    Emit,
    Exists,
    Fenced,
    Full,
    Joined,
    Message,
    NewExecution,
    NotPosted,
    Posted,
    Sent,
    Writes,
)
from tests.crash.node import die_with_parent

STEPS: Final = 3
QUICK: Final = Retry(attempts=20, base="1ms", jitter=0)
Row = tuple[str, str, str]
"""Of a user: an execution, a step of it (empty: its start), and the number of the try."""


class UserSide(Protocol):
    """A user's own table in the store's database. A module names one of its URL's kind: `user_side(url)`."""

    async def create(self) -> None: ...

    def connect(self) -> AbstractAsyncContextManager[Any]:
        """A connection of the kind that the store takes."""
        ...

    async def begin(self, connection: Any) -> None: ...

    async def commit(self, connection: Any) -> None: ...

    async def insert(self, connection: Any, row: Row) -> None: ...

    async def rows(self) -> list[Row]: ...


class SqliteSide:
    """On the store's file."""

    def __init__(self, url: str) -> None:
        self._file = Location.parse(url).path

    async def create(self) -> None:
        async with self.connect() as db:
            db.execute("CREATE TABLE user_rows (execution TEXT, step TEXT, try TEXT)")

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, isolation_level=None)) as db:
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("PRAGMA synchronous = NORMAL")
            yield db

    async def begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")

    async def commit(self, connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")

    async def insert(self, connection: sqlite3.Connection, row: Row) -> None:
        connection.execute("INSERT INTO user_rows VALUES (?, ?, ?)", row)

    async def rows(self) -> list[Row]:
        async with self.connect() as db:
            return db.execute("SELECT * FROM user_rows").fetchall()


def user_side(url: str) -> UserSide:
    return SqliteSide(url)


# ---- what the processes run


class _Here:
    """What a process has been told."""

    side: UserSide
    chance: random.Random
    deadly: float


@step(retry=QUICK)
async def put(connection: object, number: int) -> str:
    """Insert a row, and now and then fail after it."""
    info = current_step()
    row = info.execution_id, info.step_id, f"{os.getpid()}:{info.attempt}:{_Here.chance.random()}"
    await _Here.side.insert(connection, row)
    if _Here.chance.random() < 0.1:
        raise RuntimeError("this try is rolled back")
    return row[2]


@workflow(retry=100)
async def ordering(ctx: Context, number: int) -> list[str]:
    first = await ctx.transaction("put0", put, number)
    rest = await ctx.gather(*(ctx.transaction(f"put{n}", put, number) for n in range(1, STEPS)))
    return [first, *rest]


def die_perhaps() -> None:
    if _Here.chance.random() < _Here.deadly:
        os.kill(os.getpid(), signal.SIGKILL)


class MortalStore(WrappedStore):
    """May die before, within and after each commit of a transaction."""

    @override
    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[object]:
        async with super().transaction() as connection:
            yield connection
            die_perhaps()  # everything is written, and nothing committed
        die_perhaps()  # it is committed, and nobody knows

    @override
    async def enlist(self, connection: object) -> Writes:
        die_perhaps()  # a row is written, and no checkpoint
        return MortalWrites(await super().enlist(connection))


class MortalWrites(Writes):
    def __init__(self, within: Writes) -> None:
        self._within = within

    @override
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Joined | Exists:
        answer = await self._within.create(spec, op_id=op_id)
        die_perhaps()
        return answer

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        return await self._within.commit(execution_id, nonce=nonce, ver=ver, op_id=op_id, batch=batch)

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        return await self._within.post(execution_id, message)

    @override
    async def send(self, events: Sequence[Emit], *, op_id: str) -> Sent:
        return await self._within.send(events, op_id=op_id)


def node(url: str, namespace: str, *, worker: bool, mortal: bool = False) -> Durable:
    opener = backend_for(url).open_store
    assert opener is not None
    store: DurableStore = opener(url, namespace=namespace, clock=SystemClock())
    return Durable(
        [ordering],
        store=MortalStore(store) if mortal else store,
        bus=url,
        namespace=namespace,
        worker=worker,
        lease=1.0,
        sweep=0.2,
        drain=0,
        max_crashes=1_000_000,
        concurrency=10,
    )


async def work(url: str, namespace: str, side: str, seed: int, deadly: float, starts: bool) -> None:
    """Until it is killed."""
    _Here.side = cast("UserSide", importlib.import_module(side).user_side(url))
    _Here.chance, _Here.deadly = random.Random(seed), deadly
    async with node(url, namespace, worker=True, mortal=deadly > 0) as durable:
        while starts:
            await start(durable)
            await asyncio.sleep(_Here.chance.uniform(0, 0.1))
        await asyncio.Event().wait()


async def start(durable: Durable) -> None:
    """Write a row and start its execution, in one transaction."""
    side = _Here.side
    try:
        async with side.connect() as connection:
            await side.begin(connection)
            handle = await durable.start(ordering, 7, connection=connection)
            await side.insert(connection, (handle.id, "", ""))
            die_perhaps()
            if _Here.chance.random() < 0.9:
                await side.commit(connection)
            die_perhaps()
    except (StoreUnavailable, OutcomeUnknown, sqlite3.OperationalError):
        pass  # the file was busy


def main() -> None:
    """Answer each line of stdin: `{"boot": [...]}` by a pid, `{"reap": pid}` by its exit status, null while it runs."""
    die_with_parent()
    for line in sys.stdin:
        asked = json.loads(line)
        answer: int | None
        if "boot" in asked:
            answer = os.fork()
            if answer == 0:
                be(asked["boot"])
        else:
            pid, status = os.waitpid(asked["reap"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


def be(settings: dict[str, Any]) -> NoReturn:
    try:
        die_with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        asyncio.run(work(**settings))
    except DurableError as error:
        print(error, file=sys.stderr)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
