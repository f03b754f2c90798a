"""Worlds to test in: every behaviour holds on every backend, with executions kept in memory and put aside alike."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from durable.clock import VirtualClock
from durable.ids import Ids
from tests.support import World

START_MS = 1_700_000_000_000

ids = Ids()

_has_sqlite = hasattr(importlib.import_module("durable.backends.sqlite"), "backend")
sqlite = pytest.param("sqlite", marks=[] if _has_sqlite else pytest.mark.skip("SQLite is not finished"))


def _url(backend: str, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'durable.db'}" if backend == "sqlite" else f"memory://{ids.nonce()}"


@pytest.fixture(params=["memory", "memory, forgetful", sqlite])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A world in real time."""
    backend, _, forgetful = request.param.partition(", ")
    async with World(_url(backend, tmp_path), forgetful=bool(forgetful)) as world:
        yield world


@pytest.fixture(params=["memory", "memory, forgetful", sqlite])
async def still_world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose clock stands still until `advance`: a week passes in milliseconds."""
    backend, _, forgetful = request.param.partition(", ")
    clock = VirtualClock(START_MS)
    async with World(_url(backend, tmp_path), clock=clock, forgetful=bool(forgetful)) as world:
        yield world
