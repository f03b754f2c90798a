"""The templates, and how they write what people read. Every value is escaped as it is put into a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from durable.dashboard.links import run_path, with_query
from durable.dashboard.values import as_json
from durable.duration import format_duration
from durable.models import ErrorRecord

MARKS: Final[Mapping[str, str]] = {
    "pending": "·",
    "running": "▶",
    "retrying": "↻",
    "sleeping": "◷",
    "waiting": "◷",
    "open": "◷",
    "paused": "‖",
    "parked": "!",
    "completed": "✓",
    "failed": "✗",
    "compensation_failed": "✗",
    "cancelled": "⊘",
}
"""The word always stands beside it: neither colour nor sign says anything alone."""

_LONGEST_PAYLOAD: Final = 64_000
_SELF_EXPLAINING: Final = ("ExecutionCancelled", "ExecutionFailed")


def environment() -> Environment:
    templates = Environment(
        loader=PackageLoader("durable.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    names: dict[str, Any] = {"marks": MARKS, "run_path": run_path, "with_query": with_query}
    filters: dict[str, Any] = {
        "when": when,
        "since": since,
        "span": span,
        "payload": payload,
        "compact": compact,
        "failure": failure,
        "ms": ms,
        "json": json.dumps,
        "sentence": sentence,
    }
    templates.globals.update(names)
    templates.filters.update(filters)
    return templates


def when(at: datetime | None) -> Markup:
    """An instant: in UTC, until the script makes it relative."""
    if at is None:
        return Markup("")
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(timespec="milliseconds"),
        f"{at:%Y-%m-%d %H:%M:%S} UTC",
        f"{at:%b %d, %H:%M:%S}",
    )


def since(start: datetime | None, end: datetime | None) -> Markup:
    """How long something took; what goes on is counted by the script."""
    if start is None:
        return Markup("")
    if end is not None:
        return Markup("{}").format(span(end - start))
    return Markup('<time datetime="{}" data-since>since {}</time>').format(
        start.isoformat(timespec="milliseconds"), f"{start.astimezone(UTC):%H:%M:%S} UTC"
    )


def span(value: timedelta | None) -> str:
    return "" if value is None else format_duration(max(value, timedelta()))


def ms(value: float) -> str:
    return format_duration(timedelta(milliseconds=max(0, round(value))))


def payload(value: object) -> str:
    """A value as JSON that people read; the beginning of a very long one."""
    text = json.dumps(_plain(value), ensure_ascii=False, indent=2)
    return (
        text
        if len(text) <= _LONGEST_PAYLOAD
        else f"{text[:_LONGEST_PAYLOAD]}\n… {len(text):,} characters in all"
    )


def compact(value: object, length: int = 120) -> str:
    """The same on one short line."""
    text = json.dumps(_plain(value), ensure_ascii=False)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def sentence(text: str) -> str:
    """A text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def failure(error: ErrorRecord | None) -> str:
    """An error on one line: where, what, why."""
    if error is None:
        return ""
    kind = error.error_type.rpartition(".")[2]
    if kind in _SELF_EXPLAINING and error.message:
        kind = ""
    return ": ".join(filter(None, (error.step_id, kind, error.message)))


def _plain(value: object) -> Any:
    return json.loads(as_json(value))
