"""Schedules, and which queues are paused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final

from durable.backends.sqlite.moves import Effects
from durable.backends.sqlite.schema import NEVER
from durable.backends.sqlite.unit import Unit
from durable.protocols import NewExecution, Saved, ScheduleRow

_STORED: Final = "SELECT ver, op_id, execution_ids FROM schedules WHERE ns = ? AND id = ?"
_SAVE: Final = """
    INSERT OR REPLACE INTO schedules (ns, id, data, next_at, ver, op_id, execution_ids) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_REMOVE: Final = "DELETE FROM schedules WHERE ns = ? AND id = ?"


def save(
    unit: Unit,
    row: ScheduleRow,
    op_id: str,
    starts: Sequence[NewExecution],
    start: Callable[[NewExecution, str, Effects], str],
) -> tuple[Saved, Effects] | None:
    """Store it with what it starts, if it is as it was read; `start` gives the id of what it started."""
    effects = Effects()
    ver, last_op, execution_ids = unit.db.execute(_STORED, (unit.ns, row.id)).fetchone() or (0, "", "[]")
    if last_op == op_id:
        return Saved(ver, json.loads(execution_ids), ()), effects
    if row.ver != ver:
        return None
    started = [start(spec, f"{op_id}:{number}", effects) for number, spec in enumerate(starts)]
    next_at = NEVER if row.next_at is None else row.next_at
    unit.db.execute(_SAVE, (unit.ns, row.id, row.data, next_at, ver + 1, op_id, json.dumps(started)))
    return Saved(ver + 1, started, ()), effects


def remove(unit: Unit, schedule_id: str) -> bool:
    unit.db.execute(_REMOVE, (unit.ns, schedule_id))
    return unit.db.rowcount > 0


def pause_queue(unit: Unit, queue: str, paused: bool) -> None:
    unit.db.execute("DELETE FROM paused_queues WHERE ns = ? AND queue = ?", (unit.ns, queue))
    if paused:
        unit.db.execute("INSERT INTO paused_queues (ns, queue) VALUES (?, ?)", (unit.ns, queue))
