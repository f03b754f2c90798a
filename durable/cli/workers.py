"""`durable workers`, and `durable workers drain`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer
from rich.text import Text

from durable.app import Durable
from durable.cli import completion
from durable.cli.connection import Connection
from durable.cli.grouping import grouped
from durable.cli.listing import Listing, WatchOption
from durable.cli.options import OutputOption
from durable.cli.output import Output, acknowledge, table
from durable.duration import format_duration
from durable.errors import InvalidInput, WorkerNotFound
from durable.models import WorkerRecord
from durable.names import check_name

WorkersArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help="Ids of workers, or as much of each as is unique.",
        autocompletion=completion.workers,
    ),
]

_HEADERS: Final = ("ID", "VERSION", "QUEUES", "SLOTS", "UP", "BEAT", "STATE", "WORK")
_NAMED: Final = 3

workers = typer.Typer(
    short_help="See the workers that are alive and what they run; drain one.", invoke_without_command=True
)


@workers.callback()
@grouped
def list_(
    *,
    context: typer.Context,
    watch: WatchOption = False,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """List the workers that are alive, each as it was at its last BEAT: five times in the length of its lease.

    An id is host:pid:chance. SLOTS are those that are held, of all; WORK is what holds them, the longest first.

    \b
    Examples:
      durable workers
      durable workers --watch
      durable workers -o json | jq '.[] | select(.busy == .slots) | .id'
      durable workers drain host-a:4711
    """
    if context.invoked_subcommand is not None:
        return
    listing = Listing(_read, _lines, lambda found: [each.id for each in found])
    listing.print(connection.client(), output, watch=watch)


@workers.command("drain")
@grouped
def drain(
    *,
    ids: WorkersArgument,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Let workers take nothing new. They know within a sweep; `durable worker` then ends, as after a SIGTERM.

    Whatever restarts processes that end (systemd, Kubernetes) starts another one in its place.

    \b
    Examples:
      durable workers drain host-a:4711
      durable workers -o ids | grep ^host-a: | xargs durable workers drain
    """

    async def run() -> None:
        async with connection.client() as durable:
            alive = [worker.id for worker in await durable.operator.workers()]
            for id in [_find(alive, given) for given in ids]:
                await durable.operator.drain_worker(id)
                acknowledge(output, id, f"{id} was told to drain")

    asyncio.run(run())


async def _read(durable: Durable) -> Sequence[WorkerRecord]:
    return await durable.operator.workers()


def _find(alive: Sequence[str], given: str) -> str:
    """The only one whose id is, or begins with, what was given."""
    check_name(given, "the id of a worker")
    found = [given] if given in alive else [id for id in alive if id.startswith(given)]
    if not found:
        raise WorkerNotFound(given, alive)
    if len(found) > 1:
        raise InvalidInput(
            f"{given!r} begins the ids of several workers", f"write more of it: {', '.join(found)}"
        )
    return found[0]


def _lines(found: Sequence[WorkerRecord]) -> list[Text]:
    now = datetime.now(UTC)
    return table(_HEADERS, [_row(each, now) for each in found])


def _row(worker: WorkerRecord, now: datetime) -> list[str]:
    return [
        worker.id,
        worker.version,
        ", ".join(worker.queues),
        f"{worker.busy}/{worker.slots}",
        _ago(worker.started_at, now),
        _ago(worker.beat_at, now),
        "draining" if worker.draining else "",
        _work(worker),
    ]


def _ago(at: datetime | None, now: datetime) -> str:
    return "" if at is None else format_duration(max(now - at, timedelta()))


def _work(worker: WorkerRecord) -> str:
    named = [
        f"{each.execution_id} step {each.step_id}" if each.step_id else each.execution_id
        for each in worker.work[:_NAMED]
    ]
    return ", ".join([*named, f"{worker.busy - _NAMED} more"] if worker.busy > _NAMED else named)
