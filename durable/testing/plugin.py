"""The pytest plugin: one fixture, and no opinion about how a test's event loop is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from durable.testing.env import DurableEnv


@pytest.fixture
def durable_env() -> type[DurableEnv]:
    """`DurableEnv`, to be entered in the test: `async with durable_env(workflows=[...]) as env: ...`."""
    from durable.testing.env import DurableEnv

    return DurableEnv
