"""Histories in tests: replayed with the code as it is now, or put into a store to go on there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from durable.engine.frames import Child
from durable.engine.rehearsal import Verdict, rehearse, unknown_workflow
from durable.engine.transitions import END
from durable.history import History, load_histories
from durable.ids import Ids
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Claimed,
    Committed,
    Continue,
    Created,
    DurableStore,
    Message,
    MessageKind,
    NewExecution,
    Reach,
    Ready,
    Watch,
)
from durable.workflow import AnyWorkflow, Registry

_WAITS_FOR_ANOTHER = ("child", "wait_for")


def read_histories(path: str | Path) -> list[History]:
    """The histories in a file that `durable export` wrote. Raises `InvalidInput` when it is none."""
    return load_histories(Path(path).read_bytes())


async def replay_history(
    workflow: AnyWorkflow | Iterable[AnyWorkflow], history: History | str | Path, *, deps: object = None
) -> Verdict:
    """Replay a history with a workflow (or the one of several that it is of), running no step: the verdict.

    `history` is a `History`, or the path of a file that `durable export` wrote; of several in it, each is replayed
    and the last verdict is given.

    Raises:
        ReplayMismatch: code and history do not fit; or no such workflow is given, or a value cannot be read.
        InvalidInput: the file holds no histories.
    """
    registry = Registry([workflow] if not isinstance(workflow, Iterable) else workflow)
    histories = [history] if isinstance(history, History) else read_histories(history)
    verdict: Verdict | None = None
    for each in histories:
        known = registry.get(each.row.workflow, each.row.version)
        if known is None:
            verdict = unknown_workflow(each, [other.version for other in registry])
        else:
            verdict = await rehearse(known, each, deps=deps)
        verdict.raise_if_unsafe()
    assert verdict is not None, "the file holds no histories"
    return verdict


async def restore(store: DurableStore, history: History) -> None:
    """Put a history into a store as an execution that is ready to go on, in as few commits as it takes.

    What ended it from outside, a cancel or its timeout, is in its inbox again, so that one that had ended ends again.
    Its times are those that were recorded: what it waits for in the past is due at once. Children that it waits for
    must be there before it.

    Raises:
        AssertionError: the store holds such an execution already.
    """
    row, ids = history.row, Ids()
    created = await store.create(_specification(history), op_id=ids.nonce())
    assert isinstance(created, Created), f"execution {row.id} is there already"
    for _ in range(row.generation):
        claimed = await _claimed(store, row.id, ids)
        await _commit(store, claimed, Batch(seen=0, next=Continue(row.input)))
    claimed = await _claimed(store, row.id, ids)
    for entry in history.inbox:
        is_urgent = entry.kind in (MessageKind.CANCEL, MessageKind.TIMER)
        reach = Reach.BLOCKED if is_urgent else Reach.PARKED
        await store.post(row.id, Message(entry.id, entry.kind, entry.name, entry.data, reach))
    watcher = {c.step_id: f"{c.step_id}@{row.generation}" for c in history.checkpoints}
    batch = Batch(
        seen=len(history.inbox),
        next=Ready(0, ExecutionStatus.PENDING, row.attempt),
        checkpoints=history.checkpoints,
        consume=[
            (number, entry.consumed_by)
            for number, entry in enumerate(history.inbox, 1)
            if entry.consumed_by is not None and entry.consumed_by != END
        ],
        out=[
            Watch(Child.unpack(c.data).id if c.kind == "child" else c.name, watcher[c.step_id])
            for c in history.checkpoints
            if c.kind in _WAITS_FOR_ANOTHER and not c.status.final
        ],
        values={c.name: c.data for c in history.checkpoints if c.kind == "value"},
    )
    await _commit(store, claimed, batch)


def _specification(history: History) -> NewExecution:
    row = history.row
    return NewExecution(
        id=row.id,
        workflow=row.workflow,
        version=row.version,
        input=row.input,
        queue=row.queue,
        priority=row.priority,
        key=row.key,
        tags=row.tags,
        options=row.options,
        timeout_ms=None if row.deadline_at is None else row.deadline_at - row.created_at,
        parent_id=row.parent_id,
    )


async def _claimed(store: DurableStore, execution_id: str, ids: Ids) -> Claimed:
    claimed = await store.claim(execution_id, nonce=ids.nonce(), worker="restore")
    assert isinstance(claimed, Claimed), f"execution {execution_id} was taken by a worker"
    return claimed


async def _commit(store: DurableStore, claimed: Claimed, batch: Batch) -> None:
    row = claimed.row
    assert row.nonce is not None
    answer = await store.commit(row.id, nonce=row.nonce, ver=row.ver, op_id=row.nonce, batch=batch)
    assert isinstance(answer, Committed), answer
