"""`Keyspace`: the names of a namespace's keys, and which partition an execution is in.

    {ns}:meta                 the schema and the number of partitions
    {ns}:leases {ns}:infos    when each worker's lease ends, and what it says of itself

    {ns:p00}:...              one partition; all its keys are in one slot of a cluster

    x:<id>  hash    the execution            r    zset    ready now: lane, priority, since when, id, crashes
    h:<id>  hash    its history, by step     l    zset    ready later, by instant
    u:<id>  zset    unread messages          g    zset    rung, by the instant to ring again
    c:<id>  hash    consumed messages        t    zset    timers, by instant: id, step
    v:<id>  hash    its values               own  zset    owned: worker, since when, id
    m:<id>  set     message ids it has seen  d    zset    closed: status, when, id
    y:<id>  set     steps with a timer       q    zset    index for queries: what, created when, id
    w:<id>  hash    who watches it           k    hash    (workflow, key) to id
                                             o    stream  outbox
                                             e    hash    events, by id

Members of the zsets without a score are texts whose order is the order of the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final
from zlib import crc32

from durable.protocols import id_root

_MOST_CACHED: Final = 4096


@final
@dataclass(frozen=True, slots=True)
class Partition:
    """The keys that belong to all executions of a partition."""

    number: int
    prefix: str
    ready: str
    later: str
    rung: str
    timers: str
    owned: str
    closed: str
    index: str
    keys: str
    outbox: str
    events: str


@final
class Keys:
    """The keys of one execution, in the order in which each script declares them."""

    __slots__ = ("claim", "commit", "create", "erase", "fire", "part", "post", "step", "tell", "watch", "x")

    def __init__(self, part: Partition, execution_id: str) -> None:
        x, history, unread, consumed, values, seen, timers, watched = (
            f"{part.prefix}{letter}:{execution_id}" for letter in "xhucvmyw"
        )
        self.part = part
        self.x = x
        self.create = (x, part.keys, part.ready, part.later, part.timers, part.index, watched)
        self.claim = (x, history, unread, part.ready, part.rung, part.later, part.owned, part.index)
        self.step = (x, history, unread)
        """Enough for a commit of records alone."""
        self.commit = (
            x, history, unread, part.owned, part.index, part.closed, part.ready, part.later, part.timers,
            timers, watched, part.outbox, consumed, values, seen,
        )  # fmt: skip
        self.post = (
            x, unread, seen, part.ready, part.rung, part.later, part.index, part.timers, part.closed,
            watched, part.outbox,
        )  # fmt: skip
        self.watch = (x, watched)
        self.tell = (x, unread, seen, part.ready)
        self.fire = (x, history, timers, part.timers, unread, part.ready, part.rung, part.later)
        self.erase = (
            x, history, unread, consumed, values, seen, timers, watched, part.keys, part.closed, part.index
        )  # fmt: skip

    @property
    def history(self) -> str:
        return self.commit[1]

    @property
    def unread(self) -> str:
        return self.commit[2]

    @property
    def timers(self) -> str:
        return self.commit[9]

    @property
    def watched(self) -> str:
        return self.commit[10]

    @property
    def consumed(self) -> str:
        return self.commit[12]

    @property
    def values(self) -> str:
        return self.commit[13]


@final
class Keyspace:
    """The keys of one namespace."""

    def __init__(self, namespace: str, partitions: int) -> None:
        self.meta = meta_key(namespace)
        self.leases, self.infos = lease_keys(namespace)
        self.partitions = [
            _partition(f"{{{namespace}:p{number:02}}}:", number) for number in range(partitions)
        ]
        self._cache: dict[str, Keys] = {}

    def partition_of(self, text: str) -> Partition:
        """Where an execution with this id root, or an event with this id, is kept."""
        return self.partitions[crc32(text.encode()) % len(self.partitions)]

    def of(self, execution_id: str) -> Keys:
        keys = self._cache.get(execution_id)
        if keys is None:
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            keys = self._cache[execution_id] = Keys(self.partition_of(id_root(execution_id)), execution_id)
        return keys


def meta_key(namespace: str) -> str:
    return f"{{{namespace}}}:meta"


def lease_keys(namespace: str) -> tuple[str, str]:
    return f"{{{namespace}}}:leases", f"{{{namespace}}}:infos"


def _partition(prefix: str, number: int) -> Partition:
    return Partition(
        number, prefix, *(prefix + name for name in ("r", "l", "g", "t", "own", "d", "q", "k", "o", "e"))
    )
