"""Executions, doorbells and hints in PostgreSQL: a backend for `durable`, for any number of processes and hosts.

"postgresql://user:password@host:5432/database"              a database; durable's tables are in its schema `durable`
"postgresql://host/database?sslmode=verify-full"             with TLS, as libpq has it

The tables are authoritative. `PostgresQueue` and `PostgresBus` carry doorbells and hints.
"""

from __future__ import annotations

from typing import Final

from durable.backends import Backend
from durable.clock import Clock
from durable_postgres.bus import PostgresBus
from durable_postgres.queue import PostgresQueue
from durable_postgres.store import PostgresStore

__all__ = ["PostgresBus", "PostgresQueue", "PostgresStore", "backend"]


def open_store(url: str, *, namespace: str, clock: Clock) -> PostgresStore:
    return PostgresStore(url, namespace)


def open_queue(url: str, *, namespace: str, clock: Clock) -> PostgresQueue:
    return PostgresQueue(url, namespace)


def open_bus(url: str, *, namespace: str, clock: Clock) -> PostgresBus:
    return PostgresBus(url, namespace)


backend: Final = Backend(open_store=open_store, open_queue=open_queue, open_bus=open_bus)
