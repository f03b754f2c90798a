"""`EventLog`: the events of one name, who listens for them, and whom they start."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from durable.protocols import Emit, EventRow, Listen, Looked, Plan, Subscriber

Listener = tuple[str, str]
"""An execution's id and a step's."""


@final
@dataclass(slots=True, eq=False)
class StoredEvent:
    """An event with what decides whom it concerns."""

    row: EventRow
    op_id: str
    shapes: frozenset[str]
    topics: frozenset[str]
    execution_ids: list[str] = field(default_factory=list[str])

    def may_concern(self, shape: str, topic: str) -> bool:
        return not topic or topic in self.topics or shape not in self.shapes

    def copy(self) -> EventRow:
        row = self.row
        return EventRow(row.name, row.id, row.data, row.seq, row.at, tuple(self.execution_ids))


@final
class EventLog:
    """Listeners and subscribers stay when events are pruned."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.by_id: dict[str, StoredEvent] = {}
        self.subscribers: dict[str, Subscriber] = {}
        self._events: list[StoredEvent] = []
        """In order of `seq`."""
        self._seq = 0
        self._shapes: dict[str, None] = {}
        self._listening: dict[str, dict[str, dict[Listener, Listen]]] = {}
        """By shape and topic."""

    def plan(self) -> Plan:
        declared = (shape for each in self.subscribers.values() for shape in each.shapes)
        return Plan(tuple(dict.fromkeys((*self._shapes, *declared))), tuple(self.subscribers.values()))

    # -- events

    def store(self, emit: Emit, op_id: str, now: int) -> StoredEvent:
        self._seq += 1
        row = EventRow(self.name, emit.id, emit.data, self._seq, now)
        event = StoredEvent(row, op_id, frozenset(emit.shapes), frozenset(emit.topics))
        self._events.append(event)
        self.by_id[emit.id] = event
        return event

    def look(self, *, shape: str, topic: str, since: int, after: int, limit: int) -> Looked:
        found: list[EventRow] = []
        seq = after
        for event in self._after(after):
            if len(found) == limit:
                return Looked(found, seq, more=True)
            seq = event.row.seq
            if event.row.at >= since and event.may_concern(shape, topic):
                found.append(event.copy())
        return Looked(found, seq, more=False)

    def prune(self, before: int, limit: int) -> int:
        old = 0
        while old < min(limit, len(self._events)) and self._events[old].row.at < before:
            del self.by_id[self._events[old].row.id]
            old += 1
        del self._events[:old]
        return old

    def _after(self, seq: int) -> Iterator[StoredEvent]:
        first = bisect_right(self._events, seq, key=lambda event: event.row.seq)
        return (self._events[i] for i in range(first, len(self._events)))

    # -- listeners

    def listen(self, listener: Listener, listen: Listen) -> StoredEvent | None:
        """Add a listener, and give the first event that it should look at, if there is one."""
        if listen.shape:
            self._shapes[listen.shape] = None
        self._listening.setdefault(listen.shape, {}).setdefault(listen.topic, {})[listener] = listen
        if listen.seen is None:
            return None
        later = self._after(listen.seen)
        return next((event for event in later if event.may_concern(listen.shape, listen.topic)), None)

    def unlisten(self, listener: Listener, listen: Listen) -> None:
        of_shape = self._listening[listen.shape]
        del of_shape[listen.topic][listener]
        if not of_shape[listen.topic]:
            del of_shape[listen.topic]

    def told(self, event: StoredEvent) -> list[tuple[Listener, Listen]]:
        """Who listens for this event."""
        topics = ("", *event.topics)
        return [
            each
            for of_shape in self._listening.values()
            for topic in topics
            for each in of_shape.get(topic, {}).items()
        ]

    def sent_to_look(self, event: StoredEvent) -> list[tuple[Listener, Listen]]:
        """Who might listen for this event, in a shape that its sender did not know."""
        return [
            each
            for shape, topics in self._listening.items()
            if shape and shape not in event.shapes
            for listeners in topics.values()
            for each in listeners.items()
            if each[1].cancel is None
        ]

    def listeners(self) -> Iterator[tuple[Listener, Listen]]:
        for topics in self._listening.values():
            for listeners in topics.values():
                yield from listeners.items()
