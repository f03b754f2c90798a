"""`Keyspace`: the names of a namespace's keys, and which partition an execution is in.

    {ns}:meta                 the schema and the number of partitions
    {ns}:leases {ns}:infos    when each worker's lease ends, and what it says of itself
    {ns}:paused               queues from which nothing is claimed

    {ns:p00}:...              one partition; all its keys are in one slot of a cluster

    x:<id>  hash    the execution            r    zset    ready now: lane, priority, since when, id, crashes
    h:<id>  hash    its history, by step     l    zset    ready later, by instant
    u:<id>  zset    unread messages          g    zset    rung, by the instant to ring again
    c:<id>  hash    consumed messages        t    zset    timers, by instant: id, step
    v:<id>  hash    its values               own  zset    owned: worker, since when, id
    m:<id>  set     message ids it has seen  d    zset    closed: status, when, id
    y:<id>  set     steps with a timer       q    zset    index for queries: what, created when, id
    w:<id>  hash    who watches it           k    hash    (workflow, key) to id
    e:<id>  hash    where it listens         o    stream  outbox
    z:<id>  hash    its steps at gates       en   zset    names of events, by the instant of the oldest
                                             eu   hash    whom events start, by name and workflow
                                             n    zset    names of gates with a line or with slots taken
                                             i    hash    limits that were set, by rule
                                             j    hash    groups, to the id of the pending one
                                             jo   zset    who joined: operation, id; and id, operation

    el:<name> zset  events of a name: instant, seq, id
    ev:<name> hash  their data, by id
    ea:<name> hash  more of each: m<id> its marks, s<id> what it started, w<id> who waited for it
    eh:<name> hash  who listens for them: execution, step
    ei:<name> zset  index of those: topic or shape, execution, step
    es:<name> hash  the last seq and its instant; the shapes

    ga:<name> hash  a gate
    gs:<name> hash  who seeks it or has passed it, and in which epoch
    gl:<name> zset  its line
    gh:<name> zset  who holds its slots
    gp:<name> zset  its window

    s         hash  schedules (all in one partition), by id
    sl        zset  their ids
    sd        zset  which of them are due, by instant
    sa        hash  what their last saves started

What is held at gates stands in `g` with an infinite score.

Members of the zsets without a score are texts whose order is the order of the index. In `q` each execution stands once
more by its id, with the instant of its creation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final
from zlib import crc32

from durable.protocols import id_root


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
    event_names: str
    subscribers: str
    gates: str
    limits: str
    groups: str
    joins: str


@final
class Keys:
    """The keys of one execution, in the order in which each script declares them.

    They are put together when they are asked for: most executions need few of them, and few times.
    """

    __slots__ = ("_id", "part", "x")

    def __init__(self, part: Partition, execution_id: str) -> None:
        self.part = part
        self._id = execution_id
        self.x = self._key("x")

    @property
    def create(self) -> tuple[str, ...]:
        part = self.part
        return (
            self.x, part.keys, part.ready, part.later, part.timers, part.index, self.watched, part.rung,
            part.outbox, part.groups, part.joins, self.listening, self.history, self.values,
        )  # fmt: skip

    @property
    def claim(self) -> tuple[str, ...]:
        part = self.part
        return (*self.step, part.ready, part.rung, part.later, part.owned, part.index)

    @property
    def step(self) -> tuple[str, ...]:
        """Enough for a commit of records alone."""
        return (self.x, self.history, self.unread)

    @property
    def commit(self) -> tuple[str, ...]:
        part = self.part
        return (
            *self.step, part.owned, part.index, part.closed, part.ready, part.later, part.timers,
            self.timers, self.watched, part.outbox, self.consumed, self.values, self._key("m"),
            part.rung, self.seeking, self.listening,
        )  # fmt: skip

    @property
    def post(self) -> tuple[str, ...]:
        part = self.part
        return (
            self.x, self.unread, self._key("m"), part.ready, part.rung, part.later, part.index, part.timers,
            part.closed, self.watched, part.outbox, self.listening,
        )  # fmt: skip

    @property
    def watch(self) -> tuple[str, ...]:
        return (self.x, self.watched)

    @property
    def tell(self) -> tuple[str, ...]:
        part = self.part
        return (self.x, self.unread, self._key("m"), part.ready, part.rung, part.outbox)

    @property
    def fire(self) -> tuple[str, ...]:
        part = self.part
        return (
            self.x, self.history, self.timers, part.timers, self.unread, part.ready, part.rung, part.later,
            part.outbox,
        )  # fmt: skip

    @property
    def erase(self) -> tuple[str, ...]:
        part = self.part
        return (
            *self.step, self.consumed, self.values, self._key("m"), self.timers, self.watched, self.seeking,
            part.keys, part.closed, part.index, part.groups, part.joins,
        )  # fmt: skip

    @property
    def admit(self) -> tuple[str, ...]:
        part = self.part
        return (
            self.x, self.seeking, part.ready, part.rung, part.index, part.closed, part.timers, self.watched,
            part.outbox, self.listening,
        )  # fmt: skip

    @property
    def history(self) -> str:
        return self._key("h")

    @property
    def unread(self) -> str:
        return self._key("u")

    @property
    def timers(self) -> str:
        return self._key("y")

    @property
    def watched(self) -> str:
        return self._key("w")

    @property
    def seeking(self) -> str:
        return self._key("z")

    @property
    def listening(self) -> str:
        return self._key("e")

    @property
    def consumed(self) -> str:
        return self._key("c")

    @property
    def values(self) -> str:
        return self._key("v")

    def _key(self, letter: str) -> str:
        return f"{self.part.prefix}{letter}:{self._id}"


@final
@dataclass(frozen=True, slots=True)
class GateKeys:
    """The keys of one gate."""

    part: Partition
    name: str

    @property
    def row(self) -> tuple[str, ...]:
        """What it is, its line, who holds its slots, its window."""
        return self._key("ga"), self._key("gl"), self._key("gh"), self._key("gp")

    @property
    def seekers(self) -> str:
        return self._key("gs")

    @property
    def gate(self) -> tuple[str, ...]:
        gate, *members = self.row
        part = self.part
        return (gate, self.seekers, *members, part.gates, part.timers, part.outbox, part.limits)

    def _key(self, letters: str) -> str:
        return f"{self.part.prefix}{letters}:{self.name}"


@final
@dataclass(frozen=True, slots=True)
class EventKeys:
    """The keys of the events of one name."""

    part: Partition
    name: str

    @property
    def all(self) -> tuple[str, ...]:
        return (
            *self.look, self.listeners, self._key("ei"), self.shapes, self.part.event_names, self.part.outbox
        )  # fmt: skip

    @property
    def look(self) -> tuple[str, ...]:
        return self._key("el"), self.data, self.about

    @property
    def unlisten(self) -> tuple[str, ...]:
        return self.listeners, self._key("ei")

    @property
    def data(self) -> str:
        return self._key("ev")

    @property
    def about(self) -> str:
        return self._key("ea")

    @property
    def listeners(self) -> str:
        return self._key("eh")

    @property
    def shapes(self) -> str:
        return self._key("es")

    def _key(self, letters: str) -> str:
        return f"{self.part.prefix}{letters}:{self.name}"


@final
@dataclass(frozen=True, slots=True)
class ScheduleKeys:
    """The keys of all schedules."""

    part: Partition
    rows: str
    ids: str
    due: str
    answers: str


@final
class Keyspace:
    """The keys of one namespace."""

    def __init__(self, namespace: str, partitions: int) -> None:
        self.meta = meta_key(namespace)
        self.leases, self.infos = lease_keys(namespace)
        self.paused = f"{{{namespace}}}:paused"
        self.partitions = [
            _partition(f"{{{namespace}:p{number:02}}}:", number) for number in range(partitions)
        ]
        home = self.partition_of("schedules")
        self.schedules = ScheduleKeys(home, *(home.prefix + name for name in ("s", "sl", "sd", "sa")))

    def partition_of(self, text: str) -> Partition:
        """Where an execution with this id root, the events of this name, or the gate of this name are kept."""
        return self.partitions[crc32(text.encode()) % len(self.partitions)]

    def of(self, execution_id: str) -> Keys:
        return Keys(self.partition_of(id_root(execution_id)), execution_id)

    def of_gate(self, name: str) -> GateKeys:
        return GateKeys(self.partition_of(name), name)

    def of_events(self, name: str) -> EventKeys:
        return EventKeys(self.partition_of(name), name)


def meta_key(namespace: str) -> str:
    return f"{{{namespace}}}:meta"


def lease_keys(namespace: str) -> tuple[str, str]:
    return f"{{{namespace}}}:leases", f"{{{namespace}}}:infos"


def _partition(prefix: str, number: int) -> Partition:
    names = ("r", "l", "g", "t", "own", "d", "q", "k", "o", "en", "eu", "n", "i", "j", "jo")
    return Partition(number, prefix, *(prefix + name for name in names))
