"""Recovery: how long an execution that has lost its owner is left alone while somebody is there to go on with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from tests.crash.evidence import Evidence, Fault, Life
from tests.crash.trace import Claim


@dataclass(frozen=True, slots=True)
class Shift:
    """A time in which one process worked."""

    pid: int
    began: float
    ended: float

    def within(self, began: float, ended: float) -> float:
        """How long it lasted, of that time."""
        return max(0.0, min(self.ended, ended) - max(self.began, began))


@dataclass(frozen=True, slots=True)
class Recovery:
    """An execution was claimed that had been lost with its owner."""

    execution: str
    lost: float
    """When its owner was last hit by a fault."""
    claimed: float
    losses: int
    """How many owners it has lost: 1, or more where a claim was granted and its answer met nobody."""
    neglected: float
    """The longest time in between that one worker worked undisturbed and claimed neither this nor anything else, in
    seconds. (One that claims others has a backlog, and takes what has waited for longest first.)"""

    @property
    def seconds(self) -> float:
        """From the fault on, whatever else happened meanwhile."""
        return self.claimed - self.lost


def recoveries(evidence: Evidence, calm: Sequence[Shift]) -> list[Recovery]:
    """Of every execution whose owner was killed or stopped, and each time. `calm` is the undisturbed work there was."""
    found = []
    by_pid: dict[int, list[Claim]] = defaultdict(list)
    for claim in evidence.trace.claims:
        by_pid[claim.pid].append(claim)
    idle = [part for shift in calm for part in _idle(shift, by_pid[shift.pid])]
    for life in evidence.lives.values():
        for owner, taker in _takeovers(life):
            hits = [
                fault.at
                for fault in evidence.faults
                if fault.pid == owner.pid and owner.asked <= fault.at <= taker.asked
            ]
            if not hits:
                continue  # its lease ran out while the store was away
            lost, claimed = max(hits), taker.answered
            neglected = max(
                (part.within(lost, claimed) for part in idle if part.pid != owner.pid), default=0.0
            )
            progressed = any(
                commit is life.applied.get(commit.ver + 1) for commit in life.by_nonce[owner.nonce]
            )
            losses = taker.crashes - (0 if progressed else owner.crashes)
            found.append(Recovery(life.id, lost, claimed, max(losses, 1), neglected))
    return found


def idlers(
    claims: Iterable[Claim], calm: Iterable[Shift], times: Iterable[tuple[float, float]]
) -> list[Shift]:
    """The undisturbed work of processes that claimed nothing at all from the begin to the end of one of `times`."""
    when: dict[int, list[float]] = defaultdict(list)
    for claim in claims:
        when[claim.pid].append(claim.answered)
    return [
        shift
        for shift, (began, ended) in product(calm, times)
        if shift.began <= began
        and shift.ended >= ended
        and not any(began <= at <= ended for at in when[shift.pid])
    ]


def undisturbed(shifts: Iterable[Shift], faults: Iterable[Fault], outages: Collection[str]) -> list[Shift]:
    """The parts of shifts in which the process ran and its store answered: nothing else is needed to go on.

    `outages` are the kinds of faults that keep everybody from the store.
    """
    by_time = sorted(faults, key=lambda fault: fault.at)
    return [part for shift in shifts for part in _undisturbed(shift, by_time, outages)]


def _undisturbed(shift: Shift, faults: Iterable[Fault], outages: Collection[str]) -> Iterator[Shift]:
    began = shift.began
    for fault in faults:
        hits = fault.pid == shift.pid or fault.kind in outages
        if hits and began < fault.until and fault.at < shift.ended:
            if began < fault.at:
                yield Shift(shift.pid, began, fault.at)
            began = fault.until
    if began < shift.ended:
        yield Shift(shift.pid, began, shift.ended)


def _idle(shift: Shift, claims: Iterable[Claim]) -> Iterator[Shift]:
    """The parts of a shift between its claims."""
    began = shift.began
    for claim in sorted(claims, key=lambda claim: claim.answered):
        if began < claim.answered < shift.ended:
            yield Shift(shift.pid, began, claim.answered)
            began = claim.answered
    yield Shift(shift.pid, began, shift.ended)


def _takeovers(life: Life) -> Iterator[tuple[Claim, Claim]]:
    claims = sorted(life.claims, key=lambda claim: claim.answered)
    for owner, taker in pairwise(claims):
        if taker.crashes > 0:
            yield owner, taker
