"""What is started when an execution fails: the workflow that its `on_failure=` names."""

from __future__ import annotations

import hashlib
import logging

from durable.codec import load_error, plain
from durable.engine.options import new_execution
from durable.errors import DurableError
from durable.flow_control import merged
from durable.models import ErrorRecord, ExecutionStatus, Failure
from durable.protocols import Close, ExecutionRow, Start
from durable.workflow import AnyWorkflow

log = logging.getLogger("durable.engine")

_FAILED = (ExecutionStatus.FAILED, ExecutionStatus.COMPENSATION_FAILED)


def failure_start(workflow: AnyWorkflow, row: ExecutionRow, ver: int, close: Close) -> Start | None:
    """The start that leaves with this end, once for each time that the execution fails."""
    handler = workflow.on_failure
    if handler is None or close.status not in _FAILED:
        return None
    error = load_error(close.error) if close.error else ErrorRecord("", "")
    failure = Failure(
        execution_id=row.id,
        workflow=row.workflow,
        step_id=error.step_id,
        error_type=error.error_type,
        message=error.message,
        code=error.code or close.code,
        details=error.details,
        input=plain(merged(row.input)),
    )
    what = f"the input of workflow {handler.name}"
    try:
        data = handler.input_schema.dump(handler.input_schema.validate(failure, what), what)
        id = hashlib.sha256(f"on_failure\n{row.id}\n{ver}".encode()).hexdigest()[:40]
        return Start(new_execution(id, handler, failure, data, parent_id=row.id))
    except DurableError:
        log.exception("the failure of execution %s cannot be told to workflow %s", row.id, handler.name)
        return None
