"""Reads: plain commands, in one pipeline where there are several."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from durable.backends.redis import scripts
from durable.backends.redis.records import (
    as_bytes,
    as_int,
    as_list,
    as_pairs,
    as_words,
    status_prefix,
    unpack_consumed,
    unpack_entries,
    unpack_history,
    unpack_row,
)
from durable.backends.redis.verbs import Verbs
from durable.models import ExecutionStatus
from durable.protocols import Checkpoint, ExecutionRow, InboxEntry, Live, WorkerInfo


async def live(verbs: Verbs) -> Live:
    space = verbs.space
    now, found = as_list(await verbs.wire.run(scripts.LIVE, (space.leases, space.infos), ()))
    words = as_words(found)
    leases = zip(words[::3], words[1::3], words[2::3], strict=True)
    workers = [WorkerInfo(worker.decode(), int(float(until)), info) for worker, until, info in leases]
    return Live({worker.id: worker for worker in workers}, as_int(now))


async def row(verbs: Verbs, execution_id: str) -> ExecutionRow | None:
    key = verbs.space.of(execution_id).x
    fields = dict(as_pairs(await verbs.wire.call("HGETALL", key, key=key)))
    return unpack_row(execution_id, fields) if fields else None


async def rows(verbs: Verbs, ids: Sequence[str]) -> Sequence[ExecutionRow | None]:
    return await asyncio.gather(*[row(verbs, execution_id) for execution_id in ids])


async def history(verbs: Verbs, execution_id: str) -> Sequence[Checkpoint]:
    key = verbs.space.of(execution_id).history
    return unpack_history(await verbs.wire.call("HGETALL", key, key=key))


async def inbox(verbs: Verbs, execution_id: str) -> Sequence[InboxEntry]:
    """All entries. One that is taken between the two reads is told as it was before."""
    keys = verbs.space.of(execution_id)
    unread, consumed = await asyncio.gather(
        verbs.wire.call("ZRANGE", keys.unread, 0, -1, key=keys.unread),
        verbs.wire.call("HVALS", keys.consumed, key=keys.consumed),
    )
    entries = {entry.seq: entry for entry in map(unpack_consumed, as_words(consumed))}
    entries.update({entry.seq: entry for entry in unpack_entries(unread)})
    return [entries[seq] for seq in sorted(entries)]


async def peek(verbs: Verbs, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
    keys = {execution_id: verbs.space.of(execution_id).unread for execution_id in seen}
    replies = await asyncio.gather(
        *[
            verbs.wire.call("ZRANGEBYSCORE", keys[each], f"({seq}", "+inf", key=keys[each])
            for each, seq in seen.items()
        ]
    )
    found = {each: unpack_entries(reply) for each, reply in zip(seen, replies, strict=True)}
    return {each: entries for each, entries in found.items() if entries}


async def value(verbs: Verbs, execution_id: str, name: str) -> bytes | None:
    key = verbs.space.of(execution_id).values
    reply = await verbs.wire.call("HGET", key, name, key=key)
    return None if reply is None else as_bytes(reply)


async def counts(verbs: Verbs) -> Mapping[ExecutionStatus, int]:
    asked = [(part, status) for part in verbs.space.partitions for status in ExecutionStatus]
    replies = await asyncio.gather(
        *[
            verbs.wire.call(
                "ZLEXCOUNT",
                part.index,
                f"[{status_prefix(status)}",
                f"({status_prefix(status)}:",
                key=part.index,
            )
            for part, status in asked
        ]
    )
    counted = Counter[ExecutionStatus]()
    for (_, status), reply in zip(asked, replies, strict=True):
        counted[status] += as_int(reply)
    return {status: number for status, number in counted.items() if number}


async def paused_queues(verbs: Verbs) -> Sequence[str]:
    key = verbs.space.paused
    return sorted(queue.decode() for queue in as_words(await verbs.wire.call("SMEMBERS", key, key=key)))


async def first_timer(verbs: Verbs) -> int | None:
    firsts = await asyncio.gather(
        *(
            verbs.wire.call("ZRANGE", part.timers, 0, 0, "WITHSCORES", key=part.timers)
            for part in verbs.space.partitions
        )
    )
    return min((int(float(score)) for first in firsts for _, score in as_pairs(first)), default=None)
