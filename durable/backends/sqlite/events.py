"""Events, who listens for them, and whom they start."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from durable.backends.sqlite.unit import Unit
from durable.protocols import Emit, EventRow, Listen, Subscriber

_KNOWN: Final = "SELECT op_id, receipt FROM events WHERE ns = ? AND name = ? AND id = ?"
_NEXT_SEQ: Final = """
    INSERT INTO event_names (ns, name, seq) VALUES (?, ?, 1)
    ON CONFLICT DO UPDATE SET seq = seq + 1 RETURNING seq
"""
_STORE: Final = """
    INSERT INTO events (ns, name, seq, id, data, at, op_id, shapes, topics, receipt)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '[]')
"""
_RECEIPT: Final = "UPDATE events SET receipt = ? WHERE ns = ? AND name = ? AND seq = ?"
_TOLD: Final = """
    SELECT n, step_id, cancel FROM listeners
    WHERE ns = ?1 AND event = ?2 AND (topic = '' OR topic IN (SELECT value FROM json_each(?3))) ORDER BY rowid
"""
_SENT_TO_LOOK: Final = """
    SELECT l.n, l.step_id FROM event_shapes AS s
    CROSS JOIN listeners AS l ON l.ns = s.ns AND l.event = s.name AND l.shape = s.shape
    WHERE s.ns = ?1 AND s.name = ?2 AND s.shape NOT IN (SELECT value FROM json_each(?3)) AND l.cancel IS NULL
    ORDER BY l.rowid
"""
_LISTEN: Final = """
    INSERT OR REPLACE INTO listeners (n, event, step_id, ns, shape, topic, cancel) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_SHAPE: Final = "INSERT OR IGNORE INTO event_shapes (ns, name, shape) VALUES (?, ?, ?)"
_TO_LOOK_AT: Final = """
    SELECT seq FROM events WHERE ns = ?1 AND name = ?2 AND seq > ?3 AND (
        ?5 = '' OR EXISTS (SELECT 1 FROM json_each(topics) WHERE value = ?5)
        OR NOT EXISTS (SELECT 1 FROM json_each(shapes) WHERE value = ?4)
    ) ORDER BY seq LIMIT 1
"""
_UNLISTEN: Final = "DELETE FROM listeners WHERE n = ? AND event = ? AND step_id = ?"
_UNLISTEN_ALL: Final = "DELETE FROM listeners WHERE n = ? AND (? OR cancel IS NULL)"
_SUBSCRIBE: Final = """
    INSERT OR REPLACE INTO subscribers (ns, event, workflow, data, shapes) VALUES (?, ?, ?, ?, ?)
"""
_UNSUBSCRIBE: Final = "DELETE FROM subscribers WHERE ns = ? AND event = ? AND workflow = ?"
_PRUNE: Final = """
    DELETE FROM events WHERE (ns, name, seq) IN (
        SELECT ns, name, seq FROM events WHERE ns = ? AND at < ? ORDER BY at LIMIT ?
    )
"""


def known(unit: Unit, emit: Emit) -> tuple[str, list[str]] | None:
    """The operation that stored the event of this id, and its receipt."""
    found = unit.db.execute(_KNOWN, (unit.ns, emit.name, emit.id)).fetchone()
    return None if found is None else (found[0], json.loads(found[1]))


def store(unit: Unit, emit: Emit, op_id: str) -> EventRow:
    (seq,) = unit.db.execute(_NEXT_SEQ, (unit.ns, emit.name)).fetchone()
    shapes, topics = json.dumps(list(emit.shapes)), json.dumps(list(emit.topics))
    unit.db.execute(_STORE, (unit.ns, emit.name, seq, emit.id, emit.data, unit.now, op_id, shapes, topics))
    return EventRow(emit.name, emit.id, emit.data, seq, unit.now)


def keep_receipt(unit: Unit, row: EventRow, execution_ids: Sequence[str]) -> None:
    if execution_ids:
        unit.db.execute(_RECEIPT, (json.dumps(list(execution_ids)), unit.ns, row.name, row.seq))


def told(unit: Unit, emit: Emit) -> list[tuple[int, str, bytes | None]]:
    """Who listens for this event: number, step id, and the data of its cancel."""
    if not unit.has_listeners:
        return []
    return unit.db.execute(_TOLD, (unit.ns, emit.name, json.dumps(list(emit.topics)))).fetchall()


def sent_to_look(unit: Unit, emit: Emit) -> list[tuple[int, str]]:
    """Who might listen for this event, in a shape that its sender did not know."""
    if not unit.has_listeners:
        return []
    return unit.db.execute(_SENT_TO_LOOK, (unit.ns, emit.name, json.dumps(list(emit.shapes)))).fetchall()


def listen(unit: Unit, n: int, listen: Listen) -> int | None:
    """Add a listener; the `seq` of the first event that it should look at, if there is one."""
    unit.has_listeners = True
    if listen.shape:
        unit.db.execute(_SHAPE, (unit.ns, listen.event, listen.shape))
    unit.db.execute(
        _LISTEN, (n, listen.event, listen.step_id, unit.ns, listen.shape, listen.topic, listen.cancel)
    )
    if listen.seen is None:
        return None
    asked = (unit.ns, listen.event, listen.seen, listen.shape, listen.topic)
    found = unit.db.execute(_TO_LOOK_AT, asked).fetchone()
    return None if found is None else found[0]


def unlisten(unit: Unit, n: int, event: str, step_id: str) -> None:
    unit.db.execute(_UNLISTEN, (n, event, step_id))


def unlisten_all(unit: Unit, n: int, *, cancels_too: bool) -> None:
    if unit.has_listeners:
        unit.db.execute(_UNLISTEN_ALL, (n, cancels_too))


def subscribe(unit: Unit, add: Sequence[Subscriber], remove: Sequence[Subscriber]) -> None:
    for each in remove:
        unit.db.execute(_UNSUBSCRIBE, (unit.ns, each.event, each.workflow))
    for each in add:
        shapes = json.dumps(list(each.shapes))
        unit.db.execute(_SUBSCRIBE, (unit.ns, each.event, each.workflow, each.data, shapes))


def prune(unit: Unit, before: int, limit: int) -> int:
    unit.db.execute(_PRUNE, (unit.ns, before, limit))
    return unit.db.rowcount
