"""Durable workflows on mystore.

"mystore://place"  what the URL means, and which options it takes
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from durable.backends import Backend
from durable.backends.memory import MemoryBus
from durable.clock import Clock
from durable.errors import ConfigurationError
from durable_mystore.store import MyStore

__all__ = ["MyStore", "backend"]


def open_store(url: str, *, namespace: str, clock: Clock) -> MyStore:
    return MyStore(_place(url), namespace, clock)


def open_bus(url: str, *, namespace: str, clock: Clock) -> MemoryBus:
    """Hints within this process, which is enough for any store; other processes poll."""
    return MemoryBus(namespace)


def _place(url: str) -> str:
    parts = urlsplit(url)
    if not parts.netloc or parts.path or parts.query or parts.fragment:
        # Of a URL that has a password in it, show none of it.
        raise ConfigurationError("that is no URL of mystore", "write mystore://place; it takes no options")
    return parts.netloc


backend: Final = Backend(open_store=open_store, open_bus=open_bus)
