"""A body: a workflow's function applied to its context, and what follows from its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, final

from durable.codec import dump_error, record_error
from durable.engine.attempt import Attempt
from durable.engine.branch import Branch
from durable.engine.frames import open_child
from durable.engine.options import run_retry
from durable.engine.transitions import CANCEL, END, TIMEOUT, Ending, cancel_data, cancelled, retried
from durable.errors import DurableError, find_in
from durable.models import ExecutionStatus
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    Close,
    Continue,
    Message,
    MessageKind,
    Next,
    Post,
    Reach,
    Ready,
)

log = logging.getLogger("durable.engine")


class Bail(BaseException):
    """`ctx.bail`: no `except Exception` of a body stops it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ContinueAsNew(BaseException):
    """`ctx.continue_as_new`, with the encoded input of the next in the chain."""

    def __init__(self, input: bytes) -> None:
        super().__init__()
        self.input = input


@final
class Body:
    """Runs in the root task of an attempt."""

    def __init__(self, attempt: Attempt, call: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._attempt = attempt
        self._journal = attempt.journal
        self._row = attempt.row
        self._call = call

    async def run(self, branch: Branch) -> Next:
        """What is to be committed once the workflow's function has returned or raised."""
        attempt = self._attempt
        result, error = await self._outcome()
        if error is not None and attempt.ending is None and (bail := find_in(error, Bail)):
            attempt.ending = cancelled(bail.reason)
        await attempt.settle_branches(branch)
        if attempt.ending is None:
            if error is None:
                return await self._completed(result)
            if chained := find_in(error, ContinueAsNew):
                return Continue(chained.input)
            failure = error if isinstance(error, Exception) else _cancelled_from_within(error)
            again = self._tried_again(failure)
            if again is not None:
                return again
            record = record_error(failure, step_id=attempt.step_of(failure))
            attempt.ending = Ending(ExecutionStatus.FAILED, record, may_clean_up=False)
        return await self._ended_by(attempt.ending)

    async def _outcome(self) -> tuple[object, BaseException | None]:
        """What the function returns or raises. Not in `run`, which has the error for long: it would be in its traceback
        and both would wait for the garbage collector."""
        try:
            return await self._call(), None
        except (Exception, asyncio.CancelledError, Bail, ContinueAsNew, BaseExceptionGroup) as raised:
            if not self._attempt.live:
                raise
            return None, raised

    async def _completed(self, result: object) -> Next:
        attempt = self._attempt
        try:
            data = attempt.workflow.output_schema.dump(result, f"the result of workflow {self._row.workflow}")
        except DurableError as error:
            await attempt.needs_repair(error)
        return Close(ExecutionStatus.COMPLETED, result=data)

    def _tried_again(self, error: Exception) -> Ready | None:
        """The next attempt, if there is one: completed steps keep their values, failed ones run again."""
        journal, attempt, host = self._journal, self._row.attempt, self._attempt.host
        now = host.clock.now_ms()
        again = retried(
            error,
            attempt=attempt,
            retry=run_retry(self._row.options, self._attempt.workflow),
            rolled_back=any(key.startswith("rollback:") for key in journal.history),
            now=now,
            random=host.random,
        )
        if again is None:
            return None
        before = journal.history.get(f"__attempt:{attempt - 1}")
        started = (before.finished_at if before else self._row.started_at) or now
        journal.forget([c.step_id for c in journal.history.values() if _runs_again(c)])
        journal.record(
            f"__attempt:{attempt}",
            "attempt",
            self._row.workflow,
            CheckpointStatus.FAILED,
            dump_error(record_error(error, step_id=self._attempt.step_of(error))),
            started_at=started,
            finished_at=now,
        )
        if self._attempt.host.onlooker is None:
            log.warning(
                "attempt %d of execution %s failed, and is made again: %r", attempt, self._row.id, error
            )
        return again

    async def _ended_by(self, ending: Ending) -> Next:
        attempt, journal = self._attempt, self._journal
        undoes = attempt.workflow.rollback == "on_failure" or END in journal.history
        if undoes and attempt.compensations:
            if END not in journal.history:
                now = attempt.host.clock.now_ms()
                data = dump_error(ending.error)
                journal.record(END, "end", ending.status, CheckpointStatus.OPEN, data, started_at=now)
            await attempt.compensations.run_all()
        for topic in (CANCEL, TIMEOUT):
            while entry := journal.first((topic,)):
                journal.consume(entry, END)
        if ending.status is ExecutionStatus.CANCELLED:
            self._cancel_children(ending.error.message)
        return ending.close()

    def _cancel_children(self, reason: str) -> None:
        data = cancel_data(reason)
        for checkpoint in self._journal.history.values():
            child = open_child(checkpoint)
            if child is not None and not child.detached:
                message_id = f"cancel:{self._row.id}"
                message = Message(message_id, MessageKind.CANCEL, "cancel", data, Reach.BLOCKED)
                self._journal.send(Post(child.id, message))


def _runs_again(checkpoint: Checkpoint) -> bool:
    """What failed in one attempt of the run happens again in the next; what was waited for has happened."""
    return checkpoint.status is CheckpointStatus.FAILED and checkpoint.kind in ("step", "child")


def _cancelled_from_within(error: BaseException) -> Exception:
    failure = RuntimeError("the workflow's body was cancelled, and not by durable")
    failure.__cause__ = error
    return failure
