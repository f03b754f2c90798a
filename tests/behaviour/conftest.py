"""Worlds to test in: every behaviour holds on every backend, with executions kept in memory and put aside alike.

DURABLE_TEST_LONG=1       on PostgreSQL too, which takes two minutes
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import pytest

from durable.backends import GROUP
from durable.clock import VirtualClock
from durable.ids import Ids
from tests.behaviour.described import check_shapes
from tests.support import World

START_MS = 1_700_000_000_000

_LOCAL: Final = ["memory", "memory, forgetful", "sqlite"]
_SERVERS: Final = [
    pytest.param("redis", marks=pytest.mark.needs("redis_url")),
    pytest.param("redis, rough", marks=pytest.mark.needs("redis_url")),
]
if entry_points(group=GROUP, name="amqp"):
    _SERVERS.append(pytest.param("redis + rabbitmq", marks=pytest.mark.needs("redis_url", "amqp_url")))
if os.environ.get("DURABLE_TEST_LONG") == "1" and entry_points(group=GROUP, name="postgresql"):
    _SERVERS.append(pytest.param("postgresql", marks=pytest.mark.needs("postgres_url")))

ids = Ids()


def _world(request: pytest.FixtureRequest, **options: Any) -> World:
    backend, _, manner = request.param.partition(", ")
    options[manner or "forgetful"] = bool(manner)
    if backend.startswith("redis"):
        if backend == "redis + rabbitmq":
            options["queue"] = request.getfixturevalue("amqp_url")
        namespace = request.getfixturevalue("namespace")
        return World(request.getfixturevalue("redis_url"), namespace=namespace, **options)
    if backend == "postgresql":
        namespace = request.getfixturevalue("namespace")
        return World(request.getfixturevalue("postgres_url"), namespace=namespace, **options)
    if backend == "sqlite":
        directory: Path = request.getfixturevalue("tmp_path")
        return World(f"sqlite:///{directory / 'durable.db'}", **options)
    return World(f"memory://{ids.nonce()}", **options)


@pytest.fixture(params=[*_LOCAL, *_SERVERS])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A world in real time."""
    async with _world(request) as world:
        yield world
        await check_shapes(world)


@pytest.fixture(params=_LOCAL)
async def one_index_world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A world whose ready executions are in one list, and so in a strict order."""
    async with _world(request) as world:
        yield world
        await check_shapes(world)


@pytest.fixture(params=_LOCAL)
async def still_world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A world whose clock stands still until `advance`: a week passes in milliseconds.

    Not on a server, whose clock is its own.
    """
    async with _world(request, clock=VirtualClock(START_MS)) as world:
        yield world
        await check_shapes(world)
