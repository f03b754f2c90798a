"""The relay between two partitions: a parent starts a child and waits for it, twice.

    parent's partition                              child's partition
    commit ─▶ outbox: start, watch ──letters──▶ create, register
    inbox ◀──────────── ended ◀──letters── outbox ◀─ close

No write touches both. A letter stands in the outbox until somebody has delivered it, so it is delivered once or more
often: two couriers carry letters, each may die or be slow at any point, and may come with a letter that was taken off
long since. The second wait is that of a later attempt: it asks again for an end that it was told before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.spec.explorer import Report, Step, Violation, explore

RULES: Final = {
    "outbox": "what a commit sends is written with it",
    "delivered first": "a letter is taken off after it was delivered",
    "relay": "letters that are left are carried by whoever sweeps",
    "start once": "an execution is created once by its id",
    "start first": "a watch does not overtake the start that it follows",
    "look back": "whoever begins to watch what has ended is told so at once",
    "told once": "each watch is told once, however often its letters come",
    "told again": "a later watch is told, though an earlier one was",
    "park compares": "the parent parks only if nothing came since what it has seen",
}
ALL: Final = frozenset(RULES)
WAITS: Final = 2


class Faults(NamedTuple):
    deaths: int = 0
    """A courier dies with what it carries."""


NONE: Final = Faults()


class Letter(NamedTuple):
    kind: str
    """start, watch, ended"""
    wait: int = 0
    """Which of the parent's waits it is for."""


class Courier(NamedTuple):
    letter: Letter
    is_delivered: bool = False


class State(NamedTuple):
    # the parent's partition
    waits: int = 0
    """How many the parent has begun."""
    parent: str = "ready"
    unread: tuple[int, ...] = ()
    told: tuple[int, ...] = ()
    """Waits whose end was put into the inbox, to know a letter that comes again."""
    done: int = 0
    parent_out: tuple[Letter, ...] = ()
    # the child's partition
    child: str = "missing"
    started: int = 0
    watching: tuple[int, ...] = ()
    child_out: tuple[Letter, ...] = ()
    # those who carry
    couriers: tuple[Courier | None, Courier | None] = (None, None)
    unsent: tuple[Letter, ...] = ()
    """Only without the outbox: what is sent after the write, if its writer lives."""
    left: Faults = Faults()

    @property
    def outboxes(self) -> tuple[Letter, ...]:
        return (*self.parent_out, *self.child_out)


class Relay:
    def __init__(self, rules: frozenset[str] = ALL, faults: Faults = NONE) -> None:
        self.rules = rules
        self.faults = faults

    def explore(self) -> Report:
        return explore(State(left=self.faults), self.steps, is_end=lambda state: state.done == WAITS)

    def steps(self, state: State) -> Iterator[Step[State]]:
        yield from self._parent(state)
        yield from self._child(state)
        for number, courier in enumerate(state.couriers):
            if courier is None:
                yield from self._pick_up(state, number)
            else:
                yield from self._carry(state, number, courier)
        if state.unsent:
            out = state._replace(parent_out=(*state.parent_out, *state.unsent), unsent=())
            yield Step("what was written is sent", out)
            yield Step("the writer dies before it sends", state._replace(unsent=()), True)

    # -- the parent: begin a wait and park; read what came and begin the next

    def _parent(self, state: State) -> Iterator[Step[State]]:
        if state.parent != "ready" or state.done == WAITS:
            return
        if state.unread:
            read = state._replace(unread=(), done=min(state.done + 1, state.waits))
            if len(state.unread) > 1 or state.unread[0] != state.waits:
                raise Violation(f"the parent reads of waits {state.unread} in its wait {state.waits}")
            yield Step("the parent reads of the end", read)
        elif state.done == state.waits:
            wait = state.waits + 1
            letters = (Letter("watch", wait),) if wait > 1 else (Letter("start"), Letter("watch", wait))
            began = state._replace(waits=wait)
            sent = (
                began._replace(parent_out=(*state.parent_out, *letters))
                if "outbox" in self.rules
                else began._replace(unsent=letters)
            )
            yield Step(f"the parent begins wait {wait} and parks", sent._replace(parent="parked"))
            yield Step(f"the parent begins wait {wait}", sent)
        if state.done < state.waits and not (state.unread and "park compares" in self.rules):
            yield Step("the parent parks", state._replace(parent="parked"))

    # -- the child: end, and leave a letter for who watches

    def _child(self, state: State) -> Iterator[Step[State]]:
        if state.child == "open":
            letters = tuple(Letter("ended", wait) for wait in state.watching)
            out = (*state.child_out, *letters)
            yield Step("the child ends", state._replace(child="closed", watching=(), child_out=out))

    # -- couriers

    def _pick_up(self, state: State, number: int) -> Iterator[Step[State]]:
        """Any letter, also one that another courier has in hand. Without the relay: only one that nobody had yet."""
        for letter in state.outboxes:
            if letter.kind == "watch" and "start first" in self.rules and Letter("start") in state.parent_out:
                continue
            if "relay" not in self.rules and state.left.deaths < self.faults.deaths:
                continue  # whoever wrote it is dead
            taken = self._take_off(state, letter) if "delivered first" not in self.rules else state
            yield Step(f"{number} takes up {shown(letter)}", self._with(taken, number, Courier(letter)))

    def _carry(self, state: State, number: int, courier: Courier) -> Iterator[Step[State]]:
        letter = courier.letter
        if courier.is_delivered:
            yield Step(
                f"{number} takes off {shown(letter)}", self._with(self._take_off(state, letter), number, None)
            )
        else:
            delivered = self._with(self._deliver(state, letter), number, courier._replace(is_delivered=True))
            yield Step(f"{number} delivers {shown(letter)}", delivered)
        if state.left.deaths:
            dead = self._with(state, number, None)._replace(left=Faults(state.left.deaths - 1))
            yield Step(f"{number} dies", dead, True)

    def _take_off(self, state: State, letter: Letter) -> State:
        return state._replace(
            parent_out=tuple(each for each in state.parent_out if each != letter),
            child_out=tuple(each for each in state.child_out if each != letter),
        )

    def _deliver(self, state: State, letter: Letter) -> State:
        match letter.kind:
            case "start":
                if state.child != "missing" and "start once" in self.rules:
                    return state
                if state.started:
                    raise Violation("the child is started twice")
                return state._replace(child="open", started=1)
            case "watch" if state.child == "missing":
                raise Violation("the parent is told that its child is missing")
            case "watch" if state.child == "closed":
                return self._tell(state, letter.wait) if "look back" in self.rules else state
            case "watch":
                return state._replace(watching=tuple(sorted({*state.watching, letter.wait})))
            case _:
                return self._tell(state, letter.wait)

    def _tell(self, state: State, wait: int) -> State:
        known = wait in state.told if "told again" in self.rules else bool(state.told)
        if known and "told once" in self.rules:
            return state
        told = state._replace(unread=(*state.unread, wait), told=tuple(sorted({*state.told, wait})))
        return told._replace(parent="ready") if state.parent == "parked" else told

    def _with(self, state: State, number: int, courier: Courier | None) -> State:
        one, two = state.couriers
        return state._replace(couriers=(courier, two) if number == 0 else (one, courier))


def shown(letter: Letter) -> str:
    return f"{letter.kind} {letter.wait}".removesuffix(" 0")
