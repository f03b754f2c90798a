"""What is stored of a start: the new execution, and the options that only the engine reads."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import from_json, to_json

from durable.names import check_own_name
from durable.protocols import NewExecution
from durable.retry import Retry
from durable.workflow import AnyWorkflow


def new_execution(
    execution_id: str,
    workflow: AnyWorkflow,
    input: bytes,
    *,
    key: str | None = None,
    reuse_closed_key: bool = False,
    queue: str | None = None,
    priority: int | None = None,
    retry: Retry | None = None,
    timeout_ms: int | None = None,
    tags: Mapping[str, str] | None = None,
    delay_ms: int = 0,
    at_ms: int | None = None,
    parent_id: str | None = None,
) -> NewExecution:
    """What `create` stores: the workflow's own settings, where the start gives no others."""
    return NewExecution(
        id=execution_id,
        workflow=workflow.name,
        version=workflow.version,
        input=input,
        queue=workflow.queue if queue is None else check_own_name(queue, "queue"),
        priority=workflow.priority if priority is None else priority,
        key=key,
        reuse_closed_key=reuse_closed_key,
        tags={**workflow.tags, **(tags or {})},
        options=b"" if retry is None else to_json({"retry": retry.to_dict()}),
        delay_ms=delay_ms,
        at_ms=at_ms,
        timeout_ms=workflow.timeout_ms if timeout_ms is None else timeout_ms,
        parent_id=parent_id,
    )


def run_retry(options: bytes, workflow: AnyWorkflow) -> Retry:
    """The run's retry policy: the start's, else the workflow's."""
    if not options:
        return workflow.retry
    return Retry.from_dict(from_json(options)["retry"], on=workflow.retry.on)
