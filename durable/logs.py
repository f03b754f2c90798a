"""Which execution a log record is about: its id, workflow, step and attempt, as fields of the record.

    handler.addFilter(ExecutionFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s [%(workflow)s %(execution)s %(step)s]"))

Records of `durable.*` and of `ctx.log` have the fields by themselves. Those of your own loggers, and of libraries that
a body or a step calls, get them from the filter on your handler: a library sets up nothing of yours.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Final, final

from typing_extensions import override

from durable.protocols import ExecutionRow
from durable.steps import STEP

FIELDS: Final = ("execution", "workflow", "step", "attempt")
RUNNING: ContextVar[ExecutionRow | None] = ContextVar("durable.running", default=None)
"""The execution that this task is about."""
_LOGGERS: Final = ("engine", "schedules", "telemetry", "worker", "workflow")


@final
class ExecutionFilter(logging.Filter):
    """Gives each record `execution`, `workflow`, `step` and `attempt`; empty where it is about none.

    Within a step `attempt` is the number of its try, elsewhere that of the run's attempt. Nothing is filtered out.
    """

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        row = RUNNING.get()
        if row is None:
            for name in FIELDS:
                if not hasattr(record, name):
                    setattr(record, name, "")
            return True
        step = STEP.get(None)
        record.execution, record.workflow = row.id, row.workflow
        record.step, record.attempt = (step.step_id, step.attempt) if step else ("", row.attempt)
        return True


for _name in _LOGGERS:
    logging.getLogger(f"durable.{_name}").addFilter(ExecutionFilter())
