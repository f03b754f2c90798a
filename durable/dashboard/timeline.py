"""The rows of a waterfall: an execution's steps and its children, each with its bars on one axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from durable.duration import format_duration
from durable.family import Family
from durable.models import Execution, StepRecord
from durable.waterfall import Bar, Span, layout

WIDTH: Final = 1000
"""Of the axis, in the units of the drawing."""
_WORK: Final = frozenset({"step", "rollback"})

Look: TypeAlias = Literal["work", "wait", "queued", "failed", "mark"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a row's bar."""

    x: int
    width: int
    look: Look
    about: str
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the waterfall: a step, or a child that has lines of its own below."""

    depth: int
    label: str
    kind: str
    status: str
    attempts: int
    took_ms: int
    pieces: Sequence[Piece]
    owner: Execution
    """The execution that it is of."""
    step: StepRecord | None
    child: Execution | None


@dataclass(frozen=True, slots=True)
class Timeline:
    rows: Sequence[Row]
    total_ms: int
    code_ms: int
    """While at least one step's body ran: your code."""

    @property
    def durable_ms(self) -> int:
        """The rest: queues, timers, waits, backoff."""
        return max(0, self.total_ms - self.code_ms)

    @property
    def code_share(self) -> int:
        """In thousandths of the whole."""
        return min(WIDTH, round(WIDTH * self.code_ms / self.total_ms)) if self.total_ms else 0


@dataclass(frozen=True, slots=True)
class _Line:
    depth: int
    owner: Execution
    step: StepRecord | None
    child: Execution | None
    spans: Sequence[tuple[Span, Look, str]]


def timeline_of(family: Family, now: datetime, *, linear: bool = False) -> Timeline:
    """The rows of an execution and of its children, in the order in which they began; waits are cut short, unless
    the axis is `linear`."""
    lines = list(_lines(family, now, 0))
    bars = iter(layout([span for line in lines for span, _, _ in line.spans], WIDTH, linear=linear))
    rows = [_row(line, [next(bars) for _ in line.spans]) for line in lines]
    execution = family.detail.execution
    total = max(0, _ms(execution.finished_at or now) - _ms(execution.created_at))
    code = round(family.detail.timings.your_code.total_seconds() * 1000)
    return Timeline(rows, total, min(code, total))


def _lines(family: Family, now: datetime, depth: int) -> Iterator[_Line]:
    execution = family.detail.execution
    started_as = {child.detail.execution.id.removeprefix(f"{execution.id}/") for child in family.children}
    begun: list[tuple[datetime, StepRecord | Family]] = [
        *((step.started_at, step) for step in family.detail.steps if not _is_below(step, started_as)),
        *((child.detail.execution.created_at, child) for child in family.children),
    ]
    begun.sort(key=lambda item: item[0])
    for _, item in begun:
        if isinstance(item, StepRecord):
            yield _Line(depth, execution, item, None, list(_spans(item, now)))
        else:
            child = item.detail.execution
            span = _span(child.created_at, child.finished_at or now, is_work=False)
            yield _Line(depth, execution, None, child, [(span, "wait", child.status)])
            yield from _lines(item, now, depth + 1)


def _is_below(step: StepRecord, children: Set[str]) -> bool:
    """Whether the child that the step started has a row of its own."""
    return step.kind in ("child", "start") and step.id in children


def _spans(step: StepRecord, now: datetime) -> Iterator[tuple[Span, Look, str]]:
    """What a step's bar is made of: what it stood behind, each try, what was waited through between them."""
    tries = step.tries
    begun = tries[0].started_at if tries else step.started_at
    if step.queued:
        yield (
            _span(begun - step.queued, begun, is_work=False),
            "queued",
            f"queued {format_duration(step.queued)}",
        )
    ended = begun
    for tried in tries:
        if tried.started_at > ended:
            yield _span(ended, tried.started_at, is_work=False), "wait", "waits for its next try"
        about = f"try {tried.number}: {tried.error}"
        yield _span(tried.started_at, tried.finished_at, is_work=True), "failed", about
        ended = tried.finished_at
    if step.finished_at is None and step.kind in _WORK:
        about = "waits for its limit" if step.status == "open" else "waits for its next try"
        yield _span(ended, max(now, ended), is_work=False), "wait", about
    elif step.kind in _WORK:
        last = max(ended, step.started_at)
        if last > ended:
            yield _span(ended, last, is_work=False), "wait", "waits for its next try"
        look: Look = "failed" if step.status == "failed" else "work"
        yield _span(last, step.finished_at or now, is_work=True), look, step.status
    else:
        look = "mark" if step.started_at == step.finished_at else "wait"
        yield _span(step.started_at, step.finished_at or now, is_work=False), look, step.status


def _row(line: _Line, bars: Sequence[Bar]) -> Row:
    pieces = [
        Piece(bar.offset, bar.length, look, about, bar.is_cut)
        for bar, (_, look, about) in zip(bars, line.spans, strict=True)
    ]
    own = [span for span, look, _ in line.spans if look != "queued"]
    took = max(span.end for span in own) - min(span.start for span in own)
    if line.step is not None:
        step = line.step
        return Row(
            line.depth, step.id, step.kind, step.status, step.attempts, took, pieces, line.owner, step, None
        )
    child = line.child
    assert child is not None
    return Row(
        line.depth,
        child.workflow,
        "child",
        child.status,
        child.attempt,
        took,
        pieces,
        line.owner,
        None,
        child,
    )


def _span(start: datetime, end: datetime, *, is_work: bool) -> Span:
    start_ms = _ms(start)
    return Span(start_ms, max(start_ms, _ms(end)), is_work)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
