"""Executions in a file: the embedded backend, for any number of processes of one host.

"sqlite:///orders.db"                      a file of the working directory
"sqlite:////var/lib/shop/orders.db"        an absolute path
"sqlite:///orders.db?synchronous=normal"   faster, may lose the last moments in a power loss
"sqlite:///orders.db?foreign_keys=on"      `ctx.transaction` gives connections that enforce them

The file is authoritative. `SqliteBus` says "something has changed", which it knows from the file as well.
"""

from __future__ import annotations

from typing import Final

from durable.backends import Backend
from durable.backends.sqlite.bus import SqliteBus
from durable.backends.sqlite.location import Location
from durable.backends.sqlite.store import SqliteStore
from durable.clock import Clock

__all__ = ["SqliteBus", "SqliteStore", "backend"]


def open_store(url: str, *, namespace: str, clock: Clock) -> SqliteStore:
    location = Location.parse(url)
    return SqliteStore(
        location.path,
        namespace,
        clock,
        synchronous=location.synchronous,
        foreign_keys=location.foreign_keys,
    )


def open_bus(url: str, *, namespace: str, clock: Clock) -> SqliteBus:
    return SqliteBus(Location.parse(url).path, namespace, clock)


backend: Final = Backend(open_store=open_store, open_bus=open_bus)
