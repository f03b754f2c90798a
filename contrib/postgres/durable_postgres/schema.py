"""The schema `durable` of a database: made and migrated when a store is opened, by whoever comes first.

A step, once released, never changes. A newer one may add what older processes need not know; `min_writer` says which
may still write.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from durable.errors import StoreUnavailable
from durable_postgres.driver import Connection

VERSION: Final = 1
OLDEST_SERVER: Final = 130000

_STEPS: Final = (
    (
        "1_tables.sql",
        "2_types.sql",
        "3_moves.sql",
        "4_gates.sql",
        "5_events.sql",
        "6_verbs.sql",
        "7_sweeps.sql",
        "8_queue.sql",
        "9_transactions.sql",
    ),
)
_LOCK: Final = "SELECT pg_advisory_xact_lock(1146442306, 0)"
_IS_THERE: Final = "SELECT to_regnamespace('durable') IS NOT NULL, to_regclass('durable.meta') IS NOT NULL"
_VERSION: Final = "SELECT version, min_writer FROM durable.meta"
_SERVER: Final = "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding')"
_NAMESPACE: Final = "SELECT ns FROM durable.namespaces WHERE name = $1"
_ADD_NAMESPACE: Final = "INSERT INTO durable.namespaces (name) VALUES ($1) ON CONFLICT DO NOTHING"


async def check_server(connection: Connection) -> None:
    """Raises: `StoreUnavailable`."""
    row = await connection.fetchrow(_SERVER)
    assert row is not None
    number, encoding = row
    if number < OLDEST_SERVER:
        raise StoreUnavailable(
            f"PostgreSQL {number // 10000} is too old", f"use {OLDEST_SERVER // 10000} or newer"
        )
    if encoding != "UTF8":
        raise StoreUnavailable(
            f"the database has the encoding {encoding}", "create one with ENCODING 'UTF8' TEMPLATE template0"
        )


async def migrate(connection: Connection) -> None:
    """Create the schema, or bring it to this version; two at once do it once.

    Raises: `StoreUnavailable` when there is a schema of this name that is not ours, or a newer one.
    """
    if await _stored_version(connection) >= VERSION:
        return
    await connection.execute("BEGIN")
    try:
        await connection.execute(_LOCK)
        version = await _stored_version(connection)
        if version == 0:
            await connection.execute("CREATE SCHEMA durable")
        for step in _STEPS[version:]:
            for name in step:
                script = (files("durable_postgres") / "sql" / name).read_text()
                await connection.execute(script)
    except BaseException:
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")


async def namespace_number(connection: Connection, name: str) -> int:
    """What stands for a namespace in all tables."""
    found = await connection.fetchrow(_NAMESPACE, name)
    if found is None:
        await connection.fetch(_ADD_NAMESPACE, name)
        found = await connection.fetchrow(_NAMESPACE, name)
    assert found is not None
    number: int = found[0]
    return number


async def _stored_version(connection: Connection) -> int:
    """Zero: there is none."""
    row = await connection.fetchrow(_IS_THERE)
    assert row is not None
    has_schema, is_ours = row
    if not has_schema:
        return 0
    stored = await connection.fetchrow(_VERSION) if is_ours else None
    if stored is None:
        raise StoreUnavailable(
            "the database has a schema named durable that is of another application",
            "give durable a database of its own; this one was left as it was",
        )
    version: int = stored[0]
    if stored[1] > VERSION:
        raise StoreUnavailable(
            f"the database was upgraded by a newer durable-postgres: it asks for schema {stored[1]}, "
            f"this one has {VERSION}",
            "upgrade durable-postgres in this process; a database is never taken back to an older schema",
        )
    return version
