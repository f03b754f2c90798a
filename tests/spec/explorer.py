"""`explore`: every state that a small protocol can reach, breadth first, and whether each can still come to an end.

A protocol is a function from a state to the steps that may be taken there. States are values: equal ones are one. A
step that is a fault (a kill, a lost message) may happen; nobody may count on it, so it helps no state to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)


class Step(NamedTuple, Generic[S]):
    name: str
    state: S
    is_fault: bool = False


class Violation(Exception):
    """A step that must not be possible is."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found: with the shortest way to it, if it is bad."""

    states: int
    transitions: int
    depth: int
    """Of the state that is farthest from the beginning; or of the one that is bad."""
    trouble: str | None = None
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        size = f"{self.states:,} states, {self.transitions:,} transitions, depth {self.depth}"
        return (
            f"ok: {size}"
            if self.trouble is None
            else f"{self.trouble} at depth {self.depth}: {' > '.join(self.trace)}"
        )


def explore(
    beginning: S,
    steps: Callable[[S], Iterable[Step[S]]],
    *,
    is_end: Callable[[S], bool],
    must_end: Callable[[S], bool] = lambda state: True,
) -> Report:
    """Safety first: the first `Violation` ends it. Then liveness: from every state that `must_end`, an end is reached
    by steps that are no faults."""
    came: dict[S, tuple[S, str] | None] = {beginning: None}
    depth = {beginning: 0}
    causes: dict[S, list[S]] = {beginning: []}
    transitions = 0
    left = deque([beginning])

    def way_to(state: S) -> tuple[str, ...]:
        names: list[str] = []
        link = came[state]
        while link is not None:
            names.append(link[1])
            link = came[link[0]]
        return tuple(reversed(names))

    while left:
        state = left.popleft()
        try:
            for name, then, is_fault in steps(state):
                if then == state:
                    continue
                transitions += 1
                if then not in came:
                    came[then] = (state, name)
                    depth[then] = depth[state] + 1
                    causes[then] = []
                    left.append(then)
                if not is_fault:
                    causes[then].append(state)
        except Violation as violation:
            return Report(len(came), transitions, depth[state] + 1, str(violation), (*way_to(state), "?"))

    good = {state for state in came if is_end(state)}
    left = deque(good)
    while left:
        for cause in causes[left.popleft()]:
            if cause not in good:
                good.add(cause)
                left.append(cause)
    stuck = [state for state in came if state not in good and must_end(state)]
    if stuck:
        first = min(stuck, key=depth.__getitem__)
        return Report(len(came), transitions, depth[first], f"{len(stuck):,} states never end", way_to(first))
    return Report(len(came), transitions, max(depth.values()))
