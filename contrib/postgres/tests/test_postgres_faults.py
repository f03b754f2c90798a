"""A PostgreSQL that is killed, paused, cut off and blocked while workers die: nothing is lost, changed or done twice
needlessly.

DURABLE_TEST_SEED=7       the same plan again
DURABLE_TEST_LONG=1       1,000 faults of the server; or as many as DURABLE_TEST_SERVER_FAULTS says
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import asyncpg
import pytest

from tests.brokers.postgres_server import PostgresServer
from tests.crash.chaos import Monkey, survives, worth_showing
from tests.crash.fleet import Fleet, Nursery, Site, seed

_IS_LONG = os.environ.get("DURABLE_TEST_LONG") == "1"
WORKERS = 8 if _IS_LONG else 3
WORKER_FAULTS = int(os.environ.get("DURABLE_TEST_KILLS", "5000" if _IS_LONG else "30"))
SERVER_FAULTS = int(os.environ.get("DURABLE_TEST_SERVER_FAULTS", "1000" if _IS_LONG else "10"))

pytestmark = pytest.mark.timeout(200 + 2 * WORKER_FAULTS + 5 * SERVER_FAULTS)

SESSIONS = "FROM pg_stat_activity WHERE application_name = 'durable'"
LOCK_SOME = """
    SELECT n FROM durable.executions WHERE n IN (
        SELECT n FROM durable.executions WHERE state <> 'closed' ORDER BY random() LIMIT 30
    ) ORDER BY n DESC FOR UPDATE
"""
SOME = "SELECT n FROM durable.executions WHERE state <> 'closed' ORDER BY n DESC LIMIT 15"
LOCK_ONE = "SELECT n FROM durable.executions WHERE n = $1 FOR UPDATE"
READ_ONLY = "ALTER DATABASE postgres SET default_transaction_read_only = on"
READ_WRITE = "ALTER DATABASE postgres RESET default_transaction_read_only"


async def test_nothing_is_lost_while_postgresql_and_workers_are_ill_treated(
    nursery: Nursery, tmp_path: Path, private_postgres: PostgresServer, namespace: str
) -> None:
    plan = seed()
    outages = ("postgres killed", "postgres paused", "postgres read-only")
    site = Site(private_postgres.url, namespace=namespace, outages=outages)
    fleet = Fleet(nursery, tmp_path, site)
    server = ServerNemesis(fleet, private_postgres, random.Random(plan + 2), SERVER_FAULTS)
    workers = Monkey(fleet, random.Random(plan + 1), WORKER_FAULTS, workers=WORKERS)
    wanted = worth_showing(WORKER_FAULTS) | {"server faults": SERVER_FAULTS, "postgres killed": 2}
    evidence = await survives(fleet, plan, [server, workers], wanted)
    print({kind: number for kind, number in evidence.figures.items() if kind.startswith("postgres")})


@final
class ServerNemesis:
    """Does one thing after another to the server. Each heals it before the next."""

    def __init__(self, fleet: Fleet, server: PostgresServer, chance: random.Random, faults: int) -> None:
        self._fleet = fleet
        self._server = server
        self._chance = chance
        acts: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("postgres killed", self._kill),
            ("postgres killed", self._kill),
            ("postgres paused", self._pause),
            ("postgres connections cut", lambda: self._ask(f"SELECT pg_terminate_backend(pid) {SESSIONS}")),
            ("postgres connections cut", lambda: self._ask(f"SELECT pg_terminate_backend(pid) {SESSIONS}")),
            ("postgres statements cancelled", lambda: self._ask(f"SELECT pg_cancel_backend(pid) {SESSIONS}")),
            ("postgres rows locked in an idle transaction", self._sit_on_rows),
            ("postgres rows locked in another order", self._cross),
            ("postgres rows locked in another order", self._cross),
            ("postgres read-only", self._stand_by),
        ]
        plan = [*acts, *chance.choices(acts, k=max(0, faults - len(acts)))]
        chance.shuffle(plan)
        self._plan = plan[:faults]

    async def begin(self) -> None:
        pass

    async def run(self) -> None:
        for kind, act in self._plan:
            await asyncio.sleep(self._chance.uniform(0.2, 1.2))
            async with self._fleet.fault(kind):
                await act()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self._server.url)
        try:
            yield connection
        finally:
            await connection.close()

    async def _ask(self, statement: str) -> None:
        async with self._session() as session:
            await session.execute(statement)

    async def _kill(self) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.sleep(self._chance.uniform(0, 0.5))
        await asyncio.to_thread(self._server.start)

    async def _pause(self) -> None:
        self._server.pause()
        try:
            await asyncio.sleep(self._chance.uniform(0.1, 10.0 if _IS_LONG else 2.5))
        finally:
            self._server.resume()

    async def _sit_on_rows(self) -> None:
        async with self._session() as session:
            with contextlib.suppress(asyncpg.DeadlockDetectedError):
                async with session.transaction():
                    await session.execute(LOCK_SOME)
                    await asyncio.sleep(self._chance.uniform(0.2, 1.5))

    async def _cross(self) -> None:
        """Take rows one by one, the youngest first, while others take them the oldest first."""
        async with self._session() as session:
            for _ in range(5):
                with contextlib.suppress(asyncpg.DeadlockDetectedError):
                    async with session.transaction():
                        for row in await session.fetch(SOME):
                            await session.execute(LOCK_ONE, row["n"])
                            await asyncio.sleep(0.01)

    async def _stand_by(self) -> None:
        await self._ask(READ_ONLY)
        await self._ask(f"SELECT pg_terminate_backend(pid) {SESSIONS}")
        try:
            await asyncio.sleep(self._chance.uniform(0.2, 1.5))
        finally:
            async with self._session() as session:
                await session.execute("SET default_transaction_read_only = off")
                await session.execute(READ_WRITE)
            await self._ask(f"SELECT pg_terminate_backend(pid) {SESSIONS}")
