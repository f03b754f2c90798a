"""The list of executions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from durable.dashboard.acts import ACTS
from durable.dashboard.filters import SPANS, Filter
from durable.dashboard.site import Ask, Site
from durable.errors import ExecutionNotFound, InvalidInput
from durable.models import Execution, ExecutionStatus, Page

_ROWS: Final = 50
_ACTIVE: Final = tuple(status for status in ExecutionStatus if not status.final)
_ALWAYS: Final = frozenset({"running", "waiting", "completed", "failed"})


@dataclass(frozen=True, slots=True)
class Chip:
    """A status with the number of its executions."""

    label: str
    statuses: tuple[str, ...]
    count: int
    is_chosen: bool


async def runs(site: Site, ask: Ask) -> Mapping[str, object]:
    wanted = Filter.of(ask.query)
    cursor = ask.query.get("cursor") or None
    problem: InvalidInput | None = None
    nothing: Page[Execution] = Page([], None)
    try:
        found = await _found(site, wanted.arguments(), cursor)
    except InvalidInput as error:
        problem, found = error, nothing
    counts = await site.durable.operator.counts()
    return {
        "wanted": wanted,
        "executions": found.items,
        "next_cursor": found.cursor,
        "cursor": cursor,
        "chips": _chips(counts, wanted),
        "spans": SPANS,
        "workflow_names": sorted({info.name for info in site.durable.workflows()}),
        "problem": problem,
        "acts": [act for act in ACTS.values() if act.bulk],
    }


async def _found(site: Site, arguments: dict[str, Any], cursor: str | None) -> Page[Execution]:
    """The page of the list; of a whole id what has it alone, which every store finds at once."""
    if set(arguments) == {"status", "id_prefix"} and arguments["status"] is None and cursor is None:
        with suppress(ExecutionNotFound):
            whole = await site.durable.status(arguments["id_prefix"])
            return Page([site.veil.execution(whole)], None)
    return await site.executions(**arguments, limit=_ROWS, cursor=cursor)


def _chips(counts: Mapping[ExecutionStatus, int], wanted: Filter) -> list[Chip]:
    chosen = set(wanted.status)
    active = tuple(str(status) for status in _ACTIVE)
    chips = [
        Chip("all", (), sum(counts.values()), not chosen),
        Chip("active", active, sum(counts[status] for status in _ACTIVE), chosen == set(active)),
    ]
    return chips + [
        Chip(status, (str(status),), counts[status], chosen == {str(status)})
        for status in ExecutionStatus
        if counts[status] or status in chosen or status in _ALWAYS
    ]
