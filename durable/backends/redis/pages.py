"""Pages of executions: those of the partitions, merged, newest first.

A stamp is the instant of creation in 16 digits and the id. An execution stands in the index of its partition under
several prefixes, each time with its stamp, and by its id. A page goes on below the last stamp of the one before,
whatever has come or gone since.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from typing import Final, final

from durable.backends.redis import reads, scripts
from durable.backends.redis.keys import Partition
from durable.backends.redis.records import (
    as_bytes,
    as_list,
    as_words,
    clamp,
    parent_prefix,
    status_prefix,
    tag_prefix,
    workflow_prefix,
)
from durable.backends.redis.verbs import Verbs
from durable.errors import InvalidInput, shown
from durable.protocols import Query, Rows

_SPECIAL: Final = re.compile(r"([\\*?\[\]^])")
_INSTANT: Final = 16
_MOST: Final = 256


async def page(verbs: Verbs, query: Query) -> Rows:
    below = b"" if query.until is None else b"%016d" % clamp(query.until)
    if query.cursor is not None:
        stamp = query.cursor.encode()
        if not stamp[:_INSTANT].isdigit() or len(stamp) <= _INSTANT:
            raise InvalidInput(
                f"{shown(query.cursor)} is no cursor of this store", "use the cursor of the page before"
            )
        below = min(below or stamp, stamp)
    prefixes: list[str] = []
    if query.workflow is not None:
        prefixes.append(workflow_prefix(query.workflow))
    if query.parent_id is not None:
        prefixes.append(parent_prefix(query.parent_id))
    prefixes += [tag_prefix(name, value) for name, value in query.tags.items()]
    statuses = [[status_prefix(status)] for status in set(query.status)] or [[]]
    streams = [
        _Stream(part, [*status, *prefixes] or ["a"]) for part in verbs.space.partitions for status in statuses
    ]
    wanted = query.limit + 1
    await asyncio.gather(*[stream.read(verbs, query, below, wanted) for stream in streams])
    stamps = list(islice(merge(*[stream.found for stream in streams], reverse=True), wanted))
    has_more = len(stamps) > query.limit
    del stamps[query.limit :]
    rows = await reads.rows(verbs, [stamp[_INSTANT:].decode() for stamp in stamps])
    matching = [row for row in rows if row is not None and (not query.status or row.status in query.status)]
    return Rows(matching, stamps[-1].decode() if has_more and stamps else None)


@final
@dataclass(slots=True)
class _Stream:
    """What stands under all of these prefixes in one partition, newest first."""

    part: Partition
    prefixes: list[str]
    found: list[bytes] = field(default_factory=list[bytes])

    async def read(self, verbs: Verbs, query: Query, below: bytes, wanted: int) -> None:
        since = b"" if query.since is None else b"%016d" % clamp(query.since)
        while len(self.found) < wanted:
            below_next, found = as_list(
                await verbs.wire.run(
                    scripts.FIND,
                    (self.part.index,),
                    (
                        below,
                        since,
                        query.id_prefix or "",
                        min(wanted - len(self.found), _MOST),
                        *self.prefixes,
                    ),
                )
            )
            stamps = (each for each in as_words(found) if since <= each and (not below or each < below))
            self.found += sorted(stamps, reverse=True)
            below = as_bytes(below_next)
            if not below:
                return


async def put_in_order(verbs: Verbs) -> None:
    """Let ids stand in the index that somebody who knows an older schema has left out. Where there are none, this costs
    a look at each partition; else it goes in portions, and whoever does it at the same time does the same."""

    async def in_partition(part: Partition) -> None:
        begin = b""
        while begin := as_bytes(await verbs.wire.run(scripts.INDEX, (part.index,), (begin,), op_id="open")):
            pass

    await asyncio.gather(*map(in_partition, verbs.space.partitions))


async def scan(verbs: Verbs, part: Partition, pattern: str) -> AsyncIterator[str]:
    """The keys of a partition that are named so, each at least once."""
    pattern = _SPECIAL.sub(r"\\\1", part.prefix) + pattern
    cursor = b"0"
    while True:
        cursor_next, keys = as_list(
            await verbs.wire.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, key=part.index)
        )
        for key in as_words(keys):
            yield key.decode()
        cursor = as_bytes(cursor_next)
        if cursor == b"0":
            return
