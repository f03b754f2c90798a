"""OpenTelemetry spans of executions. Needs `durable[otel]`: the API alone, so that without an SDK nothing is made.

    durable = Durable([...], telemetry=[Tracing()])

    start fulfil_order   PRODUCER   in the trace of whoever starts it; its context is stored with the execution
    run fulfil_order     CONSUMER   whenever a worker goes on with it: a child of the start, linked to the run before
    step charge          INTERNAL   each try of a step: what its code traces is within. A replayed step has no span.

What an execution waits for is an event of the span that ends there, never a span that stays open. Attributes are names
and numbers: no input, no result, no message of an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from typing import Final, Literal, final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from durable.telemetry import (
    ExecutionClaimed,
    ExecutionClosed,
    ExecutionLost,
    ExecutionStarted,
    ExecutionStarting,
    ExecutionSuspended,
    OfExecution,
    StepBegan,
    StepEnded,
    TelemetryEvent,
)

EXECUTION_ID: Final = "durable.execution.id"
WORKFLOW: Final = "durable.workflow.name"
VERSION: Final = "durable.workflow.version"
ATTEMPT: Final = "durable.attempt"
STEP_ID: Final = "durable.step.id"
STATUS: Final = "durable.execution.status"
_SYSTEM: Final = {"messaging.system": "durable"}
_W3C: Final = TraceContextTextMapPropagator()
_FAILED: Final = ("failed", "compensation_failed")


@final
class Tracing:
    """A listener that makes spans, with the global tracer provider unless one is given.

    By default all runs of an execution are in the trace of its start. With `runs="linked"` each begins a trace of its
    own, linked to the start: for executions that live for weeks.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        runs: Literal["together", "linked"] = "together",
    ) -> None:
        self._tracer = trace.get_tracer("durable", tracer_provider=tracer_provider)
        self._apart = runs == "linked"
        self._starts: dict[int, Span] = {}
        """By the identity of the event that began it, which the event that ends it holds."""
        self._runs: dict[str, Span] = {}
        self._steps: dict[tuple[str, str], tuple[Span, Token[Context]]] = {}

    def __call__(self, event: TelemetryEvent) -> None:
        match event:
            case StepBegan():
                self._begin_step(event)
            case StepEnded():
                self._end_step(event)
            case ExecutionClaimed():
                self._begin_run(event)
            case ExecutionSuspended():
                self._suspend(event)
            case ExecutionClosed():
                self._end_run(event, event.status, event.error_type, final=True)
            case ExecutionLost():
                self._end_run(event, "lost", event.reason, final=False)
            case ExecutionStarting():
                self._begin_start(event)
            case ExecutionStarted():
                self._end_start(event)
            case _:
                pass

    # ---- starts

    def _begin_start(self, event: ExecutionStarting) -> None:
        parent = self._runs.get(event.parent_id or "")
        span = self._tracer.start_span(
            f"start {event.workflow}",
            None if parent is None else trace.set_span_in_context(parent),
            SpanKind.PRODUCER,
            {
                **_SYSTEM,
                "messaging.operation.type": "send",
                "messaging.destination.name": event.queue,
                EXECUTION_ID: event.execution_id,
                WORKFLOW: event.workflow,
                VERSION: event.version,
            },
        )
        _W3C.inject(event.carrier, trace.set_span_in_context(span))
        self._starts[id(event)] = span

    def _end_start(self, event: ExecutionStarted) -> None:
        span = self._starts.pop(id(event.starting), None)
        if span is None:
            return
        span.set_attribute(EXECUTION_ID, event.execution_id)
        if event.created is not None:
            span.set_attribute("durable.execution.created", event.created)
        if event.error is not None:
            span.set_attribute("error.type", type(event.error).__name__)
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    # ---- runs: what one worker does, from a claim on

    def _begin_run(self, event: ExecutionClaimed) -> None:
        started = _W3C.extract(event.start, Context())
        linked = (event.start, event.previous) if self._apart else (event.previous,)
        links = [Link(context) for carrier in linked if (context := _context_of(carrier))]
        span = self._tracer.start_span(
            f"run {event.workflow}",
            Context() if self._apart else started,
            SpanKind.CONSUMER,
            {
                **_SYSTEM,
                "messaging.operation.type": "process",
                "messaging.destination.name": event.queue,
                **_names(event),
                "durable.replayed": event.replayed,
            },
            links,
        )
        _W3C.inject(event.carrier, trace.set_span_in_context(span))
        self._runs[event.execution_id] = span

    def _suspend(self, event: ExecutionSuspended) -> None:
        span = self._runs.get(event.execution_id)
        if span is not None:
            for wait in event.waits:
                span.add_event("wait", {"durable.wait.kind": wait.kind, "durable.wait.name": wait.name})
        self._end_run(event, event.status, event.code, final=False)

    def _end_run(self, event: OfExecution, status: str, error: str | None, *, final: bool) -> None:
        span = self._runs.pop(event.execution_id, None)
        if span is None:
            return
        span.set_attribute(STATUS, status)
        if error is not None:
            span.set_attribute("error.type", error)
        if final and status in _FAILED:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    # ---- steps

    def _begin_step(self, event: StepBegan) -> None:
        run = self._runs.get(event.execution_id)
        span = self._tracer.start_span(
            f"{event.kind} {event.name}",
            Context() if run is None else trace.set_span_in_context(run, Context()),
            SpanKind.INTERNAL,
            {**_names(event), STEP_ID: event.step_id, "durable.step.try": event.number},
        )
        # In this task, which is the one that ends it: what the step's code traces is a child of its span.
        token = attach(trace.set_span_in_context(span))
        self._steps[event.execution_id, event.step_id] = (span, token)

    def _end_step(self, event: StepEnded) -> None:
        span, token = self._steps.pop((event.execution_id, event.step_id), (None, None))
        if span is None or token is None:
            return
        detach(token)
        span.set_attribute("durable.step.outcome", event.outcome)
        if event.error_type is not None:
            span.set_attribute("error.type", event.error_type)
        if event.outcome == "failed":
            span.set_status(Status(StatusCode.ERROR))
        span.end()


def _names(event: OfExecution) -> dict[str, str | int]:
    return {
        EXECUTION_ID: event.execution_id,
        WORKFLOW: event.workflow,
        VERSION: event.version,
        ATTEMPT: event.attempt,
    }


def _context_of(carrier: Mapping[str, str]) -> trace.SpanContext | None:
    context = trace.get_current_span(_W3C.extract(carrier, Context())).get_span_context()
    return context if context.is_valid else None
