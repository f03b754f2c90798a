"""`DurableEnv`: a workflow's world in one test, with a clock that stands still until it is told to move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import ModuleType, TracebackType
from typing import Any, Self

from durable.app import Durable, OpenDeps
from durable.clock import Clock, VirtualClock, to_datetime
from durable.describe import describe
from durable.describe.overlay import Coverage
from durable.duration import Duration, to_instant_ms, to_ms
from durable.engine.rehearsal import Verdict
from durable.handle import Handle
from durable.ids import Ids
from durable.models import ExecutionDetail
from durable.testing.coverage import current
from durable.testing.stubs import StepStubs
from durable.worker import Worker
from durable.workflow import AnyWorkflow

_QUIET_TURNS, _BUSY_TURNS = 8, 1000
_PATIENCE = 0.3
"""Seconds of real time after which a step that does nothing counts as waiting for the test."""


class DurableEnv:
    """A `Durable` on memory, worker included, whose time moves only by `advance`.

        async with DurableEnv(workflows=[fulfil_order]) as env:
            handle = await env.durable.start(fulfil_order, order)
            await env.advance("3d")

    `start` is the instant at which it begins, by default the present one; ids and jitter come from `seed`. With
    `replay=True` nothing stays in memory: each step and each wait is followed by a replay of all before it, so that
    a body that takes another way on a replay shows at once.
    """

    def __init__(
        self,
        workflows: Iterable[AnyWorkflow | ModuleType] = (),
        *,
        start: datetime | None = None,
        deps: OpenDeps | None = None,
        concurrency: int = 100,
        seed: int = 0,
        replay: bool = False,
    ) -> None:
        started = datetime.now(UTC) if start is None else start
        self._virtual = VirtualClock(to_instant_ms(started, what="start"))
        self.clock: Clock = self._virtual
        self._stubs = StepStubs()
        self.durable = Durable(
            workflows,
            store="memory://",
            clock=self.clock,
            ids=Ids(seed),
            deps=deps,
            concurrency=concurrency,
            drain=0,
            stubs=self._stubs,
            forgetful=replay,
        )

    async def __aenter__(self) -> Self:
        await self.durable.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if (run := current()) is not None:
                await run.look(self.durable)
        finally:
            await self.durable.__aexit__(kind, error, trace)

    def now(self) -> datetime:
        """The time in this world."""
        return to_datetime(self.clock.now_ms())

    async def until_idle(self) -> None:
        """Come back when nothing can happen any more before time moves or the test does something.

        A step that waits for real things (a socket, a thread) is waited for; one that does nothing for a third of a
        second counts as waiting for the test.
        """
        await settle(self.durable.worker)

    async def advance(self, duration: Duration) -> None:
        """Move the clock on. What falls due on the way happens at its own instant, in order, before this returns."""
        await self.advance_to(self.now() + timedelta(milliseconds=to_ms(duration)))

    async def advance_to(self, when: datetime) -> None:
        """Move the clock on to an instant, as `advance` does. One that has passed changes nothing."""
        target = to_instant_ms(when, what="when")
        await self.until_idle()
        while (due := self._virtual.next_at()) is not None and due <= target:
            self._virtual.advance_to(due)
            await self.until_idle()
        self._virtual.advance_to(target)
        await self.until_idle()

    async def replay(self, handle: Handle[Any]) -> Verdict:
        """Replay what is recorded of an execution with its workflow, running no step: the verdict, if they fit.

        Raises:
            ReplayMismatch: the code asks for something else than what is recorded, or ends otherwise.
            ExecutionNotFound: there is no such execution.
        """
        await self.until_idle()
        history = await self.durable.operator.get_history(handle.id)
        async with self.durable.rehearsing() as replay:
            verdict = await replay(history)
        verdict.raise_if_unsafe()
        return verdict

    async def coverage(self, workflow: AnyWorkflow) -> Coverage:
        """What of a workflow its executions have reached here, and what none has."""
        await self.until_idle()
        details: list[ExecutionDetail] = []
        cursor: str | None = None
        while True:
            page = await self.durable.operator.list_executions(
                workflow=workflow.name, limit=100, cursor=cursor
            )
            details += [await self.durable.operator.get_execution_detail(one.id) for one in page.items]
            cursor = page.cursor
            if cursor is None:
                return describe(workflow).coverage(details)

    def stub(self, step: str, result: object) -> None:
        """From now on the step gives `result` (or, if that is a function, what it returns for the step's arguments),
        and its own function does not run. `step` is its id, or its name for every use of it."""
        self._stubs.results[step] = result

    def fail(self, step: str, error: Exception, *, times: int | None = None) -> None:
        """The next `times` tries of the step (None: all of them) raise `error`."""
        self._stubs.failures[step] = [error, times]


async def settle(worker: Worker) -> None:
    """Come back when the worker can do nothing more at this instant."""
    while True:
        await _until_quiet(worker)
        worker.sweeper.loop.wake()
        await _until_quiet(worker)
        if not await worker.has_work():
            return


async def _until_quiet(worker: Worker) -> None:
    quiet, seen, since, turns = 0, worker.progress, time.monotonic(), 0
    while quiet < _QUIET_TURNS:
        turns += 1
        await asyncio.sleep(0 if turns < _BUSY_TURNS else 0.001)
        quiet = quiet + 1 if worker.idle else 0
        if worker.progress != seen:
            seen, since = worker.progress, time.monotonic()
        elif not worker.idle and time.monotonic() - since > _PATIENCE:
            return
