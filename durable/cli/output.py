"""What reaches a terminal or a pipe: tables, JSON, ids.

Names, errors and payloads may be hostile: nothing of them reaches a terminal that it would obey.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, cast

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from durable.models import ErrorRecord


class Output(StrEnum):
    """How a command prints what it found."""

    TABLE = "table"
    JSON = "json"
    IDS = "ids"


MARKS: Final[Mapping[str, tuple[str, str]]] = {
    "pending": ("·", "dim"),
    "running": ("▶", "cyan"),
    "retrying": ("↻", "yellow"),
    "sleeping": ("◷", "blue"),
    "waiting": ("◷", "blue"),
    "open": ("◷", "blue"),
    "paused": ("‖", "yellow"),
    "parked": ("!", "magenta"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "compensation_failed": ("✗", "red"),
    "cancelled": ("⊘", "yellow"),
}
"""The mark and the style of each status. The word always stands beside it: colour alone says nothing."""

_GAP: Final = "  "
_SELF_EXPLAINING: Final = ("ExecutionCancelled", "ExecutionFailed")


def console() -> Console:
    """Standard output: with colours on a terminal (unless NO_COLOR is set), as plain lines elsewhere."""
    return _console(stderr=False)


def error_console() -> Console:
    """Standard error, likewise."""
    return _console(stderr=True)


def clean(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would obey."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text)


def status_text(status: str) -> Text:
    """The status, after its mark."""
    mark, style = MARKS.get(status, ("?", ""))
    return Text(f"{mark} {clean(status)}", style)


def error_text(error: ErrorRecord) -> str:
    """An error on one line: where, what, why."""
    kind = error.error_type.rpartition(".")[2]
    if kind in _SELF_EXPLAINING and error.message:
        kind = ""
    return clean(": ".join(filter(None, (error.step_id, kind, error.message))))


def table(headers: Sequence[str], rows: Sequence[Sequence[Text | str]]) -> list[Text]:
    """Lines with their columns aligned. The last column is as long as it is."""
    cells = [[cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row] for row in rows]
    cells.insert(0, [Text(header, "bold") for header in headers])
    widths = [max(cell_len(row[column].plain) for row in cells) for column in range(len(headers))]
    return [_line(row, widths) for row in cells]


def print_lines(lines: Iterable[Text]) -> None:
    """Print each on one line: cut at a terminal's edge, whole elsewhere."""
    out = console()
    for line in lines:
        out.print(fitted(line, out))


def fitted(line: Text, out: Console) -> Text:
    """The line as it fits on one of the terminal's; whole where there is no terminal."""
    if out.is_terminal:
        line.truncate(out.width, overflow="ellipsis")
    return line


def acknowledge(output: Output, id: str, text: str) -> None:
    """Say that something was done to what has this id."""
    if output is Output.JSON:
        print_json({"id": id})
    else:
        console().print(id if output is Output.IDS else clean(text))


def print_json(value: object) -> None:
    """Print a record, or a list of them, as JSON."""
    console().print(to_json(value))


def to_json(value: object, *, indent: int | None = 2) -> str:
    """JSON of records and plain values; instants in ISO 8601. What cannot be printed is escaped."""
    return escaped(json.dumps(jsonable(value), ensure_ascii=False, indent=indent))


def escaped(text: str) -> str:
    """The same JSON, with what cannot be printed as escapes."""
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def jsonable(value: object) -> object:
    """Records as mappings, all the way down; durations as seconds."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        return {str(key): jsonable(item) for key, item in mapping.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in cast("Sequence[object]", value)]
    return value


def _console(*, stderr: bool) -> Console:
    # NO_COLOR alone would leave Rich its bold and dim.
    colors: Final = None if os.environ.get("NO_COLOR") else "auto"
    return Console(
        stderr=stderr, color_system=colors, highlight=False, markup=False, emoji=False, soft_wrap=True
    )


def _line(row: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text(no_wrap=True)
    for cell, width in zip(row[:-1], widths, strict=False):
        line.append_text(cell).append(" " * (width - cell_len(cell.plain)) + _GAP)
    line.append_text(row[-1])
    line.rstrip()
    return line
