"""Processes, and the server's ends of their connections, are killed around the commits of their transactions: a user's
rows and the checkpoints always agree.

DURABLE_TEST_SEED=7        the same chances again
DURABLE_TEST_LONG=1        1,000 kills; or as many as DURABLE_TEST_KILLS says
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.brokers.postgres_server import database
from tests.crash.transactions import KILLS, rows_and_checkpoints_agree

CUT_ONE = """
    SELECT count(pg_terminate_backend(pid)) FROM (
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        AND (query LIKE '%COMMIT' OR query LIKE '%\\_text(%' OR query LIKE 'INSERT INTO user_rows%')
        ORDER BY state <> 'active', random() LIMIT 1
    ) AS unlucky
"""
"""That commits, or is about to."""


@pytest.mark.timeout(90 + KILLS)
async def test_a_users_rows_and_the_checkpoints_agree_though_both_ends_are_killed(postgres_url: str) -> None:
    with database(postgres_url) as url:
        async with cutting(url):
            await rows_and_checkpoints_agree(url, "contrib.postgres.tests.postgres_transacting")


@asynccontextmanager
async def cutting(url: str) -> AsyncIterator[None]:
    cut = 0

    async def cut_now_and_then() -> None:
        nonlocal cut
        connection = await asyncpg.connect(url)
        try:
            while True:
                cut += await connection.fetchval(CUT_ONE)
                await asyncio.sleep(random.uniform(0, 0.2))
        finally:
            connection.terminate()

    task = asyncio.create_task(cut_now_and_then())
    try:
        yield
        assert not task.done() or task.result() is None
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        print(f"{cut} connections cut")
    assert cut
