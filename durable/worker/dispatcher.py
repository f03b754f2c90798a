"""Who runs what now: free slots, doorbells, claims, and the attempts that this process holds in memory."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextvars import copy_context
from typing import Any, final

from durable.clock import Clock, stopwatch
from durable.engine.attempt import Attempt
from durable.engine.host import Host
from durable.engine.journal import Journal
from durable.engine.persist import persist
from durable.engine.runtime import new_body
from durable.engine.transitions import Ended
from durable.errors import DurableError
from durable.ids import Ids
from durable.logs import RUNNING
from durable.presence import MOST_WORK, Work
from durable.protocols import (
    Claimed,
    Committed,
    Delivery,
    Diverged,
    Doorbell,
    DurableQueue,
    DurableStore,
    EventBus,
    Fenced,
    InboxEntry,
    NotClaimed,
    State,
    Wanted,
    execution_topic,
)
from durable.telemetry import ClaimRefused
from durable.worker.hints import Hints
from durable.workflow import Registry

log = logging.getLogger("durable.worker")

_LONGEST_PARKED_MS = 5 * 60 * 1000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 2.0
_GENTLE = 0.5
_GRACE_S = 1.0
_DOUBT_MS = 60_000
"""How long a request that was given up may still be on its way to the store."""


@final
class Dispatcher:
    """Takes doorbells while it has free slots, and drives each execution that it gets until it is parked or over."""

    def __init__(
        self,
        *,
        worker_id: str,
        registry: Registry,
        store: DurableStore,
        queue: DurableQueue,
        bus: EventBus,
        clock: Clock,
        ids: Ids,
        host: Host,
        wanted: Wanted,
        slots: int,
        most_parked: int,
        tell: Callable[[str, Ended | None], None],
    ) -> None:
        """`tell` is called when an execution has ended here, or was here and is so no more."""
        self._worker_id = worker_id
        self._registry = registry
        self._store = store
        self._queue = queue
        self._bus = bus
        self._clock = clock
        self._ids = ids
        self._host = host
        self._all_wanted = self._wanted = wanted
        self._free = slots
        self._most_parked = most_parked
        self._tell = tell
        self._slot_freed = asyncio.Event()
        self._running: dict[str, Attempt | None] = {}
        self._suspects: dict[str, int] = {}
        """How often those that run here have crashed in a row."""
        self._rung_again: dict[str, Delivery] = {}
        self._doubtful: dict[str, tuple[str, int]] = {}
        """Nonces of claims that were asked for more than once, and until when a copy may still arrive."""
        self._parked: OrderedDict[str, tuple[Attempt, int]] = OrderedDict()
        self._hints = Hints(bus, is_news=self._is_news, look=self._look, background=self._background)
        """For what runs or is parked here."""
        self._hinted_early: set[str] = set()
        """While they are being claimed."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._receiver: asyncio.Task[None] | None = None
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self._hurried = asyncio.Event()
        self._served = 0
        self._is_leaving = self._is_closed = False
        self._stopped = False
        self._context = copy_context()

    @property
    def active(self) -> int:
        """Executions that hold a slot."""
        return len(self._running)

    @property
    def progress(self) -> object:
        """Something that differs whenever an execution got further."""
        return self._served, [attempt.journal.ver for attempt in self._running.values() if attempt]

    @property
    def seen(self) -> dict[str, int]:
        """The last inbox entry that each running attempt knows."""
        return {id: attempt.journal.seen for id, attempt in self._running.items() if attempt is not None}

    @property
    def leaving(self) -> bool:
        """Nothing new is taken any more."""
        return self._is_leaving or self._is_closed

    def work(self) -> list[Work]:
        """What runs here, the longest first. May be asked on any thread."""
        running = [attempt for attempt in [*self._running.values()] if attempt is not None]
        running.sort(key=lambda attempt: attempt.claimed_at)
        return [
            Work(attempt.row.id, attempt.row.workflow, attempt.running_step, attempt.claimed_at)
            for attempt in running[:MOST_WORK]
        ]

    def start(self) -> None:
        self._receiver = asyncio.create_task(self._receive(), name="durable.receive")

    async def drain(self, seconds: float) -> None:
        """Take nothing new, and let what runs go on for so long. In the second half of that time no new step begins, so
        that none is cut off and repeated that takes less."""
        self._is_leaving = True
        if self._receiver is not None:
            self._receiver.cancel()
            await asyncio.wait((self._receiver,))
        await self._wait_unhurried(seconds * (1 - _GENTLE))
        for attempt in self._attempts():
            attempt.release()
        await self._wait_unhurried(seconds * _GENTLE)

    async def give_back(self) -> None:
        """Come back when others may go on with what still runs here."""
        if self._running:
            log.warning("%d executions are given back in the middle of a step", len(self._running))
        for attempt in self._attempts():
            attempt.release(now=True)
        await self._all_ended.wait()

    def _attempts(self) -> list[Attempt]:
        return [attempt for attempt in self._running.values() if attempt is not None]

    async def _wait_unhurried(self, seconds: float) -> None:
        """Wait for all, unless somebody is in a hurry."""
        hurried = asyncio.create_task(self._hurried.wait())
        ended = asyncio.create_task(self._all_ended.wait())
        await asyncio.wait((hurried, ended), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        ended.cancel()

    async def abandon(self) -> None:
        """Drop everything, and store nothing of it."""
        self._is_leaving = self._stopped = True
        for attempt in self._attempts():
            attempt.let_go()
        tasks = {*self._tasks, *([self._receiver] if self._receiver else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_GRACE_S)
        while self._parked:
            self._put_aside_oldest()

    def hurry(self) -> None:
        """Give back at once what runs, when told to stop, also while `drain` is waiting for it."""
        self._hurried.set()

    def announce(self, doorbells: Sequence[Doorbell], touched: Sequence[str]) -> None:
        """Let all know what a write has made ready, and for whom it left something. What is parked in memory here goes
        on at once if there is a free slot, and nobody is rung for it; nobody else can do more with a hint."""
        kept = {bell.id for bell in doorbells if bell.id in self._parked and bell.id not in self._running}
        rest = [bell for bell in doorbells if bell.id not in kept or not self.expect(bell)]
        hinted = [id for id in touched if id not in kept]
        if hinted:
            self._bus.publish(execution_topic(id) for id in hinted)
        if rest:
            self._queue.ring(rest)

    def hear(self, news: dict[str, tuple[InboxEntry, ...]]) -> None:
        """Entries that reached executions while they run here."""
        for execution_id, entries in news.items():
            attempt = self._running.get(execution_id)
            if attempt is not None:
                attempt.hear(entries)

    def forget_old(self) -> None:
        """Put aside what has been parked in memory for long."""
        before = self._clock.now_ms() - _LONGEST_PARKED_MS
        while self._parked and next(iter(self._parked.values()))[1] <= before:
            self._put_aside_oldest()

    def look_after_claims(self) -> None:
        """Ask again for what was claimed with an unknown outcome: the first request may have reached the store after
        all, long after the second one was answered and given back, and then it has an owner who knows nothing of it."""
        now = self._clock.now_ms()
        for execution_id, (nonce, until) in list(self._doubtful.items()):
            if until < now:
                del self._doubtful[execution_id]
            elif self.has_room and execution_id not in self._running:
                self._spawn(execution_id, None, nonce)

    # ---- doorbells

    @property
    def wanted(self) -> Wanted:
        """What it takes now."""
        return self._wanted

    def is_paused(self, queue: str) -> bool:
        return queue in self._all_wanted.queues and queue not in self._wanted.queues

    def pause(self, queues: Collection[str]) -> bool:
        """Take nothing from these queues, and again from all others; does that change anything?"""
        served = tuple(
            queue for queue in self._all_wanted.queues if queue not in queues and not self._is_closed
        )
        if served == tuple(self._wanted.queues):
            return False
        self._wanted = Wanted(served, self._all_wanted.workflows)
        if self._receiver is not None and not self._is_leaving:
            self._receiver.cancel()
            self.start()
        return True

    def take_no_more(self) -> bool:
        """Take nothing from any queue from now on, and let what runs go on; does that change anything?"""
        if self._is_closed:
            return False
        self._is_closed = True
        self.pause(())
        return True

    async def _receive(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            while self._free <= 0:
                self._slot_freed.clear()
                await self._slot_freed.wait()
            try:
                deliveries = await self._queue.receive(self._wanted, limit=self._free)
            except DurableError as error:
                log.warning("the queue is asked again after an error: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            for delivery in deliveries:
                self._take(delivery)

    def _take(self, delivery: Delivery) -> None:
        bell = delivery.doorbell
        if self._free <= 0 and bell.id not in self._running:
            self._queue.release(
                delivery
            )  # the slot that it was received for was taken by what this process began
            return
        if bell.id in self._running:
            attempt = self._running[bell.id]
            if attempt is not None and 0 < bell.ready_at < attempt.claimed_at:
                self._queue.ack(delivery)  # it rang before the claim, which has answered it
                return
            # It may be the end of this claim that made it ready again: look once more when it is over.
            self._rung_again[bell.id] = delivery
        elif not self._wanted.wants(bell):
            self._queue.release(delivery)
        elif self._is_unsafe(bell):
            self._queue.ack(delivery)  # not here, not now: the sweep rings it again
        else:
            self._spawn(bell.id, delivery, crashes=bell.crashes)

    def _is_unsafe(self, bell: Doorbell) -> bool:
        """Whether it might share the fate of another one whose workers die. The last try before an execution is given
        up as poison runs beside nothing else that has crashed, so that no bystander is given up with the culprit."""
        if not self._is_suspect(bell.crashes):
            return False
        others = [crashes for id, crashes in self._suspects.items() if not self._has_progressed(id)]
        return bool(others) and max(bell.crashes, *others) >= self._host.max_crashes - 1

    def _is_suspect(self, crashes: int) -> bool:
        return 0 < crashes < self._host.max_crashes

    def _has_progressed(self, execution_id: str) -> bool:
        attempt = self._running.get(execution_id)
        return attempt is not None and attempt.journal.ver > attempt.row.ver

    @property
    def has_room(self) -> bool:
        """Whether there is a free slot."""
        return self._free > 0 and not self._is_leaving

    def expect(self, bell: Doorbell) -> bool:
        """Claim an execution that this process is about to make ready, if there is a free slot.

        To be called right after the write that makes it ready was asked for: the claim follows on its heels, and a
        store that groups what is asked for in one turn of the loop stores both at once.
        """
        if not self.has_room or bell.id in self._running or not self._wanted.wants(bell):
            return False
        self._spawn(bell.id, None)
        return True

    def expect_parked(self, execution_id: str) -> bool:
        """The same for one that may be kept in memory here, and is about to get a message."""
        kept = self._parked.get(execution_id)
        if kept is None:
            return False
        row = kept[0].row
        return self.expect(Doorbell(row.id, row.workflow, row.version, row.queue, row.priority))

    def holds(self, execution_id: str) -> bool:
        """Whether an execution runs here, or is being claimed."""
        return execution_id in self._running

    def _spawn(
        self, execution_id: str, delivery: Delivery | None, nonce: str | None = None, *, crashes: int = 0
    ) -> None:
        self._free -= 1
        self._running[execution_id] = None
        if self._is_suspect(crashes):
            self._suspects[execution_id] = crashes
        self._all_ended.clear()
        self._background(self._serve(execution_id, delivery, nonce or self._ids.nonce()))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        # Not in the context of whoever happened to call: it may be a workflow's body.
        task = asyncio.create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, execution_id: str, delivery: Delivery | None, nonce: str) -> None:
        ended: Ended | None = None
        try:
            await self._hints.subscribe(execution_id)
            ended = await self._claim_and_drive(execution_id, delivery, nonce)
        except Exception:
            log.exception("execution %s is left to be taken over: this is a fault in durable", execution_id)
        finally:
            del self._running[execution_id]
            self._hinted_early.discard(execution_id)
            if execution_id not in self._parked:
                self._hints.unsubscribe(execution_id)
                self._tell(execution_id, ended)
            self._suspects.pop(execution_id, None)
            self._free += 1
            self._served += 1
            self._slot_freed.set()
            again = self._rung_again.pop(execution_id, None)
            if again is not None and not self._stopped:
                self._spawn(execution_id, again, crashes=again.doorbell.crashes)
            elif not self._running:
                self._all_ended.set()

    async def _claim_and_drive(
        self, execution_id: str, delivery: Delivery | None, nonce: str
    ) -> Ended | None:
        """How it ended, if it did."""
        kept, _ = self._parked.pop(execution_id, (None, 0))
        have = kept.journal.op_id if kept is not None else None
        tell = self._host.telemetry
        began = 0.0 if tell is None else stopwatch()
        try:
            claimed = await self._claim(execution_id, nonce, have)
        except BaseException:
            if kept is not None:
                kept.let_go()  # nobody else knows of it, and its body would wait for ever
            raise
        if delivery is not None:
            self._queue.ack(delivery)
        while isinstance(claimed, Claimed):
            if self._is_suspect(claimed.row.crashes):
                self._suspects[execution_id] = claimed.row.crashes  # the doorbell may be an old one
            self._rung_again.pop(execution_id, None)  # what rang before this claim is answered by it
            if kept is not None and claimed.history is not None:
                kept.let_go()  # somebody else went on with it
                kept = None
            if kept is not None:
                kept.journal.adopt(claimed, nonce)
                attempt = kept
            else:
                attempt = self._new_attempt(claimed, nonce)
            self._running[execution_id] = attempt
            if attempt.told is not None:
                seconds = stopwatch() - began
                attempt.told.claimed(claimed, attempt.journal, kept=attempt is kept, seconds=seconds)
            RUNNING.set(claimed.row)
            if execution_id in self._hinted_early:
                self._hinted_early.discard(execution_id)
                self._hints.hint(execution_id)
            answer = await attempt.activate(claimed)
            if not isinstance(answer, Diverged):
                self._let_be(attempt, answer)
                return attempt.ended
            kept = None  # the store went back in time: begin again from what it has, under the same claim
            claimed = await self._claim(execution_id, nonce, None)
        if tell is not None:
            tell(ClaimRefused(execution_id, stopwatch() - began))
        if kept is not None and claimed.state not in (State.CLOSED, None):
            self._keep(execution_id, kept)  # a doorbell too many
        elif kept is not None:
            kept.let_go()
        return None

    async def _claim(self, execution_id: str, nonce: str, have: str | None) -> Claimed | NotClaimed:
        # Under one nonce until it is known: a claim of ours that nobody drives would be nobody's.
        asked = 0

        async def ask() -> Claimed | NotClaimed:
            nonlocal asked
            asked += 1
            return await self._store.claim(execution_id, nonce=nonce, worker=self._worker_id, have_op=have)

        try:
            return await persist(ask)
        finally:
            if asked > 1:
                self._doubtful[execution_id] = nonce, self._clock.now_ms() + _DOUBT_MS

    def _new_attempt(self, claimed: Claimed, nonce: str) -> Attempt:
        workflow = self._registry.get(claimed.row.workflow, claimed.row.version)
        assert workflow is not None, "the doorbell named it"
        return Attempt(workflow, claimed, Journal(self._store, claimed, nonce), self._host, new_body)

    def _let_be(self, attempt: Attempt, answer: Committed | Fenced) -> None:
        execution_id = attempt.row.id
        if isinstance(answer, Fenced):
            log.info("execution %s belongs to another worker now", execution_id)
            return
        if attempt.live:
            self._keep(execution_id, attempt)

    def _keep(self, execution_id: str, attempt: Attempt) -> None:
        self._parked[execution_id] = (attempt, self._clock.now_ms())
        while len(self._parked) > self._most_parked:
            self._put_aside_oldest()

    def _put_aside_oldest(self) -> None:
        execution_id, (attempt, _) = self._parked.popitem(last=False)
        if execution_id not in self._running:
            self._hints.unsubscribe(execution_id)
        attempt.let_go()

    # ---- news for what is here

    def _is_news(self, execution_id: str) -> bool:
        attempt = self._running.get(execution_id)
        return attempt is None or attempt.ended is None  # else this is the hint that it has

    async def _look(self, hinted: set[str]) -> None:
        running = {id for id in hinted if id in self._running}
        # What is being claimed right now is looked at as soon as it is known what the claim has brought.
        self._hinted_early |= {id for id in running if self._running[id] is None}
        seen = {id: last for id, last in self.seen.items() if id in running}
        parked = {id: self._parked[id][0].journal.seen for id in hinted - running if id in self._parked}
        if len(hinted) == 1:
            # It is ready now, very likely: what somebody does who would ring for it has come to us first.
            for execution_id in parked:
                self.expect_parked(execution_id)
        else:
            seen |= parked  # everybody was hinted, perhaps, and most have nothing new
        if not seen:
            return
        try:
            news = await self._store.peek(seen)
        except DurableError as error:
            log.warning("news of what is here comes with the next sweep, after an error: %s", error)
            return
        self.hear({id: tuple(entries) for id, entries in news.items()})
        for execution_id in news:
            if execution_id in parked:
                self.expect_parked(execution_id)
