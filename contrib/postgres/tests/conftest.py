"""Databases to test on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.postgres_world import StillDatabase, stop_the_clock

from tests.brokers.postgres_server import database
from tests.crash.conftest import nursery  # noqa: F401  (a fixture)


@pytest.fixture(scope="session")
def still(postgres_url: str) -> Iterator[StillDatabase]:
    """A database whose clock stands still until a test lets time pass."""
    with database(postgres_url) as url:
        asyncio.run(stop_the_clock(url))
        yield StillDatabase(url)
