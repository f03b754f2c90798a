"""Everything in this process, and gone with it: for tests, for development, and as the reference of a store.

"memory://"        a store of its own, each time
"memory://orders"  one store for all who name it, in this process and in one namespace

MemoryStore ── decides ──▶ Tables ── of ──▶ Record
                             └── sorted by ──▶ Agenda, ReadyIndex
"""

from __future__ import annotations

import re
from typing import Final

from durable.backends import Backend
from durable.backends.memory.bus import MemoryBus
from durable.backends.memory.store import MemoryStore
from durable.clock import Clock
from durable.errors import ConfigurationError
from durable.redact import redact_url

__all__ = ["MemoryBus", "MemoryStore", "backend"]

_URL: Final = re.compile(r"memory://([A-Za-z0-9._-]{0,100})", re.IGNORECASE)


def _name(url: str) -> str:
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigurationError(
            f"{redact_url(url)!r} is no memory URL", "write memory:// or memory://name; it takes no options"
        )
    return match[1]


def open_store(url: str, *, namespace: str, clock: Clock) -> MemoryStore:
    return MemoryStore(clock, namespace, name=_name(url))


def open_bus(url: str, *, namespace: str, clock: Clock) -> MemoryBus:
    return MemoryBus(namespace, name=_name(url))


backend: Final = Backend(open_store=open_store, open_bus=open_bus)
