"""`durable show`: one execution, with its steps as a waterfall."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer
from rich.cells import cell_len
from rich.text import Text

from durable.cli.connection import Connection, find_id
from durable.cli.grouping import grouped
from durable.cli.options import (
    ExecutionArgument,
    OutputOption,
)
from durable.cli.output import (
    MARKS,
    Output,
    clean,
    console,
    error_text,
    print_json,
    print_lines,
    status_text,
    to_json,
)
from durable.duration import format_duration
from durable.family import Family, load_family
from durable.models import Execution, ExecutionStatus, StepRecord
from durable.waterfall import Bar, Span, layout

_WORK: Final = frozenset({"step", "rollback"})
_WIDEST_LABEL: Final = 48
_BARS: Final = 40
"""Cells of the axis, where no terminal says how many there are."""
_FEWEST_BARS: Final = 16
_LONGEST_RESULT: Final = 2_000
_MILLISECOND: Final = timedelta(milliseconds=1)
_REPAIRABLE: Final = frozenset(
    {ExecutionStatus.FAILED, ExecutionStatus.PARKED, ExecutionStatus.COMPENSATION_FAILED}
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the waterfall before it is laid out."""

    branch: str
    """What ties it to the tree."""
    status: str
    label: str
    attempts: int
    span: Span
    note: str = ""


@grouped
def show(
    *,
    execution: ExecutionArgument,
    linear: Annotated[bool, typer.Option("--linear", help="The true axis: cut no wait short.")] = False,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Show one execution: where it is, and its steps as a waterfall. Waits are cut short on its axis.

    \b
    Examples:
      durable show 7f3
      durable show 7f3 --linear
      durable show 7f3 -o json | jq .execution.result
    """

    async def run() -> None:
        async with connection.client() as durable:
            family = await load_family(durable.operator, await find_id(durable, execution))
        match output:
            case Output.IDS:
                console().print(family.detail.execution.id)
            case Output.JSON:
                print_json(_record(family))
            case Output.TABLE:
                print_family(family, linear=linear)

    asyncio.run(run())


def print_family(family: Family, *, linear: bool = False) -> None:
    """Print the header, the waterfall, and what to do where something is wrong."""
    now, out = datetime.now(UTC), console()
    rows = rows_of(family, now)
    print_lines([_header(family)])
    print_lines(draw(rows, out.width if out.is_terminal else None, linear=linear))
    for line in _conclusion(family):
        out.print(f"   {line}")  # whole, however narrow the terminal is


def _conclusion(family: Family) -> Iterator[str]:
    execution = family.detail.execution
    if execution.status is ExecutionStatus.COMPLETED:
        result = clean(to_json(execution.result, indent=None))
        more = len(result) > _LONGEST_RESULT
        yield f"result: {result[:_LONGEST_RESULT]}{' ...: -o json shows all of it' if more else ''}"
    elif execution.status.final and execution.error is not None:
        yield f"error: {error_text(execution.error)}"
    else:
        yield clean(family.why)
    if execution.status in _REPAIRABLE:
        yield f"hint: mend the cause, then go on from there with `durable retry {execution.id}`"


def rows_of(family: Family, now: datetime, branch: str = "") -> list[Row]:
    """The rows of an execution's steps and of its children, in the order in which they began."""
    execution = family.detail.execution
    started_as = {child.detail.execution.id.removeprefix(f"{execution.id}/") for child in family.children}
    begun: list[tuple[datetime, StepRecord | Family]] = [
        *((step.started_at, step) for step in family.detail.steps if not _is_shown_below(step, started_as)),
        *((child.detail.execution.created_at, child) for child in family.children),
    ]
    begun.sort(key=lambda item: item[0])
    rows: list[Row] = []
    for number, (_, item) in enumerate(begun, start=1):
        is_last = number == len(begun)
        tie = branch + ("└─ " if is_last else "├─ ")
        if isinstance(item, StepRecord):
            rows.append(_step_row(item, tie, now))
            rows.extend(_try_rows(item, branch + ("   " if is_last else "│  ")))
        else:
            rows.append(_child_row(item.detail.execution, tie, now))
            rows.extend(rows_of(item, now, branch + ("   " if is_last else "│  ")))
    return rows


def _is_shown_below(step: StepRecord, children: Set[str]) -> bool:
    """Whether the child that the step started has a row of its own."""
    return step.kind in ("child", "start") and step.id in children


def draw(rows: Sequence[Row], width: int | None = None, *, linear: bool = False) -> list[Text]:
    """The lines of the waterfall, `width` cells wide at most where that is known."""
    labels = [f"{row.branch}{MARKS.get(row.status, ('?', ''))[0]} {clean(row.label)}" for row in rows]
    labels = [f"{label[: _WIDEST_LABEL - 1]}…" if len(label) > _WIDEST_LABEL else label for label in labels]
    attempts = [f"×{row.attempts}" if row.attempts > 1 else "" for row in rows]
    durations = [format_duration((row.span.end - row.span.start) * _MILLISECOND) for row in rows]
    label_width = max(map(cell_len, labels), default=0)
    attempts_width = max(map(len, attempts), default=0)
    duration_width = max(map(len, durations), default=0)
    left = label_width + attempts_width + duration_width + 5
    notes_width = min(30, max((cell_len(row.note) + 2 for row in rows if row.note), default=0))
    axis = _BARS if width is None else max(_FEWEST_BARS, min(2 * _BARS, width - left - notes_width))
    lines: list[Text] = []
    bars = layout([row.span for row in rows], axis, linear=linear)
    for row, label, tries, duration, bar in zip(rows, labels, attempts, durations, bars, strict=True):
        style = MARKS.get(row.status, ("?", ""))[1]
        line = Text(no_wrap=True)
        line.append(row.branch, "dim").append(label[len(row.branch) :], style)
        line.append(
            " " * (label_width - cell_len(label))
            + f"  {tries:{attempts_width}} {duration:>{duration_width}} ▏"
        )
        line.append(" " * bar.offset).append(_cells(row.span, bar), "dim" if not row.span.is_work else style)
        if row.note:
            line.append(" " * (axis - bar.offset - bar.length) + f"  {clean(row.note)}", "dim")
        lines.append(line)
    return lines


def _cells(span: Span, bar: Bar) -> str:
    if span.is_work:
        return "█" * bar.length
    if span.start == span.end:
        return "◆" + " " * (bar.length - 1)
    if not bar.is_cut:
        return "░" * bar.length
    half = (bar.length - 1) // 2
    return ("░" * half + ("╱╱" if bar.length > 1 else "╱") + "░" * bar.length)[: bar.length]


def _step_row(step: StepRecord, tie: str, now: datetime) -> Row:
    waits = step.kind == "wait_for_signal" and step.status != "failed"
    label = f"{step.id} ⟵ signal" if waits else step.id
    # An open step has not begun: it waits for the limit that it names.
    note = "waits for its limit" if step.kind == "step" and step.status == "open" else ""
    if step.error is not None:
        note = error_text(step.error).removeprefix(f"{step.id}: ")
    if step.finished_at is None and step.wake_at is not None:
        note = ", ".join(filter(None, [note, f"until {step.wake_at.isoformat(timespec='seconds')}"]))
    is_work = step.kind in _WORK and step.finished_at is not None
    span = _span(step.started_at, step.finished_at, now, is_work=is_work)
    return Row(tie, step.status, label, step.attempts, span, note)


def _try_rows(step: StepRecord, branch: str) -> Iterator[Row]:
    """The tries of a step before its last one, each with its error."""
    for number, tried in enumerate(step.tries, start=1):
        tie = branch + ("└─ " if number == len(step.tries) else "├─ ")
        span = _span(tried.started_at, tried.finished_at, tried.finished_at, is_work=True)
        yield Row(tie, "failed", f"try {tried.number}", 1, span, error_text(tried.error))


def _child_row(child: Execution, tie: str, now: datetime) -> Row:
    label = f"{child.workflow} · {child.id}"
    note = error_text(child.error) if child.error else ""
    span = _span(child.created_at, child.finished_at, now, is_work=False)
    return Row(tie, child.status, label, child.attempt, span, note)


def _span(start: datetime, end: datetime | None, now: datetime, *, is_work: bool) -> Span:
    start_ms = round(start.timestamp() * 1000)
    end_ms = round((end or now).timestamp() * 1000)
    return Span(start_ms, max(start_ms, end_ms), is_work)


def _header(family: Family) -> Text:
    execution = family.detail.execution
    parts: list[Text | str] = [
        f"{execution.workflow} v{execution.version}",
        execution.id,
        status_text(execution.status),
    ]
    if execution.started_at is not None:
        timings = family.detail.timings
        parts.append(
            f"{format_duration(timings.total)} (your code {format_duration(timings.your_code)}, "
            f"durable {format_duration(timings.durable)})"
        )
    if execution.attempt > 1:
        parts.append(f"attempt {execution.attempt}")
    if execution.generation:
        parts.append(f"generation {execution.generation}")
    if execution.key:
        parts.append(f"key {clean(execution.key)}")
    parts += [f"{clean(name)}={clean(value)}" for name, value in execution.tags.items()]
    return Text(" · ").join(part if isinstance(part, Text) else Text(part) for part in parts)


def _record(family: Family) -> dict[str, object]:
    detail = family.detail
    record: dict[str, object] = {field.name: getattr(detail, field.name) for field in fields(detail)}
    return record | {"explanation": family.why, "children": [_record(child) for child in family.children]}
