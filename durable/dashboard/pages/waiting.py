"""The inbox of executions that wait for a person: for a signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from durable.dashboard.filters import Filter
from durable.dashboard.pages.run import awaited_by
from durable.dashboard.site import Ask, Site
from durable.errors import InvalidInput
from durable.models import Execution, ExecutionStatus, Page

_ROWS: Final = 25


async def waiting(site: Site, ask: Ask) -> Mapping[str, object]:
    wanted = Filter.of(ask.query)
    cursor = ask.query.get("cursor") or None
    problem: InvalidInput | None = None
    nothing: Page[Execution] = Page([], None)
    try:
        arguments = wanted.arguments() | {"status": ExecutionStatus.WAITING}
        found = await site.executions(**arguments, limit=_ROWS, cursor=cursor)
    except InvalidInput as error:
        problem, found = error, nothing
    details = await site.details([execution.id for execution in found.items])
    inbox = [(detail, awaited) for detail in details if (awaited := awaited_by(site, detail))]
    return {
        "wanted": wanted,
        "inbox": inbox,
        "others": len(details) - len(inbox),
        "cursor": cursor,
        "next_cursor": found.cursor,
        "workflow_names": sorted({info.name for info in site.durable.workflows()}),
        "problem": problem,
    }
