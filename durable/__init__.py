"""Ordinary typed async functions that survive crashes, deploys, retries and week-long waits.

    @workflow                                    what survives          durable.workflow
    @step, Retry                                 what runs once         durable.steps, durable.retry
    Context                                      what a body calls      durable.context
    Signal, Event, Received, TimedOut            what it waits for      durable.signals
    Cron, Every                                  when it is due         durable.calendar
    Durable, Handle                              where it runs          durable.app, durable.handle
    Execution, ExecutionDetail ...               what is known of it    durable.models
    History, Verdict                             what fits other code   durable.history, durable.engine.rehearsal
    DurableError ...                             what can go wrong      durable.errors
    describe, WorkflowShape                      what may happen        durable.describe

Backends implement the three ports of `durable.protocols`. Tests use `durable.testing`.
"""

from durable.app import Durable
from durable.calendar import Cron, Every
from durable.context import Branch, Context
from durable.describe import WorkflowShape, describe
from durable.engine.rehearsal import Fit, Verdict
from durable.errors import (
    CompensationFailed,
    ConfigurationError,
    DurableError,
    ExecutionCancelled,
    ExecutionClosed,
    ExecutionEnded,
    ExecutionFailed,
    ExecutionNotFound,
    Fail,
    InvalidInput,
    KeyConflict,
    LeaseLost,
    LimitReached,
    NoMatchingBranch,
    NotRunning,
    NotSerializable,
    OutcomeUnknown,
    PayloadTooLarge,
    QueueUnavailable,
    ReplayMismatch,
    RetryAfter,
    ScheduleNotFound,
    StepFailed,
    StepTimeout,
    StoreFull,
    StoreUnavailable,
    UnknownWorkflow,
    WaitTimeout,
    WrongStatus,
)
from durable.handle import Handle
from durable.history import History
from durable.models import (
    AuditEntry,
    ErrorRecord,
    Execution,
    ExecutionDetail,
    ExecutionStatus,
    Page,
    SignalRecord,
    StepRecord,
    WorkflowInfo,
)
from durable.operator import Operator
from durable.retry import Retry
from durable.signals import Completed, Event, Received, Signal, TimedOut
from durable.steps import Step, StepInfo, current_step, step
from durable.workflow import Workflow, workflow

__version__ = "0.1.0"

__all__ = [
    "AuditEntry",
    "Branch",
    "CompensationFailed",
    "Completed",
    "ConfigurationError",
    "Context",
    "Cron",
    "Durable",
    "DurableError",
    "ErrorRecord",
    "Event",
    "Every",
    "Execution",
    "ExecutionCancelled",
    "ExecutionClosed",
    "ExecutionDetail",
    "ExecutionEnded",
    "ExecutionFailed",
    "ExecutionNotFound",
    "ExecutionStatus",
    "Fail",
    "Fit",
    "Handle",
    "History",
    "InvalidInput",
    "KeyConflict",
    "LeaseLost",
    "LimitReached",
    "NoMatchingBranch",
    "NotRunning",
    "NotSerializable",
    "Operator",
    "OutcomeUnknown",
    "Page",
    "PayloadTooLarge",
    "QueueUnavailable",
    "Received",
    "ReplayMismatch",
    "Retry",
    "RetryAfter",
    "ScheduleNotFound",
    "Signal",
    "SignalRecord",
    "Step",
    "StepFailed",
    "StepInfo",
    "StepRecord",
    "StepTimeout",
    "StoreFull",
    "StoreUnavailable",
    "TimedOut",
    "UnknownWorkflow",
    "Verdict",
    "WaitTimeout",
    "Workflow",
    "WorkflowInfo",
    "WorkflowShape",
    "WrongStatus",
    "current_step",
    "describe",
    "step",
    "workflow",
]
