"""`durable export`: what is recorded of executions, as a file that `durable check` and tests replay."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from durable.app import Durable
from durable.cli.connection import Connection, find_id
from durable.cli.grouping import grouped
from durable.cli.options import ExecutionsArgument
from durable.cli.output import escaped
from durable.history import History, dump_histories

_PAGE = 500


@grouped
def export(
    *,
    executions: ExecutionsArgument,
    redact: Annotated[
        bool, typer.Option("--redact", help="The shapes of inputs, results and payloads, and not the values.")
    ] = False,
    children: Annotated[bool, typer.Option("--children", help="Their child executions too.")] = False,
    connection: Connection,
) -> None:
    """Write histories as JSON: to be replayed with other code, kept with tests, or read.

    \b
    They hold inputs, results and payloads as they are; --redact replaces every text by one of the same shape.

    \b
    Examples:
      durable export 9c1 > tests/histories/onboarding.json
      durable export 9c1 --children --redact > history.json
      durable list --workflow onboarding -o ids | xargs durable export > histories.json
    """

    async def run() -> list[History]:
        async with connection.client() as durable:
            found: dict[str, History] = {}
            for given in executions:
                await _read(durable, await find_id(durable, given), found, children=children)
            return list(found.values())

    histories = asyncio.run(run())
    if redact:
        histories = [history.redact() for history in histories]
    sys.stdout.write(escaped(dump_histories(histories)))


async def _read(durable: Durable, id: str, found: dict[str, History], *, children: bool) -> None:
    if id in found:
        return
    found[id] = await durable.operator.get_history(id)
    cursor: str | None = None
    while children:
        page = await durable.operator.list_executions(parent_id=id, limit=_PAGE, cursor=cursor)
        for child in page.items:
            await _read(durable, child.id, found, children=True)
        if page.cursor is None:
            return
        cursor = page.cursor
