"""`StoreMachine`: random sequences of what clients, workers and operators do to a store, as hypothesis plays them.

Each rule is one act, done to every pair. There are few executions, keys, messages and steps, so that acts meet: most
sequences that mean anything need two things to have the same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from operator import methodcaller
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from typing_extensions import override

from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Block,
    Checkpoint,
    CheckpointStatus,
    Close,
    Continue,
    Emit,
    Message,
    MessageKind,
    NewExecution,
    Next,
    Out,
    Park,
    Post,
    Query,
    Reach,
    Ready,
    Run,
    Start,
    State,
    Wanted,
    Watch,
    keyed_id,
)
from durable.testing.model.pair import HALF_MS, STEP_MS, Pair, World

Worlds = Mapping[str, Callable[[], AbstractAsyncContextManager[World]]]
"""By name: how to open a fresh store."""

KEYS: Final = ("k", "l")
PLAIN: Final = ("a", "b", "c", "d")
KEYED: Final = tuple(keyed_id("order", key, again) for key in KEYS for again in ("1", "2"))
IDS: Final = (*PLAIN, *KEYED)
STEPS: Final = ("s", "t", "u", "nap")
MESSAGES: Final = tuple(f"m{number}" for number in range(8))
WORKERS: Final = ("w1", "w2")
WANTED: Final = Wanted(("default", "mail"), frozenset({"order@1", "ship@1"}))
FINAL: Final = tuple(status for status in ExecutionStatus if status.final)

ids = st.sampled_from(IDS)
which = st.integers(0, 15)
"""One of the executions that there are, or of a few that there are not."""
steps = st.sampled_from(STEPS)
workers = st.sampled_from(WORKERS)
data = st.sampled_from([b"", b"1", b"\x00\xff"])
soon = st.integers(0, 3)
"""Steps of the clock."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch, before it is known when and by whom it is sent."""

    next: str
    status: ExecutionStatus
    in_steps: int
    records: Sequence[tuple[str, CheckpointStatus, int | None]]
    """Step, status, and in how many steps of the clock its timer is due."""
    drop: Sequence[str]
    takes: int
    """How many of the unread entries are consumed."""
    out: Sequence[tuple[str, str, str, bytes]]
    values: Mapping[str, bytes]
    seen: str
    data: bytes


plans = st.builds(
    Plan,
    next=st.sampled_from(["run", "run", "park", "park", "block", "ready", "close", "continue"]),
    status=st.sampled_from(FINAL),
    in_steps=st.integers(-1, 2),
    records=st.lists(
        st.tuples(steps, st.sampled_from(CheckpointStatus), st.none() | st.integers(-1, 2)), max_size=2
    ),
    drop=st.lists(steps, max_size=1),
    takes=st.integers(0, 2),
    out=st.lists(
        st.tuples(
            st.sampled_from(["start", "post", "cancel", "retry", "watch", "watch twice", "emit"]),
            ids,
            steps,
            data,
        ),
        max_size=3,
    ),
    values=st.dictionaries(st.sampled_from("vw"), data, max_size=1),
    seen=st.sampled_from(["told", "told", "all", "none"]),
    data=data,
)


class StoreMachine(RuleBasedStateMachine):
    """Rules for the whole port. A subclass may add rules of its own, each a call of `each`."""

    def __init__(self, worlds: Worlds, runner: asyncio.Runner, note: Callable[[str, str], None]) -> None:
        super().__init__()
        self._runner = runner
        self._opened = AsyncExitStack()
        self._number = 0
        self._is_sound = True
        self._nonces = dict[str, str]()
        """Of the last claim of each execution."""
        self.pairs: Sequence[Pair] = runner.run(self._open(worlds, note))

    async def _open(self, worlds: Worlds, note: Callable[[str, str], None]) -> Sequence[Pair]:
        opened = {name: await self._opened.enter_async_context(world()) for name, world in worlds.items()}
        return [await Pair.meet(name, world, note) for name, world in opened.items()]

    def each(self, act: Callable[[Pair], Awaitable[None]]) -> None:
        """Do it to every store, one after the other."""

        async def to_each() -> None:
            for pair in self.pairs:
                await act(pair)

        self._is_sound = False
        self._runner.run(to_each())
        self._is_sound = True

    def fresh(self, kind: str) -> str:
        self._number += 1
        return f"{kind}{self._number}"

    @override
    def teardown(self) -> None:
        try:
            if self._is_sound:
                self.each(Pair.look_at_everything)
        finally:
            self._runner.run(self._opened.aclose())

    # -- what there is

    @property
    def one(self) -> Pair:
        return self.pairs[0]

    def some(self, which: int) -> str:
        known = list(self.one.reference.executions)
        missing = [id for id in IDS if id not in known]
        pool = [*known, *missing[:1]]
        return pool[which % len(pool)]

    def in_state(self, *states: State) -> list[str]:
        return [id for id, known in self.one.reference.executions.items() if known.row.state in states]

    def has_ended(self, ids: Sequence[str]) -> bool:
        return any(id in ids for id in self.in_state(State.CLOSED))

    def can_claim(self) -> bool:
        return bool(self._claimable())

    def can_commit(self) -> bool:
        return bool(self.in_state(State.OWNED))

    def has_written(self) -> bool:
        return self.one.writes > 0

    def can_pass_time(self) -> bool:
        return all(pair.clock_moves for pair in self.pairs)

    def _claimable(self) -> list[str]:
        rows = [known.row for known in self.one.reference.executions.values()]
        return [
            row.id for row in rows if row.state is State.READY and row.available_at <= self.one.reference.now
        ]

    # -- clients

    @initialize()
    def begin(self) -> None:
        for execution_id in PLAIN[:2]:
            spec = NewExecution(execution_id, "order", "1", b"{}")
            op_id = self.fresh("create")
            self.each(methodcaller("create", spec, op_id))

    @rule(
        id=st.sampled_from(PLAIN),
        delay=st.sampled_from([0, 0, 1, 2]),
        at=st.none() | st.integers(-1, 2),
        timeout=st.sampled_from([None, 1, 2]),
        priority=st.sampled_from([0, 0, 5]),
        mail=st.booleans(),
        parent=st.none() | ids,
    )
    def create(
        self,
        id: str,
        delay: int,
        at: int | None,
        timeout: int | None,
        priority: int,
        mail: bool,
        parent: str | None,
    ) -> None:
        op_id = self.fresh("create")

        repeats = mail and delay == 0

        def spec(pair: Pair) -> NewExecution:
            return NewExecution(
                id,
                "ship" if mail else "order",
                "1",
                b"{}",
                queue="mail" if mail else "default",
                priority=priority,
                tags={"mail": "yes", "n": str(priority)} if mail else {},
                options=b"options",
                delay_ms=delay * STEP_MS,
                at_ms=None if at is None else pair.at(at),
                timeout_ms=None if timeout is None else timeout * STEP_MS,
                parent_id=parent,
                history=[Checkpoint(STEPS[0], "step", "f", CheckpointStatus.COMPLETED, b"{}")]
                if repeats
                else (),
                values={"v": b"1"} if repeats else {},
            )

        self.each(lambda pair: pair.create(spec(pair), op_id))

    @rule(key=st.sampled_from(KEYS), again=st.sampled_from("12"), reuse=st.booleans(), input=data)
    def create_with_key(self, key: str, again: str, reuse: bool, input: bytes) -> None:
        spec = NewExecution(
            keyed_id("order", key, again), "order", "1", input, key=key, reuse_closed_key=reuse
        )
        op_id = self.fresh("create")
        self.each(lambda pair: pair.create(spec, op_id))

    @precondition(lambda self: self.has_ended(KEYED))
    @rule(number=st.integers(0, 7), reuse=st.booleans(), input=data)
    def start_again(self, number: int, reuse: bool, input: bytes) -> None:
        """With the key of one that has ended."""
        ended = [id for id in self.in_state(State.CLOSED) if id in KEYED]
        holder = ended[number % len(ended)]
        key = self.one.reference.executions[holder].row.key
        fresh = next((id for id in KEYED if id.startswith(holder[:-1]) and not self.one.known(id)), holder)
        spec = NewExecution(fresh, "order", "1", input, key=key, reuse_closed_key=reuse)
        op_id = self.fresh("create")
        self.each(lambda pair: pair.create(spec, op_id))

    @rule(
        which=which,
        message=st.sampled_from(MESSAGES),
        kind=st.sampled_from([MessageKind.SIGNAL, MessageKind.EVENT]),
        name=steps,
        data=data,
    )
    def post(self, which: int, message: str, kind: MessageKind, name: str, data: bytes) -> None:
        id = self.some(which)
        self.each(lambda pair: pair.post(id, Message(message, kind, name, data)))

    @rule(which=which, message=st.sampled_from(MESSAGES), reason=data)
    def cancel(self, which: int, message: str, reason: bytes) -> None:
        id = self.some(which)
        self.each(
            lambda pair: pair.post(id, Message(message, MessageKind.CANCEL, "c", reason, Reach.BLOCKED))
        )

    @rule(which=which, message=st.sampled_from(MESSAGES), reach=st.sampled_from(Reach))
    def operate(self, which: int, message: str, reach: Reach) -> None:
        id = self.some(which)
        self.each(lambda pair: pair.post(id, Message(message, MessageKind.OPERATOR, "o", b"", reach)))

    # -- workers

    @precondition(lambda self: self.in_state(State.READY))
    @rule(number=st.integers(0, 7), worker=workers, remembers=st.booleans())
    def claim(self, number: int, worker: str, remembers: bool) -> None:
        ready = self.in_state(State.READY)
        self._claim(ready[number % len(ready)], worker, remembers)

    @rule(which=which, worker=workers)
    def claim_whatever(self, which: int, worker: str) -> None:
        self._claim(self.some(which), worker, False)

    def _claim(self, id: str, worker: str, remembers: bool) -> None:
        nonce = self.fresh("nonce")

        async def claim(pair: Pair) -> None:
            known = pair.known(id)
            await pair.claim(id, nonce, worker, known.row.op_id if remembers and known else None)

        self.each(claim)
        known = self.one.known(id)
        if known is not None and known.row.nonce == nonce:
            self._nonces[id] = nonce

    @precondition(can_commit)
    @rule(number=st.integers(0, 7), plan=plans)
    def commit(self, number: int, plan: Plan) -> None:
        owned = self.in_state(State.OWNED)
        id = owned[number % len(owned)]
        self._commit(id, plan, self._nonces.get(id, "stranger"), 0)

    @precondition(can_claim)
    @rule(number=st.integers(0, 7), worker=workers, turns=st.lists(plans, min_size=1, max_size=3))
    def take_turns(self, number: int, worker: str, turns: list[Plan]) -> None:
        """As a worker does: claim, write and leave, several times over."""
        for plan in turns:
            if claimable := self._claimable():
                id = claimable[number % len(claimable)]
                self._claim(id, worker, False)
                self._commit(id, plan, self._nonces.get(id, "stranger"), 0)

    @precondition(can_commit)
    @rule(number=st.integers(0, 7), plan=plans, next=st.sampled_from(["block", "ready", "park"]))
    def interrupt(self, number: int, plan: Plan, next: str) -> None:
        """A cancel comes while the owner is about to leave, and knows nothing of it."""
        owned = self.in_state(State.OWNED)
        id = owned[number % len(owned)]
        message = Message(self.fresh("interrupt"), MessageKind.CANCEL, "c", b"", Reach.BLOCKED)
        self.each(lambda pair: pair.post(id, message))
        self._commit(
            id,
            replace(plan, next=next, seen="told", takes=0, in_steps=2),
            self._nonces.get(id, "stranger"),
            0,
        )

    @rule(which=which, plan=plans, is_stranger=st.booleans(), behind=st.sampled_from([-1, 0, 1]))
    def commit_too_late(self, which: int, plan: Plan, is_stranger: bool, behind: int) -> None:
        """By whom it does not belong to, or on top of another version."""
        id = self.some(which)
        self._commit(id, plan, "stranger" if is_stranger else self._nonces.get(id, "stranger"), behind)

    def _commit(self, id: str, plan: Plan, nonce: str, ahead: int) -> None:
        op_id = self.fresh("commit")
        less = self._number  # so that no two timers of one execution are due at one instant

        async def commit(pair: Pair) -> None:
            known = pair.known(id)
            ver = known.row.ver if known else 0
            await pair.commit(id, nonce, max(ver + ahead, 0), op_id, batch(pair, id, plan, less, op_id))

        self.each(commit)

    @rule(worker=workers, ttl=st.integers(0, 3), info=data)
    def beat(self, worker: str, ttl: int, info: bytes) -> None:
        self.each(lambda pair: pair.beat(worker, ttl * STEP_MS, info))

    @rule(limit=st.sampled_from([1, 2, 100]), of_before=st.booleans())
    def tick(self, limit: int, of_before: bool) -> None:
        """Sweep; `of_before`: with leases that were looked at before the clock's last step."""
        self.each(
            lambda pair: pair.tick(before=pair.at(0) + (-HALF_MS if of_before else HALF_MS), limit=limit)
        )

    @rule(
        limit=st.sampled_from([1, 100, 100]),
        again=st.integers(1, 2),
        queues=st.sampled_from([("default",), ("mail",), ("default", "mail")]),
    )
    def due(self, limit: int, again: int, queues: tuple[str, ...]) -> None:
        wanted = Wanted(queues, WANTED.workflows)
        self.each(lambda pair: pair.due(wanted, limit=limit, again_ms=again * STEP_MS))

    @rule()
    def relay(self) -> None:
        self.each(Pair.relay)

    @precondition(has_written)
    @rule(number=st.integers(0, 20))
    def repeat(self, number: int) -> None:
        self.each(lambda pair: pair.repeat(number))

    # -- operators, and time

    @precondition(can_pass_time)
    @rule(steps=st.integers(1, 2))
    def pass_time(self, steps: int) -> None:
        self.each(lambda pair: pair.pass_time(steps))

    @precondition(can_pass_time)
    @rule(steps=st.integers(1, 3))
    def sleep(self, steps: int) -> None:
        """Until what was to come is due and swept."""
        self.each(lambda pair: pair.pass_time(steps))
        self.tick(100, False)

    @rule(
        steps=st.integers(-1, 1),
        status=st.sets(st.sampled_from(FINAL), min_size=1),
        limit=st.sampled_from([1, 100]),
    )
    def prune(self, steps: int, status: set[ExecutionStatus], limit: int) -> None:
        self.each(lambda pair: pair.prune(before=pair.at(steps) - HALF_MS, status=status, limit=limit))

    @rule(
        status=st.lists(st.sampled_from(ExecutionStatus), max_size=2, unique=True),
        workflow=st.sampled_from([None, "order", "ship"]),
        is_tagged=st.booleans(),
        since=st.none() | st.integers(-2, 0),
        until=st.none() | st.integers(-1, 1),
        prefix=st.sampled_from([None, "a", keyed_id("order", "k")]),
        parent=st.none() | ids,
        limit=st.integers(1, 4),
    )
    def query(
        self,
        status: list[ExecutionStatus],
        workflow: str | None,
        is_tagged: bool,
        since: int | None,
        until: int | None,
        prefix: str | None,
        parent: str | None,
        limit: int,
    ) -> None:
        def query(pair: Pair) -> Query:
            return Query(
                status,
                workflow,
                {"mail": "yes"} if is_tagged else {},
                None if since is None else pair.at(since) - HALF_MS,
                None if until is None else pair.at(until) - HALF_MS,
                prefix,
                parent,
                limit,
            )

        self.each(lambda pair: pair.query(query(pair)))


def batch(pair: Pair, id: str, plan: Plan, less: int, op_id: str) -> Batch:
    """The batch of a plan, as the owner would send it now."""
    known = pair.known(id)
    unread = known.unread() if known else ()
    seen = {"told": pair.told(id), "all": known.row.inbox_seq if known else 0, "none": 0}[plan.seen]
    taken = [entry.seq for entry in unread[: plan.takes]]
    if plan.takes == 2 and not taken:
        taken = [1]
    return Batch(
        seen=seen,
        next=_next(pair, plan),
        checkpoints=[
            Checkpoint(
                step_id,
                "sleep" if steps is not None else "step",
                step_id,
                status,
                plan.data,
                attempts=2,
                started_at=7,
                finished_at=8 if status.final else None,
                wake_at=None if steps is None else pair.at(steps, less_ms=10 * less + number + 1),
            )
            for number, (step_id, status, steps) in enumerate(plan.records)
        ],
        drop=plan.drop,
        consume=[(seq, "taker") for seq in taken],
        # What starts comes first: whether a message to nobody waits for a start behind it is an outbox's own affair.
        out=sorted(
            [out for number, each in enumerate(plan.out) for out in _out(*each, number, id, op_id)],
            key=lambda out: not isinstance(out, Start),
        ),
        values=plan.values,
    )


def _next(pair: Pair, plan: Plan) -> Next:
    match plan.next:
        case "park":
            wake_at = pair.at(plan.in_steps) if plan.in_steps > 0 else None
            return Park(ExecutionStatus.SLEEPING if wake_at else ExecutionStatus.WAITING, wake_at)
        case "block":
            return Block(ExecutionStatus.PAUSED, plan.data, "why")
        case "ready":
            return Ready(pair.at(plan.in_steps), ExecutionStatus.RETRYING, attempt=2)
        case "close" if plan.status is ExecutionStatus.COMPLETED:
            return Close(plan.status, plan.data)
        case "close":
            return Close(plan.status, None, plan.data, "code")
        case "continue":
            return Continue(plan.data)
        case _:
            return Run()


def _out(kind: str, to: str, name: str, data: bytes, number: int, sender: str, op_id: str) -> Sequence[Out]:
    match kind:
        case "start":
            key = next((key for key in KEYS if to.startswith(keyed_id("order", key))), None)
            return [Start(NewExecution(to, "order", "1", data, key=key, parent_id=sender))]
        case "post":
            return [Post(to, Message(f"m{len(data)}", MessageKind.SIGNAL, name, data))]
        case "cancel":
            return [Post(to, Message(f"{op_id}:{number}", MessageKind.CANCEL, "c", data, Reach.BLOCKED))]
        case "retry":
            return [Post(to, Message(f"{op_id}:{number}", MessageKind.OPERATOR, "o", data, Reach.CLOSED))]
        case "watch":
            return [Watch(to, name)]
        case "watch twice":
            return [Watch(to, name), Watch(to, name)]
        case _:
            return [Emit(f"e{len(data)}", name, data)]
