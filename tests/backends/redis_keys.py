"""The keys of a namespace on a Redis, for tests that look at them or clean up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

from durable.backends.redis.keys import Keyspace
from durable.backends.redis.wire import Wire


async def keys_of(wire: Wire, space: Keyspace) -> AsyncIterator[tuple[bytes, str]]:
    """Each key of each partition, with one by which its partition's node is found."""
    for part in space.partitions:
        cursor = b"0"
        while True:
            reply = await wire.call("SCAN", cursor, "MATCH", f"{part.prefix}*", "COUNT", 1000, key=part.index)
            cursor, keys = cast("tuple[bytes, list[bytes]]", reply)
            for key in keys:
                yield key, part.index
            if cursor == b"0":
                break


async def forget(wire: Wire, space: Keyspace) -> None:
    """Delete the namespace, so that it is in no other test's way."""
    async for key, routed_by in keys_of(wire, space):
        await wire.call("UNLINK", key, key=routed_by, op_id="test")
    for key in (space.meta, space.leases, space.infos, space.paused):
        await wire.call("UNLINK", key, key=key, op_id="test")
