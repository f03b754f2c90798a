"""The verbs that concern whatever is due: timers, deserted executions, doorbells, what is old enough to be deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from durable.backends.sqlite import gates, moves, statements as sql
from durable.backends.sqlite.head import tag_text, tags_of
from durable.backends.sqlite.moves import Effects
from durable.backends.sqlite.schema import BELL_DUE, BELL_RUNG, NEVER
from durable.backends.sqlite.unit import Unit
from durable.models import ExecutionStatus
from durable.protocols import Doorbell, Live, Ticked, Wanted

_MOST_ADVANCED: Final = 1_000
"""Executions that one call puts back among those to be rung."""


def tick(unit: Unit, live: Live, limit: int) -> Ticked:
    unit.flush()
    effects = Effects()
    due = unit.db.execute(sql.DUE_TIMERS, (unit.ns, unit.now, limit + 1)).fetchall()
    unit.db.executemany(sql.DROP_TIMER, [(step_id, n) for n, step_id, _ in due[:limit]])
    for n, step_id, seq in due[:limit]:
        if (head := unit.head_by_n(n)) is not None:
            moves.fire(unit, head, step_id, seq, effects)

    workers = json.dumps(list(live.workers))
    deserted = unit.db.execute(sql.DESERTED, (unit.ns, live.at, workers, limit + 1)).fetchall()
    for (n,) in deserted[:limit]:
        if (head := unit.head_by_n(n)) is not None:
            head.crashes += 1
            moves.make_ready(unit, head, unit.now, effects, passes=True)

    unit.flush()
    opening = unit.db.execute(sql.OPENING, (unit.ns, unit.now, limit + 1)).fetchall()
    for (n,) in opening[:limit]:
        if (head := unit.head_by_n(n)) is not None:
            moves.seek_own(unit, head, effects)
    if unit.has_seekers:
        moves.advance(unit, gates.opening(unit, limit), effects)
        gates.forget_idle(unit)
    unit.flush()
    (timer_at,) = unit.db.execute(sql.NEXT_TIMER, (unit.ns,)).fetchone()
    (ready_at,) = unit.db.execute(sql.NEXT_READY, (unit.ns, unit.now)).fetchone()
    return Ticked(
        doorbells=tuple(effects.doorbells.values()),
        touched=tuple(effects.touched),
        more=len(due) > limit or len(deserted) > limit or len(opening) > limit,
        next_at=min((at for at in (timer_at, ready_at, gates.next_at(unit)) if at is not None), default=None),
        now=unit.now,
    )


def due(unit: Unit, wanted: Wanted, limit: int, again_ms: int) -> Sequence[Doorbell]:
    unit.flush()
    advanced = unit.db.execute(sql.ADVANCING, (unit.ns, unit.now, _MOST_ADVANCED)).fetchall()
    if advanced:
        _set_bell(unit, [n for (n,) in advanced], BELL_DUE, NEVER)
    lanes = json.dumps([[queue, *_named(name)] for queue in wanted.queues for name in wanted.workflows])
    rows = unit.db.execute(sql.DUE, (lanes, unit.ns, limit, limit)).fetchall()
    if rows:
        _set_bell(unit, [row[0] for row in rows], BELL_RUNG, unit.now + again_ms)
    return [Doorbell(*row[1:]) for row in rows]


def prune(unit: Unit, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
    unit.flush()
    number = 0
    for each in dict.fromkeys(status):
        if not each.final or number >= limit:
            continue
        rows = unit.db.execute(sql.OLD, (unit.ns, each.value, before, before, limit - number)).fetchall()
        if rows:
            number += len(rows)
            unit.db.execute(sql.COUNT, (unit.ns, each.value, -len(rows)))
            for n, created_at, tags in rows:
                for tag in tags_of(tags).items():
                    unit.db.execute(sql.DELETE_TAG, (unit.ns, tag_text(*tag), created_at, n))
            numbers = json.dumps([row[0] for row in rows])
            for statement in sql.DELETE_ALL:
                unit.db.execute(statement, (numbers,))
            unit.db.execute(sql.KEEP_LAST, (max(row[0] for row in rows),))
            unit.lose(row[0] for row in rows)
    return number


def _set_bell(unit: Unit, numbers: Sequence[int], bell: int, ring_at: int) -> None:
    unit.db.execute(sql.SET_BELL, (bell, ring_at, json.dumps(numbers)))
    for n in numbers:
        unit.remember_bell(n, bell, ring_at)


def _named(workflow: str) -> tuple[str, str]:
    name, _, version = workflow.rpartition("@")
    return name, version
