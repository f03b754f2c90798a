"""What the tests of SQLite share: an execution's way in few words, and other processes."""

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from durable.backends.sqlite import SqliteStore
from durable.ids import Ids
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Checkpoint,
    CheckpointStatus,
    Claimed,
    Close,
    Committed,
    Created,
    Message,
    MessageKind,
    NewExecution,
    Next,
    Out,
    Park,
    Run,
    Wanted,
)

WANTED = Wanted(("default",), frozenset({"order@1"}))
DONE = Close(ExecutionStatus.COMPLETED, b"42")
PARK = Park(ExecutionStatus.WAITING)
RUN = Run()
ids = Ids()

PREAMBLE = """
import asyncio, os, sys
from pathlib import Path
import pytest
from durable.errors import OutcomeUnknown, StoreUnavailable
from durable.protocols import Posted
from tests.backends.sqlite_world import *
"""


@contextlib.asynccontextmanager
async def opened(store: SqliteStore) -> AsyncIterator[SqliteStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def new(id: str | None = None, **fields: Any) -> NewExecution:
    return NewExecution(id or ids.execution_id(), "order", "1", fields.pop("input", b"{}"), **fields)


async def create(store: SqliteStore, id: str | None = None, **fields: Any) -> str:
    answer = await store.create(new(id, **fields), op_id=ids.nonce())
    assert isinstance(answer, Created), answer
    return answer.id


async def own(store: SqliteStore, id: str) -> str:
    nonce = ids.nonce()
    answer = await store.claim(id, nonce=nonce, worker="w")
    assert isinstance(answer, Claimed), answer
    return nonce


def record(step_id: str, data: bytes = b"") -> Checkpoint:
    return Checkpoint(step_id, "step", step_id, CheckpointStatus.COMPLETED, data)


async def commit(
    store: SqliteStore,
    id: str,
    nonce: str,
    ver: int,
    next: Next = RUN,
    *,
    checkpoints: Sequence[Checkpoint] = (),
    out: Sequence[Out] = (),
    op_id: str = "",
) -> object:
    batch = Batch(0, next, checkpoints, out=out)
    return await store.commit(id, nonce=nonce, ver=ver, op_id=op_id or ids.nonce(), batch=batch)


async def complete(store: SqliteStore, id: str | None = None, **fields: Any) -> str:
    id = await create(store, id, **fields)
    assert isinstance(await commit(store, id, await own(store, id), 0, DONE), Committed)
    return id


def message(id: str = "m") -> Message:
    return Message(id, MessageKind.SIGNAL, "go")


def run(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that runs a program with what this module has."""
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(program), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )


def ends_well(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    return output


async def pragma(store: SqliteStore, statement: str) -> object:
    assert store._opened is not None
    return (await store._opened.writer.submit(lambda unit: unit.db.execute(statement).fetchone()))[0]
