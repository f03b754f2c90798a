"""What is known after a run, put together from what everybody wrote down.

ledger      what step bodies did          (tests/crash/ledger.py)
trace       what nodes asked and heard    (tests/crash/trace.py)
acks        what the client was told
stored      what the store says at rest
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

from durable.engine.frames import TIMEOUT_FRAME
from durable.engine.operator_acts import APPLIED, EDIT_STEP, RETRY, SKIP_STEP
from durable.engine.reruns import rerun_of
from durable.protocols import Checkpoint, ExecutionRow, InboxEntry, MessageKind
from tests.crash.ledger import Entry
from tests.crash.trace import Claim, Commit, Record, Trace


@dataclass(frozen=True, slots=True)
class Ack:
    """A client operation that came back."""

    kind: str
    """`start`, `signal`, `cancel`, `act` of an operator, or `result`: how it ended, as its caller was told."""
    execution: str
    name: str = ""
    """Of a start the workflow, of a signal or an act its name, of a result the status."""
    key: str = ""
    created: bool = False
    value: str = ""
    """A digest of the result."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    """`kill`, `stop` or `term` of a process; or what was done to a server."""
    pid: int
    """0: it was done to a server."""
    at: float
    """When it began, on the monotonic clock."""
    until: float = 0.0
    """When it was over: the process goes on or is gone, the server works again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One execution, as the store has it at rest."""

    row: ExecutionRow
    history: Sequence[Checkpoint] = ()
    inbox: Sequence[InboxEntry] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """What is known about a workflow's code."""

    chains: Sequence[Sequence[str]] = ()
    """Steps of which each begins only after the one before it is stored."""
    undone: Sequence[str] = ()
    """Steps with a compensation."""
    rolls_back: bool = False
    """Whether it runs its compensations whenever it does not complete."""


@dataclass
class Evidence:
    """All that is known after a run. Predicates read it and nothing else."""

    ledger: Sequence[Entry] = ()
    trace: Trace = field(default_factory=Trace)
    acks: Sequence[Ack] = ()
    faults: Sequence[Fault] = ()
    stored: Mapping[str, Stored] = field(default_factory=dict)
    complaints: Sequence[str] = ()
    """Of `store.check()` and of the database itself."""
    programs: Mapping[str, Program] = field(default_factory=dict)
    wanted: Mapping[str, int] = field(default_factory=dict)
    """How often at least each of `figures` was to be seen."""

    @cached_property
    def lives(self) -> Mapping[str, Life]:
        claims: dict[str, list[Claim]] = defaultdict(list)
        commits: dict[str, list[Commit]] = defaultdict(list)
        for claim in self.trace.claims:
            claims[claim.execution].append(claim)
        for commit in self.trace.commits:
            commits[commit.execution].append(commit)
        return {id: Life(id, claims[id], commits[id]) for id in {*claims, *commits, *self.stored}}

    @cached_property
    def starts(self) -> Sequence[Entry]:
        return [entry for entry in self.ledger if entry.event == "start"]

    @cached_property
    def ends(self) -> Sequence[Entry]:
        return [entry for entry in self.ledger if entry.event == "end"]

    @cached_property
    def inbox(self) -> Mapping[str, Mapping[int, tuple[str, str, str, int]]]:
        """By execution and number: id, kind, name and instant of every entry that anybody has seen."""
        found: dict[str, dict[int, tuple[str, str, str, int]]] = defaultdict(dict)
        for (id, seq), seen in self.trace.inbox.items():
            found[id][seq] = (seen.id, seen.kind, seen.name, seen.at)
        for id, stored in self.stored.items():
            for entry in stored.inbox:
                found[id][entry.seq] = (entry.id, str(entry.kind), entry.name, entry.at)
        return found

    @cached_property
    def figures(self) -> Mapping[str, int]:
        """How often things happened that a run is there for."""
        count: Counter[str] = Counter(fault.kind for fault in self.faults)
        count.update(f"acked {ack.kind}" for ack in self.acks)
        count.update(stored.row.status for stored in self.stored.values())
        for commit in self.trace.commits:
            count[commit.answer or "unanswered"] += 1
            count["continued"] += commit.acked and commit.next == "continue"
        for claim in self.trace.claims:
            count["claims"] += 1
            count["takeovers"] += claim.crashes > 0
        for stored in self.stored.values():
            waits = [c for c in stored.history if c.kind == "wait_for_signal" and c.status.final]
            count["timeouts"] += sum(c.data == TIMEOUT_FRAME for c in waits)
            count["signals taken"] += sum(
                e.kind is MessageKind.SIGNAL and e.consumed_by is not None for e in stored.inbox
            )
            count.update(
                f"{e.name} applied"
                for e in stored.inbox
                if e.kind is MessageKind.OPERATOR and e.consumed_by == APPLIED
            )
            count["reruns"] += rerun_of(stored.row.options) is not None
            count["compensations"] += sum(c.kind == "rollback" for c in stored.history)
            count["children"] += stored.row.parent_id is not None
        count["mended"] = sum(count[f"{act} applied"] for act in (SKIP_STEP, EDIT_STEP, RETRY))
        count["kills and stops"] = count["kill"] + count["stop"]
        count["server faults"] = sum(not fault.pid for fault in self.faults)
        count["answers lost"] = sum(commit.unheard > 0 for commit in self.trace.commits)
        count["bodies"] = len(self.starts)
        bodies = Counter(entry.key for entry in self.starts)
        failures = Counter(entry.key for entry in self.ends if entry.outcome == "failed")
        count["repeats"] = sum(max(0, number - 1 - failures[key]) for key, number in bodies.items())
        return count


@final
class Life:
    """One execution, put together again from what its owners asked and heard."""

    def __init__(self, id: str, claims: Sequence[Claim], commits: Sequence[Commit]) -> None:
        self.id = id
        self.claims = sorted(claims, key=lambda claim: (claim.ver, claim.asked))
        self.commits = commits
        self.by_nonce: dict[str, list[Commit]] = defaultdict(list)
        for commit in commits:
            self.by_nonce[commit.nonce].append(commit)

    @cached_property
    def applied(self) -> Mapping[int, Commit]:
        """By the version that it made: the commit of which it is certain that it was applied."""
        applied = {commit.ver + 1: commit for commit in self.commits if commit.acked}
        open_: dict[int, list[Commit]] = defaultdict(list)
        for commit in self.commits:
            if commit.may_be_applied:
                open_[commit.ver + 1].append(commit)
        for ver, candidates in open_.items():
            if ver not in applied and len(candidates) == 1 and ver <= self.known_ver:
                applied[ver] = candidates[0]
        return applied

    @cached_property
    def known_ver(self) -> int:
        """The highest version that somebody was told of."""
        acked = [commit.ver + 1 for commit in self.commits if commit.acked]
        return max([*acked, *(claim.ver for claim in self.claims)], default=0)

    def claim_of(self, pid: int, at: float) -> Claim | None:
        """Under which claim a process did something of this execution at that time."""
        mine = [claim for claim in self.claims if claim.pid == pid and claim.asked <= at]
        return max(mine, key=lambda claim: claim.asked, default=None)

    def is_lost(self, claim: Claim) -> bool:
        """Nobody heard that it was given back in order."""
        return not any(commit.acked and not commit.owned for commit in self.by_nonce[claim.nonce])

    @cached_property
    def folds(self) -> Mapping[int, Mapping[str, Record] | None]:
        """The records at each version, as the commits up to it add up; None where one of them is not known."""
        told = {claim.ver: claim.history for claim in self.claims if claim.history is not None}
        # What repeats another execution begins with records of that one.
        state: dict[str, Record] | None = {record.step: record for record in told.get(0, ())}
        folds: dict[int, Mapping[str, Record] | None] = {0: dict(state)}
        for ver in range(1, self.known_ver + 1):
            commit = self.applied.get(ver)
            if commit is None:
                state = None
            elif state is not None:
                state = _after(state, commit)
            if state is None and ver in told:  # from here on it is known again
                state = {record.step: record for record in told[ver]}
            folds[ver] = None if state is None else dict(state)
        return folds

    def final_at(self, ver: int) -> Mapping[str, Record]:
        """The final records that a claim at that version finds."""
        return {step: record for step, record in (self.folds.get(ver) or {}).items() if record.final}

    def known_at(self, claim: Claim, at: float) -> Mapping[str, Record]:
        """The records that whoever works under `claim` could know to be stored at that time."""
        state = self.folds.get(claim.ver) or {}
        for commit in sorted(self.by_nonce[claim.nonce], key=lambda commit: commit.ver):
            if commit.acked and commit.ver >= claim.ver and commit.answered <= at:
                state = _after(state, commit)
        return state

    def stored_at(self, claim: Claim, step: str, before: float) -> bool:
        """Whether whoever works under `claim` could know `step` to be stored at that time."""
        record = self.known_at(claim, before).get(step)
        return record is not None and record.final


def _after(state: Mapping[str, Record], commit: Commit) -> dict[str, Record]:
    if commit.next == "continue":
        return {}
    records = {step: record for step, record in state.items() if step not in commit.drop}
    return records | {record.step: record for record in commit.records}
