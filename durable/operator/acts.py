"""What people do to executions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from durable.codec import Schema, load_error
from durable.duration import Duration, to_ms
from durable.engine.operator_acts import (
    EDIT_STEP,
    FORCE_FAIL,
    PAUSE,
    RESUME,
    RETRY,
    RETRY_ROLLBACK,
    ROLLBACK,
    SKIP_STEP,
    SKIPPED,
    pack_act,
)
from durable.engine.reruns import Rerun, no_such_step, repeated
from durable.engine.transitions import END, PAUSED, kept
from durable.errors import InvalidInput, WorkerNotFound, WrongStatus
from durable.handle import Handle
from durable.models import ExecutionStatus
from durable.names import check_actor, check_key, check_name, check_own_name
from durable.operator.questions import Questions, Statuses, statuses
from durable.presence import drain_mark, is_mark
from durable.protocols import (
    Checkpoint,
    CheckpointStatus,
    ExecutionRow,
    Message,
    MessageKind,
    NotPosted,
    Query,
    Reach,
    State,
)

_PRUNED_AT_ONCE: Final = 100
_READ_AT_ONCE: Final = 500
_GOING: Final = tuple(status for status in ExecutionStatus if not status.final)
_AMENDABLE: Final = (*_GOING, ExecutionStatus.FAILED, ExecutionStatus.COMPENSATION_FAILED)

APPLIES_TO: Final[Mapping[str, Sequence[ExecutionStatus]]] = {
    RETRY: (ExecutionStatus.FAILED, ExecutionStatus.PARKED),
    RETRY_ROLLBACK: (ExecutionStatus.COMPENSATION_FAILED,),
    ROLLBACK: (*_GOING, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED),
    FORCE_FAIL: _GOING,
    SKIP_STEP: _AMENDABLE,
    EDIT_STEP: _AMENDABLE,
    PAUSE: tuple(status for status in _GOING if status is not ExecutionStatus.PARKED),
    RESUME: (ExecutionStatus.PAUSED,),
    "cancel": _GOING,
    "rerun": tuple(ExecutionStatus),
}
"""The statuses of the executions to which each verb applies."""


class Acts(Questions):
    """Each is a message to the execution, which is stored when the call returns."""

    async def retry(self, execution_id: str, *, by: str = "") -> None:
        """Run a failed or parked execution again: completed steps keep their results, failed ones run again."""
        await self._act(await self._row(execution_id), RETRY, by)

    async def retry_rollback(self, execution_id: str, *, by: str = "") -> None:
        """Go on with the rollback of an execution whose compensation failed, from the one that failed."""
        await self._act(await self._row(execution_id), RETRY_ROLLBACK, by)

    async def rollback(self, execution_id: str, reason: str = "", *, by: str = "") -> None:
        """Undo what an execution has completed, newest first, whatever its workflow says of `rollback=`. One that goes
        on, in whatever way, ends as cancelled with this reason: its body comes to where it was, steps that run are
        cancelled, and nothing but compensations begins there any more. One that failed or was cancelled keeps its end,
        and `on_failure=` is not told again. A parked one whose code does not fit stays parked, and is rolled
        back once it is mended and retried. A compensation that fails stops it, as always: `retry_rollback` goes on.

        Raises:
            InvalidInput: it has ended, and was rolled back.
        """
        row, history = await self._row_and_history(execution_id)
        _check_status(row, ROLLBACK)
        if row.status.final and END in history:
            raise InvalidInput(
                f"execution {execution_id} was rolled back when it ended",
                "rerun it, if it is to happen again",
            )
        error = row.error if row.status.final and row.error else b""
        await self._act(row, ROLLBACK, by, {"reason": kept(reason)}, error)

    async def force_fail(self, execution_id: str, reason: str, *, by: str = "") -> None:
        """End an execution as failed, whatever it is doing, with this reason. No compensation runs."""
        await self._act(await self._row(execution_id), FORCE_FAIL, by, {"reason": kept(reason)})

    async def cancel(self, execution_id: str, reason: str = "", *, by: str = "") -> None:
        """Ask an execution to end as cancelled, as `Durable.cancel` does, with who did it; one that has ended is left
        alone."""
        await self._client.cancel(execution_id, reason, by=by)

    async def pause(self, execution_id: str, *, by: str = "") -> None:
        """Let an execution begin nothing until it is resumed. Its steps that run end first, and the last of all ends
        the execution. What is sent to it and what comes due is kept for then; a cancel gets through, and the run's
        timeout still ends it. Its children go on. One that is paused stays so."""
        row = await self._row(execution_id)
        if row.status not in APPLIES_TO[PAUSE] or not await self._is_paused(row):
            await self._act(row, PAUSE, by, _as_it_was(row))

    async def resume(self, execution_id: str, *, by: str = "") -> None:
        """Let a paused execution go on. One that was paused before its start, or before its next attempt, waits for
        that instant still."""
        row = await self._row(execution_id)
        await self._act(row, RESUME, by, applies=await self._is_paused(row))

    async def skip_step(self, execution_id: str, step_id: str, value: object, *, by: str = "") -> None:
        """Let the body go on as if a step had returned `value`.

        It is for a step that failed, is to be tried again, waits for its limit, or runs now (its body is cancelled,
        and what it gives is dropped); for a compensation (`rollback:charge`) and a sleep, whose `value` is None. A
        failed execution runs again, and its other failed steps with it; one whose compensation failed goes on with
        its rollback. If the value turns out not to fit what the step returns, the execution is parked and says so:
        `edit_step_result` gives it another one.

        Raises:
            InvalidInput: there is no such step, or it has completed, or is of another kind; or what it was part of has
                been rolled back.
            NotSerializable: the value cannot be stored.
            PayloadTooLarge: it is too large.
        """
        row, history = await self._row_and_history(execution_id)
        _check_status(row, SKIP_STEP)
        found = _find(history, step_id)
        details = {"step_id": step_id, "failed_before": False}
        if found is None:
            details["failed_before"] = _failed_last(row, history) == step_id
            if not details["failed_before"] and row.state is not State.OWNED:
                raise no_such_step(execution_id, step_id, history)
        else:
            _check_skippable(row, found)
        no_value = step_id.startswith("rollback:") or (found is not None and found.kind == "sleep")
        if no_value and value is not None:
            raise InvalidInput(f"{step_id} returns nothing, so it cannot be given a value", "pass None")
        _check_not_undone(row, history, SKIP_STEP)
        await self._act(row, SKIP_STEP, by, details, _stored(step_id, value))

    async def edit_step_result(self, execution_id: str, step_id: str, value: object, *, by: str = "") -> None:
        """Replace what a completed step has returned, and let the body run again with it: what is recorded after the
        step is kept as far as the body still comes there. A failed execution runs again, and its failed steps with it.

        Raises:
            InvalidInput: there is no such step, or it has not completed; or what it was part of has been rolled back.
            NotSerializable: the value cannot be stored.
            PayloadTooLarge: it is too large.
        """
        row, history = await self._row_and_history(execution_id)
        _check_status(row, EDIT_STEP)
        found = _find(history, step_id)
        if found is None:
            raise no_such_step(execution_id, step_id, history)
        if found.kind != "step":
            raise InvalidInput(
                f"{step_id} of execution {execution_id} is a {found.kind}, and no step",
                "only results of steps are edited; rerun the execution from here to let it happen again",
            )
        if found.status is not CheckpointStatus.COMPLETED:
            raise InvalidInput(
                f"step {step_id} of execution {execution_id} is {found.status} and has no result",
                "skip_step gives it one",
            )
        _check_not_undone(row, history, EDIT_STEP)
        await self._act(row, EDIT_STEP, by, {"step_id": step_id}, _stored(step_id, value))

    async def rerun(
        self,
        execution_id: str,
        from_step: str | None = None,
        input: object = ...,
        *,
        key: str | None = None,
        by: str = "",
    ) -> Handle[object]:
        """Start a new execution like this one, in whatever status that one is: with the same version, queue, priority,
        tags and timeout, and its input unless another `input` is given.

        With `from_step` all that is recorded before that step is copied in the same write, and happens no more; the
        step and all behind it happen anew. `ctx.uuid4()` and `ctx.random` give what they gave there. Children that
        were started there are not this one's to cancel. With `key` a repeat of this call gives the same execution.

        Raises:
            InvalidInput: there is no such step, or one before it was undone after it; or the input does not validate
                (where the workflow is not registered, the new execution is parked instead); or the execution has
                limits, and its workflow is not registered here.
            KeyConflict: the key is that of an execution with another input.
        """
        checked_key = None if key is None else check_key(key)
        check_actor(by)
        row, history = await self._row_and_history(execution_id)
        workflow = self._registry.get(row.workflow, row.version)
        data = None if input is ... else b""
        if input is not ...:
            what = f"the input of workflow {row.workflow}"
            schema: Schema[object] = Schema.of(object) if workflow is None else workflow.input_schema
            data = schema.dump(schema.validate(input, what), what)
        spec = repeated(
            row,
            list(history.values()),
            self._client.new_id(row.workflow, checked_key),
            rerun=Rerun(execution_id, from_step, by),
            workflow=workflow,
            input=data,
            key=checked_key,
        )
        return await self._client.begin(spec, workflow)

    async def prune(
        self,
        older_than: Duration = "30d",
        status: Statuses | None = None,
        *,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> int:
        """Delete executions that ended longer ago than `older_than`, with all that is theirs; how many. `dry_run`:
        nothing is deleted; how many would be, at most `limit`."""
        wanted = statuses(status) or tuple(s for s in ExecutionStatus if s.final)
        if not_final := [s for s in wanted if not s.final]:
            raise InvalidInput(f"only executions that have ended are pruned, not {', '.join(not_final)}")
        before = self._clock.now_ms() - to_ms(older_than, what="older_than")
        if dry_run:
            return await self._prunable(before, wanted, limit)
        pruned = 0
        while limit is None or pruned < limit:
            most = _PRUNED_AT_ONCE if limit is None else min(_PRUNED_AT_ONCE, limit - pruned)
            count = await self._store.prune(before=before, status=wanted, limit=most)
            pruned += count
            if count < most:
                break
        return pruned

    async def _prunable(self, before: int, wanted: Sequence[ExecutionStatus], limit: int | None) -> int:
        found, cursor = 0, None
        while limit is None or found < limit:
            page = await self._store.query(
                Query(status=wanted, until=before, limit=_READ_AT_ONCE, cursor=cursor)
            )
            found += sum(row.finished_at is not None and row.finished_at < before for row in page.rows)
            cursor = page.cursor
            if cursor is None:
                break
        return found if limit is None else min(found, limit)

    async def prune_events(self, older_than: Duration = "30d") -> int:
        """Delete events that were sent longer ago than `older_than`; how many. Nobody finds them by looking back any
        more, and their ids are new again; what they have started and resumed stays."""
        before = self._clock.now_ms() - to_ms(older_than, what="older_than")
        pruned = 0
        while count := await self._store.prune_events(before=before, limit=_PRUNED_AT_ONCE):
            pruned += count
        return pruned

    async def set_limit(self, rule: str, limit: int | None) -> None:
        """Let a rule of flow control have this limit from now on, for each of its keys, whatever the code says;
        None: what the code says. Rules are called `report/concurrency`, `report/throttle`, `report/rate_limit`,
        `scope/<name>` and `limit/<name>`. Who may go on because of it does so within a sweep; who holds a slot
        keeps it.

        Raises:
            InvalidInput: the limit is below 1, or the rule is no name.
        """
        check_name(rule, "the name of a rule")
        if limit is not None and limit < 1:
            raise InvalidInput(
                f"the limit of {rule} must be 1 or more, not {limit!r}", "to stop all, pause the queue"
            )
        await self._store.set_limit(rule, limit)

    async def pause_queue(self, queue: str) -> None:
        """Let workers claim nothing from a queue; what they run goes on. They know within a sweep."""
        await self._store.pause_queue(check_own_name(queue, "queue"), True)

    async def resume_queue(self, queue: str) -> None:
        """Let workers claim from a queue again."""
        await self._store.pause_queue(check_own_name(queue, "queue"), False)

    async def drain_worker(self, worker_id: str) -> None:
        """Ask a worker to take nothing new, within a sweep. A `durable worker` then ends as after a SIGTERM; in a
        process of your own only the worker stops taking, until the process is restarted.

        Raises:
            WorkerNotFound: no worker whose lease holds has this id.
        """
        check_name(worker_id, "the id of a worker")
        live = await self._store.live()
        if worker_id not in live.workers:
            raise WorkerNotFound(worker_id, live.workers)
        await self._store.pause_queue(drain_mark(worker_id), True)
        alive = {drain_mark(id) for id in live.workers}
        for name in await self._store.paused_queues():
            if is_mark(name) and name not in alive:  # of a worker that died before it could drain
                await self._store.pause_queue(name, False)

    # ---- what the acts have in common

    async def _act(
        self,
        row: ExecutionRow,
        verb: str,
        by: str,
        details: Mapping[str, object] | None = None,
        value: bytes = b"",
        *,
        applies: bool | None = None,
    ) -> None:
        """Post it. `applies`: whether it does, where the status alone does not tell."""
        check_actor(by)
        if not (row.status in APPLIES_TO[verb] if applies is None else applies):
            raise WrongStatus(row.id, verb, row.status)
        about: dict[str, object] = {**(details or {}), "by": by, "from": row.status, "attempt": row.attempt}
        if row.error and row.status is ExecutionStatus.PARKED:
            about.setdefault("step_id", load_error(row.error).step_id)
        # An execution that ends meanwhile is not opened again by what was meant for one that goes on.
        reach = Reach.CLOSED if row.status.final else Reach.BLOCKED
        message = Message(self._ids.nonce(), MessageKind.OPERATOR, verb, pack_act(about, value), reach)
        if isinstance(await self._client.post(row.id, message), NotPosted):
            raise WrongStatus(row.id, verb, (await self._row(row.id)).status)

    async def _is_paused(self, row: ExecutionRow) -> bool:
        """Whether it is, once all that operators have asked for is applied. While an act is applied to an execution
        that is paused it is shown as running."""
        if row.status.final:
            return False
        unread = [act for act in await self.unread_acts(row.id) if act in (PAUSE, RESUME)]
        if unread:
            return unread[-1] == PAUSE
        return any(c.step_id == PAUSED for c in await self._store.history(row.id))

    async def _row_and_history(self, execution_id: str) -> tuple[ExecutionRow, Mapping[str, Checkpoint]]:
        """In order; both as of one moment."""
        while True:
            row = await self._row(execution_id)
            history = await self._store.history(execution_id)
            after = await self._row(execution_id)
            if (after.ver, after.generation) == (row.ver, row.generation):
                return after, {c.step_id: c for c in history}


def _find(history: Mapping[str, Checkpoint], step_id: str) -> Checkpoint | None:
    check_name(step_id, "the id of a step")
    return None if step_id.startswith("__") else history.get(step_id)


def _check_status(row: ExecutionRow, verb: str) -> None:
    if row.status not in APPLIES_TO[verb]:
        raise WrongStatus(row.id, verb, row.status)


def _check_skippable(row: ExecutionRow, found: Checkpoint) -> None:
    if found.kind not in SKIPPED:
        hint = {
            "wait_for_signal": "send it the signal",
            "wait_for_event": "send the event",
            "child": "act on the child: a result of it ends the wait",
            "wait_for": "act on the execution that it waits for",
        }.get(found.kind, "rerun the execution from here to let it happen again")
        raise InvalidInput(f"{found.step_id} of execution {row.id} is a {found.kind}, and no step", hint)
    if found.status in (CheckpointStatus.COMPLETED, CheckpointStatus.CANCELLED):
        hint = (
            "edit_step_result replaces what it returned"
            if found.kind == "step"
            else "there is nothing left to skip"
        )
        raise InvalidInput(f"{found.step_id} of execution {row.id} is {found.status}", hint)
    if row.status is ExecutionStatus.COMPENSATION_FAILED and found.kind != "rollback":
        raise WrongStatus(row.id, f"{SKIP_STEP} of {found.step_id}", row.status)


def _check_not_undone(row: ExecutionRow, history: Mapping[str, Checkpoint], verb: str) -> None:
    """A body that goes on with results that were undone since would go on with what is not true."""
    if row.status is ExecutionStatus.FAILED and any(key.startswith("rollback:") for key in history):
        raise InvalidInput(
            f"{verb} does not apply to execution {row.id}: it failed, and its steps were rolled back",
            "rerun it: from the start, or from the first step that was undone",
        )


def _failed_last(row: ExecutionRow, history: Mapping[str, Checkpoint]) -> str | None:
    """The step whose error ended the attempt before this one: it has no record until it is done again."""
    before = history.get(f"__attempt:{row.attempt - 1}")
    return None if before is None else load_error(before.data).step_id


def _stored(step_id: str, value: object) -> bytes:
    schema: Schema[object] = Schema.of(object)
    return schema.dump(value, f"the value for {step_id}")


def _as_it_was(row: ExecutionRow) -> Mapping[str, object]:
    """Before which instant it would not have gone on anyway."""
    waits = row.state is State.READY and row.status in (ExecutionStatus.PENDING, ExecutionStatus.RETRYING)
    return {"until": row.available_at if waits else 0}
