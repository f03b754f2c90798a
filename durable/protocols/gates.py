"""Flow control: the gates that an execution passes before it may be claimed, and the group that it may join.

    ready ──seek──▶ gate ──passes──▶ next gate ──passes──▶ claimable
                     │ is full                                 │ the claim ends: slots are given back
                     └── waits in line ◀──── the next in line ─┘

An execution that waits at a gate is *held*: it is ready, no `claim` gets it and `due` does not name it, so that any
number of them costs nobody else anything. Who decides is the store, in the same write as what it decides about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from durable.protocols._record import quick


class GateKind(StrEnum):
    SLOTS = "slots"
    """At most `limit` hold a slot at one time. An execution gives its slot back when its claim ends in a commit that
    leaves it (parked, blocked, ready for another attempt, closed), and seeks one anew when it is to go on; with
    `keeps` it gives it back at its end. One whose worker died keeps it: it goes on as soon as somebody claims it."""
    RATE = "rate"
    """`limit` in `per_ms`, evenly spaced, `burst` more of them at once: the generic cell rate algorithm (ITU-T
    I.371), so that no window of `per_ms` has more than `limit + burst`. An execution passes once, however often it
    is claimed."""
    WINDOW = "window"
    """At most `limit` in any window of `per_ms`, counted exactly. An execution passes once. When it is full, who was
    never claimed is refused."""


class WhenFull(StrEnum):
    """What happens to an execution that was never claimed and finds a gate full. One that goes on waits in line."""

    WAIT = "wait"
    """It waits in line: greater priority first, then who came first."""
    REFUSE = "refuse"
    """It ends as cancelled, with the gate's `refusal` as its error."""
    REPLACE = "replace"
    """It waits in line, and the one that has held its slot for the longest time is sent a `CANCEL` message with the
    gate's `refusal`, unless it was sent one already."""


@quick
@dataclass(frozen=True, slots=True)
class Gate:
    """One rule of flow control, as it holds for one execution or step. Those with one `name` are one gate."""

    rule: str
    """What the rule is called; `set_limit` changes the limit of all its gates."""
    key: str
    """Which of the rule's gates; empty when it has only one."""
    kind: GateKind
    limit: int
    """As declared; the one who seeks last is right, and `set_limit` is more right."""
    per_ms: int = 0
    burst: int = 0
    when_full: WhenFull = WhenFull.WAIT
    keeps: bool = False
    """Its slot is kept while the execution waits, until it ends."""
    refusal: bytes = b""
    """The encoded error of those that are refused or replaced."""

    @property
    def name(self) -> str:
        """By which a store knows it, and by which it chooses its partition. A rule's name holds no `|`."""
        return f"{self.rule}|{self.key}"


@quick
@dataclass(frozen=True, slots=True)
class Join:
    """The group that a new execution joins: at most one that is not due yet is pending for each group.

    With nobody pending the execution is created, to begin after `wait_ms`, and is the pending one. Else nothing is
    created. *Debounce* (no `size`): the pending one gets this input and this `cause` instead of its own, and begins
    `wait_ms` from now, at most `most_ms` after it was created. *Batch*: they are added to its own, behind a line
    feed, and with `size` items or more together it begins at once; if this one's items would make it more than
    `size`, the pending one begins without them, and this one is created as the next.

    The ids of the executions of a group are `keyed_id`s of it, so a partitioned store has them all in one place.
    """

    group: str
    wait_ms: int
    most_ms: int | None = None
    size: int | None = None
    items: int = 1
    """How many this one brings."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Who holds a slot: an execution, or one of its steps, and since when."""

    execution_id: str
    step_id: str
    """Empty for the execution itself."""
    since: int


@dataclass(frozen=True, slots=True)
class GateRow:
    """A gate as it is now."""

    name: str
    kind: GateKind
    limit: int
    """That holds now."""
    holdings: Sequence[Holding]
    """Who holds a slot, at most 100 of them, the longest first; empty unless it has slots."""
    held: int
    """How many hold a slot."""
    waiting: int
    oldest_at: int | None
    """Since when the one waits that has waited for the longest time."""
    next_at: int | None
    """The next instant at which a rate lets somebody pass that waits."""
