"""Reads of what waits: gates, their limits, queues."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from heapq import merge
from itertools import islice
from math import ceil
from typing import Final

from durable.backends.redis import scripts
from durable.backends.redis.gates import GATE_KINDS
from durable.backends.redis.keys import Partition
from durable.backends.redis.records import as_bytes, as_int, as_list, as_pairs, as_words, unpack_doorbell
from durable.backends.redis.replies import Reply
from durable.backends.redis.verbs import Verbs
from durable.protocols import Depth, GateRow, Holding

_INSTANT: Final = 16
_PLACE: Final = 2 * _INSTANT
_AT_ONCE: Final = 64
_PAGE: Final = 1_000
_HAIR: Final = 1e-3


async def gate(verbs: Verbs, name: str) -> GateRow | None:
    [row] = await _rows(verbs, verbs.space.partition_of(name), [name])
    return row


async def gates(verbs: Verbs, after: str, limit: int) -> Sequence[GateRow]:
    """Those of all partitions, merged."""
    pages = await asyncio.gather(
        *[
            verbs.wire.call(
                "ZRANGEBYLEX",
                part.gates,
                f"({after}" if after else "-",
                "+",
                "LIMIT",
                0,
                limit,
                key=part.gates,
            )
            for part in verbs.space.partitions
        ]
    )
    names = [name.decode() for name in islice(merge(*map(as_words, pages)), limit)]
    by_part: dict[int, list[str]] = {}
    for name in names:
        by_part.setdefault(verbs.space.partition_of(name).number, []).append(name)
    asked = [
        _rows(verbs, verbs.space.partitions[number], mine[first : first + _AT_ONCE])
        for number, mine in by_part.items()
        for first in range(0, len(mine), _AT_ONCE)
    ]
    rows = {row.name: row for found in await asyncio.gather(*asked) for row in found if row is not None}
    return [rows[name] for name in names if name in rows and (rows[name].held or rows[name].waiting)]


async def _rows(verbs: Verbs, part: Partition, names: Sequence[str]) -> Sequence[GateRow | None]:
    keys = [key for name in names for key in verbs.space.of_gate(name).row]
    reply = await verbs.wire.run(scripts.GATES, (part.limits, *keys), names)
    now, found = as_list(reply)
    return [_row(name, each, as_int(now)) for name, each in zip(names, as_list(found), strict=True)]


def _row(name: str, found: Reply, now: int) -> GateRow | None:
    if found is None:
        return None
    kind, limit, per, burst, arrival, override, slots, held, waiting, oldest, counted = as_list(found)
    held, waiting, oldest = as_int(held), as_int(waiting), as_bytes(oldest)
    override = as_bytes(override).rpartition(b" ")[2]
    declared = int(as_bytes(limit))
    now_holds = int(override) if override.isdigit() else declared
    arrival_at = float(as_bytes(arrival))
    if not (held or waiting or counted or arrival_at > now):
        return None
    opens_at = None
    if waiting and as_bytes(kind) == b"r" and now_holds:
        opens_at = ceil(arrival_at - int(as_bytes(burst)) * int(as_bytes(per)) / now_holds - _HAIR)
    return GateRow(
        name=name,
        kind=GATE_KINDS[as_bytes(kind)],
        limit=now_holds,
        holdings=[_holding(member) for member in sorted(as_words(slots))],
        held=held,
        waiting=waiting,
        oldest_at=int(oldest) if oldest else None,
        next_at=opens_at,
    )


def _holding(member: bytes) -> Holding:
    execution_id, _, step_id = member[_PLACE:].decode().partition("\0")
    return Holding(execution_id, step_id, int(member[:_INSTANT]))


async def limits(verbs: Verbs) -> Mapping[str, int]:
    """As the partition knows them where they begin."""
    parts = verbs.space.partitions
    found = await asyncio.gather(
        *[verbs.wire.call("HGETALL", part.limits, key=part.limits) for part in parts]
    )
    return {
        rule.decode(): int(limit)
        for part, reply in zip(parts, found, strict=True)
        for rule, packed in as_pairs(reply)
        if verbs.space.partition_of(rule.decode()) is part
        if (limit := packed.rpartition(b" ")[2]) != b"-"
    }


async def depths(verbs: Verbs) -> Sequence[Depth]:
    """What is rung and waits for its next ring is counted one by one, a page at a time; what is ready or held, by the
    index."""
    found = await asyncio.gather(*[_depths(verbs, part) for part in verbs.space.partitions])
    depths: dict[str, Depth] = {}
    for each in (depth for of_part in found for depth in of_part):
        before = depths.get(each.queue, Depth(each.queue, 0, 0, None))
        since = [at for at in (before.oldest_at, each.oldest_at) if at is not None]
        depths[each.queue] = Depth(
            each.queue, before.ready + each.ready, before.held + each.held, min(since, default=None)
        )
    return [depths[queue] for queue in sorted(depths)]


async def _depths(verbs: Verbs, part: Partition) -> Sequence[Depth]:
    depths: list[Depth] = []
    now, rank = 0, b"0"
    while rank:
        reply = await verbs.wire.run(scripts.DEPTHS, (part.ready, part.rung), (rank,))
        at, ready, held, after = as_list(reply)
        now = as_int(at)
        for queue, number, since in map(as_list, as_list(ready)):
            depths.append(Depth(as_bytes(queue).decode(), as_int(number), 0, int(as_bytes(since))))
        for queue, number in map(as_list, as_list(held)):
            depths.append(Depth(as_bytes(queue).decode(), 0, as_int(number), None))
        rank = after if isinstance(after, bytes) else str(as_int(after)).encode()
    for key, until in ((part.rung, "(+inf"), (part.later, str(now))):
        at_rank = 0
        while True:
            page = as_words(
                await verbs.wire.call("ZRANGEBYSCORE", key, "-inf", until, "LIMIT", at_rank, _PAGE, key=key)
            )
            bells = [unpack_doorbell(member) for member in page]
            depths += [Depth(bell.queue, 1, 0, bell.ready_at) for bell in bells if bell.ready_at <= now]
            at_rank += _PAGE
            if len(page) < _PAGE:
                break
    return depths
