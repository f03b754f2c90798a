"""`durable list`: many executions, as a table, and as one that follows what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from durable.app import Durable
from durable.cli import known
from durable.cli.connection import Connection
from durable.cli.grouping import grouped
from durable.cli.listing import Listing, WatchOption
from durable.cli.options import (
    OutputOption,
    SinceOption,
    StatusOption,
    TagOption,
    UntilOption,
    WorkflowOption,
    parse_past,
    parse_tags,
)
from durable.cli.output import (
    Output,
    clean,
    error_console,
    error_text,
    status_text,
    table,
    to_json,
)
from durable.duration import format_duration
from durable.models import Execution, Page

_HEADERS = ("ID", "WORKFLOW", "STATUS", "AGE", "DURATION", "WHY")


@grouped
def list_(
    *,
    status: StatusOption = None,
    workflow: WorkflowOption = None,
    tag: TagOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(help="The most to list.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where the page before ended.")] = None,
    watch: WatchOption = False,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """List executions, the newest first.

    \b
    Examples:
      durable list
      durable list --status failed --since 24h
      durable list --workflow fulfil_order --tag tenant=acme --watch
      durable list --status failed -o ids | xargs -n1 durable retry
    """
    now = datetime.now(UTC)
    created_since = parse_past(since, "--since", now) if since else None
    created_until = parse_past(until, "--until", now) if until else None
    tags = parse_tags(tag)

    async def read(durable: Durable) -> _Found:
        page = await durable.operator.list_executions(
            status=status,
            workflow=workflow,
            tags=tags,
            since=created_since,
            until=created_until,
            limit=limit,
            cursor=cursor,
        )
        return _Found(page, await durable.operator.explain_held(page.items))

    async def remark(durable: Durable, found: _Found) -> None:
        if workflow is not None and not found.page.items:
            known.doubt("workflow", workflow, await known.workflows(durable))
        if found.page.cursor is not None:
            error_console().print(f"there are more: --cursor {found.page.cursor}")

    listing = Listing(
        read,
        _lines,
        lambda found: [execution.id for execution in found.page.items],
        lambda found: found.page.items,
        _changes,
        remark,
    )
    listing.print(connection.client(), output, watch=watch)


@dataclass(frozen=True, slots=True)
class _Found:
    page: Page[Execution]
    held: Mapping[str, str]
    """Why flow control holds back those that it does."""


def _lines(found: _Found) -> list[Text]:
    now = datetime.now(UTC)
    return table(_HEADERS, [_row(execution, found.held, now) for execution in found.page.items])


def _row(execution: Execution, held: Mapping[str, str], now: datetime) -> list[Text | str]:
    started, finished = execution.started_at, execution.finished_at
    return [
        execution.id,
        execution.workflow,
        status_text(execution.status),
        format_duration(max(now - execution.created_at, now - now)),
        format_duration((finished or now) - started) if started else "",
        error_text(execution.error) if execution.error else held.get(execution.held_by or "", ""),
    ]


def _changes(found: _Found, output: Output) -> list[str]:
    """A line for each execution, the oldest first, that is the same while nothing happens to it."""
    return [_change(execution, output) for execution in reversed(found.page.items)]


def _change(execution: Execution, output: Output) -> str:
    match output:
        case Output.JSON:
            return to_json(execution, indent=None)
        case Output.IDS:
            return execution.id
        case Output.TABLE:
            why = f"held by {execution.held_by}" if execution.held_by else ""
            why = error_text(execution.error) if execution.error else why
            return clean(f"{execution.id}  {execution.workflow}  {execution.status}  {why}".rstrip())
