"""Waits: for a timer, for signals, for whatever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from durable.codec import dump_error, load_error, record_error
from durable.engine.branch import Branch
from durable.engine.frames import (
    TIMEOUT_FRAME,
    Child,
    pack_received,
    unpack_received,
)
from durable.engine.operations import CANCELLED, COMPLETED, FAILED, OPEN, Operations
from durable.engine.waits import Wait
from durable.errors import (
    CompensationFailed,
    DurableError,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionNotFound,
)
from durable.models import ErrorRecord, ExecutionStatus
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    InboxEntry,
    MessageKind,
    Outcome,
)
from durable.signals import Received, Signal, TimedOut


class WaitOperations(Operations):
    """`ctx.sleep` and `ctx.wait_for_signal`, and what every wait has in common."""

    def sleep(
        self, *, delay_ms: int | None, until_ms: int | None, id: str | None
    ) -> Coroutine[Any, Any, None]:
        branch = self.here()
        return self._sleep(branch, branch.key(id or "sleep"), delay_ms, until_ms)

    async def _sleep(self, branch: Branch, key: str, delay_ms: int | None, until_ms: int | None) -> None:
        done = await self.found(key, "sleep", "")
        if done is None:
            wake_at = self.clock.now_ms() + delay_ms if delay_ms is not None else until_ms
            done = await self.begin_wait(branch, key, "sleep", "", wake_at=wake_at)
        if not done.status.final:
            done = await self.until(key, done, ())
        await self.seen(branch, done)

    def wait(
        self, signals: Sequence[Signal[Any]], *, timeout_ms: int | None, id: str | None
    ) -> Coroutine[Any, Any, Received[Any] | TimedOut]:
        branch = self.here()
        names = ",".join(signal.name for signal in signals)
        key = branch.key(id or (names if len(signals) == 1 else "wait_for_any"))
        return self._wait_for_signals(branch, key, names, signals, timeout_ms)

    async def _wait_for_signals(
        self,
        branch: Branch,
        key: str,
        names: str,
        signals: Sequence[Signal[Any]],
        timeout_ms: int | None,
    ) -> Received[Any] | TimedOut:
        kind = "wait_for_signal"
        done = await self.found(key, kind, names)
        if done is None or not done.status.final:
            done = await self.begin_wait(branch, key, kind, names, timeout_ms, found=done)
            done = await self.until(key, done, tuple((MessageKind.SIGNAL, s.name) for s in signals))
        await self.seen(branch, done)
        received = unpack_received(done.data)
        if received is None:
            return TimedOut()
        name, payload = received
        signal = next(signal for signal in signals if signal.name == name)
        try:
            return Received(signal.schema.load(payload, f"the payload of signal {name}"), name)
        except DurableError as error:
            await self.driver.needs_repair(error, key)

    async def begin_wait(
        self,
        branch: Branch,
        key: str,
        kind: str,
        name: str,
        timeout_ms: int | None = None,
        *,
        wake_at: int | None = None,
        data: bytes = b"",
        found: Checkpoint | None = None,
    ) -> Checkpoint:
        """The open record of a wait, with its timer. One that is there keeps its deadline, as long as it has one."""
        if found is None:
            await self.driver.hold()
        elif (found.wake_at is None) == (timeout_ms is None) or kind == "sleep":
            return found
        if timeout_ms is not None:
            wake_at = self.clock.now_ms() + timeout_ms
        started = found.started_at if found is not None else None
        data = found.data if found is not None else data
        return self.record(branch, key, kind, name, OPEN, data, started=started, wake_at=wake_at)

    async def until(
        self, key: str, begun: Checkpoint, topics: tuple[tuple[MessageKind, str], ...]
    ) -> Checkpoint:
        """The final record of a wait that `begun` opened: whatever came first, its message or its timer."""
        journal = self.journal
        timer = (MessageKind.TIMER, key)
        topics = (*topics, timer)

        def settle(entry: InboxEntry) -> Checkpoint:
            journal.consume(entry, key)
            while entry.kind is not MessageKind.TIMER and (late := journal.first((timer,))):
                journal.consume(late, key)
            status, data = _brought(begun, entry)
            return journal.settle(begun, status, data, finished_at=entry.at)

        entry = self.driver.expect(topics)
        if entry is not None:
            return settle(entry)
        try:
            done = await self.driver.block(Wait(begun.kind, topics, settle, begun.wake_at))
        except asyncio.CancelledError:
            if self.driver.live and not self.driver.cancelling:
                journal.settle(begun, CANCELLED, b"", finished_at=self.clock.now_ms())
            raise
        assert done is not None
        return done

    async def seen(self, branch: Branch, done: Checkpoint) -> None:
        if done.status is CANCELLED:
            await asyncio.get_running_loop().create_future()  # what cancelled it then will cancel it again
        branch.saw(done.finished_at or 0)


def _brought(begun: Checkpoint, entry: InboxEntry) -> tuple[CheckpointStatus, bytes]:
    """Status and data of a wait's record, with the entry that ended it."""
    if entry.kind is MessageKind.TIMER:
        return COMPLETED, b"null" if begun.kind == "sleep" else TIMEOUT_FRAME
    if entry.kind is MessageKind.SIGNAL:
        return COMPLETED, pack_received(entry.name, entry.data)
    outcome = Outcome.unpack(entry.data)
    if outcome.status is ExecutionStatus.COMPLETED:
        return COMPLETED, entry.data
    target = Child.unpack(begun.data).id if begun.kind == "child" else begun.name
    error = _end_of_child(target, outcome)
    return FAILED, dump_error(record_error(error, step_id=begun.step_id))


def _end_of_child(child_id: str, outcome: Outcome) -> DurableError:
    if outcome.status is None:
        return ExecutionNotFound(child_id)
    record = load_error(outcome.data) if outcome.data else ErrorRecord("", "")
    kind = {
        ExecutionStatus.CANCELLED: ExecutionCancelled,
        ExecutionStatus.COMPENSATION_FAILED: CompensationFailed,
    }.get(outcome.status, ExecutionFailed)
    return kind(
        child_id,
        outcome.workflow,
        outcome.attempt,
        record.error_type,
        record.message,
        record.code,
        record.details,
    )
