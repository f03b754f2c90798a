"""Sorted structures: what comes next, in O(log n) however much waits behind it."""

from __future__ import annotations

from collections.abc import Iterator, Set as AbstractSet
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar, final

from durable.backends.memory.record import Lane, Record
from durable.protocols import Wanted

Readiness = tuple[int, int, int]
"""Minus the priority, the instant since when it is ready, the order in which it became so."""

K = TypeVar("K")
R = TypeVar("R", int, Readiness)

_SLACK = 16


@final
class Agenda(Generic[K, R]):
    """Keys in the order of their ranks, and those of equal rank in the order in which they were put."""

    __slots__ = ("_entries", "_heap", "_turns")

    def __init__(self) -> None:
        self._entries: dict[K, tuple[R, int, K]] = {}
        # Holds the entry of each key, and others that are dead since their key was put again or discarded.
        self._heap: list[tuple[R, int, K]] = []
        self._turns = count()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def ranks(self) -> dict[K, R]:
        return {key: entry[0] for key, entry in self._entries.items()}

    def put(self, key: K, rank: R) -> None:
        """Add a key, or move it to another rank."""
        entry = (rank, next(self._turns), key)
        self._entries[key] = entry
        heappush(self._heap, entry)

    def discard(self, key: K) -> None:
        if self._entries.pop(key, None) is None:
            return
        if len(self._heap) > 2 * len(self._entries) + _SLACK:
            self._heap = list(self._entries.values())
            heapify(self._heap)

    def first_rank(self) -> R | None:
        """The least rank, or None when this is empty."""
        heap = self._heap
        while heap:
            rank, _, key = heap[0]
            if self._entries.get(key) is heap[0]:
                return rank
            heappop(heap)
        return None

    def pop(self) -> K:
        """Remove the first key. There must be one."""
        self.first_rank()
        _, _, key = heappop(self._heap)
        del self._entries[key]
        return key


def until(agenda: Agenda[K, int], instant: int) -> Iterator[K]:
    """Take out the keys up to and with `instant`, one by one."""
    while (rank := agenda.first_rank()) is not None and rank <= instant:
        yield agenda.pop()


Place = Agenda[Record, int] | Agenda[Record, Readiness]


@final
class ReadyIndex:
    """The ready executions, each in one of three places.

    later ──its instant──▶ lane ──due──▶ rung ──again_ms──▶ lane
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, Agenda[Record, Readiness]] = {}
        self._later = Agenda[Record, int]()
        self._rung = Agenda[Record, int]()
        self._places: dict[Record, Place] = {}
        self._turns = count()

    def add(self, record: Record, now: int) -> None:
        """Put it where it can be found from its `available_at` on, as if it had never been rung."""
        self.remove(record)
        record.readiness = (-record.spec.priority, record.available_at, next(self._turns))
        if record.available_at > now:
            self._later.put(record, record.available_at)
            self._places[record] = self._later
        else:
            self._to_lane(record)

    def remove(self, record: Record) -> None:
        place = self._places.pop(record, None)
        if place is not None:
            place.discard(record)

    def due(self, now: int, wanted: Wanted, *, limit: int, again_at: int) -> list[Record]:
        """Take up to `limit` from the wanted lanes, greater priority first, then the longest ready."""
        self._advance(now)
        heads: list[tuple[Readiness, int, Agenda[Record, Readiness]]] = []
        for (queue, workflow), lane in self._lanes.items():
            if queue in wanted.queues and workflow in wanted.workflows:
                rank = lane.first_rank()
                if rank is not None:
                    heads.append((rank, len(heads), lane))
        heapify(heads)
        found: list[Record] = []
        while heads and len(found) < limit:
            _, number, lane = heappop(heads)
            record = lane.pop()
            found.append(record)
            self._rung.put(record, again_at)
            self._places[record] = self._rung
            rank = lane.first_rank()
            if rank is not None:
                heappush(heads, (rank, number, lane))
        return found

    def next_at(self, now: int) -> int | None:
        """When the next delayed execution becomes ready."""
        self._advance(now)
        return self._later.first_rank()

    def members(self) -> AbstractSet[Record]:
        return self._places.keys()

    def contradictions(self) -> Iterator[str]:
        """Where the three places and the index of them disagree."""
        places: list[Place] = [*self._lanes.values(), self._later, self._rung]
        if sum(len(place) for place in places) != len(self._places):
            yield "the ready index holds executions that it cannot find"
        for record, place in self._places.items():
            if record not in place:
                yield f"{record.id}: not in its place in the ready index"

    def _advance(self, now: int) -> None:
        for agenda in (self._later, self._rung):
            for record in until(agenda, now):
                self._to_lane(record)

    def _to_lane(self, record: Record) -> None:
        lane = self._lanes.get(record.lane)
        if lane is None:
            lane = self._lanes[record.lane] = Agenda[Record, Readiness]()
        lane.put(record, record.readiness)
        self._places[record] = lane
