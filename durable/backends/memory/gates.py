"""`Gates`: who holds slots, who waits in line, and who may pass now."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from math import ceil
from typing import Final, Generic, TypeVar, final

from durable.backends.memory.index import Agenda, Readiness, until
from durable.protocols import Gate, GateKind, GateRow, Holding, WhenFull

E = TypeVar("E")

Holder = tuple[str, str]
"""An execution's id and a step's, which is empty for the execution itself."""

_MOST_HOLDINGS: Final = 100
_HAIR: Final = 1e-3
"""A millisecond's thousandth: what sums of fractions may be off by."""


@dataclass(slots=True, eq=False)
class Seeker:
    """Who passes gates, one after the other."""

    holder: Holder
    gates: Sequence[Gate]
    priority: int
    message_id: str = ""
    """Of a step: what it is told when it has passed."""
    is_new: bool = False
    """An execution that was never claimed: it may be refused."""
    at: int = 0
    """How many it has passed."""
    counted: set[str] = field(default_factory=set[str])
    """The rates and windows that have counted it: they count it once."""

    @property
    def waits_at(self) -> Gate | None:
        return self.gates[self.at] if self.at < len(self.gates) else None


@dataclass(slots=True, eq=False)
class _State:
    """What is known of one gate."""

    gate: Gate
    """As it was sought last."""
    holders: dict[Holder, int] = field(default_factory=dict[Holder, int])
    """Since when each holds its slot, the longest first."""
    replaced: dict[Holder, None] = field(default_factory=dict[Holder, None])
    line: Agenda[Holder, Readiness] = field(default_factory=Agenda[Holder, Readiness])
    arrival_at: float = 0.0
    """Of a rate: the theoretical arrival time of the next."""
    passed_at: deque[int] = field(default_factory=deque[int])
    """Of a window: when each passed."""


@final
class Gates(Generic[E]):
    """The gates of one namespace. `E` is what a write has done to others, which the callbacks add to."""

    def __init__(
        self,
        *,
        held: Callable[[Seeker, Gate], None],
        passed: Callable[[Seeker, E], None],
        refused: Callable[[Seeker, Gate, E], None],
        replaced: Callable[[Holder, Gate, E], None],
    ) -> None:
        self._states: dict[str, _State] = {}
        self._seekers: dict[Holder, Seeker] = {}
        self._held, self._passed, self._refused, self._replaced = held, passed, refused, replaced
        self._openings = Agenda[str, int]()
        """When a rate lets the first of its line pass."""
        self._idle = Agenda[str, int]()
        """When a rate or a window is as if nobody had ever sought it."""
        self._changed: dict[str, None] = {}
        """The rules whose limit was changed since the last tick."""
        self._turns = count()
        self.limits: dict[str, int] = {}

    # -- passing

    def seek(self, seeker: Seeker, now: int, effects: E) -> None:
        """Pass as many gates as let it pass, and wait in line at the first that does not."""
        self._seekers[seeker.holder] = seeker
        while (gate := seeker.waits_at) is not None:
            state = self._states.setdefault(gate.name, _State(gate))
            state.gate = gate
            if seeker.holder not in state.holders and gate.name not in seeker.counted:
                if len(state.line) or not self._has_room(state, now):
                    self._turn_away(seeker, state, now, effects)
                    return
                self._let_in(seeker, state, now)
            seeker.at += 1
        self._passed(seeker, effects)

    def give_back(self, holder: Holder, now: int, effects: E, *, ended: bool) -> None:
        """Wait nowhere any more, and give back the slots, but for those that are kept to the end if it has not come."""
        seeker = self._seekers.get(holder)
        if seeker is None:
            return
        self.wait_no_more(holder)
        freed: list[_State] = []
        for gate in seeker.gates[: seeker.at]:
            state = self._states.get(gate.name)
            if (
                state is not None
                and (ended or not gate.keeps)
                and state.holders.pop(holder, None) is not None
            ):
                state.replaced.pop(holder, None)
                freed.append(state)
        if ended:
            del self._seekers[holder]
        for state in freed:
            self._advance(state, now, effects)

    def wait_no_more(self, holder: Holder) -> None:
        """Leave the line, if it stands in one, and keep what it holds."""
        seeker = self._seekers.get(holder)
        gate = None if seeker is None else seeker.waits_at
        if gate is not None and (state := self._states.get(gate.name)) is not None:
            state.line.discard(holder)
            self._forget_if_idle(state)

    def tick(self, now: int, effects: E) -> None:
        """Let pass who may by now."""
        for name in list(until(self._openings, now)):
            self._advance(self._states[name], now, effects)
        changed, self._changed = self._changed, {}
        for state in [state for state in self._states.values() if state.gate.rule in changed]:
            self._advance(state, now, effects)
        for name in list(until(self._idle, now)):
            if (idle := self._states.get(name)) is not None:
                self._forget_if_idle(idle, now)

    def set_limit(self, rule: str, limit: int | None) -> None:
        if limit is None:
            self.limits.pop(rule, None)
        else:
            self.limits[rule] = limit
        self._changed[rule] = None

    def next_at(self) -> int | None:
        """The next instant at which there is something to do. A changed limit: at once."""
        return 0 if self._changed else self._openings.first_rank()

    # -- what is known

    def seeker(self, holder: Holder) -> Seeker | None:
        return self._seekers.get(holder)

    def row(self, name: str) -> GateRow | None:
        state = self._states.get(name)
        if state is None:
            return None
        first = state.line.first_rank()
        return GateRow(
            name=name,
            kind=state.gate.kind,
            limit=self._limit(state),
            holdings=[Holding(*who, since) for who, since in islice(state.holders.items(), _MOST_HOLDINGS)],
            held=len(state.holders),
            waiting=len(state.line),
            oldest_at=None if first is None else min(since for _, since, _ in state.line.ranks().values()),
            next_at=None if first is None or state.gate.kind is not GateKind.RATE else self._opens_at(state),
        )

    def rows(self, after: str, limit: int) -> Iterator[GateRow]:
        names = sorted(name for name, state in self._states.items() if state.holders or len(state.line))
        for name in names[bisect_left(names, after + "\0") :][:limit]:
            if (row := self.row(name)) is not None:
                yield row

    def contradictions(self) -> Iterator[str]:
        for name, state in self._states.items():
            for holder in (*state.holders, *state.line.ranks()):
                if holder not in self._seekers:
                    yield f"gate {name}: {holder} is there and seeks nothing"
            if len(state.holders) > self._limit(state) and state.gate.rule not in self.limits:
                yield f"gate {name}: {len(state.holders)} hold its {self._limit(state)} slots"
        for holder, seeker in self._seekers.items():
            gate = seeker.waits_at
            if gate is not None and gate.name not in self._states:
                yield f"gate {gate.name}: {holder} waits there, and it is not known"

    # -- one gate

    def _has_room(self, state: _State, now: int) -> bool:
        match state.gate.kind:
            case GateKind.SLOTS:
                return len(state.holders) < self._limit(state)
            case GateKind.RATE:
                return now >= self._opens_at(state)
            case GateKind.WINDOW:
                while state.passed_at and state.passed_at[0] <= now - state.gate.per_ms:
                    state.passed_at.popleft()
                return len(state.passed_at) < self._limit(state)

    def _let_in(self, seeker: Seeker, state: _State, now: int) -> None:
        gate = state.gate
        match gate.kind:
            case GateKind.SLOTS:
                state.holders[seeker.holder] = now
            case GateKind.RATE:
                state.arrival_at = max(state.arrival_at, now) + gate.per_ms / self._limit(state)
                seeker.counted.add(gate.name)
                self._idle.put(gate.name, ceil(state.arrival_at))
            case GateKind.WINDOW:
                state.passed_at.append(now)
                seeker.counted.add(gate.name)
                self._idle.put(gate.name, now + gate.per_ms)

    def _opens_at(self, state: _State) -> int:
        gate = state.gate
        return ceil(state.arrival_at - gate.burst * gate.per_ms / self._limit(state) - _HAIR)

    def _turn_away(self, seeker: Seeker, state: _State, now: int, effects: E) -> None:
        gate = state.gate
        if seeker.is_new and (gate.kind is GateKind.WINDOW or gate.when_full is WhenFull.REFUSE):
            self._refused(seeker, gate, effects)
            return
        is_newest = seeker.is_new and gate.when_full is WhenFull.REPLACE
        older: list[Holder] = []
        if is_newest:  # a long line costs nobody else anything
            older = [who for who in (*state.holders, *state.line.ranks()) if who not in state.replaced]
        state.line.put(seeker.holder, (-seeker.priority, now, next(self._turns)))
        self._held(seeker, gate)
        self._watch(state)
        for holder in older[: max(0, len(older) + 1 - self._limit(state))]:
            state.replaced[holder] = None
            self._replaced(holder, gate, effects)

    def _advance(self, state: _State, now: int, effects: E) -> None:
        """Let the first of the line pass, as long as there is room."""
        while len(state.line) and self._has_room(state, now):
            seeker = self._seekers[state.line.pop()]
            self._let_in(seeker, state, now)
            seeker.at += 1
            self.seek(seeker, now, effects)
        self._watch(state)
        self._forget_if_idle(state)

    def _watch(self, state: _State) -> None:
        match state.gate.kind:
            case _ if not len(state.line):
                self._openings.discard(state.gate.name)
            case GateKind.RATE:
                self._openings.put(state.gate.name, self._opens_at(state))
            case GateKind.WINDOW if state.passed_at:
                self._openings.put(state.gate.name, state.passed_at[0] + state.gate.per_ms)
            case _:
                pass

    def _forget_if_idle(self, state: _State, now: int = 0) -> None:
        gate = state.gate
        is_counting = state.arrival_at > now or any(at > now - gate.per_ms for at in state.passed_at)
        if not (state.holders or len(state.line) or is_counting):
            self._states.pop(gate.name, None)
            self._openings.discard(gate.name)
            self._idle.discard(gate.name)

    def _limit(self, state: _State) -> int:
        return self.limits.get(state.gate.rule, state.gate.limit)
