"""What the dashboard reads, behind the hook that hides what nobody is to see."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias, cast, final

from durable.models import (
    AuditEntry,
    ErrorRecord,
    Execution,
    ExecutionDetail,
    Schedule,
    SignalRecord,
    StepRecord,
)

log = logging.getLogger("durable.dashboard")

Redact: TypeAlias = Callable[[str, Any], object]
"""Takes what a value is ("input", "result", "error", "signal", "audit" or "text") and the value as plain JSON; gives
what is shown instead."""

_HIDDEN: Final = "(hidden: the redaction failed)"


@final
class Veil:
    """Copies of records as they may be shown."""

    def __init__(self, redact: Redact | None) -> None:
        self._redact = redact

    @property
    def hides(self) -> bool:
        return self._redact is not None

    def value(self, what: str, value: object) -> object:
        """What may be shown of a value. If the hook fails, nothing of it."""
        if self._redact is None or value is None:
            return value
        try:
            return self._redact(what, value)
        except Exception:  # it is the user's, and what it was to hide must not come out because of that
            log.exception("the dashboard's redaction of %s failed", what)
            return _HIDDEN

    def text(self, what: str, text: str) -> str:
        """The same for text that people read."""
        return text if self._redact is None else str(self.value(what, text))

    def execution(self, execution: Execution) -> Execution:
        if self._redact is None:
            return execution
        return replace(
            execution,
            input=self.value("input", execution.input),
            result=self.value("result", execution.result),
            error=self._error(execution.error),
        )

    def detail(self, detail: ExecutionDetail) -> ExecutionDetail:
        if self._redact is None:
            return detail
        return replace(
            detail,
            execution=self.execution(detail.execution),
            steps=[self._step(step) for step in detail.steps],
            waits=[self._step(step) for step in detail.waits],
            signals=[self._signal(signal) for signal in detail.signals],
            audit=[self._entry(entry) for entry in detail.audit],
        )

    def schedule(self, schedule: Schedule) -> Schedule:
        return (
            schedule if self._redact is None else replace(schedule, input=self.value("input", schedule.input))
        )

    def _step(self, step: StepRecord) -> StepRecord:
        tries = [replace(each, error=self._error(each.error) or each.error) for each in step.tries]
        return replace(
            step, result=self.value("result", step.result), error=self._error(step.error), tries=tries
        )

    def _signal(self, signal: SignalRecord) -> SignalRecord:
        return replace(signal, payload=self.value("signal", signal.payload))

    def _entry(self, entry: AuditEntry) -> AuditEntry:
        if not entry.details:
            return entry
        shown = self.value("audit", dict(entry.details))
        details = cast("Mapping[str, object]", shown) if isinstance(shown, Mapping) else {"hidden": shown}
        return replace(entry, details=details)

    def _error(self, error: ErrorRecord | None) -> ErrorRecord | None:
        if error is None or self._redact is None:
            return error
        args: Sequence[object] = ()
        return replace(
            error,
            message=self.text("error", error.message),
            args=args,
            details=self.value("error", error.details),
            attributes={},
        )
