"""Ordinary typed async functions that survive crashes, deploys, retries and week-long waits.

    @workflow                                    what survives          durable.workflow
    @step, Retry                                 what runs once         durable.steps, durable.retry
    Context                                      what a body calls      durable.context
    Signal, Event, Received, TimedOut            what it waits for      durable.signals
    Cron, Every                                  when it is due         durable.calendar
    Concurrency, Throttle, Debounce ...          how much at once       durable.flow_control
    Durable, Handle                              where it runs          durable.app, durable.handle
    Execution, ExecutionDetail ...               what is known of it    durable.models
    History, Verdict                             what fits other code   durable.history, durable.engine.rehearsal
    DurableError ...                             what can go wrong      durable.errors
    describe, WorkflowShape                      what may happen        durable.describe

Backends implement the three ports of `durable.protocols`. Tests use `durable.testing`.
"""

from durable._version import __version__ as __version__
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
    WorkerNotFound,
    WrongStatus,
)
from durable.flow_control import Batch, Concurrency, Debounce, RateLimit, Throttle
from durable.handle import Handle
from durable.history import History
from durable.models import (
    AuditEntry,
    Cause,
    CurrentWork,
    ErrorRecord,
    Execution,
    ExecutionDetail,
    ExecutionStatus,
    Failure,
    Page,
    Receipt,
    Schedule,
    SignalRecord,
    StepRecord,
    WorkerRecord,
    WorkflowInfo,
)
from durable.operator import Operator
from durable.retry import Retry
from durable.signals import Completed, Event, On, Received, Signal, TimedOut
from durable.steps import Step, StepInfo, current_step, step
from durable.workflow import Workflow, workflow

__all__ = [
    "AuditEntry",
    "Batch",
    "Branch",
    "Cause",
    "CompensationFailed",
    "Completed",
    "Concurrency",
    "ConfigurationError",
    "Context",
    "Cron",
    "CurrentWork",
    "Debounce",
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
    "Failure",
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
    "On",
    "Operator",
    "OutcomeUnknown",
    "Page",
    "PayloadTooLarge",
    "QueueUnavailable",
    "RateLimit",
    "Receipt",
    "Received",
    "ReplayMismatch",
    "Retry",
    "RetryAfter",
    "Schedule",
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
    "Throttle",
    "TimedOut",
    "UnknownWorkflow",
    "Verdict",
    "WaitTimeout",
    "WorkerNotFound",
    "WorkerRecord",
    "Workflow",
    "WorkflowInfo",
    "WorkflowShape",
    "WrongStatus",
    "current_step",
    "describe",
    "step",
    "workflow",
]
