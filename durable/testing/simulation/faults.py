"""What goes wrong in a simulation: which faults a seed turns on, how often, and how many before all heals."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final, Literal, final, get_args

StoreFault = Literal["error", "unknown", "late", "delay", "stall"]
"""`error`: refused, and nothing applied. `unknown`: applied, and answered by an error. `late`: answered by an error,
and applied some time later. `delay`: takes seconds. `stall`: nothing is answered for a while."""
MessageFault = Literal["drop", "duplicate", "delay"]
"""Of doorbells and hints; one that is delayed is overtaken by others."""
NodeFault = Literal["kill", "pause", "restart"]
"""`kill`: dead at an await. `pause`: does nothing for a while, then goes on as if nothing had been. `restart`: told to
leave, and drains."""

_STORE: Final[tuple[StoreFault, ...]] = get_args(StoreFault)
_MESSAGE: Final[tuple[MessageFault, ...]] = get_args(MessageFault)
_NODE: Final[tuple[NodeFault, ...]] = get_args(NodeFault)
_MOST_AT_ONCE = 3
"""Faults in a row that one verb meets: a client gives up after some seconds, and that is no fault of a workflow's."""


@final
class Faults:
    """The faults of one seed: about half of all kinds are on, each with its own chance, until `left` is used up."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.met: Counter[str] = Counter()
        """How often each fault was met, as `store unknown commit`, `queue drop`, `node kill`."""
        self.left = random.choice((0, 3, 10, 30))
        self._store = self._some(_STORE)
        self._bus = self._some(_MESSAGE)
        self._queue = self._some(_MESSAGE)
        self.node: tuple[NodeFault, ...] = tuple(each for each in _NODE if random.random() < 0.5)
        self._in_a_row: Counter[str] = Counter()

    def _some(self, kinds: tuple[str, ...]) -> dict[str, float]:
        return {each: self._random.choice((0.02, 0.1, 0.4)) for each in kinds if self._random.random() < 0.5}

    @property
    def over(self) -> bool:
        """Everything is well from now on."""
        return self.left <= 0

    def of_store(self, verb: str, caller: str) -> str | None:
        """What happens to this call, if anything."""
        who = f"{caller} {verb}"
        if self._in_a_row[who] >= _MOST_AT_ONCE:
            self._in_a_row[who] = 0
            return None
        kind = self._draw(self._store)
        if kind is None:
            self._in_a_row[who] = 0
            return None
        self._in_a_row[who] += 1
        self._meet(f"store {kind} {verb}")
        return kind

    def of_message(self, port: Literal["bus", "queue"]) -> str | None:
        """What happens to this doorbell or hint, if anything."""
        kind = self._draw(self._bus if port == "bus" else self._queue)
        if kind is not None:
            self._meet(f"{port} {kind}")
        return kind

    def of_node(self) -> NodeFault | None:
        """What happens to a node now."""
        if self.over or not self.node:
            return None
        kind = self._random.choice(self.node)
        self._meet(f"node {kind}")
        return kind

    def _draw(self, chances: dict[str, float]) -> str | None:
        if self.left <= 0 or not chances:
            return None
        for kind, chance in chances.items():
            if self._random.random() < chance:
                return kind
        return None

    def _meet(self, what: str) -> None:
        self.left -= 1
        self.met[what] += 1
