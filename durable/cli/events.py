"""`durable events`: what has happened to one execution, in order, and what happens next."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.text import Text

from durable.app import Durable
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
    fitted,
    jsonable,
    print_json,
    print_lines,
    table,
    to_json,
)
from durable.models import AuditEntry

_HEADERS: Final = ("AT", "WHAT", "NAME", "DETAILS")
_WATCH_SECONDS: Final = 0.5


@grouped
def events(
    *,
    execution: ExecutionArgument,
    watch: Annotated[
        bool, typer.Option("--watch", "-f", help="Stay until it has ended, and show what happens.")
    ] = False,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Show what has happened to one execution: its attempts and steps, what was sent to it, what operators did.

    \b
    Examples:
      durable events 7f3
      durable events 7f3 --watch
      durable events 7f3 -o json | jq '.[] | select(.kind == "operator")'
    """

    async def run() -> None:
        async with connection.client() as durable:
            id = await find_id(durable, execution)
            if watch:
                await _follow(durable, id, output)
                return
            entries = (await durable.operator.get_execution_detail(id)).audit
        match output:
            case Output.IDS:
                console().print(id)
            case Output.JSON:
                print_json(entries)
            case Output.TABLE:
                print_lines(table(_HEADERS, [_row(entry) for entry in entries]))

    asyncio.run(run())


async def _follow(durable: Durable, id: str, output: Output) -> None:
    """Print each entry when it is there, until the execution has ended or Ctrl-C."""
    known: set[str] = set()
    try:
        while True:
            detail = await durable.operator.get_execution_detail(id)
            for entry in detail.audit:
                line = json.dumps(jsonable(entry), sort_keys=True)
                if line not in known:
                    known.add(line)
                    _print(entry, output)
            if detail.execution.status.final:
                return
            await asyncio.sleep(_WATCH_SECONDS)
    except asyncio.CancelledError:
        pass  # Ctrl-C is how a watch ends


def _print(entry: AuditEntry, output: Output) -> None:
    out = console()
    if output is Output.JSON:
        out.print(to_json(entry, indent=None))
    else:
        cells = [cell if isinstance(cell, Text) else Text(cell) for cell in _row(entry)]
        out.print(fitted(Text("  ").join(cells), out))
    sys.stdout.flush()


def _row(entry: AuditEntry) -> Sequence[Text | str]:
    style = MARKS.get(entry.kind, MARKS.get(str(entry.details.get("status", "")), ("", "")))[1]
    details = {name: value for name, value in entry.details.items() if value not in (None, "")}
    shown = ", ".join(f"{name}={_word(value)}" for name, value in details.items())
    return [
        entry.at.isoformat(timespec="milliseconds"),
        Text(clean(entry.kind), style),
        clean(entry.name),
        clean(shown),
    ]


def _word(value: object) -> str:
    return value if isinstance(value, str) else to_json(value, indent=None)
