"""Each invariant holds on a small good history, and is shown to fail on a bad one made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable.backends.memory.store import MemoryStore
from durable.backends.sqlite.store import SqliteStore
from durable.engine.frames import TIMEOUT_FRAME, pack_received, pack_tries
from durable.engine.operator_acts import pack_act
from durable.errors import DurableError, OutcomeUnknown, StoreUnavailable
from durable.models import ErrorRecord, ExecutionStatus
from durable.protocols import (
    Batch,
    Checkpoint,
    CheckpointStatus,
    DurableStore,
    ExecutionRow,
    InboxEntry,
    MessageKind,
    Outcome,
    State,
)
from tests.crash.evidence import Ack, Evidence, Fault, Program, Stored
from tests.crash.invariants import INVARIANTS, violations
from tests.crash.ledger import Entry, append, digest, read_lines
from tests.crash.points import FaultyStore
from tests.crash.trace import Claim, Commit, Record, Seen, Trace, TracingStore, read_trace

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
OWNER, TAKER = 1, 2  # two processes
PROGRAM = Program(chains=[["pay", "nap", "go", "ship"]], undone=["pay", "ship"])
UNDOING = Program(chains=[["one", "two"]], undone=["one", "two"], rolls_back=True)


def row(id: str, workflow: str = "demo", **more: Any) -> ExecutionRow:
    fields: dict[str, Any] = {
        "version": "1",
        "queue": "default",
        "priority": 0,
        "key": None,
        "tags": {},
        "options": b"",
        "input": b"null",
        "parent_id": None,
        "state": State.CLOSED,
        "status": COMPLETED,
        "attempt": 1,
        "generation": 0,
        "ver": 0,
        "op_id": "",
        "nonce": None,
        "worker": None,
        "crashes": 0,
        "inbox_seq": 0,
        "created_at": 0,
        "available_at": 0,
    }
    return ExecutionRow(id, workflow, **{**fields, **more})


def done(
    step: str, kind: str = "step", data: bytes = b"1", *, seq: int = 1, failed: bool = False
) -> Checkpoint:
    status = CheckpointStatus.FAILED if failed else CheckpointStatus.COMPLETED
    return Checkpoint(step, kind, step, status, data, finished_at=1, seq=seq)


def record(step: str, kind: str = "step", data: bytes = b"1") -> Record:
    return Record(step, kind, "completed", digest(data))


def waits(step: str, kind: str, wake_at: int) -> Record:
    return Record(step, kind, "open", digest(b""), wake_at)


def body(step: str, at: float, *, pid: int = OWNER, execution: str = "x", outcome: str = "ok") -> list[Entry]:
    key = f"{execution}:0:{step}"
    start = Entry("start", execution, step, 1, key, pid, at, at)
    return [start, replace(start, event="end", mono=at + 0.01, outcome=outcome)]


def saw(step: str, value: object, at: float, *, pid: int = OWNER) -> Entry:
    return Entry("saw", "x", step, 0, f"x:0:{step}", pid, at, at, digest(value))


def commit(at: float, ver: int, next: str, *records: Record, pid: int = OWNER, **more: Any) -> Commit:
    fields: dict[str, Any] = {
        "nonce": f"n{pid}",
        "op_id": f"n{pid}:{ver}",
        "execution": "x",
        "answer": "committed",
        "answered": at + 0.01,
        "owned": next == "run",
    }
    return Commit(pid=pid, asked=at, ver=ver, next=next, records=records, **{**fields, **more})


def claim(at: float, ver: int, *history: Record, pid: int = OWNER, **more: Any) -> Claim:
    fields = {"execution": "x", "nonce": f"n{pid}", "history": history}
    return Claim(pid=pid, asked=at, answered=at + 0.01, ver=ver, **{**fields, **more})


def timer(seq: int, step: str, at: int) -> InboxEntry:
    return InboxEntry(seq, f"timer:{step}:{at}", MessageKind.TIMER, step, b"", at, step)


def signal(seq: int, key: str, data: bytes = b'"ok"', taken_by: str | None = "go") -> InboxEntry:
    return InboxEntry(seq, f"signal:go:{key}", MessageKind.SIGNAL, "go", data, 2100, taken_by)


def act(
    seq: int, name: str, value: bytes = b"", taken_by: str | None = "__operator", **details: Any
) -> InboxEntry:
    data = pack_act({**details, "by": "ada"}, value)
    return InboxEntry(seq, f"act{seq}", MessageKind.OPERATOR, name, data, 1, taken_by)


def kept(step: str, kind: str, data: bytes = b"{}") -> Checkpoint:
    return Checkpoint(step, kind, "", CheckpointStatus.OPEN, data)


REPEATS = b'{"rerun":{"of":"m","from_step":"two","by":"ada"}}'
TRIED = pack_tries(b"", 1, 1, 2, ErrorRecord("OSError", "no"))
RECEIVED = pack_received("go", b'"ok"')


def good() -> Evidence:
    """`x` pays, naps, waits for a signal and ships. Its first owner dies in `ship`, the second goes on.

    `p` has a child, `u` is undone. `m` is paused and resumed, and the result of its first step is edited; its second
    step fails once. `r` repeats it from there.
    """
    paid = record("pay")
    napped, went = record("nap", "sleep", b"null"), record("go", "wait_for_signal", RECEIVED)
    history = (paid, napped, went)
    outcome = Outcome(COMPLETED, "demo", 1, b'"c"')
    undone = [done("one", seq=1), done("two", seq=2), done("rollback:two", "rollback", seq=3)]
    undone.append(done("rollback:one", "rollback", seq=4))
    undo_records = [record(c.step_id, c.kind) for c in undone]
    u = {"execution": "u", "nonce": "nu"}
    m, m2, m3 = ({"execution": "m", "nonce": f"nm{number}"} for number in (1, 2, 3))
    r = {"execution": "r", "nonce": "nr"}
    is_paused = Record("__paused", "paused", "open", digest(b"{}"))
    edited = record("one", data=b"2")
    return Evidence(
        ledger=[
            *body("pay", 1.1),
            saw("pay", 1, 1.12),
            *body("ship", 2.3),
            saw("pay", 1, 4.1, pid=TAKER),
            *body("ship", 4.2, pid=TAKER),
            *body("one", 1.1, execution="u"),
            *body("two", 1.2, execution="u"),
            *body("rollback:two", 1.3, execution="u"),
            *body("rollback:one", 1.4, execution="u"),
            *body("one", 5.1, execution="m"),
            *body("two", 6.1, execution="m", outcome="failed"),
            *body("two", 6.2, execution="m"),
            *body("two", 7.1, execution="r"),
        ],
        trace=Trace(
            claims=[
                claim(1.0, 0),
                claim(4.0, 3, *history, pid=TAKER, crashes=1),
                claim(1.0, 0, **u),
                claim(5.0, 0, **m),
                claim(5.5, 2, record("one"), is_paused, **m2),
                claim(6.0, 4, edited, **m3),
                claim(7.0, 0, edited, **r),
            ],
            commits=[
                commit(1.2, 0, "run", paid),
                commit(1.3, 1, "run", waits("nap", "sleep", 2000), waits("go", "wait_for_signal", 9000)),
                commit(2.2, 2, "run", napped, went, consume=((1, "nap"), (2, "go"))),
                commit(4.3, 3, "close", record("ship"), pid=TAKER),
                commit(1.15, 0, "run", undo_records[0], **u, op_id="nu:0"),
                commit(1.25, 1, "run", undo_records[1], **u, op_id="nu:1"),
                commit(1.35, 2, "run", undo_records[2], **u, op_id="nu:2"),
                commit(1.45, 3, "close", undo_records[3], **u, op_id="nu:3"),
                commit(5.2, 0, "run", record("one"), **m, op_id="m:0"),
                commit(5.3, 1, "block", is_paused, consume=((1, "__operator"),), **m, op_id="m:1"),
                commit(5.6, 2, "run", drop=("__paused",), consume=((2, "__operator"),), **m2, op_id="m:2"),
                commit(
                    5.7, 3, "ready", edited, drop=("one",), consume=((3, "__operator"),), **m2, op_id="m:3"
                ),
                commit(
                    6.3,
                    4,
                    "close",
                    record("two"),
                    Record("__tries:two", "tries", "open", digest(TRIED)),
                    **m3,
                    op_id="m:4",
                ),
                commit(7.2, 0, "close", record("two"), **r, op_id="r:0"),
            ],
            inbox={("x", 2): Seen(2, "signal:go:a", "signal", "go", 2100)},
        ),
        acks=[
            Ack("start", "x", "demo", "k", created=True),
            Ack("start", "x", "demo", "k"),
            Ack("signal", "x", "go", "a"),
            Ack("result", "x", "completed", value=digest(b'"done"')),
            Ack("act", "m", "pause"),
            Ack("act", "m", "edit_step_result"),
        ],
        faults=[Fault("kill", OWNER, 2.5)],
        stored={
            "x": Stored(
                row("x", ver=4, key="k", result=b'"done"'),
                [
                    done("pay", seq=1),
                    done("nap", "sleep", b"null", seq=2),
                    done("go", "wait_for_signal", RECEIVED, seq=3),
                    done("ship", seq=4),
                ],
                [timer(1, "nap", 2000), signal(2, "a")],
            ),
            "p": Stored(
                row("p", "parent"),
                [done("kid", "child", outcome.pack())],
                [InboxEntry(1, "watch:0:p/kid:kid", MessageKind.CHILD, "kid", outcome.pack(), 1, "kid")],
            ),
            "p/kid": Stored(row("p/kid", parent_id="p", result=b'"c"')),
            "u": Stored(row("u", "undoing", ver=4, status=FAILED), undone),
            "m": Stored(
                row("m", "mended", ver=5),
                [done("one", data=b"2", seq=1), done("two", seq=2), kept("__tries:two", "tries", TRIED)],
                [act(1, "pause"), act(2, "resume"), act(3, "edit_step_result", b"2", step_id="one")],
            ),
            "r": Stored(
                row("r", "mended", ver=1, parent_id="m", options=REPEATS),
                [done("one", data=b"2", seq=1), done("two", seq=2)],
            ),
        },
        programs={"demo": PROGRAM, "undoing": UNDOING},
        wanted={"takeovers": 1, "kill": 1, "repeats": 1},
    )


def test_all_hold_on_a_good_history() -> None:
    assert violations(good()) == []


def with_row(e: Evidence, id: str, **changes: Any) -> None:
    e.stored = {**e.stored, id: replace(e.stored[id], row=replace(e.stored[id].row, **changes))}


def with_history(e: Evidence, id: str, *history: Checkpoint) -> None:
    e.stored = {**e.stored, id: replace(e.stored[id], history=history)}


def with_inbox(e: Evidence, id: str, *inbox: InboxEntry) -> None:
    e.stored = {**e.stored, id: replace(e.stored[id], inbox=inbox)}


# ---- the bad histories, each made from the good one by one act


def lost(e: Evidence) -> None:
    e.acks = [*e.acks, Ack("start", "y", "demo", "other", created=True)]


def never_ends(e: Evidence) -> None:
    with_row(e, "x", status=ExecutionStatus.WAITING, state=State.PARKED)


def checkpoint_changes_at_rest(e: Evidence) -> None:
    with_history(e, "x", done("pay", data=b"2"), *e.stored["x"].history[1:])


def checkpoint_is_gone_at_a_claim(e: Evidence) -> None:
    e.trace.claims[1] = replace(e.trace.claims[1], history=(e.trace.claims[1].history or ())[1:])


def checkpoint_is_replaced(e: Evidence) -> None:
    e.trace.commits[2].records = (*e.trace.commits[2].records, record("pay", data=b"2"))


def replay_is_handed_another_value(e: Evidence) -> None:
    e.ledger = [*e.ledger, saw("pay", 2, 4.15, pid=TAKER)]


def result_changes(e: Evidence) -> None:
    with_row(e, "x", result=b'"other"')


def is_closed_twice(e: Evidence) -> None:
    with_row(e, "x", ver=5)
    e.trace.commits.append(commit(4.5, 4, "close", pid=TAKER))


def runs_again_under_a_later_claim(e: Evidence) -> None:
    e.ledger = [*e.ledger, *body("pay", 4.1, pid=TAKER)]


def runs_again_under_its_own_claim(e: Evidence) -> None:
    e.ledger = [*e.ledger, *body("pay", 1.9)]


def runs_without_a_claim(e: Evidence) -> None:
    e.ledger = [*e.ledger, *body("ship", 0.5, pid=3)]


def runs_twice_under_one_claim(e: Evidence) -> None:
    e.ledger = [*e.ledger, *body("ship", 4.25, pid=TAKER)]


def runs_again_though_nothing_was_lost(e: Evidence) -> None:
    e.trace.commits[2].owned = False  # it had given the execution back in order


def two_owners_commit_one_version(e: Evidence) -> None:
    e.trace.commits.append(commit(4.4, 3, "run", record("ship", data=b"2")))


def nobody_commits_a_version(e: Evidence) -> None:
    e.trace.commits.remove(e.trace.commits[2])


def commit_that_was_refused_is_applied(e: Evidence) -> None:
    e.trace.commits[2].answer = "fenced"


def commit_that_was_not_executed_is_applied(e: Evidence) -> None:
    e.trace.commits[2].answer = "unavailable"


def replaced_owner_is_heard(e: Evidence) -> None:
    e.trace.commits[3] = commit(4.3, 3, "close", record("ship"))


def commit_without_a_claim(e: Evidence) -> None:
    e.trace.commits[3].nonce = "stranger"


def store_goes_back(e: Evidence) -> None:
    with_row(e, "x", ver=2)


def history_has_a_hole(e: Evidence) -> None:
    with_history(e, "x", *e.stored["x"].history[:1], *e.stored["x"].history[2:])


def claim_finds_a_hole(e: Evidence) -> None:
    e.trace.claims[1] = replace(e.trace.claims[1], history=(record("nap", "sleep", b"null"),))


def begins_before_its_predecessor_is_stored(e: Evidence) -> None:
    e.ledger = [*e.ledger, *body("ship", 2.1)]


def timer_is_early(e: Evidence) -> None:
    with_inbox(e, "x", timer(1, "nap", 1999), signal(2, "a"))


def timer_fires_twice(e: Evidence) -> None:
    with_inbox(e, "x", *e.stored["x"].inbox, timer(3, "nap", 2001))


def timer_that_nobody_set(e: Evidence) -> None:
    with_inbox(e, "x", *e.stored["x"].inbox, timer(3, "other", 2001))


def run_times_out_early(e: Evidence) -> None:
    with_row(e, "x", deadline_at=5000)
    with_inbox(e, "x", *e.stored["x"].inbox, timer(3, "__timeout", 4999))


def signal_is_lost(e: Evidence) -> None:
    e.acks = [*e.acks, Ack("signal", "x", "go", "b")]


def signal_counts_twice(e: Evidence) -> None:
    with_inbox(e, "x", *e.stored["x"].inbox, signal(3, "a", taken_by=None))


def signal_is_passed_over(e: Evidence) -> None:
    e.trace.commits[2].consume = ((1, "nap"), (3, "go"))
    with_inbox(e, "x", timer(1, "nap", 2000), signal(2, "a", taken_by=None), signal(3, "b"))


def signals_are_consumed_out_of_order(e: Evidence) -> None:
    e.trace.commits[2].consume = ((1, "nap"), (3, "go"))
    e.trace.commits[3].consume = ((2, "go#2"),)
    with_inbox(e, "x", timer(1, "nap", 2000), signal(2, "a", taken_by="go#2"), signal(3, "b"))


def signal_is_consumed_twice(e: Evidence) -> None:
    e.trace.commits[3].consume = ((2, "go#2"),)


def consumed_signal_is_unread_again(e: Evidence) -> None:
    with_inbox(e, "x", timer(1, "nap", 2000), signal(2, "a", taken_by=None))


def signal_vanishes(e: Evidence) -> None:
    e.trace.commits[2].consume = ((1, "nap"),)
    with_inbox(e, "x", timer(1, "nap", 2000))


def wait_takes_two_signals(e: Evidence) -> None:
    with_inbox(e, "x", *e.stored["x"].inbox, signal(3, "b"))


def wait_times_out_and_takes_its_signal(e: Evidence) -> None:
    wait = done("go", "wait_for_signal", TIMEOUT_FRAME, seq=3)
    with_history(e, "x", *e.stored["x"].history[:2], wait, *e.stored["x"].history[3:])


def wait_holds_another_signal(e: Evidence) -> None:
    with_inbox(e, "x", timer(1, "nap", 2000), signal(2, "a", data=b'"no"'))


def wait_takes_a_signal_after_its_timer(e: Evidence) -> None:
    with_inbox(e, "x", timer(1, "nap", 2000), timer(2, "go", 9000), signal(3, "a"))


def sleep_ends_without_its_timer(e: Evidence) -> None:
    with_inbox(e, "x", signal(2, "a"))


def compensates_in_the_order_of_the_steps(e: Evidence) -> None:
    wrong = [done("rollback:one", "rollback", seq=3), done("rollback:two", "rollback", seq=4)]
    with_history(e, "u", *e.stored["u"].history[:2], *wrong)


def forgets_a_compensation(e: Evidence) -> None:
    with_history(e, "u", *e.stored["u"].history[:3])


def compensates_though_it_completed(e: Evidence) -> None:
    with_history(e, "x", *e.stored["x"].history, done("rollback:ship", "rollback", seq=5))


def compensates_before_the_one_before_is_stored(e: Evidence) -> None:
    e.ledger = [*e.ledger, *body("rollback:one", 1.31, execution="u")]


def has_two_children_of_one_step(e: Evidence) -> None:
    e.stored = {**e.stored, "p/kid:0.2": Stored(row("p/kid:0.2", parent_id="p"))}


def child_has_no_parent(e: Evidence) -> None:
    e.stored = {id: stored for id, stored in e.stored.items() if id != "p"}


def parent_is_told_twice(e: Evidence) -> None:
    with_inbox(e, "p", *e.stored["p"].inbox, replace(e.stored["p"].inbox[0], seq=2))


def parent_resumes_with_another_outcome(e: Evidence) -> None:
    with_history(e, "p", done("kid", "child", Outcome(COMPLETED, "demo", 1, b'"d"').pack()))


def parent_is_told_another_outcome(e: Evidence) -> None:
    with_row(e, "p/kid", result=b'"d"')


def key_gives_two_executions(e: Evidence) -> None:
    e.acks = [*e.acks, Ack("start", "p", "demo", "k")]


def key_creates_twice(e: Evidence) -> None:
    e.acks = [*e.acks, Ack("start", "x", "demo", "k", created=True)]


def key_is_stored_twice(e: Evidence) -> None:
    with_row(e, "p/kid", key="k")


def store_complains(e: Evidence) -> None:
    e.complaints = ["1 timers of executions that are not there"]


def something_is_owned_at_rest(e: Evidence) -> None:
    with_row(e, "x", state=State.OWNED)


def nothing_was_taken_over(e: Evidence) -> None:
    e.trace.claims[1] = replace(e.trace.claims[1], crashes=0)


def act_is_lost(e: Evidence) -> None:
    e.acks = [*e.acks, Ack("act", "m", "skip_step")]


def act_is_passed_over(e: Evidence) -> None:
    with_inbox(e, "m", act(1, "pause", taken_by=None), *e.stored["m"].inbox[1:])


def act_is_taken_for_something_else(e: Evidence) -> None:
    with_inbox(e, "m", act(1, "pause", taken_by="one"), *e.stored["m"].inbox[1:])


def begins_while_it_is_paused(e: Evidence) -> None:
    e.ledger = [*e.ledger, *body("two", 5.55, execution="m")]


def result_is_replaced_without_an_act(e: Evidence) -> None:
    next(each for each in e.trace.commits if each.op_id == "m:3").consume = ()


def edit_comes_to_another_value(e: Evidence) -> None:
    with_inbox(e, "m", *e.stored["m"].inbox[:2], act(3, "edit_step_result", b"3", step_id="one"))


def rerun_copies_another_value(e: Evidence) -> None:
    e.trace.claims[-1] = replace(e.trace.claims[-1], history=(record("one"),))


def rerun_forgets_what_was_before(e: Evidence) -> None:
    e.trace.claims[-1] = replace(e.trace.claims[-1], history=())


def rerun_repeats_nobody(e: Evidence) -> None:
    with_row(e, "r", options=b"{}")


def source_of_a_rerun_is_gone(e: Evidence) -> None:
    e.stored = {id: stored for id, stored in e.stored.items() if id != "m"}


def keeps_more_tries_than_there_were(e: Evidence) -> None:
    more = pack_tries(TRIED, 2, 3, 4, ErrorRecord("OSError", "no"))
    with_history(e, "m", *e.stored["m"].history[:2], kept("__tries:two", "tries", more))


def keeps_a_try_twice(e: Evidence) -> None:
    twice = pack_tries(
        pack_tries(TRIED, 2, 3, 4, ErrorRecord("OSError", "no")), 2, 3, 4, ErrorRecord("OSError", "no")
    )
    with_history(e, "m", *e.stored["m"].history[:2], kept("__tries:two", "tries", twice))
    e.ledger = [*e.ledger, *body("two", 6.3, execution="m", outcome="failed") * 2]


def keeps_what_nobody_knows(e: Evidence) -> None:
    with_history(e, "m", *e.stored["m"].history, kept("__surprise", "paused"))


def is_closed_again_by_nobody(e: Evidence) -> None:
    with_row(e, "m", ver=6)
    e.trace.commits.append(commit(6.5, 5, "close", execution="m", nonce="nm3", op_id="m:5"))


BAD: dict[str, list[Callable[[Evidence], None]]] = {
    "I1": [lost, never_ends],
    "I2": [checkpoint_changes_at_rest, checkpoint_is_gone_at_a_claim, checkpoint_is_replaced],
    "I3": [replay_is_handed_another_value, result_changes, is_closed_twice, is_closed_again_by_nobody],
    "I4": [runs_again_under_a_later_claim, runs_again_under_its_own_claim, runs_without_a_claim],
    "I5": [runs_twice_under_one_claim, runs_again_though_nothing_was_lost],
    "I6": [
        two_owners_commit_one_version,
        nobody_commits_a_version,
        commit_that_was_refused_is_applied,
        commit_that_was_not_executed_is_applied,
        replaced_owner_is_heard,
        commit_without_a_claim,
        store_goes_back,
    ],
    "I7": [history_has_a_hole, claim_finds_a_hole, begins_before_its_predecessor_is_stored],
    "I8": [timer_is_early, timer_fires_twice, timer_that_nobody_set, run_times_out_early],
    "I9": [
        signal_is_lost,
        signal_counts_twice,
        signal_is_passed_over,
        signals_are_consumed_out_of_order,
        signal_is_consumed_twice,
        consumed_signal_is_unread_again,
        signal_vanishes,
    ],
    "I10": [
        wait_takes_two_signals,
        wait_times_out_and_takes_its_signal,
        wait_holds_another_signal,
        wait_takes_a_signal_after_its_timer,
        sleep_ends_without_its_timer,
    ],
    "I12": [
        compensates_in_the_order_of_the_steps,
        forgets_a_compensation,
        compensates_though_it_completed,
        compensates_before_the_one_before_is_stored,
    ],
    "I13": [
        has_two_children_of_one_step,
        child_has_no_parent,
        parent_is_told_twice,
        parent_resumes_with_another_outcome,
        parent_is_told_another_outcome,
    ],
    "I14": [key_gives_two_executions, key_creates_twice, key_is_stored_twice],
    "I15": [store_complains, something_is_owned_at_rest],
    "I19": [nothing_was_taken_over],
    "I20": [act_is_lost, act_is_passed_over, act_is_taken_for_something_else],
    "I21": [begins_while_it_is_paused],
    "I22": [result_is_replaced_without_an_act, edit_comes_to_another_value],
    "I23": [
        rerun_copies_another_value,
        rerun_forgets_what_was_before,
        rerun_repeats_nobody,
        source_of_a_rerun_is_gone,
    ],
    "I24": [keeps_more_tries_than_there_were, keeps_a_try_twice, keeps_what_nobody_knows],
}


@pytest.mark.parametrize(
    ("invariant", "spoil"),
    [pytest.param(name, act, id=f"{name}-{act.__name__}") for name, acts in BAD.items() for act in acts],
)
def test_it_fails_on_a_bad_history(invariant: str, spoil: Callable[[Evidence], None]) -> None:
    evidence = good()
    spoil(evidence)
    assert list(INVARIANTS[invariant](evidence)), "nobody noticed"


def test_each_invariant_is_shown_to_fail() -> None:
    assert BAD.keys() == INVARIANTS.keys()


@pytest.mark.parametrize("answer", ["", "fenced", "unavailable"])
def test_a_commit_of_which_nobody_heard_counts_where_a_later_claim_proves_that_it_was_applied(
    answer: str,
) -> None:
    assert violations(with_unheard(answer)) == []
    assert list(INVARIANTS["I4"](with_unheard(answer, *body("nap", 4.1, pid=TAKER))))


@pytest.mark.parametrize("answer", ["diverged", "full"])
def test_an_owner_that_is_told_more_than_that_it_was_replaced_has_not_committed(answer: str) -> None:
    assert list(INVARIANTS["I6"](with_unheard(answer)))


def with_unheard(answer: str, *more: Entry) -> Evidence:
    """The answer to a commit got lost, and this came to its repeat."""
    evidence = good()
    evidence.trace.commits[2].answer, evidence.trace.commits[2].unheard = answer, 1
    evidence.wanted = {}
    evidence.ledger = [e for e in evidence.ledger if (e.step, e.pid) != ("ship", OWNER)] + [*more]
    return evidence


def test_a_trace_tells_the_answer_to_a_commit_from_the_answer_to_its_repeat(tmp_path: Path) -> None:
    def read(*lines: dict[str, Any]) -> Commit:
        path = tmp_path / "trace"
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            for line in lines:
                append(file.fileno(), {"execution": "x", "op_id": "n1:0", **line})
        (commit,) = read_trace([path]).commits
        return commit

    sent = {"what": "commit", "pid": 1, "nonce": "n1", "asked": 1.0, "ver": 0, "next": "run"}
    sent |= {"records": [], "drop": [], "consume": []}
    answered = {"what": "answer", "pid": 1, "answered": 2.0, "owned": False, "inbox": []}
    fenced, committed = answered | {"answer": "fenced"}, answered | {"answer": "committed"}
    unavailable = {"what": "answer", "pid": 1, "answer": "unavailable"}
    assert not read(sent, fenced).may_be_applied
    assert read(sent, sent, fenced).may_be_applied
    assert read(sent).may_be_applied
    assert not read(sent, unavailable, sent, fenced).may_be_applied
    assert read(sent, unavailable, sent).may_be_applied
    assert read(sent, sent, committed).acked


async def test_a_commit_whose_outcome_the_store_does_not_know_may_be_applied(tmp_path: Path) -> None:
    faulty = FaultyStore(MemoryStore(), unknown="commit")
    found = await traced(faulty, OutcomeUnknown, tmp_path / "trace")
    assert found.may_be_applied


async def test_a_store_that_says_it_is_away_is_held_to_having_executed_nothing(tmp_path: Path) -> None:
    never_opened = SqliteStore(tmp_path / "store.db")
    found = await traced(never_opened, StoreUnavailable, tmp_path / "trace")
    assert (found.answer, found.may_be_applied) == ("unavailable", False)


async def traced(store: DurableStore, error: type[DurableError], path: Path) -> Commit:
    """What is written of a commit that fails."""
    with pytest.raises(error):
        await TracingStore(store, path).commit("x", nonce="n1", ver=0, op_id="n1:0", batch=Batch(seen=0))
    (commit,) = read_trace([path]).commits
    return commit


def test_what_was_handed_out_and_never_stored_binds_nobody() -> None:
    evidence = good()
    evidence.ledger = [*evidence.ledger, saw("ship", "first", 2.4), saw("ship", "second", 4.25, pid=TAKER)]
    assert violations(evidence) == []


def test_a_line_that_a_kill_has_torn_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with path.open("wb") as file:
        append(file.fileno(), {"n": 1})
        file.write(b'\n{"n":')
        file.flush()
        append(file.fileno(), {"n": 3})
    assert list(read_lines(path)) == [{"n": 1}, {"n": 3}]
