"""The invariants, each one a predicate over what is known after a run: coded once, for every way of running.

A predicate yields a sentence for each violation and nothing when it holds. Each is shown to fail on a bad trace in
`test_invariants.py`. Those about what operators do are in `steering.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

from durable.engine.frames import TIMEOUT_FRAME, unpack_received
from durable.engine.reruns import rerun_of
from durable.models import ExecutionStatus
from durable.protocols import TIMEOUT_TIMER, CheckpointStatus, MessageKind, Outcome, State
from tests.crash import steering
from tests.crash.evidence import Ack, Evidence, Program
from tests.crash.ledger import Entry, digest
from tests.crash.trace import Commit, Record


def _by_step(entries: Iterable[Entry]) -> Mapping[tuple[str, str, str], list[Entry]]:
    grouped: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        grouped[entry.execution, entry.step, entry.key].append(entry)
    return grouped


def _makes_final(commit: Commit, step: str) -> bool:
    return any(record.step == step and record.final for record in commit.records)


# ---- the predicates ------------------------------------------------------------------------------------------------


def no_lost_start(e: Evidence) -> Iterator[str]:
    """I1: every execution whose start was acknowledged is there, and reaches a terminal state."""
    for id in dict.fromkeys(ack.execution for ack in e.acks if ack.kind == "start"):
        if id not in e.stored:
            yield f"{id} was started and is not there"
    for id, stored in e.stored.items():
        if not stored.row.status.final:
            yield f"{id} has not ended: it is {stored.row.status} ({stored.row.state})"


def immutable(e: Evidence) -> Iterator[str]:
    """I2: a final checkpoint never changes, nor disappears while its history lasts: what each owner is told, and what
    is stored at rest, is what the accepted commits add up to, byte for byte."""
    for id, life in e.lives.items():
        for ver, commit in sorted(life.applied.items()):
            before = life.final_at(ver - 1)
            for record in commit.records:
                old = before.get(record.step)
                if old is not None and record.step not in commit.drop:
                    yield f"{id}: commit {ver} replaced the final checkpoint {record.step!r}"
        for claim in life.claims:
            fold = life.folds.get(claim.ver)
            if claim.history is not None and fold is not None:
                yield from _differ(f"{id}: claim at {claim.ver}", fold, claim.history)
        stored = e.stored.get(id)
        if stored is not None and (fold := life.folds.get(stored.row.ver)) is not None and life.claims:
            yield from _differ(f"{id}: at rest", fold, [Record.of(c) for c in stored.history])


def _differ(where: str, fold: Mapping[str, Record], told: Iterable[Record]) -> Iterator[str]:
    found = {record.step: record for record in told}
    for step in fold.keys() | found.keys():
        if step not in found:
            yield f"{where}: checkpoint {step!r} is gone"
        elif step not in fold:
            yield f"{where}: checkpoint {step!r} was never committed"
        elif (fold[step].status, fold[step].digest) != (found[step].status, found[step].digest):
            yield f"{where}: checkpoint {step!r} is not what was committed"


def same_for_replay(e: Evidence) -> Iterator[str]:
    """I3: the value that the code is handed for a stored step is equal in all replays; and the end of an execution,
    once anybody was told of it, never changes.

    What a body was handed before it was stored, by an owner that died or was fenced before it could commit it, is no
    part of any history.
    """
    seen: dict[tuple[str, str], dict[str, Entry]] = defaultdict(dict)
    for entry in e.ledger:
        if entry.event != "saw":
            continue
        life = e.lives.get(entry.execution)
        claim = life.claim_of(entry.pid, entry.mono) if life is not None else None
        if life is None or claim is None:
            continue
        record = life.final_at(claim.ver).get(entry.step)
        for commit in life.by_nonce[claim.nonce]:
            if life.applied.get(commit.ver + 1) is commit and _makes_final(commit, entry.step):
                record = record or next(each for each in commit.records if each.step == entry.step)
        if record is not None:  # an operator may have given it another value since
            seen[entry.key, record.digest].setdefault(entry.outcome, entry)
    for (key, _), values in seen.items():
        if len(values) > 1:
            yield f"{key}: replays were handed {len(values)} different values"
    for ack in e.acks:
        stored = e.stored.get(ack.execution)
        if ack.kind == "result" and stored is not None:
            row = stored.row
            value = digest(row.result) if row.result is not None else ""
            if (ack.name, ack.value) != (row.status, value):
                yield f"{ack.execution}: it had ended as {ack.name}, and now as {row.status}"
    for id, life in e.lives.items():
        closings = [commit for commit in life.commits if commit.acked and commit.next == "close"]
        for earlier, later in pairwise(sorted(closings, key=lambda commit: commit.ver)):
            if not steering.acts_between(e, id, earlier.ver + 1, later.ver + 1):
                yield f"{id}: it was closed again, and nobody had opened it"


def no_rerun(e: Evidence) -> Iterator[str]:
    """I4: no body begins under a claim that was granted after the step's final checkpoint was stored, nor after the
    owner itself was told that it is."""
    for entry in e.starts:
        life = e.lives.get(entry.execution)
        claim = life.claim_of(entry.pid, entry.mono) if life is not None else None
        if life is None or claim is None:
            yield f"{entry.key}: process {entry.pid} ran its body without a claim"
        elif life.stored_at(claim, entry.step, entry.mono):
            yield f"{entry.key}: process {entry.pid} ran its body again after it was stored"


def repeat_bound(e: Evidence) -> Iterator[str]:
    """I5: bodies <= 1 + retries + losses: beyond the first, each run of a body follows from a try that failed, or from
    a claim that was lost while the step was open under it; or that a worker gave back which was told to leave."""
    leaving = {fault.pid for fault in e.faults if fault.kind == "term"}
    failures = Counter(entry.key for entry in e.ends if entry.outcome == "failed")
    for (id, _, key), entries in _by_step(e.starts).items():
        life = e.lives.get(id)
        if life is None:
            continue
        under = {claim.nonce: claim for entry in entries if (claim := life.claim_of(entry.pid, entry.mono))}
        losses = sum(life.is_lost(claim) or claim.pid in leaving for claim in under.values())
        bound = 1 + failures[key] + losses
        if len(entries) > bound:
            yield f"{key}: {len(entries)} bodies, with {failures[key]} failures and {losses} losses"


def single_writer(e: Evidence) -> Iterator[str]:
    """I6: the accepted commits of an execution have the versions 1, 2, 3 ..., and the owner of each is the last that
    was granted a claim before it."""
    for id, life in e.lives.items():
        acked: dict[int, Commit] = {}
        for commit in life.commits:
            if commit.acked and acked.setdefault(commit.ver + 1, commit) is not commit:
                yield f"{id}: version {commit.ver + 1} was accepted from two owners"
        for ver in range(1, life.known_ver + 1):
            if ver not in acked and not any(c.ver == ver - 1 and c.may_be_applied for c in life.commits):
                yield f"{id}: version {ver} was committed by nobody"
        for ver, commit in acked.items():
            # A worker in doubt about a claim asks again under its nonce, and may be granted it anew.
            granted = [claim for claim in life.claims if claim.nonce == commit.nonce and claim.ver < ver]
            mine = max(granted, key=lambda claim: claim.ver, default=None)
            if mine is None:
                yield f"{id}: version {ver} was accepted without a claim"
                continue
            for other in life.claims:
                replaces = other.nonce != mine.nonce and other.asked > mine.answered
                if replaces and mine.ver <= other.ver < ver:
                    yield f"{id}: version {ver} was accepted from an owner that another claim had replaced"
        stored = e.stored.get(id)
        if stored is not None and stored.row.ver < life.known_ver:
            yield f"{id}: version {life.known_ver} was accepted, and the store is at {stored.row.ver}"


def prefix_history(e: Evidence) -> Iterator[str]:
    """I7: what is stored is downward closed in program order, at every claim and at rest; and no body begins before
    all that precedes it is stored."""
    for id, stored in e.stored.items():
        chains = e.programs.get(stored.row.workflow, Program()).chains
        life = e.lives[id]
        histories = [(f"claim at {c.ver}", c.history) for c in life.claims if c.history is not None]
        histories.append(("rest", tuple(Record.of(c) for c in stored.history)))
        for where, history in histories:
            done = {record.step for record in history if record.final}
            for chain in chains:
                for step, following in pairwise(chain):
                    if following in done and step not in done:
                        yield f"{id}: at {where} {following!r} is stored and {step!r} is not"
    before: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, program in e.programs.items():
        for chain in program.chains:
            for step, following in pairwise(chain):
                before[name, following].append(step)
    for entry in e.starts:
        stored = e.stored.get(entry.execution)
        life = e.lives.get(entry.execution)
        claim = life.claim_of(entry.pid, entry.mono) if life is not None else None
        if stored is None or life is None or claim is None or life.folds.get(claim.ver) is None:
            continue
        for step in before[stored.row.workflow, entry.step]:
            if not life.stored_at(claim, step, entry.mono):
                yield f"{entry.key}: its body began before {step!r} was stored"


def timer_not_early(e: Evidence) -> Iterator[str]:
    """I8: no timer's message is in the inbox before its instant on the store's clock, nor more than once."""
    for id, entries in e.inbox.items():
        due: dict[str, set[int]] = defaultdict(set)
        for commit in e.lives[id].commits if id in e.lives else ():
            for record in commit.records:
                if record.wake_at is not None:
                    due[record.step].add(record.wake_at)
        stored = e.stored.get(id)
        if stored is not None and stored.row.deadline_at is not None:
            due[TIMEOUT_TIMER].add(stored.row.deadline_at)
        fired: dict[str, list[int]] = defaultdict(list)
        for _, (_, kind, name, at) in sorted(entries.items()):
            if kind == MessageKind.TIMER and name != "__nudge":
                fired[name].append(at)
        for name, instants in fired.items():
            for number, at in enumerate(sorted(instants), 1):
                if sum(instant <= at for instant in due[name]) < number:
                    yield f"{id}: timer {name!r} fired early or once too often, at {at}"


def lateness_ms(e: Evidence) -> list[int]:
    """How late timers of waits were, each against the latest instant that it can stand for."""
    late = []
    for id, entries in e.inbox.items():
        due: dict[str, set[int]] = defaultdict(set)
        for commit in e.lives[id].commits if id in e.lives else ():
            for record in commit.records:
                if record.wake_at is not None:
                    due[record.step].add(record.wake_at)
        for _, kind, name, at in entries.values():
            if kind == MessageKind.TIMER and (passed := [instant for instant in due[name] if instant <= at]):
                late.append(at - max(passed))
    return sorted(late)


def signal_conserved(e: Evidence) -> Iterator[str]:
    """I9: every accepted signal is in the inbox exactly once, consumed or unread; and per name signals are consumed
    in the order in which they were accepted."""
    for ack in dict.fromkeys(e.acks):
        if ack.kind == "signal":
            wanted = f"signal:{ack.name}:{ack.key}"
            found = sum(id == wanted for id, *_ in e.inbox.get(ack.execution, {}).values())
            if found != 1:
                yield f"{ack.execution}: signal {wanted} is in the inbox {found} times"
    for id, entries in e.inbox.items():
        life = e.lives.get(id)
        taken: list[int] = []
        perhaps: set[int] = set()
        for commit in life.commits if life is not None else ():
            if life is not None and life.applied.get(commit.ver + 1) is not commit:
                perhaps.update(seq for seq, _ in commit.consume if commit.may_be_applied)
        for _, commit in sorted(life.applied.items()) if life is not None else ():
            taken.extend(seq for seq, _ in commit.consume)
        for seq, times in Counter(taken).items():
            if times > 1:
                yield f"{id}: entry {seq} was consumed {times} times"
        at_rest = {entry.seq: entry for entry in e.stored[id].inbox} if id in e.stored else {}
        by_name: dict[str, list[int]] = defaultdict(list)
        for seq in taken:
            if seq in entries and entries[seq][1] == MessageKind.SIGNAL:
                by_name[entries[seq][2]].append(seq)
        for name, order in by_name.items():
            if order != sorted(order):
                yield f"{id}: signals {name!r} were consumed in the order {order}"
        for seq, (_, kind, name, _) in entries.items():
            if kind != MessageKind.SIGNAL:
                continue
            unread = seq in at_rest and at_rest[seq].consumed_by is None
            consumed = seq in taken or (seq in at_rest and not unread)
            if unread and seq in taken:
                yield f"{id}: entry {seq} was consumed and is unread again"
            elif not unread and not consumed and seq not in perhaps:
                yield f"{id}: entry {seq} ({name}) is neither consumed nor unread"
            elif unread and any(later > seq for later in by_name[name]):
                yield f"{id}: entry {seq} ({name}) was passed over"


def wait_xor(e: Evidence) -> Iterator[str]:
    """I10: each wait has exactly one resolution: the signal that it consumed, or its timer, and never both."""
    for id, stored in e.stored.items():
        for checkpoint in stored.history:
            if (
                checkpoint.kind not in ("wait_for_signal", "sleep")
                or checkpoint.status is not CheckpointStatus.COMPLETED
            ):
                continue
            mine = [entry for entry in stored.inbox if entry.consumed_by == checkpoint.step_id]
            signals = [entry for entry in mine if entry.kind is MessageKind.SIGNAL]
            timers = [entry for entry in mine if entry.kind is MessageKind.TIMER]
            where = f"{id}: wait {checkpoint.step_id!r}"
            if checkpoint.kind == "sleep" or checkpoint.data == TIMEOUT_FRAME:
                if signals or len(timers) != 1:
                    yield f"{where} ended by its timer, with {len(signals)} signals and {len(timers)} timers"
                continue
            received = unpack_received(checkpoint.data)
            if len(signals) != 1 or len(timers) > 1:
                yield f"{where} ended by a signal, with {len(signals)} signals and {len(timers)} timers"
            elif received != (signals[0].name, signals[0].data or b"null"):
                yield f"{where} holds another signal than it consumed"
            elif timers and timers[0].seq < signals[0].seq:
                yield f"{where} ended by a signal, and its timer had come first"


def compensation_order(e: Evidence) -> Iterator[str]:
    """I12: compensations are committed once each, in the reverse of the order in which their steps were; none in an
    execution that completed, and all of them in one that rolls back. Nor does one's body begin before the one before
    it is stored."""
    bodies = {
        key: entries for (_, step, key), entries in _by_step(e.starts).items() if step.startswith("rollback:")
    }
    for id, stored in e.stored.items():
        if not stored.row.status.final:
            continue
        program = e.programs.get(stored.row.workflow, Program())
        done = {c.step_id: c for c in stored.history if c.status is CheckpointStatus.COMPLETED}
        undone = sorted(
            (c for c in stored.history if c.kind == "rollback"), key=lambda checkpoint: checkpoint.seq
        )
        steps = [c.step_id.removeprefix("rollback:") for c in undone]
        if steps and stored.row.status is ExecutionStatus.COMPLETED:
            yield f"{id}: it completed, and compensated {steps}"
        by_commit = sorted((done[s] for s in program.undone if s in done), key=lambda c: -c.seq)
        expected = [c.step_id for c in by_commit]
        if not program.rolls_back or stored.row.status is ExecutionStatus.COMPLETED:
            expected = [step for step in expected if step in steps]
        if steps != expected:
            yield f"{id}: it compensated {steps}, and the reverse of its steps is {expected}"
        life = e.lives[id]
        for earlier, later in pairwise(undone):
            for entry in bodies.get(f"{id}:{stored.row.generation}:{later.step_id}", ()):
                claim = life.claim_of(entry.pid, entry.mono)
                if claim is None or life.folds.get(claim.ver) is None:
                    continue
                if not life.stored_at(claim, earlier.step_id, entry.mono):
                    yield f"{id}: {later.step_id!r} began before {earlier.step_id!r} was stored"


def child_once(e: Evidence) -> Iterator[str]:
    """I13: a parent has one child for each step that started one, and resumes with that child's outcome, once."""
    children: dict[str, list[str]] = defaultdict(list)
    for id, stored in e.stored.items():
        if stored.row.parent_id is not None:
            if rerun_of(stored.row.options) is None:
                children[stored.row.parent_id].append(id)
            if stored.row.parent_id not in e.stored:
                yield f"{id}: its parent {stored.row.parent_id} is not there"
    for id, stored in e.stored.items():
        started = [c.step_id for c in stored.history if c.kind in ("child", "start")]
        if len(children[id]) != len(started):
            yield f"{id}: {len(children[id])} children, and {len(started)} steps that started one"
        for checkpoint in stored.history:
            if checkpoint.kind != "child" or not checkpoint.status.final:
                continue
            told = [
                entry
                for entry in stored.inbox
                if entry.kind is MessageKind.CHILD and entry.consumed_by == checkpoint.step_id
            ]
            child = e.stored.get(f"{id}/{checkpoint.step_id}")
            where = f"{id}: child {checkpoint.step_id!r}"
            if checkpoint.status is CheckpointStatus.CANCELLED:
                continue
            if child is None or len(told) != 1:
                yield f"{where} is {'missing' if child is None else 'there'}, and was told of {len(told)} times"
                continue
            outcome = Outcome.unpack(told[0].data)
            if outcome.status is not child.row.status or outcome.data != (
                child.row.result or child.row.error or b""
            ):
                yield f"{where} ended as {child.row.status}, and its parent was told {outcome.status}"
            elif checkpoint.status is CheckpointStatus.COMPLETED and checkpoint.data != told[0].data:
                yield f"{where}: its parent resumed with another outcome"


def idempotent_start(e: Evidence) -> Iterator[str]:
    """I14: starts with one workflow and key give one execution, made by at most one of them."""
    by_key: dict[tuple[str, str], list[Ack]] = defaultdict(list)
    for ack in e.acks:
        if ack.kind == "start" and ack.key:
            by_key[ack.name, ack.key].append(ack)
    for (workflow, key), acks in by_key.items():
        if len({ack.execution for ack in acks}) > 1:
            yield f"{workflow} {key!r}: several executions"
        if (created := sum(ack.created for ack in acks)) > 1:
            yield f"{workflow} {key!r}: created {created} times"
    rows = Counter((s.row.workflow, s.row.key) for s in e.stored.values() if s.row.key is not None)
    for (workflow, key), number in rows.items():
        if number > 1:
            yield f"{workflow} {key!r}: {number} executions are stored"


def consistent(e: Evidence) -> Iterator[str]:
    """I15: at rest the store contradicts itself nowhere, and nothing is due, owned or waiting."""
    yield from e.complaints
    for id, stored in e.stored.items():
        if stored.row.state is not State.CLOSED:
            yield f"{id} is {stored.row.state} at rest"


def not_vacuous(e: Evidence) -> Iterator[str]:
    """I19: what the run is there for has happened often enough."""
    for what, least in e.wanted.items():
        if e.figures.get(what, 0) < least:
            yield f"{what}: {e.figures.get(what, 0)}, at least {least} were wanted"


INVARIANTS: Mapping[str, Callable[[Evidence], Iterator[str]]] = {
    "I1": no_lost_start,
    "I2": immutable,
    "I3": same_for_replay,
    "I4": no_rerun,
    "I5": repeat_bound,
    "I6": single_writer,
    "I7": prefix_history,
    "I8": timer_not_early,
    "I9": signal_conserved,
    "I10": wait_xor,
    "I12": compensation_order,
    "I13": child_once,
    "I14": idempotent_start,
    "I15": consistent,
    "I19": not_vacuous,
    **steering.INVARIANTS,
}


def violations(e: Evidence) -> list[str]:
    """A sentence for each violation of each invariant."""
    return [f"{name}: {text}" for name, predicate in INVARIANTS.items() for text in predicate(e)]
