"""`durable queues list | pause | resume`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from durable.app import Durable
from durable.cli import completion, known
from durable.cli.connection import Connection
from durable.cli.grouping import grouped
from durable.cli.listing import Listing, WatchOption
from durable.cli.options import OutputOption
from durable.cli.output import Output, acknowledge, table
from durable.duration import format_duration
from durable.models import QueueInfo
from durable.names import check_own_name

QueuesArgument = Annotated[
    list[str],
    typer.Argument(metavar="QUEUE...", help="Names of queues.", autocompletion=completion.queues),
]

_HEADERS = ("QUEUE", "READY", "HELD", "OLDEST", "STATE")

queues = typer.Typer(help="See what waits in queues, and stop workers from taking it.", no_args_is_help=True)


@queues.command("list")
@grouped
def list_(
    *,
    watch: WatchOption = False,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """List the queues in which something waits, and those that are paused.

    READY executions wait for a worker, OLDEST being how long the first has; HELD ones wait for a limit.

    \b
    Examples:
      durable queues list --watch
      durable queues list -o json | jq '.[] | select(.ready > 1000) | .queue'
    """

    listing = Listing(_read, _lines, lambda found: [each.queue for each in found])
    listing.print(connection.client(), output, watch=watch)


@queues.command("pause")
@grouped
def pause(
    *,
    names: QueuesArgument,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Let workers take nothing from queues until they are resumed; what runs goes on. They know within a sweep.

    \b
    Examples:
      durable queues pause email
    """
    _set(names, True, output, connection)


@queues.command("resume")
@grouped
def resume(
    *,
    names: QueuesArgument,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Let workers take from queues again.

    \b
    Examples:
      durable queues resume email
    """
    _set(names, False, output, connection)


def _set(names: Sequence[str], paused: bool, output: Output, connection: Connection) -> None:
    for name in names:
        check_own_name(name, "queue")

    async def run() -> None:
        async with connection.client() as durable:
            there = await known.queues(durable)
            for name in names:
                if paused:
                    await durable.operator.pause_queue(name)
                else:
                    await durable.operator.resume_queue(name)
                acknowledge(output, name, f"{'paused' if paused else 'resumed'} {name}")
                known.doubt("queue", name, there)

    asyncio.run(run())


async def _read(durable: Durable) -> Sequence[QueueInfo]:
    return await durable.operator.queues()


def _lines(found: Sequence[QueueInfo]) -> list[Text]:
    now = datetime.now(UTC)
    return table(_HEADERS, [_row(each, now) for each in found])


def _row(found: QueueInfo, now: datetime) -> list[str]:
    oldest = format_duration(max(now - found.oldest_at, now - now)) if found.oldest_at else ""
    return [
        found.queue,
        str(found.ready),
        str(found.held),
        oldest,
        "paused" if found.paused else "",
    ]
