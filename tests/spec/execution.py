"""The commit protocol of one execution, as small as it can be and still go wrong in every way that is known.

The workflow has two branches and a last step: `a` runs beside `w`, which waits for a signal (or a timeout), and `b`
runs when both are done. Two workers take turns; what piled up in both branches travels in one commit.

    client ──signal──▶ inbox ◀──timer          doorbells: rung by a sweep, lost, doubled
    worker ──claim──▶ commit {a} {w} {a, w} {b} ──▶ park / end

What may go wrong is in `Faults`, each so often. What must hold is in the `Violation`s, and in `unsound`. Each of
`RULES` can be taken away, to see that it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.spec.explorer import Report, Step, Violation, explore

RULES: Final = {
    "nonce": "a commit is accepted from the claim that owns the execution, and no other",
    "random nonce": "a nonce is never given out twice, not even by a store that went back in time",
    "version": "a commit is accepted on top of the version that its worker has seen",
    "operation": "a commit that comes again is known, and not judged anew",
    "first answer": "its answer is the first one: it tells of no message that came later",
    "park compares": "a park holds only if nothing came since what its worker has seen",
    "ready index": "what is ready stands in the store until it is claimed, and is rung again",
    "reaper": "what a dead worker owns becomes ready again",
    "one write": "a message is consumed in the commit that records what came of it",
    "timer stops": "the commit that ends a wait stops its timer",
    "message id": "a message that comes again is not counted again",
}
ALL: Final = frozenset(RULES)


class Faults(NamedTuple):
    kills: int = 0
    pauses: int = 0
    """A worker is taken for dead, and is not."""
    lost_answers: int = 0
    """A commit is written and its worker, or a signal stored and its sender, does not learn it."""
    lost_bells: int = 0
    doubled_bells: int = 0
    rollbacks: int = 0
    """The store forgets its last write."""


NONE: Final = Faults()


class Worker(NamedTuple):
    """What it believes. `memory` and `inbox` came with the claim and the answers since."""

    claim: int
    nonce: int
    ver: int
    memory: tuple[str, ...]
    """The steps that it knows to be recorded, in alphabetical order."""
    seen: int
    inbox: tuple[str, ...]
    sent: tuple[int, tuple[str, ...], str] | None = None
    """The number of a commit whose answer did not come, what it records, and where it goes."""


class Store(NamedTuple):
    state: str = "ready"
    nonce: int = 0
    claim: int = 0
    """Not in a real store: which claim owns it, to know what is stale."""
    ver: int = 0
    op: int = 0
    op_seq: int = 0
    """Where the inbox ended when that commit was accepted."""
    records: tuple[tuple[str, str], ...] = ()
    """Step and value, in alphabetical order of the steps."""
    inbox: tuple[str, ...] = ()
    """Unread."""
    inbox_seq: int = 0
    timer: str = "off"
    indexed: bool = True
    next_nonce: int = 1


class State(NamedTuple):
    store: Store = Store()
    before: Store | None = None
    """What the store was before its last write, when it may go back."""
    workers: tuple[Worker | None, Worker | None] = (None, None)
    leased: bool = False
    bells: int = 0
    claims: int = 0
    commits: int = 0
    signals: int = 0
    """0: not sent, 1: sent and not answered, 2: done."""
    pending_bell: bool = False
    """Whoever made it ready has still to ring; only without the ready index."""
    went_back: bool = False
    left: Faults = Faults()


class Execution:
    def __init__(
        self, rules: frozenset[str] = ALL, faults: Faults = NONE, *, times_out: bool = False
    ) -> None:
        self.rules = rules
        self.faults = faults
        self.times_out = times_out

    def explore(self) -> Report:
        return explore(
            State(left=self.faults),
            self.steps,
            is_end=lambda state: state.store.state == "closed",
            must_end=lambda state: self.times_out or state.signals > 0,
        )

    def steps(self, state: State) -> Iterator[Step[State]]:
        yield from self._doorbells(state)
        for number, worker in enumerate(state.workers):
            if worker is None:
                yield from self._deliver(state, number)
            else:
                yield from self._work(state, number, worker)
                if state.left.kills:
                    dead = self._with(state, number, None)
                    yield Step(f"kill {number}", spend(dead, "kills"), True)
        yield from self._outside(state)
        if state.left.rollbacks and state.before is not None:
            back = state._replace(store=state.before, before=None, went_back=True)
            yield Step("the store goes back", spend(back, "rollbacks"), True)

    # -- doorbells

    def _doorbells(self, state: State) -> Iterator[Step[State]]:
        if state.store.indexed and state.bells == 0:
            yield Step("sweep rings", state._replace(bells=1))
        if state.pending_bell:
            yield Step("ring", state._replace(bells=1, pending_bell=False))
            yield Step("whoever rings dies", state._replace(pending_bell=False), True)
        if state.bells and state.left.lost_bells:
            yield Step("a bell is lost", spend(state._replace(bells=state.bells - 1), "lost_bells"), True)
        if state.bells == 1 and state.left.doubled_bells:
            yield Step("a bell is doubled", spend(state._replace(bells=2), "doubled_bells"), True)

    def _deliver(self, state: State, number: int) -> Iterator[Step[State]]:
        if not state.bells:
            return
        rung = state._replace(bells=state.bells - 1)
        store = state.store
        if store.state != "ready":
            yield Step(f"{number} finds nothing", rung)
            return
        claim = state.claims + 1
        nonce = claim if "random nonce" in self.rules else store.next_nonce
        owned = store._replace(
            state="owned", nonce=nonce, claim=claim, indexed=False, next_nonce=store.next_nonce + 1
        )
        known = tuple(step for step, _ in store.records)
        worker = Worker(claim, nonce, store.ver, known, store.inbox_seq, store.inbox)
        then = self._with(self._write(rung, owned), number, worker)
        yield Step(f"{number} claims", then._replace(claims=claim, leased=True))

    # -- a worker

    def _work(self, state: State, number: int, worker: Worker) -> Iterator[Step[State]]:
        if worker.sent is not None:
            op, steps, next = worker.sent
            yield from self._send(state, number, worker, op, steps, next)
            return
        has = set(worker.memory)
        if {"a", "w"} <= has:
            if "b" not in has:
                yield from self._send(state, number, worker, state.commits + 1, ("b",), "run")
            yield from self._send(
                state, number, worker, state.commits + 1, () if "b" in has else ("b",), "close"
            )
            return
        done = [("a",)] if "a" not in has else []
        if "w" not in has and worker.inbox:
            done += [("w",)]
            done += [("a", "w")] if "a" not in has else []
            if "one write" not in self.rules and state.store.inbox[:1] == worker.inbox[:1]:
                taken = state.store._replace(inbox=state.store.inbox[1:])
                yield Step(f"{number} takes its message", self._write(state, taken))
        for steps in done:
            yield from self._send(state, number, worker, state.commits + 1, steps, "run")
        if "w" not in has and not worker.inbox:
            if "a" in has:
                yield from self._send(state, number, worker, state.commits + 1, (), "park")
            else:  # the last commit before a wait carries the park
                yield from self._send(state, number, worker, state.commits + 1, ("a",), "park")

    def _send(
        self, state: State, number: int, worker: Worker, op: int, steps: tuple[str, ...], next: str
    ) -> Iterator[Step[State]]:
        name = f"{number} commits {'+'.join(steps) or 'nothing'}, {next}"
        after, answered = self._commit(state, worker, op, steps, next)
        after = after._replace(commits=max(state.commits, op))
        yield Step(name, self._with(after, number, answered))
        if state.left.lost_answers and worker.sent is None:
            unsure = self._with(after, number, worker._replace(sent=(op, steps, next)))
            yield Step(f"{name}, unanswered", spend(unsure, "lost_answers"), True)

    def _commit(
        self, state: State, worker: Worker, op: int, steps: tuple[str, ...], next: str
    ) -> tuple[State, Worker | None]:
        """What is stored then, and what the worker believes; None: it stops."""
        store = state.store
        owns = store.state == "owned" and store.nonce == worker.nonce
        if "operation" in self.rules and store.op == op:
            return state, self._goes_on(self._then(store), worker, steps) if owns else None
        if "nonce" in self.rules and not owns:
            return state, None
        if store.state == "closed":
            return state, None
        if "version" in self.rules and store.ver != worker.ver:
            if store.claim == worker.claim and not state.went_back:
                raise Violation("the only owner there was is refused")
            return state, None
        if store.claim != worker.claim:
            raise Violation(f"a stale write is accepted: {'+'.join(steps) or next}")

        records, inbox = dict(store.records), store.inbox
        for step in steps:
            value = worker.inbox[0] if step == "w" else f"by claim {worker.claim}"
            if records.get(step, value) != value:
                raise Violation(f"record {step} changes")
            if step == "b" and not {"a", "w"} <= records.keys():
                raise Violation("a record has a hole before it")
            records[step] = value
            if step == "w" and "one write" in self.rules:
                if inbox[:1] != worker.inbox[:1]:
                    raise Violation("a wait takes what is not first in the inbox")
                inbox = inbox[1:]
        if next == "close" and not {"a", "b", "w"} <= records.keys():
            raise Violation("it ends with a hole in its history")
        timer = "off" if "w" in steps and "timer stops" in self.rules and store.timer == "on" else store.timer
        after = store._replace(
            ver=store.ver + 1,
            op=op,
            op_seq=store.inbox_seq,
            records=tuple(sorted(records.items())),
            inbox=inbox,
            timer=timer,
        )
        came = after.inbox_seq > worker.seen if "park compares" in self.rules else False
        if next == "park" and self.times_out and "w" not in records and after.timer == "off":
            after = after._replace(timer="on")
        if next == "close":
            after = after._replace(state="closed", nonce=0, claim=0, timer="off", indexed=False)
        elif next == "park" and not came:
            after = after._replace(state="parked", nonce=0, claim=0)
        unsound(after)
        goes_on = after.state == "owned"
        then = self._write(state, after)._replace(leased=state.leased and goes_on)
        return then, self._goes_on(after, worker, steps) if goes_on else None

    def _then(self, store: Store) -> Store:
        """What the answer to the last commit told."""
        if "first answer" not in self.rules:
            return store
        unread = len(store.inbox) - (store.inbox_seq - store.op_seq)
        return store._replace(inbox=store.inbox[:unread], inbox_seq=store.op_seq)

    def _goes_on(self, store: Store, worker: Worker, steps: tuple[str, ...]) -> Worker:
        memory = tuple(sorted({*worker.memory, *steps}))
        return worker._replace(
            ver=store.ver, memory=memory, seen=store.inbox_seq, inbox=store.inbox, sent=None
        )

    # -- what comes from outside

    def _outside(self, state: State) -> Iterator[Step[State]]:
        store = state.store
        if store.state != "closed" and state.signals < 2:
            is_known = state.signals == 1 and "message id" in self.rules
            then = state if is_known else self._append(state, "signal")
            yield Step("signal", then._replace(signals=2), True)
            if state.signals == 0 and state.left.lost_answers:
                unsure = self._append(state, "signal")._replace(signals=1)
                yield Step("signal, unanswered", spend(unsure, "lost_answers"), True)
        if store.timer == "on" and store.state != "closed":
            fired = state._replace(store=store._replace(timer="fired"))
            yield Step("the timer fires", self._append(fired, "timeout")._replace(before=self._past(state)))
        if store.state == "owned" and state.leased:
            if not any(worker and worker.claim == store.claim for worker in state.workers):
                yield Step("the lease ends", state._replace(leased=False))
            elif state.left.pauses:
                yield Step(
                    "the lease of one who lives ends", spend(state._replace(leased=False), "pauses"), True
                )
        if store.state == "owned" and not state.leased and "reaper" in self.rules:
            yield Step("it is taken over", self._ready(state, store))

    def _append(self, state: State, what: str) -> State:
        store = state.store
        if what in store.inbox and what == "signal":
            raise Violation("a signal counts twice")
        store = store._replace(inbox=(*store.inbox, what), inbox_seq=store.inbox_seq + 1)
        return self._ready(state, store) if store.state == "parked" else self._write(state, store)

    def _ready(self, state: State, store: Store) -> State:
        has_index = "ready index" in self.rules
        ready = store._replace(state="ready", nonce=0, claim=0, indexed=has_index)
        return self._write(state, ready)._replace(pending_bell=state.pending_bell or not has_index)

    # -- one write

    def _write(self, state: State, store: Store) -> State:
        return state._replace(store=store, before=self._past(state))

    def _past(self, state: State) -> Store | None:
        return state.store if state.left.rollbacks else None

    def _with(self, state: State, number: int, worker: Worker | None) -> State:
        one, two = state.workers
        return state._replace(workers=(worker, two) if number == 0 else (one, worker))


def spend(state: State, fault: str) -> State:
    return state._replace(left=state.left._replace(**{fault: getattr(state.left, fault) - 1}))


def unsound(store: Store) -> None:
    """What must hold in the store at rest, whoever wrote last."""
    if store.timer == "on" and "w" in dict(store.records):
        raise Violation("a timer outlives its wait")
