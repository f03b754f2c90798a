"""`durable list`: many executions, as a table, and as one that follows what becomes of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from durable.app import Durable
from durable.cli import known
from durable.cli.connection import connect
from durable.cli.options import (
    BusOption,
    NamespaceOption,
    OutputOption,
    QueueOption,
    SinceOption,
    StatusOption,
    StoreOption,
    TagOption,
    UntilOption,
    WorkflowOption,
    parse_past,
    parse_tags,
)
from durable.cli.output import (
    Output,
    clean,
    console,
    error_console,
    error_text,
    fitted,
    print_json,
    print_lines,
    status_text,
    table,
    to_json,
)
from durable.duration import format_duration
from durable.models import Execution, Page

_HEADERS = ("ID", "WORKFLOW", "STATUS", "AGE", "DURATION", "WHY")
_WATCH_SECONDS = 1.0


def list_(
    status: StatusOption = None,
    workflow: WorkflowOption = None,
    tag: TagOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(help="The most to list.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where the page before ended.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and show what changes.")] = False,
    output: OutputOption = Output.TABLE,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
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

    async def page(durable: Durable) -> Page[Execution]:
        return await durable.operator.list_executions(
            status=status,
            workflow=workflow,
            tags=tags,
            since=created_since,
            until=created_until,
            limit=limit,
            cursor=cursor,
        )

    async def run() -> None:
        async with connect(store, namespace, queue, bus) as durable:
            found = await page(durable)
            if workflow is not None and not found.items:
                known.doubt("workflow", workflow, await known.workflows(durable))
            if watch:
                await _watch(durable, page, found, output)
            else:
                held = await durable.operator.explain_held(found.items)
                _print(found, output, held)

    asyncio.run(run())


def _print(page: Page[Execution], output: Output, held: Mapping[str, str]) -> None:
    match output:
        case Output.JSON:
            print_json(page.items)
        case Output.IDS:
            for execution in page.items:
                console().print(execution.id)
        case Output.TABLE:
            print_lines(_table(page.items, held))
    if page.cursor is not None:
        error_console().print(f"there are more: --cursor {page.cursor}")


def _table(executions: Sequence[Execution], held: Mapping[str, str]) -> list[Text]:
    now = datetime.now(UTC)
    return table(_HEADERS, [_row(execution, held, now) for execution in executions])


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


async def _watch(
    durable: Durable,
    page: Callable[[Durable], Awaitable[Page[Execution]]],
    found: Page[Execution],
    output: Output,
) -> None:
    """Show the page and what becomes of it, until Ctrl-C."""
    out = console()
    try:
        if out.is_terminal and output is Output.TABLE:
            from rich.live import Live

            with Live(console=out, auto_refresh=False) as live:
                while True:
                    held = await durable.operator.explain_held(found.items)
                    lines = [fitted(line, out) for line in _table(found.items, held)]
                    live.update(Text("\n").join(lines), refresh=True)
                    await asyncio.sleep(_WATCH_SECONDS)
                    found = await page(durable)
        shown: dict[str, Execution] = {}
        while True:
            for execution in reversed(found.items):
                if shown.get(execution.id) != execution:
                    _print_change(execution, output)
            shown = {execution.id: execution for execution in found.items}
            await asyncio.sleep(_WATCH_SECONDS)
            found = await page(durable)
    except asyncio.CancelledError:
        pass  # Ctrl-C is how a watch ends


def _print_change(execution: Execution, output: Output) -> None:
    match output:
        case Output.JSON:
            line = to_json(execution, indent=None)
        case Output.IDS:
            line = execution.id
        case Output.TABLE:
            why = f"held by {execution.held_by}" if execution.held_by else ""
            why = error_text(execution.error) if execution.error else why
            line = clean(f"{execution.id}  {execution.workflow}  {execution.status}  {why}".rstrip())
    console().print(line)
    sys.stdout.flush()
