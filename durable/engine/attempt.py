"""An attempt: one execution in the memory of one worker, from the claim that loads it until it is let go.

    claim ─▶ replay ─▶ run ─▶ decide ─▶ commit ─▶ announce
                        ▲        │
                        └────────┴── parked: the coroutine is held, or closed and replayed later

The body runs as an ordinary asyncio task. Whatever it does through `ctx` is recorded in the journal; the driver
(`activate`) commits, when somebody needs what is recorded to be stored, when everything that is left waits for the
inbox, and at the end. Beside it only a step's transaction does, while it has the turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn, Protocol, TypeVar, cast, final, overload

from durable.clock import stopwatch
from durable.codec import dump_error, load_error, record_error
from durable.engine.branch import AnyTask, Branch, PutAside, blocked_on_children, is_about_to_run
from durable.engine.compensation import Compensations
from durable.engine.failures import failure_start
from durable.engine.host import Host
from durable.engine.journal import Answer, Journal, Topic, Write
from durable.engine.latch import Latch
from durable.engine.operator_acts import (
    APPLIED,
    FORCE_FAIL,
    REFUSED,
    Effect,
    Running,
    apply_act,
    hold_until,
    paused,
)
from durable.engine.persist import persist
from durable.engine.replay import NOTHING, Replay
from durable.engine.telling import Told, started_within
from durable.engine.transitions import (
    CANCEL,
    END,
    NUDGE,
    PAUSED,
    TIMEOUT,
    Ended,
    Ending,
    cancelled_by,
    failed,
    park,
    poisoned,
    timed_out,
)
from durable.engine.turn import Turn
from durable.engine.waits import Wait, Waits
from durable.errors import DurableError, LimitReached
from durable.models import ExecutionStatus
from durable.protocols import (
    Block,
    Checkpoint,
    Claimed,
    Close,
    Committed,
    Continue,
    Created,
    Diverged,
    DurableStore,
    Exists,
    Fenced,
    Full,
    InboxEntry,
    Joined,
    MessageKind,
    NewExecution,
    Next,
    Park,
    Ready,
    Run,
    Start,
)
from durable.workflow import AnyWorkflow

T = TypeVar("T")

log = logging.getLogger("durable.engine")

_RUN = Run()
_PATIENCE, _MOST_PATIENCE = 0.005, 1.0
_STILL = 0.1
_MOST_REFUSALS = 10


class Body(Protocol):
    """What runs in an attempt's root task."""

    async def run(self, branch: Branch) -> Next:
        """What is to be committed at its end."""
        ...


@final
class Attempt:
    """Drives the body of one execution. See the module."""

    def __init__(
        self,
        workflow: AnyWorkflow,
        claimed: Claimed,
        journal: Journal,
        host: Host,
        new_body: Callable[[Attempt], Body],
    ) -> None:
        self.workflow = workflow
        self.journal = journal
        self.host = host
        self.row = claimed.row
        self.claimed_at = claimed.now
        self.told = None if host.telemetry is None else Told(host.telemetry, claimed.row)
        """What listeners get to know of it; None: nobody listens."""
        self.compensations = Compensations()
        self.failures: list[tuple[Exception, str]] = []
        """What failed steps have raised in the body, and which step it was."""
        self.ending: Ending | None = None
        """Why it ends, when it does not end by itself."""
        self.ended: Ended | None = None
        """How it ended, once that is stored."""
        self.cancelling = False
        """The ending has reached the body, as a `CancelledError`."""
        self._new_body = new_body
        self._live = True
        self._owned = False
        self._root: asyncio.Task[Next] | None = None
        self._branches: dict[AnyTask, Branch] = {}
        self._waits = Waits()
        self._in_step: dict[AnyTask, Running | None] = {}
        """What runs in a task that the driver waits for: a step, or None for a question to the store."""
        self.skipped: set[str] = set()
        """Steps that run, and whose result an operator has given."""
        self._steps_done: asyncio.Future[None] | None = None
        self._flushers: list[asyncio.Future[None]] = []
        self._in_flight: list[asyncio.Future[None]] = []
        self._committing = False
        self._turn = Turn()
        self._refusal: Answer | None = None
        """What the store has answered to a step's transaction."""
        self._loop = asyncio.get_running_loop()
        self._woken = Latch(self._loop)
        self._patience = _PATIENCE
        self._impatient = False
        self._verdict: Next | None = None
        self._doomed = False
        """An operator has ended it."""
        self._holding = False
        self._delivering = False
        self._sealed = False
        self._releasing = False
        self._amended = False
        """An operator has changed what the body has seen: it must begin again."""
        self._nudged = False
        self._refused = 0
        self._replay = NOTHING

    # ---- what a worker calls

    @property
    def live(self) -> bool:
        """Whether `ctx` still does anything."""
        return self._live

    @property
    def owned(self) -> bool:
        return self._owned

    @property
    def running_step(self) -> str:
        """A step whose body runs now, or nothing. May be asked on any thread."""
        return next((step.key for step in [*self._in_step.values()] if step is not None), "")

    async def activate(self, claimed: Claimed) -> Committed | Fenced | Diverged:
        """Go on, from the claim, until the execution is parked, has ended or belongs to somebody else.

        After `Committed` with a `Park`, `live` is still true and the attempt may be kept for the next claim.
        """
        self._owned, self._nudged = True, False
        self.row, self.claimed_at = claimed.row, claimed.now
        try:
            self._take_in(claimed.inbox)
            if self._root is None:
                self._begin()
            while True:
                next = self._decide()
                if next is None:
                    await self._idle()
                    continue
                if isinstance(next, Close):
                    self._tell_failure(next)
                if self.told is not None:
                    self.told.leave_trace(next, self.journal)
                answer = await self._commit(next)
                if isinstance(answer, Full):
                    self.journal.discard()
                    self._verdict = failed(LimitReached(self.row.id, answer.what, answer.limit))
                elif isinstance(answer, Committed) and answer.owned:
                    self._take_in(answer.inbox)
                else:
                    self._owned = False
                    if self.ended is not None:
                        log.info(
                            "execution %s of %s ended as %s",
                            self.row.id,
                            self.row.workflow,
                            self.ended.close.status,
                        )
                    if self.told is not None:
                        self.told.left(next, answer, self._waits.all(), self.journal.now)
                    if not (isinstance(answer, Committed) and isinstance(next, Park)):
                        self.let_go()
                    elif self._moving() or self._in_step or self._flushers:
                        self.wake()  # the body went on by itself while the park was on its way
                    return answer
        except BaseException:
            self._owned = False
            if self.told is not None:
                self.told.lost("abandoned")
            self.let_go()
            raise

    def hear(self, entries: Iterable[InboxEntry]) -> None:
        """Something is new in the inbox while the body runs."""
        # A park on its way has been promised that nothing after `seen` is known: its answer will bring it.
        if self._owned and self._live and not self._committing:
            self._take_in(entries)
            self._woken.set()

    def release(self, *, now: bool = False) -> None:
        """Begin no new step, and give the execution back when those that run have ended; `now`: cancel them. Another
        worker goes on where the last commit was."""
        self._releasing = True
        if now:
            for task in tuple(self._in_step):
                task.cancel()
        self._woken.set()

    def let_go(self) -> None:
        """Put the body aside: its coroutines are closed here and now, and whatever they still do through `ctx`
        does nothing. A step's own code that is running gets a `CancelledError`."""
        if not self._live:
            return
        self._live = False
        branches = list(self._branches.items())
        # A parent before its children, which it shall not see end.
        closed = [task for task, branch in branches if task in self._in_step or branch.close()]
        for task in closed:
            task.cancel()
        self._forget()

    def _forget(self) -> None:
        """Let go of what knows this attempt, so that the end frees its memory, not the collector some time later."""
        if self._root is not None and self._root.done():
            self._root = None
        self.compensations.clear()
        self.failures.clear()

    # ---- what the runtime calls

    def adopt(self, branch: Branch) -> None:
        assert branch.task is not None
        self._branches[branch.task] = branch
        branch.task.add_done_callback(self._ended)

    @property
    def replaying(self) -> bool:
        """Whether the body has still to come to something that is recorded."""
        return not self._replay.is_over

    def visit(self, key: str) -> None:
        """The body has come to this checkpoint."""
        follower = self._replay.visit(key)
        if follower is not None:
            self._waits.release(follower)

    async def in_turn(self, done: Checkpoint) -> None:
        """Come back when all that was recorded before `done` has been given back to the body."""
        if not self._replay.is_next(done.step_id):
            turn = Wait("turn", (), _unreachable)
            self._replay.wait(done.step_id, turn)
            await self.block(turn)
        self.visit(done.step_id)

    async def refuse(self) -> NoReturn:
        """Do nothing for a body that was put aside, whatever it asks for."""
        self._refused += 1
        if (
            self._refused > _MOST_REFUSALS
        ):  # it swallows everything, in a loop that would never let go of the thread
            await self._loop.create_future()
        raise PutAside

    async def barrier(self, *, undoing: bool = False) -> None:
        """Come back when a side effect may begin: all that was recorded so far is stored, and nothing speaks against
        going on. (The commit of a step must be stored before the next side effect, not before its value is used.)"""
        if self.host.forgetful and self.journal.dirty and not self._in_step:
            self.release()
        stored = False
        while self._live:
            if self.ending is not None or self._sealed or self._releasing or self.host.onlooker:
                await self.hold(undoing=undoing)
            # Only what was recorded before this call counts, not what other branches have recorded since.
            dirty = self.journal.dirty
            if self._owned and (stored or not (dirty or self._committing)):
                return  # and not while it is parked: whoever claims it then would begin the same
            flushed = self._loop.create_future()
            (self._flushers if dirty or not self._committing else self._in_flight).append(flushed)
            self.wake()
            await flushed
            stored = True
        await self.refuse()

    async def take_turn(self) -> None:
        """As `barrier`; and from when this comes back until `end_turn` nobody else commits."""
        while True:
            await self.barrier()
            if not (self._committing or self._turn.is_taken):
                self._turn.is_taken = True
                return
            await self._turn.wait()
            speaks_against = self.ending is not None or self._sealed or self._releasing
            if self._live and self._owned and not speaks_against:
                return
            self.end_turn()

    def end_turn(self) -> None:
        if self._flushers:
            self._turn.is_taken = False  # and then it is passed on after the commit that they wait for
        else:
            self._turn.pass_on()
        self._woken.set()

    async def commit_by(self, write: Write) -> Answer | None:
        """The commit of whoever has the turn, which goes on. What the store refuses the driver sees to.

        None, or an exception: nothing is stored.
        """
        answer = await self._commit(_RUN, write)
        if not isinstance(answer, Committed):
            self._refusal = answer
        elif self._live:
            self._take_in(answer.inbox)
        return answer

    async def hold(self, *, undoing: bool = False) -> None:
        """Wait here if a live operation may not begin now: before an ending is delivered, and after the body's end.
        Once the run's timeout has been delivered, only compensations may begin."""
        if self._delivering and not self.cancelling:
            await asyncio.sleep(0)  # the CancelledError is on its way
        mine = asyncio.current_task(self._loop) is self._root
        if self._holding or self._releasing or (self._sealed and not mine):
            await self.block(Wait("hold", (), _unreachable))
        is_over = self.ending is not None and self.cancelling and not self.ending.may_clean_up
        if is_over and not undoing and not self._sealed:
            assert self.ending is not None
            raise asyncio.CancelledError(self.ending.error.message)
        await self.begin_nothing_if_watched()

    async def begin_nothing_if_watched(self) -> None:
        """Stand still before a live operation, where there is an onlooker."""
        if self.host.onlooker is not None:
            self.host.onlooker.reached_new()
            await self.block(Wait("new", (), _unreachable))

    async def block(self, wait: Wait) -> Checkpoint | None:
        """What is recorded once the wait is over; None for one that the inbox does not end."""
        if not self._live:
            await self.refuse()
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._waits.add(task, wait)
        self.wake()
        try:
            return await wait.future
        except asyncio.CancelledError:
            if wait.future.done() and not wait.future.cancelled() and not self.cancelling:
                return wait.future.result()  # it is recorded: what cancelled the wait came too late
            raise
        finally:
            self._waits.remove(wait)

    def expect(self, topics: tuple[Topic, ...]) -> InboxEntry | None:
        """The entry that a wait for `topics` takes at once, without blocking."""
        return None if self._holding else self.journal.first(topics)

    def step_begins(self, step: Running | None = None) -> AnyTask:
        """The task that it runs in, for `step_ends`."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._in_step[task] = step
        return task

    def step_ends(self, task: AnyTask) -> None:
        self._in_step.pop(task, None)
        if self._releasing:
            self._woken.set()
        if not self._in_step and self._steps_done is not None and not self._steps_done.done():
            self._steps_done.set_result(None)

    async def ask(self, question: Callable[[DurableStore], Awaitable[T]]) -> T:
        """What the store answers to a body, which counts as running meanwhile."""
        store = self.host.store
        assert store is not None
        task = self.step_begins()
        try:
            return await persist(lambda: question(store))
        finally:
            self.step_ends(task)

    async def start_now(self, spec: NewExecution) -> Created | Joined | Exists:
        """Start another execution before the next commit; again: the same one."""
        answer = await self.ask(lambda store: store.create(spec, op_id=f"start:{spec.id}"))
        if isinstance(answer, Created | Joined) and answer.doorbell is not None:
            self.host.announce((answer.doorbell,), ())
        return answer

    async def stop(self, verdict: Next) -> NoReturn:
        """End this attempt, from within the body, with nothing for the body to catch."""
        self._verdict = verdict
        self.wake()
        await self._loop.create_future()
        raise AssertionError("it is closed there")

    async def needs_repair(self, error: DurableError, step_id: str | None = None) -> NoReturn:
        """Park the execution until somebody mends it; one that was to end anyway ends, unless it is rolled back."""
        if self.host.onlooker is not None:
            self.host.onlooker.refused(error)
        elif self.ending is not None and END not in self.journal.history:
            log.error("execution %s of %s ends unmended: %s", self.row.id, self.row.workflow, error)
            await self.stop(self.ending.close())
        else:
            log.error("execution %s of %s is parked: %s", self.row.id, self.row.workflow, error)
        if self.told is not None:
            self.told.refused(error)
        record = record_error(error, step_id=step_id)
        await self.stop(Block(ExecutionStatus.PARKED, dump_error(record), error.code))

    def wake(self) -> None:
        """Let the driver look; a parked execution is claimed again first."""
        self._woken.set()
        if not self._owned and not self._nudged and self._live:
            self._nudged = True
            self.host.nudge(self.row.id)

    def step_of(self, error: BaseException) -> str | None:
        """The step that failed with this error, which has come out of the body."""
        step_id = next((step_id for failure, step_id in self.failures if failure is error), None)
        if step_id is None and isinstance(error, BaseExceptionGroup):
            parts = cast("BaseExceptionGroup[BaseException]", error).exceptions
            step_id = next(filter(None, map(self.step_of, parts)), None)
        return step_id

    # ---- the driver

    def _decide(self) -> Next | None:
        if self._turn.is_taken:
            if self._verdict is not None and not self._releasing:
                self.release(now=True)  # it rolls back, and the turn is ours
            return None
        if self._refusal is not None:
            return _RUN
        if self._verdict is not None:
            return self._verdict
        assert self._root is not None
        if self._root.done():
            return self._unless_paused(self._conclusion(self._root))
        if self._releasing and not self._in_step:
            return paused(self.journal) or Ready(0, ExecutionStatus.PENDING, self.row.attempt)
        if self._quiescent():
            if (turn := self._replay.first_waiting()) is not None:
                self._waits.release(turn)
                return None
            if self._holding:
                self._deliver_ending()
                return None
            return park(self._waits.all())
        if self._flushers or (self._impatient and self.journal.dirty):
            return _RUN
        return None

    def _conclusion(self, root: asyncio.Task[Next]) -> Next:
        try:
            return root.result()
        except Exception as error:
            log.exception("execution %s is parked: this is a fault in durable", self.row.id)
            return Block(ExecutionStatus.PARKED, dump_error(record_error(error)), "internal_error")

    def _unless_paused(self, end: Next) -> Next:
        """What is committed at the body's end, where an operator has acted while it came there."""
        if self._amended and isinstance(end, Close) and end.status is ExecutionStatus.COMPLETED:
            return Ready(0, ExecutionStatus.PENDING, self.row.attempt)  # by what is not true any more
        if isinstance(end, Ready | Continue) and (block := paused(self.journal)) is not None:
            if isinstance(end, Continue):
                return block  # the body comes here again when it is resumed
            hold_until(self.journal, end.at_ms, end.status)
            return Ready(0, end.status, end.attempt)
        return end

    async def _idle(self) -> None:
        # What is recorded is stored soon even if nobody asks for it; and a branch that waited for something of its own
        # may by now wait for other branches only, which nothing tells us.
        watched = self.journal.dirty or bool(self._waits)
        timer = self._loop.call_later(self._patience, self._on_impatience) if watched else None
        await self._woken.wait()
        if timer is not None:
            timer.cancel()

    def _on_impatience(self) -> None:
        self._impatient = True
        self._patience = min(self._patience * 2, _MOST_PATIENCE)
        self._woken.set()

    @overload
    async def _commit(self, next: Next) -> Answer: ...
    @overload
    async def _commit(self, next: Next, write: Write) -> Answer | None: ...
    async def _commit(self, next: Next, write: Write | None = None) -> Answer | None:
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            return refusal
        self._in_flight, self._flushers = self._flushers, []
        self._committing, self._impatient = True, False
        told, began = self.told, 0.0
        checkpoints = 0
        if told is not None:
            began, checkpoints = stopwatch(), self.journal.pending
        answer: Answer | None = None
        try:
            answer = await self.journal.commit(next, write)
        finally:
            self._committing = False
            flushed, self._in_flight = self._in_flight, []
            if answer is None:
                self._flushers = flushed + self._flushers
        if answer is None:
            return None
        if told is not None:
            told.committed(checkpoints, answer, stopwatch() - began)
        if isinstance(answer, Committed):
            if isinstance(next, Close):
                self.ended = Ended(self.row, next)
            if answer.doorbells or answer.touched:
                self.host.announce(answer.doorbells, answer.touched)
            for due in (self.journal.soonest(), answer.next_at):
                if due is not None:
                    self.host.wake_at(due)
            for waiter in flushed:
                if not waiter.done():
                    waiter.set_result(None)
            self._patience = _PATIENCE
            if self._turn and answer.owned and write is None:
                self._turn.pass_on()
        return answer

    def _tell_failure(self, end: Close) -> None:
        marker = self.journal.history.get(END)
        if marker is not None and marker.attempts > 1 and end.status == marker.name:
            return  # it failed before, and an operator has had it rolled back since
        start = failure_start(self.workflow, self.row, self.journal.ver, end)
        if start is not None:
            self.journal.send(Start(started_within(start.spec, self.host.telemetry)))

    def _quiescent(self) -> bool:
        """Whether nothing of the body can move before the inbox brings something."""
        if self._in_step or self._flushers or not self._waits or self._moving():
            return False
        if len(self._waits) == len(self._branches):
            return True
        others = [task for task in self._branches if task not in self._waits]
        tasks = set(self._branches)
        # What waits for something of its own (a lock, a plain sleep) for a while counts too: it may be something that
        # only a blocked branch can bring. Should it move after all, the execution is claimed again.
        return self._patience >= _STILL or all(blocked_on_children(task, tasks) for task in others)

    def _moving(self) -> bool:
        """Whether some branch is about to run, or about to be cancelled."""
        if self._delivering and not self.cancelling:
            return True
        if any(wait.future.done() for wait in self._waits.all()):
            return True
        return any(task not in self._waits and is_about_to_run(task) for task in self._branches)

    def _ended(self, task: AnyTask) -> None:
        branch = self._branches.pop(task, None)
        if branch is not None:
            if branch.parent is not None:
                branch.parent.saw(branch.time)
            branch.is_over()
        if not self._live:
            self._forget()
            if not task.cancelled():
                task.exception()  # it was closed; there is nothing to tell about it
        if task is self._root or not self._owned:
            self.wake()
        else:
            self._woken.set()

    # ---- what the inbox brings

    def _take_in(self, entries: Iterable[InboxEntry]) -> None:
        for entry in self.journal.deliver(entries):
            if self.told is not None and entry.kind is MessageKind.TIMER:
                self.told.timer(entry, self.journal.history.get(entry.name))
            topic = (entry.kind, entry.name)
            if not self.journal.is_unread(entry):
                continue  # a timer that came too late for a wait that an entry before it has ended
            if topic == CANCEL:
                self._end(cancelled_by(entry.data))
            elif topic == TIMEOUT:
                self._end(timed_out())
            elif topic == NUDGE:
                self.journal.consume(entry, "__nudge")
            elif entry.kind is MessageKind.OPERATOR:
                self._obey(entry)
            elif self.journal.is_stale(entry):
                self.journal.consume(entry, "__stale")
            elif not self._holding:
                self._waits.settle(topic, entry)

    def _obey(self, entry: InboxEntry) -> None:
        """Do what an operator asks for."""
        journal, root = self.journal, self._root
        is_over = root is not None and root.done() and self._verdict is None
        if is_over and root is not None and not isinstance(self._conclusion(root), Close):
            return  # it stays unread, and the next claim brings it
        running = {step.key: step for step in self._in_step.values() if step is not None}
        effect: Effect | None = None
        if not (self._doomed or (is_over and entry.name != FORCE_FAIL)):
            effect = apply_act(entry, journal, running)
        journal.consume(entry, REFUSED if effect is None else APPLIED)
        if effect is None:
            return
        self._doomed = isinstance(effect.next, Close)
        if root is None or self._verdict is not None or not effect.gently:
            again = Ready(0, ExecutionStatus.PENDING, self.row.attempt)
            self._verdict = effect.next or (self._verdict and again) or (again if root is not None else None)
            return
        self._amended = self._amended or effect.amends
        for task, step in self._in_step.items():
            if step is not None and step.key == effect.stops:
                self.skipped.add(step.key)
                task.cancel()
        self.release()

    def _end(self, ending: Ending) -> None:
        if self.ending is not None:
            return  # the first reason is kept
        self.ending = ending
        if PAUSED in self.journal.history:
            self.journal.forget([PAUSED])
        if self._root is None:
            self._holding = True  # first let the body come to where it was
        else:
            self._deliver_ending()

    def _deliver_ending(self) -> None:
        assert self._root is not None
        self._holding = False
        if not self._delivering:
            self._delivering = True
            # In the next turn: a wait that is over already gives the body its value first, as it will on a replay.
            self._loop.call_soon(self._cancel_body)

    def _cancel_body(self) -> None:
        assert self.ending is not None
        if self._live and not self.cancelling and not self._sealed:
            assert self._root is not None
            self.cancelling = True
            self._root.cancel(self.ending.error.message)

    # ---- the body

    def _begin(self) -> None:
        if self._verdict is None and self.row.crashes >= self.host.max_crashes:
            log.error("execution %s of %s is given up: its workers die", self.row.id, self.row.workflow)
            self._verdict = poisoned(self.row.crashes)
        if self._verdict is None and self.ending is None and self.host.onlooker is None:
            self._verdict = paused(self.journal)
        if self._verdict is not None:
            return
        history = self.journal.history
        if (marker := history.get(END)) is not None:
            error = load_error(marker.data)
            self.ending = Ending(ExecutionStatus(marker.name), error, may_clean_up=False)
            self._holding = True
        self._replay = Replay(history)
        before = history.get(f"__attempt:{self.row.attempt - 1}")
        began = (before.finished_at if before else self.row.started_at) or self.journal.now
        branch = Branch(self, "", None, began)
        self._root = branch.start(self._new_body(self).run(branch))

    async def settle_branches(self, root: Branch) -> None:
        """After the body's end: steps that other branches are running finish (or, when it was ended, are cancelled),
        and nothing new begins there."""
        self._sealed = True
        self._holding = False
        if self.ending is not None:
            self.cancelling = True
            for task in tuple(self._in_step):
                task.cancel()
        while self._in_step:
            self._steps_done = self._loop.create_future()
            await self._steps_done
        for task, branch in list(self._branches.items()):
            if branch is not root:
                del self._branches[task]
                if branch.close():
                    task.cancel()


def _unreachable(entry: InboxEntry) -> Checkpoint:
    raise AssertionError(entry)
