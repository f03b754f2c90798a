"""Gates: who holds slots, who waits in line, and who may pass now. What that means for executions, the moves know.

A seeker is an execution, or one of its steps, with the gates that it passes and how far it has come. As long as nobody
seeks anything in a namespace, nothing here costs anything.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import Final

from durable.backends.sqlite.schema import NEVER
from durable.backends.sqlite.unit import Unit
from durable.protocols import Gate, GateKind, WhenFull

_HAIR: Final = 1e-3
"""A millisecond's thousandth: what sums of fractions may be off by."""

_LOAD: Final = """
    SELECT s.gates, s.at, s.counted, s.message_id, e.priority, e.started_at = -1
    FROM seekers AS s CROSS JOIN executions AS e USING (n) WHERE s.n = ? AND s.step_id = ?
"""
_SAVE: Final = """
    INSERT INTO seekers (n, step_id, ns, gates, at, counted, message_id) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET gates = excluded.gates, at = excluded.at, counted = excluded.counted,
                              message_id = excluded.message_id
"""
_DROP: Final = "DELETE FROM seekers WHERE n = ? AND step_id = ?"
_STEPS: Final = "SELECT step_id FROM seekers WHERE n = ? AND (? OR step_id != '')"

_GATE: Final = "SELECT kind, declared, arrival_at, turn FROM gates WHERE ns = ? AND name = ?"
_DECLARE: Final = """
    INSERT INTO gates (ns, name, rule, kind, declared, per_ms, burst, arrival_at, turn, opens_at, idle_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, -1, -1)
    ON CONFLICT DO UPDATE SET declared = excluded.declared, per_ms = excluded.per_ms, burst = excluded.burst
    WHERE declared != excluded.declared OR per_ms != excluded.per_ms OR burst != excluded.burst
"""
_LIMIT: Final = "SELECT number FROM limits WHERE ns = ? AND rule = ?"
_HELD: Final = "SELECT count(*) FROM slots WHERE ns = ? AND gate = ?"
_HOLDS: Final = "SELECT 1 FROM slots WHERE ns = ? AND gate = ? AND n = ? AND step_id = ?"
_HOLD: Final = "INSERT INTO slots (ns, gate, n, step_id, since, replaced) VALUES (?, ?, ?, ?, ?, 0)"
_RELEASE: Final = "DELETE FROM slots WHERE ns = ? AND gate = ? AND n = ? AND step_id = ?"
_ARRIVE: Final = "UPDATE gates SET arrival_at = ?, idle_at = ? WHERE ns = ? AND name = ?"
_COUNT: Final = "INSERT INTO passes (ns, gate, at) VALUES (?, ?, ?)"
_IDLE_FROM: Final = "UPDATE gates SET idle_at = ? WHERE ns = ? AND name = ?"
_PASSED: Final = "SELECT count(*) FROM passes WHERE ns = ? AND gate = ? AND at > ?"
_FORGET_PASSES: Final = "DELETE FROM passes WHERE ns = ? AND gate = ? AND at <= ?"
_OLDEST_PASS: Final = "SELECT min(at) FROM passes WHERE ns = ? AND gate = ?"
_IN_LINE: Final = "SELECT 1 FROM line WHERE ns = ? AND gate = ? LIMIT 1"
_QUEUE_UP: Final = """
    INSERT INTO line (ns, gate, priority, since, turn, n, step_id, replaced) VALUES (?, ?, ?, ?, ?, ?, ?, 0)
"""
_TURN: Final = "UPDATE gates SET turn = turn + 1 WHERE ns = ? AND name = ?"
_STEP_OUT: Final = "DELETE FROM line WHERE n = ? AND step_id = ?"
_FIRST: Final = """
    SELECT n, step_id FROM line WHERE ns = ? AND gate = ? ORDER BY priority DESC, since, turn LIMIT 1
"""
_OLDER: Final = """
    SELECT n, step_id, 1 AS holds, since, rowid FROM slots WHERE ns = ?1 AND gate = ?2 AND replaced = 0
    UNION ALL
    SELECT n, step_id, 0, since, rowid FROM line WHERE ns = ?1 AND gate = ?2 AND replaced = 0
    ORDER BY 3 DESC, 4, 5
"""
_REPLACE: Final = (
    "UPDATE slots SET replaced = 1 WHERE ns = ? AND gate = ? AND n = ? AND step_id = ?",
    "UPDATE line SET replaced = 1 WHERE ns = ? AND gate = ? AND n = ? AND step_id = ?",
)
_OPENS: Final = "UPDATE gates SET opens_at = ? WHERE ns = ? AND name = ? AND opens_at != ?"
_OPENING: Final = """
    SELECT name FROM gates WHERE ns = ?1 AND opens_at != -1 AND opens_at <= ?2
    UNION SELECT name FROM gates JOIN changed_rules USING (ns, rule) WHERE ns = ?1
    LIMIT ?3
"""
_NEXT_OPENING: Final = "SELECT min(opens_at) FROM gates WHERE ns = ? AND opens_at != -1"
_RULE_CHANGED: Final = "INSERT OR IGNORE INTO changed_rules (ns, rule) VALUES (?, ?)"
_RULES_SEEN: Final = "DELETE FROM changed_rules WHERE ns = ?"
_FORGET_IDLE: Final = """
    DELETE FROM gates WHERE ns = ?1 AND idle_at <= ?2
    AND NOT EXISTS (SELECT 1 FROM slots WHERE slots.ns = ?1 AND gate = name)
    AND NOT EXISTS (SELECT 1 FROM line WHERE line.ns = ?1 AND gate = name)
"""


@dataclass(slots=True)
class Seeker:
    """Who passes gates, one after the other."""

    n: int
    step_id: str
    """Empty for the execution itself."""
    gates: Sequence[Gate]
    at: int = 0
    """How many it has passed."""
    counted: set[str] = field(default_factory=set[str])
    """The rates and windows that have counted it."""
    message_id: str = ""
    priority: int = 0
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far a seeker has come."""

    waits_at: Gate | None = None
    refused_by: Gate | None = None
    makes_room: Sequence[tuple[int, str]] = ()
    """Who is to be cancelled for it: numbers and step ids."""


def load(unit: Unit, n: int, step_id: str) -> Seeker | None:
    unit.flush()
    row = unit.db.execute(_LOAD, (n, step_id)).fetchone()
    if row is None:
        return None
    gates, at, counted, message_id, priority, is_new = row
    return Seeker(n, step_id, _gates(gates), at, set(json.loads(counted)), message_id, priority, bool(is_new))


def save(unit: Unit, seeker: Seeker) -> None:
    unit.has_seekers = True
    gates = json.dumps([_packed(gate) for gate in seeker.gates])
    counted = json.dumps(sorted(seeker.counted))
    unit.db.execute(_SAVE, (seeker.n, seeker.step_id, unit.ns, gates, seeker.at, counted, seeker.message_id))


def steps(unit: Unit, n: int, *, and_itself: bool) -> list[str]:
    """The steps of an execution that seek something."""
    return [step_id for (step_id,) in unit.db.execute(_STEPS, (n, and_itself)).fetchall()]


def seek(unit: Unit, seeker: Seeker) -> Verdict:
    """Pass as many gates as let it pass, and wait in line at the first that does not."""
    while seeker.at < len(seeker.gates):
        gate = seeker.gates[seeker.at]
        _declare(unit, gate)
        holds = unit.db.execute(_HOLDS, (unit.ns, gate.name, seeker.n, seeker.step_id)).fetchone()
        if holds is None and gate.name not in seeker.counted:
            if unit.db.execute(_IN_LINE, (unit.ns, gate.name)).fetchone() or not _has_room(unit, gate):
                return _turned_away(unit, seeker, gate)
            _let_in(unit, seeker, gate)
        seeker.at += 1
    save(unit, seeker)
    return Verdict()


def next_in_line(unit: Unit, name: str, gate: Gate | None = None) -> Seeker | None:
    """The first in line, having passed this gate, if it may."""
    first = unit.db.execute(_FIRST, (unit.ns, name)).fetchone()
    if first is None:
        _watch(unit, name, None)
        return None
    seeker = load(unit, *first)
    assert seeker is not None
    gate = seeker.gates[seeker.at]
    if not _has_room(unit, gate):
        _watch(unit, name, gate)
        return None
    unit.db.execute(_STEP_OUT, first)
    _let_in(unit, seeker, gate)
    seeker.at += 1
    return seeker


def leave_line(unit: Unit, n: int, step_id: str) -> None:
    """Wait nowhere any more, and keep what it holds."""
    unit.db.execute(_STEP_OUT, (n, step_id))


def give_back(unit: Unit, n: int, step_id: str, *, ended: bool) -> list[str]:
    """Wait nowhere any more and give the slots back, but for those that are kept to the end, if it has not come; the
    names of the gates that have room again."""
    seeker = load(unit, n, step_id)
    if seeker is None:
        return []
    leave_line(unit, n, step_id)
    freed: list[str] = []
    for gate in seeker.gates:
        if gate.kind is GateKind.SLOTS and (ended or not gate.keeps):
            unit.db.execute(_RELEASE, (unit.ns, gate.name, n, step_id))
            if unit.db.rowcount:
                freed.append(gate.name)
    if ended:
        unit.db.execute(_DROP, (n, step_id))
    return freed


def opening(unit: Unit, limit: int) -> list[str]:
    """The gates at which somebody may pass by now."""
    found = [name for (name,) in unit.db.execute(_OPENING, (unit.ns, unit.now, limit)).fetchall()]
    unit.db.execute(_RULES_SEEN, (unit.ns,))
    return found


def forget_idle(unit: Unit) -> None:
    """Drop the gates that are as if nobody had ever sought them."""
    unit.db.execute(_FORGET_IDLE, (unit.ns, unit.now))


def next_at(unit: Unit) -> int | None:
    """When a rate lets the first of its line pass."""
    if not unit.has_seekers:
        return None
    at: int | None = unit.db.execute(_NEXT_OPENING, (unit.ns,)).fetchone()[0]
    return at


def set_limit(unit: Unit, rule: str, limit: int | None) -> None:
    unit.db.execute("DELETE FROM limits WHERE ns = ? AND rule = ?", (unit.ns, rule))
    if limit is not None:
        unit.db.execute("INSERT INTO limits (ns, rule, number) VALUES (?, ?, ?)", (unit.ns, rule, limit))
    unit.db.execute(_RULE_CHANGED, (unit.ns, rule))
    unit.has_seekers = True


# -- one gate


def _declare(unit: Unit, gate: Gate) -> None:
    unit.db.execute(
        _DECLARE, (unit.ns, gate.name, gate.rule, gate.kind.value, gate.limit, gate.per_ms, gate.burst)
    )


def _limit(unit: Unit, gate: Gate) -> int:
    found = unit.db.execute(_LIMIT, (unit.ns, gate.rule)).fetchone()
    return found[0] if found else gate.limit


def _has_room(unit: Unit, gate: Gate) -> bool:
    match gate.kind:
        case GateKind.SLOTS:
            held: int = unit.db.execute(_HELD, (unit.ns, gate.name)).fetchone()[0]
            return held < _limit(unit, gate)
        case GateKind.RATE:
            return unit.now >= _opens_at(unit, gate)
        case GateKind.WINDOW:
            since = unit.now - gate.per_ms
            unit.db.execute(_FORGET_PASSES, (unit.ns, gate.name, since))
            passed: int = unit.db.execute(_PASSED, (unit.ns, gate.name, since)).fetchone()[0]
            return passed < _limit(unit, gate)


def _let_in(unit: Unit, seeker: Seeker, gate: Gate) -> None:
    match gate.kind:
        case GateKind.SLOTS:
            unit.db.execute(_HOLD, (unit.ns, gate.name, seeker.n, seeker.step_id, unit.now))
        case GateKind.RATE:
            arrival_at = max(_arrival_at(unit, gate), unit.now) + gate.per_ms / _limit(unit, gate)
            unit.db.execute(_ARRIVE, (arrival_at, ceil(arrival_at), unit.ns, gate.name))
            seeker.counted.add(gate.name)
        case GateKind.WINDOW:
            unit.db.execute(_COUNT, (unit.ns, gate.name, unit.now))
            unit.db.execute(_IDLE_FROM, (unit.now + gate.per_ms, unit.ns, gate.name))
            seeker.counted.add(gate.name)


def _arrival_at(unit: Unit, gate: Gate) -> float:
    found = unit.db.execute(_GATE, (unit.ns, gate.name)).fetchone()
    return found[2] if found else 0.0


def _opens_at(unit: Unit, gate: Gate) -> int:
    tolerance = gate.burst * gate.per_ms / _limit(unit, gate)
    return ceil(_arrival_at(unit, gate) - tolerance - _HAIR)


def _turned_away(unit: Unit, seeker: Seeker, gate: Gate) -> Verdict:
    save(unit, seeker)
    refuses = gate.kind is GateKind.WINDOW or gate.when_full is WhenFull.REFUSE
    if seeker.is_new and refuses:
        return Verdict(refused_by=gate)
    older = []
    if seeker.is_new and gate.when_full is WhenFull.REPLACE:
        older = unit.db.execute(_OLDER, (unit.ns, gate.name)).fetchall()
        older = older[: max(0, len(older) + 1 - _limit(unit, gate))]
        for n, step_id, *_ in older:
            for statement in _REPLACE:
                unit.db.execute(statement, (unit.ns, gate.name, n, step_id))
    unit.db.execute(_TURN, (unit.ns, gate.name))
    turn = unit.db.execute(_GATE, (unit.ns, gate.name)).fetchone()[3]
    unit.db.execute(
        _QUEUE_UP, (unit.ns, gate.name, seeker.priority, unit.now, turn, seeker.n, seeker.step_id)
    )
    _watch(unit, gate.name, gate)
    return Verdict(waits_at=gate, makes_room=[(n, step_id) for n, step_id, *_ in older])


def _watch(unit: Unit, name: str, gate: Gate | None) -> None:
    """Be there when time alone lets the first in line pass."""
    opens_at: int | None = None
    if gate is not None and gate.kind is GateKind.RATE:
        opens_at = _opens_at(unit, gate)
    elif gate is not None and gate.kind is GateKind.WINDOW:
        oldest: int | None = unit.db.execute(_OLDEST_PASS, (unit.ns, name)).fetchone()[0]
        opens_at = None if oldest is None else oldest + gate.per_ms
    opens_at = NEVER if opens_at is None else opens_at
    unit.db.execute(_OPENS, (opens_at, unit.ns, name, opens_at))


def _packed(gate: Gate) -> dict[str, object]:
    return {**asdict(gate), "refusal": b64encode(gate.refusal).decode()}


def _gates(packed: str) -> list[Gate]:
    return [
        replace(
            Gate(**found),
            kind=GateKind(found["kind"]),
            when_full=WhenFull(found["when_full"]),
            refusal=b64decode(found["refusal"]),
        )
        for found in json.loads(packed)
    ]
