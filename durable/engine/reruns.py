"""Executions that repeat another one: what they begin with, and how it is known whom they repeat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import from_json, to_json

from durable.engine.frames import Child
from durable.engine.options import listens_of
from durable.errors import InvalidInput
from durable.flow_control import merged
from durable.names import did_you_mean
from durable.protocols import Checkpoint, ExecutionRow, NewExecution
from durable.workflow import AnyWorkflow


@dataclass(frozen=True, slots=True)
class Rerun:
    """Whom an execution repeats."""

    of: str
    from_step: str | None
    by: str


def rerun_of(options: bytes) -> Rerun | None:
    """Whom it repeats; None for one that was started."""
    found = from_json(options).get("rerun") if options else None
    return None if found is None else Rerun(found["of"], found["from_step"], found["by"])


def seed_of(row: ExecutionRow) -> str:
    """What chance in its body is a function of: for one that repeats another, that of the other one, so that what was
    copied goes with what is drawn again."""
    given = from_json(row.options).get("seed") if row.options and row.generation == 0 else None
    return f"{row.id}\n{row.generation}" if given is None else given


def repeated(
    row: ExecutionRow,
    history: Sequence[Checkpoint],
    new_id: str,
    *,
    rerun: Rerun,
    workflow: AnyWorkflow | None,
    input: bytes | None,
    key: str | None,
) -> NewExecution:
    """What `create` stores to repeat an execution; `input`: another one than it had.

    Raises:
        InvalidInput: there is no such step, or one before it was undone after it; or the execution has limits, or
            events that cancel it, and its workflow is not known here.
    """
    options: dict[str, Any] = from_json(row.options) if row.options else {}
    if workflow is None and options.get("by_definition"):
        raise InvalidInput(
            f"{row.workflow} {row.version} has limits or events that cancel it, and is not known here",
            "call this where the workflow is registered, or name the application with --app",
        )
    copies = () if rerun.from_step is None else copied(row, history, rerun.from_step)
    options["rerun"] = {"of": rerun.of, "from_step": rerun.from_step, "by": rerun.by}
    options.pop("seed", None)
    if copies:
        options["seed"] = seed_of(row)
    timeout_ms = None if row.deadline_at is None else row.deadline_at - row.created_at
    if timeout_ms is None and workflow is not None:
        timeout_ms = workflow.timeout_ms
    spec = NewExecution(
        new_id,
        row.workflow,
        row.version,
        row.input if input is None else input,
        queue=row.queue,
        priority=row.priority,
        key=key,
        tags=row.tags,
        options=to_json(options),
        timeout_ms=timeout_ms,
        parent_id=row.id,
        cause=row.cause,
        history=copies,
        values={c.name: c.data for c in copies if c.kind == "value"},
    )
    if workflow is None or not options.get("by_definition"):
        return spec
    value = workflow.input_schema.load(merged(spec.input), f"the input of execution {row.id}")
    return replace(
        spec,
        gates=workflow.flow.gates(value, spec.input) if workflow.flow else (),
        listens=listens_of(workflow, spec.input),
    )


def copied(row: ExecutionRow, history: Sequence[Checkpoint], from_step: str) -> Sequence[Checkpoint]:
    """What is recorded before a step, as the new execution has it: children that were started stay those of the first.

    Raises:
        InvalidInput: there is no such step, or one before it was undone after it.
    """
    records = {c.step_id: c for c in history if not c.step_id.startswith("__")}
    first = records.get(from_step)
    if first is None:
        raise no_such_step(row.id, from_step, records)
    before = [c for c in records.values() if c.status.final and c.seq < first.seq]
    known = {c.step_id for c in before}
    for step_id in records:
        undone = step_id.removeprefix("rollback:")
        if undone != step_id and undone in known and step_id not in known:
            raise InvalidInput(
                f"step {undone}, which comes before {from_step}, was undone in execution {row.id}",
                f"rerun it from {undone} or from the start, so that what was undone is done again",
            )
    return [replace(c, data=_detached(c.data), seq=0) if c.kind == "start" else c for c in before]


def _detached(data: bytes) -> bytes:
    return replace(Child.unpack(data), detached=True).pack()


def no_such_step(execution_id: str, step_id: str, known: Iterable[str]) -> InvalidInput:
    """The error for a step that is not recorded."""
    names = [name for name in known if not name.startswith("__")]
    shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
    recorded = f"its steps are {shown}" if names else "no step of it is recorded yet"
    hint = did_you_mean(step_id, names).strip() or recorded
    return InvalidInput(f"execution {execution_id} has no step {step_id!r}", hint)
