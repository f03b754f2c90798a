"""What executions cost on SQLite, in transactions and statements: each transaction is one wait for the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from durable import Context, Durable, Signal, workflow
from tests.support import CountingStore, World, until

NO_POLLS: Final = {"sweep": "1h", "lease": "1h"}
Go = Signal("go")


@workflow
async def steps(ctx: Context, count: int) -> int:
    for number in range(count):
        await ctx.step("work", lambda number=number: number)
    return count


@workflow
async def waits(ctx: Context) -> int:
    await ctx.wait_for_signal(Go)
    return 1


class Traced:
    """A node, and what it has the file do."""

    def __init__(self, store: CountingStore, node: Durable, statements: list[str]) -> None:
        self.store = store
        self.node = node
        self._statements = statements

    async def rests(self) -> None:
        await until(lambda: self.node.worker.idle and self.node.worker.dispatcher.active == 0)

    async def begins(self) -> None:
        await self.rests()
        self.store.reset()
        self._statements.clear()

    @property
    def done(self) -> tuple[int, int]:
        """Transactions that wrote, and statements, looks at whether another process has written not counted."""
        first = Counter(statement.split()[0].upper() for statement in self._statements)
        others = ("BEGIN", "COMMIT", "PRAGMA", "SAVEPOINT", "RELEASE", "ROLLBACK")
        return first["COMMIT"], sum(first.values()) - sum(first[word] for word in others)


@pytest.fixture
async def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Traced]:
    statements: list[str] = []
    connect = sqlite3.connect

    def traced_connect(*args: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*args, **options)
        db.set_trace_callback(statements.append)
        return db

    monkeypatch.setattr(sqlite3, "connect", traced_connect)
    async with World(f"sqlite:///{tmp_path / 'durable.db'}") as world:
        store = CountingStore(world.store())
        node = await world.node(steps, waits, store=store, **NO_POLLS)
        traced = Traced(store, node, statements)
        # Whatever is done once is done after this, and the first sweep is over.
        assert await node.start_and_wait(steps, 2, timeout=5) == 2
        await until(lambda: store.calls["tick"] and store.calls["due"])
        await traced.begins()
        yield traced


@pytest.mark.parametrize("count", [1, 5, 20])
async def test_a_start_with_its_claim_is_at_most_two_transactions_and_each_step_one(
    traced: Traced, count: int
) -> None:
    assert await traced.node.start_and_wait(steps, count, timeout=5) == count
    await traced.rests()
    transactions, statements = traced.done
    assert transactions <= 2 + count
    assert statements <= 10 + 2 * count


async def test_a_wait_that_is_answered_costs_three_transactions(traced: Traced) -> None:
    handle = await traced.node.start(waits)
    await until(lambda: traced.store.calls["commit"] == 1)
    await traced.begins()
    await handle.signal(Go)
    await until(lambda: traced.store.calls["commit"] == 1)
    await traced.rests()
    transactions, statements = traced.done
    assert transactions <= 3
    assert statements <= 13


async def test_what_comes_together_is_stored_together(traced: Traced) -> None:
    handles = await asyncio.gather(*(traced.node.start(steps, 5) for _ in range(100)))
    await asyncio.gather(*(handle.result(10) for handle in handles))
    await traced.rests()
    transactions, statements = traced.done
    assert transactions <= 60, "of 700 writes"
    assert statements <= 600
