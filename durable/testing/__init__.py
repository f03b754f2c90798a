"""What tests are made of: a world for a workflow, and the conformance suites of backends.

`StoreContract`, `QueueContract` and `BusContract` need pytest, and `StoreModel` needs hypothesis; they import it only
when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durable.testing.contracts.bus import BusContract
    from durable.testing.contracts.queue import QueueContract
    from durable.testing.contracts.store import StoreContract
    from durable.testing.env import DurableEnv
    from durable.testing.model import StoreModel, World

__all__ = ["BusContract", "DurableEnv", "QueueContract", "StoreContract", "StoreModel", "World"]

_MODULES = {
    "BusContract": "contracts.bus",
    "DurableEnv": "env",
    "QueueContract": "contracts.queue",
    "StoreContract": "contracts.store",
    "StoreModel": "model",
    "World": "model",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"durable.testing.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
