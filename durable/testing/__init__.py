"""What tests are made of: worlds for a workflow, and the conformance suites of backends.

`StoreContract`, `TransactionsContract`, `QueueContract` and `BusContract` need pytest, and `StoreModel` needs
hypothesis; they import it only when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durable.testing.contracts.bus import BusContract
    from durable.testing.contracts.queue import QueueContract
    from durable.testing.contracts.store import StoreContract
    from durable.testing.contracts.transactions import TransactionsContract
    from durable.testing.crash import CrashReport, crash_everywhere
    from durable.testing.env import DurableEnv
    from durable.testing.histories import read_histories, replay_history, restore
    from durable.testing.model import StoreModel, World
    from durable.testing.simulation.simulate import SimulationReport, simulate

__all__ = [
    "BusContract",
    "CrashReport",
    "DurableEnv",
    "QueueContract",
    "SimulationReport",
    "StoreContract",
    "StoreModel",
    "TransactionsContract",
    "World",
    "crash_everywhere",
    "read_histories",
    "replay_history",
    "restore",
    "simulate",
]

_MODULES = {
    "BusContract": "contracts.bus",
    "CrashReport": "crash",
    "DurableEnv": "env",
    "QueueContract": "contracts.queue",
    "SimulationReport": "simulation.simulate",
    "StoreContract": "contracts.store",
    "read_histories": "histories",
    "replay_history": "histories",
    "restore": "histories",
    "crash_everywhere": "crash",
    "simulate": "simulation.simulate",
    "StoreModel": "model",
    "TransactionsContract": "contracts.transactions",
    "World": "model",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"durable.testing.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
