"""Steps: run once, recorded, tried again as their policy says, and undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, cast

from durable.codec import Schema, dump_error, load_error, record_error
from durable.engine.branch import AnyTask, Branch
from durable.engine.compensation import Compensation
from durable.engine.frames import pack_limit, pack_tries
from durable.engine.operations import CANCELLED, COMPLETED, FAILED, OPEN, RETRYING, Operations
from durable.engine.operator_acts import Running, given_result
from durable.engine.sagas import SCOPES
from durable.engine.step_body import run_step_body
from durable.engine.transactions import StepTransaction
from durable.engine.transitions import GIVEN, TRIES
from durable.engine.waits import Wait
from durable.errors import ConfigurationError, DurableError
from durable.flow_control import limit_gate
from durable.models import ErrorRecord, ExecutionStatus
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    Close,
    Free,
    InboxEntry,
    MessageKind,
    Seek,
)
from durable.retry import NO_RETRY
from durable.runtime import StepCall
from durable.steps import StepInfo

_NOTHING: Schema[Any] = Schema.of(object)
_LONGEST_MS = 5_000
"""Of a transaction without a timeout: others wait for its end, on SQLite all who write."""


class StepOperations(Operations):
    """`ctx.step` and `ctx.map`, and the compensations of what they did."""

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        branch = self.here()
        return self._step(branch, branch.key(call.name), call, SCOPES.get())

    async def _step(self, branch: Branch, key: str, call: StepCall, scopes: tuple[object, ...]) -> Any:
        schema = Schema.returned_by(call.fn)
        done = await self.found(key, "step", call.fn_name)
        value: object = None
        if done is None or not done.status.final:
            done, value = await self._live_step(branch, key, "step", call, schema, done)
        elif done.status is COMPLETED:
            value = await self.loaded(schema, done)
        if done.status is CANCELLED:
            await asyncio.get_running_loop().create_future()  # what cancelled it then will cancel it again
        branch.saw(done.finished_at or 0)
        if done.status is FAILED:
            raise self.failure(load_error(done.data))
        if call.undo is not None:
            self.driver.compensations.add(
                Compensation(done.seq, scopes, lambda: self._compensate(branch, key, call, schema, done))
            )
        return value

    async def _live_step(
        self,
        branch: Branch,
        key: str,
        kind: str,
        call: StepCall,
        schema: Schema[Any],
        found: Checkpoint | None,
    ) -> tuple[Checkpoint, object]:
        """Try it until it is done, as its policy says: the final checkpoint, and the value of a completed one."""
        attempt, journal, row = self.driver, self.journal, self.driver.row
        stubs = attempt.host.stubs
        tries = 0
        if found is None and (given := journal.history.get(GIVEN)) is not None:
            data = given_result(given, key)
            if data is not None:
                await attempt.hold(undoing=kind == "rollback")
                done = self._outcome(key, kind, call, COMPLETED, data, 0, self.clock.now_ms())
                return done, await self.loaded(schema, done)
        if found is not None:  # it failed before, and is to be tried again; or it waits for its limit
            tries = found.attempts
            if found.status is RETRYING:
                await self._backoff(key, kind, found)
        while True:
            if call.limit is not None:
                await self._pass_limit(key, kind, call, call.limit, tries)
            fn = call.fn if stubs is None else stubs.replace(key, call.fn)
            transaction: StepTransaction | None = None
            stored: Checkpoint | None = None
            if call.in_transaction and fn is call.fn:
                transaction = await StepTransaction.begin(attempt, key)
            else:
                await attempt.barrier(undoing=kind == "rollback")
            tries += 1
            started = self.clock.now_ms()
            info = StepInfo(row.id, key, tries, f"{row.id}:{row.generation}:{key}", self._is_cancelled)
            ended_before = attempt.cancelling
            task = attempt.step_begins(Running(key, kind, call.fn_name, tries, started))
            told = None if attempt.told is None else attempt.told.step(key, call.fn_name, kind, tries)
            try:
                if transaction is not None:
                    stored, value = await self._transact(
                        transaction, key, kind, call, schema, info, task, started
                    )
                else:
                    value = await run_step_body(
                        fn,
                        call.args,
                        call.kwargs,
                        info,
                        timeout_ms=call.timeout_ms,
                        clock=self.clock,
                        threads=attempt.host.threads,
                    )
                    if (attempt.cancelling and not ended_before) or key in attempt.skipped:
                        raise asyncio.CancelledError  # too late: it is not stored
            except asyncio.CancelledError as error:
                attempt.step_ends(task)
                if told is not None:
                    told.ended("cancelled", error)
                self._free(key, call)
                await self._cancelled_step(key, kind, call, started, tries)
                raise
            except Exception as error:
                attempt.step_ends(task)
                self._free(key, call)
                if key in attempt.skipped:
                    if told is not None:
                        told.ended("cancelled", error)
                        told = None
                    await attempt.hold()
                record = record_error(error, step_id=key)
                now = self.clock.now_ms()
                retry = call.retry or NO_RETRY
                delay = retry.next_delay_ms(tries, error, attempt.host.random)
                if told is not None:
                    told.ended("failed" if delay is None else "retrying", error)
                data = dump_error(record)
                if delay is None:
                    failed = self._outcome(key, kind, call, FAILED, data, tries, started)
                    if kind == "step":
                        raise self.failure(record) from error
                    return failed, None
                retrying = journal.record(
                    key,
                    kind,
                    call.fn_name,
                    RETRYING,
                    data,
                    attempts=tries,
                    started_at=started,
                    wake_at=now + delay,
                )
                self._note_try(key, tries, started, now, record)
                await self._backoff(key, kind, retrying)
            except BaseException as error:
                attempt.step_ends(task)
                if told is not None:
                    told.ended("cancelled", error)
                raise
            else:
                attempt.step_ends(task)
                if told is not None:
                    told.ended("completed")
                if stored is not None:
                    return stored, value
                self._free(key, call)
                break
        try:
            data, value = schema.roundtrip(value, f"the result of step {key!r}")
        except DurableError as error:
            await attempt.needs_repair(error)
        return self._outcome(key, kind, call, COMPLETED, data, tries, started), value

    async def _transact(
        self,
        transaction: StepTransaction,
        key: str,
        kind: str,
        call: StepCall,
        schema: Schema[Any],
        info: StepInfo,
        task: AnyTask,
        started: int,
    ) -> tuple[Checkpoint, object]:
        """A try in a transaction, which stores the final checkpoint if it succeeds."""
        attempt = self.driver
        ended_before = attempt.cancelling
        value: object = None
        unfit: list[DurableError] = []

        async def body(connection: object) -> Checkpoint:
            nonlocal value
            value = await run_step_body(
                call.fn,
                (connection, *call.args),
                call.kwargs,
                info,
                timeout_ms=_LONGEST_MS if call.timeout_ms is None else call.timeout_ms,
                clock=self.clock,
                threads=attempt.host.threads,
            )
            if (attempt.cancelling and not ended_before) or key in attempt.skipped:
                raise asyncio.CancelledError  # too late: it is rolled back
            try:
                data, value = schema.roundtrip(value, f"the result of step {key!r}")
            except DurableError as error:
                unfit.append(error)
                raise
            now = self.clock.now_ms()
            return Checkpoint(key, kind, call.fn_name, COMPLETED, data, info.attempt, started, now)

        try:
            done = await transaction.run(body, () if call.limit is None else (Free(key),))
        except DurableError as error:
            if error not in unfit:
                raise
            transaction.end()
            attempt.step_ends(task)
            await attempt.needs_repair(error)
        finally:
            transaction.end()
        return done, value

    def _outcome(
        self,
        key: str,
        kind: str,
        call: StepCall,
        status: CheckpointStatus,
        data: bytes,
        tries: int,
        started: int,
    ) -> Checkpoint:
        """Record how a step ended, now."""
        now = self.clock.now_ms()
        return self.journal.record(
            key, kind, call.fn_name, status, data, attempts=tries, started_at=started, finished_at=now
        )

    def _note_try(self, key: str, number: int, started: int, now: int, error: ErrorRecord) -> None:
        """Keep how a try went that another one follows."""
        before = self.journal.history.get(TRIES + key)
        data = pack_tries(before.data if before is not None else b"", number, started, now, error)
        self.journal.record(TRIES + key, "tries", "", OPEN, data, started_at=started)

    async def _pass_limit(self, key: str, kind: str, call: StepCall, limit: str, tries: int) -> None:
        """Come back when a try may begin, holding no slot of the worker meanwhile. What it passed it holds until the
        try ends, over the death of a worker too."""
        journal = self.journal
        begun = journal.history.get(key)
        if begun is None or begun.status is not OPEN:
            await self.driver.hold()
            rule = self.driver.host.limits.get(limit)
            if rule is None:
                raise ConfigurationError(
                    f"step {key} names the limit {limit!r}, which this Durable does not have",
                    f'give it one: Durable(..., limits={{"{limit}": Concurrency(5)}})',
                )
            message_id = f"gate:{self.driver.row.generation}:{key}:{tries}"
            journal.send(Seek(key, (limit_gate(limit, rule),), message_id))
            begun = self._limited(key, kind, call, tries, pack_limit(limit, passed=False))
        elif begun.data == pack_limit(limit, passed=True):
            return

        def settle(entry: InboxEntry) -> Checkpoint:
            journal.consume(entry, key)
            return self._limited(key, kind, call, tries, pack_limit(limit, passed=True))

        topics = ((MessageKind.GATE, key),)
        entry = self.driver.expect(topics)
        if entry is not None:
            settle(entry)
            return
        try:
            await self.driver.block(Wait("limit", topics, settle))
        except asyncio.CancelledError:
            if self.driver.live and not self.driver.cancelling:
                self._free(key, call)
                journal.settle(begun, CANCELLED, b"", finished_at=self.clock.now_ms())
            raise

    def _limited(self, key: str, kind: str, call: StepCall, tries: int, data: bytes) -> Checkpoint:
        now = self.clock.now_ms()
        return self.journal.record(key, kind, call.fn_name, OPEN, data, attempts=tries, started_at=now)

    def _free(self, key: str, call: StepCall) -> None:
        if call.limit is not None and self.driver.live:
            self.journal.send(Free(key))

    async def _backoff(self, key: str, kind: str, retrying: Checkpoint) -> None:
        """Wait until a step may be tried again, holding no slot."""
        wake_at = retrying.wake_at or 0
        topics = ((MessageKind.TIMER, key),)

        def settle(entry: InboxEntry) -> Checkpoint:
            self.journal.consume(entry, key)
            return retrying

        entry = self.driver.expect(topics)
        if entry is not None:
            settle(entry)
        elif wake_at > self.journal.now:
            await self.driver.block(Wait(kind, topics, settle, wake_at))

    async def _cancelled_step(self, key: str, kind: str, call: StepCall, started: int, tries: int) -> None:
        """A step's body ended in a `CancelledError`: come back if that is for the workflow's body to see."""
        attempt = self.driver
        if not attempt.live:
            await attempt.refuse()
        await attempt.hold()
        if attempt.cancelling or kind != "step":
            return
        # A timeout of the body's own, or a sibling that failed. On a replay this step waits to be cancelled again.
        self._outcome(key, kind, call, CANCELLED, b"", tries, started)

    async def _compensate(
        self, branch: Branch, step_key: str, call: StepCall, schema: Schema[Any], done: Checkpoint
    ) -> None:
        """Undo one completed step. If that fails for good, the execution ends here."""
        assert call.undo is not None
        undo, key = call.undo, f"rollback:{step_key}"
        name = cast("str", getattr(undo, "__name__", type(undo).__name__))
        undone = await self.found(key, "rollback", name)
        if undone is None or not undone.status.final:
            value = await self.loaded(schema, done)
            undo_call = replace(
                call,
                name=key,
                fn=undo,
                args=(value,),
                kwargs={},
                fn_name=name,
                undo=None,
                limit=None,
                in_transaction=False,
            )
            undone, _ = await self._live_step(branch, key, "rollback", undo_call, _NOTHING, undone)
        if undone.status is FAILED:
            error = load_error(undone.data)
            close = Close(ExecutionStatus.COMPENSATION_FAILED, error=undone.data, code=error.code)
            await self.driver.stop(replace(close, code=error.code or "compensation_failed"))

    def map(self, id: str, calls: Sequence[StepCall], limit: int | None) -> Coroutine[Any, Any, list[Any]]:
        branch = self.here()
        key = branch.key(id)
        scopes = SCOPES.get()
        local = key.removeprefix(branch.prefix)
        items = [
            self._step(branch, branch.key(f"{local}[{index}]"), call, scopes)
            for index, call in enumerate(calls)
        ]
        return self._map(items, limit)

    async def _map(self, items: Sequence[Coroutine[Any, Any, Any]], limit: int | None) -> list[Any]:
        if limit is None or limit >= len(items):
            return await asyncio.gather(*items)
        waiting = iter(enumerate(items))
        results: list[Any] = [None] * len(items)

        async def take_turns() -> None:
            for index, item in waiting:
                results[index] = await item

        try:
            await asyncio.gather(*(take_turns() for _ in range(limit)))
        finally:
            for item in items:
                item.close()  # those whose turn never came
        return results

    async def gather(self, branches: Sequence[Awaitable[Any]], *, return_exceptions: bool) -> list[Any]:
        return await asyncio.gather(*branches, return_exceptions=return_exceptions)

    def _is_cancelled(self) -> bool:
        return self.driver.cancelling or not self.driver.live
