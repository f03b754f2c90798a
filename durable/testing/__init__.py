"""What tests are made of: a world for a workflow, and the conformance suites of backends.

`StoreContract`, `QueueContract` and `BusContract` need pytest, and import it only when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durable.testing.contracts.bus import BusContract
    from durable.testing.contracts.queue import QueueContract
    from durable.testing.contracts.store import StoreContract
    from durable.testing.env import DurableEnv
    from durable.testing.histories import read_histories, replay_history, restore

__all__ = [
    "BusContract",
    "DurableEnv",
    "QueueContract",
    "StoreContract",
    "read_histories",
    "replay_history",
    "restore",
]

_MODULES = {
    "BusContract": "contracts.bus",
    "DurableEnv": "env",
    "QueueContract": "contracts.queue",
    "StoreContract": "contracts.store",
    "read_histories": "histories",
    "replay_history": "histories",
    "restore": "histories",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"durable.testing.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
