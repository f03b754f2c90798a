"""The invariants about what operators do, and about the records that the engine keeps for itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from durable.engine.frames import unpack_tries
from durable.engine.operator_acts import APPLIED, EDIT_STEP, REFUSED, SKIP_STEP, unpack_act
from durable.engine.reruns import rerun_of
from durable.engine.telling import TRACE
from durable.engine.transitions import END, GIVEN, PAUSED, TRIES
from durable.models import ExecutionStatus
from durable.protocols import CheckpointStatus, MessageKind
from tests.crash.evidence import Evidence
from tests.crash.ledger import digest

_KEPT: Final = (END, PAUSED, GIVEN, TRIES, TRACE, "__attempt:", "__cancel:")
"""What the names of records begin with that no author has asked for."""


def acts_between(e: Evidence, id: str, after: int, until: int) -> list[str]:
    """The acts that commits have applied which made the versions after one, up to another."""
    life = e.lives[id]
    return [
        e.inbox[id][seq][2]
        for ver in range(after + 1, until + 1)
        if (commit := life.applied.get(ver)) is not None
        for seq, taker in commit.consume
        if taker == APPLIED
    ]


def acts_are_taken(e: Evidence) -> Iterator[str]:
    """I20: each act of an operator that was accepted is in the inbox, and is applied or refused, in order; one that
    nobody took came when all was over."""
    asked = Counter((ack.execution, ack.name) for ack in e.acks if ack.kind == "act")
    for (id, name), number in asked.items():
        there = sum(
            (kind, given) == (MessageKind.OPERATOR, name) for _, kind, given, _ in e.inbox[id].values()
        )
        if there < number:
            yield f"{id}: {number} times {name} was accepted, and {there} of them are in the inbox"
    for id, stored in e.stored.items():
        acts = [entry for entry in stored.inbox if entry.kind is MessageKind.OPERATOR]
        taken = [entry.seq for entry in acts if entry.consumed_by is not None]
        for entry in acts:
            if entry.consumed_by not in (None, APPLIED, REFUSED):
                yield f"{id}: {entry.name} was taken by {entry.consumed_by!r}"
            if entry.consumed_by is None and entry.seq < max(taken, default=0):
                yield f"{id}: {entry.name}, entry {entry.seq}, was passed over"


def nothing_begins_while_paused(e: Evidence) -> Iterator[str]:
    """I21: no body begins under an owner that knows the execution to be paused. Those that run may end, and the last
    of them ends the execution."""
    for entry in e.starts:
        life = e.lives.get(entry.execution)
        claim = life.claim_of(entry.pid, entry.mono) if life is not None else None
        if life is not None and claim is not None and PAUSED in life.known_at(claim, entry.mono):
            yield f"{entry.key}: its body began while the execution was paused"


def amended_by_acts_alone(e: Evidence) -> Iterator[str]:
    """I22: the record of a step that completed goes, or changes, only with a commit that applies an act; and a step
    that was skipped or edited holds what the last such act gave it."""
    for id, life in e.lives.items():
        for ver, commit in life.applied.items():
            before = life.final_at(ver - 1)
            for step in commit.drop:
                old = before.get(step)
                completed = old is not None and (old.kind, old.status) == ("step", CheckpointStatus.COMPLETED)
                if completed and not acts_between(e, id, ver - 1, ver):
                    yield f"{id}: commit {ver} dropped the completed step {step!r}, and no act had asked for it"
    for id, stored in e.stored.items():
        given: dict[str, bytes] = {}
        for entry in stored.inbox:
            is_act = entry.kind is MessageKind.OPERATOR and entry.consumed_by == APPLIED
            if is_act and entry.name in (SKIP_STEP, EDIT_STEP):
                details, value = unpack_act(entry.data)
                given[str(details["step_id"])] = value
        held = {c.step_id: c.data for c in stored.history}
        for step, value in given.items():
            if stored.row.status is ExecutionStatus.COMPLETED and held.get(step) != value:
                yield f"{id}: {step!r} was given {value!r} and holds {held.get(step)!r}"


def reruns_copy(e: Evidence) -> Iterator[str]:
    """I23: what repeats another execution from a step begins with all that was final there before that step, byte for
    byte; and nothing else begins with any record."""
    for id, stored in e.stored.items():
        rerun = rerun_of(stored.row.options)
        begun = [c.history for c in e.lives[id].claims if c.ver == 0 and c.history is not None]
        if rerun is None:
            if any(begun):
                yield f"{id}: it began with records, and repeats nobody"
            continue
        source = e.stored.get(rerun.of)
        if source is None:
            yield f"{id}: it repeats {rerun.of}, which is not there"
            continue
        first = min((c.seq for c in source.history if c.step_id == rerun.from_step), default=0)
        copies = {
            c.step_id: digest(c.data)
            for c in source.history
            if c.status.final and c.seq < first and not c.step_id.startswith("__")
        }
        for history in begun:
            if {record.step: record.digest for record in history} != copies:
                yield f"{id}: it did not begin with what {rerun.of} holds before {rerun.from_step!r}"


def kept_records(e: Evidence) -> Iterator[str]:
    """I24: tries that are kept were made: no more of them than bodies that failed, each once and in order; and every
    record that no author asked for is one that the engine is known to keep."""
    failures = Counter(entry.key for entry in e.ends if entry.outcome != "ok")
    for id, stored in e.stored.items():
        for checkpoint in stored.history:
            step = checkpoint.step_id
            if step.startswith("__") and not step.startswith(_KEPT):
                yield f"{id}: nobody is known to keep {step!r}"
            if step.startswith(TRIES):
                tries = unpack_tries(checkpoint.data)
                key = f"{id}:{stored.row.generation}:{step.removeprefix(TRIES)}"
                if len(tries) > failures[key]:
                    yield f"{key}: {len(tries)} failed tries are kept, and {failures[key]} bodies failed"
                numbers = [each.number for each in tries]
                if numbers != sorted(set(numbers)):
                    yield f"{key}: its tries are out of order"


INVARIANTS: Final[Mapping[str, Callable[[Evidence], Iterator[str]]]] = {
    "I20": acts_are_taken,
    "I21": nothing_begins_while_paused,
    "I22": amended_by_acts_alone,
    "I23": reruns_copy,
    "I24": kept_records,
}
