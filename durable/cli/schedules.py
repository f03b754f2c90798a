"""`durable schedules list | show | next | pause | resume | trigger | remove | backfill`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from durable.app import Durable
from durable.calendar import zone
from durable.cli import completion
from durable.cli.application import CodeOption
from durable.cli.connection import Connection
from durable.cli.grouping import grouped
from durable.cli.listing import Listing, WatchOption
from durable.cli.options import (
    OutputOption,
    parse_past,
)
from durable.cli.output import (
    Output,
    acknowledge,
    clean,
    console,
    print_json,
    print_lines,
    table,
    to_json,
)
from durable.duration import format_duration
from durable.handle import Handle
from durable.models import Schedule

ScheduleArgument = Annotated[
    str,
    typer.Argument(metavar="ID", help="The schedule's id.", autocompletion=completion.schedules),
]
SchedulesArgument = Annotated[
    list[str],
    typer.Argument(metavar="ID...", help="Ids of schedules.", autocompletion=completion.schedules),
]
ZoneOption = Annotated[
    str | None,
    typer.Option(
        "--tz", metavar="ZONE", help="By default the schedule's own.", autocompletion=completion.zones
    ),
]

_HEADERS = ("ID", "WORKFLOW", "WHEN", "NEXT", "LAST")


@dataclass(frozen=True, kw_only=True)
class _Connection(Connection):
    """Where -n is a number, and not short for the namespace."""

    namespace: Annotated[
        str,
        typer.Option("--namespace", envvar="DURABLE_NAMESPACE", metavar="NAME", help="And which of them."),
    ] = "default"


schedules = typer.Typer(
    help="See, pause and remove schedules, and start what they start.", no_args_is_help=True
)


@schedules.command("list")
@grouped
def list_(
    *,
    watch: WatchOption = False,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """List all schedules, by id.

    \b
    Examples:
      durable schedules list
      durable schedules list -o ids | xargs durable schedules pause
    """

    listing = Listing(Durable.list_schedules, _lines, lambda found: [schedule.id for schedule in found])
    listing.print(connection.client(), output, watch=watch)


@schedules.command("show")
@grouped
def show(
    *,
    id: ScheduleArgument,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Show one schedule: what it starts, when, and what becomes of instants that are missed or overlap.

    \b
    Examples:
      durable schedules show nightly
      durable schedules show nightly -o json | jq .input
    """

    async def run() -> Schedule:
        async with connection.client() as durable:
            return await durable.get_schedule(id)

    found = asyncio.run(run())
    match output:
        case Output.JSON:
            print_json(found)
        case Output.IDS:
            console().print(found.id)
        case Output.TABLE:
            print_lines(table((found.id, ""), _facts(found, datetime.now(UTC))))


@schedules.command("next")
@grouped
def next_(
    *,
    id: ScheduleArgument,
    number: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many.")] = 5,
    tz: ZoneOption = None,
    output: OutputOption = Output.TABLE,
    connection: _Connection,
) -> None:
    """Say when it fires next, as if it were not paused; jitter comes on top.

    \b
    Examples:
      durable schedules next nightly
      durable schedules next nightly -n 10 --tz America/New_York
    """
    wanted = None if tz is None else zone(tz)

    async def run() -> tuple[Schedule, list[datetime]]:
        async with connection.client() as durable:
            return await durable.get_schedule(id), await durable.next_fires(id, number)

    schedule, instants = asyncio.run(run())
    shown_in = wanted or zone(schedule.tz)
    fires = [at.astimezone(shown_in) for at in instants]
    match output:
        case Output.JSON:
            print_json(fires)
        case Output.IDS:
            for at in fires:
                console().print(at.isoformat())
        case Output.TABLE:
            now = datetime.now(UTC)
            rows = [(f"{at:%a} {_local(at)}", _when(at, now)) for at in fires]
            print_lines(table((f"NEXT, {tz or schedule.tz}", "IN"), rows))


@schedules.command("pause")
@grouped
def pause(
    *,
    ids: SchedulesArgument,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Let schedules start nothing until they are resumed. What they would have started is not made up for.

    \b
    Examples:
      durable schedules pause nightly
    """
    _each(ids, connection.client(), Durable.pause_schedule, output, "paused {}")


@schedules.command("resume")
@grouped
def resume(
    *,
    ids: SchedulesArgument,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Let paused schedules go on, with their next instant from now.

    \b
    Examples:
      durable schedules resume nightly
    """
    _each(ids, connection.client(), Durable.resume_schedule, output, "resumed {}")


@schedules.command("remove")
@grouped
def remove(
    *,
    ids: SchedulesArgument,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Forget schedules; what they have started goes on. Code that ensures one makes it again when it boots.

    \b
    Examples:
      durable schedules remove nightly
    """
    _each(ids, connection.client(), Durable.remove_schedule, output, "removed {}")


@schedules.command("trigger")
@grouped
def trigger(
    *,
    id: ScheduleArgument,
    app: CodeOption = None,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Start an execution of a schedule now, out of turn, and print its id; of a paused one too.

    \b
    Examples:
      durable schedules trigger nightly
      durable schedules trigger nightly --app app:durable    # its workflow decides by a function
    """

    async def run() -> Handle[Any]:
        async with connection.client_with(app) as durable:
            return await durable.trigger_schedule(id)

    _print_started([asyncio.run(run())], output)


@schedules.command("backfill")
@grouped
def backfill(
    *,
    id: ScheduleArgument,
    since: Annotated[str, typer.Option(metavar="WHEN", help='From "24h" ago, or from an instant on.')],
    until: Annotated[str, typer.Option(metavar="WHEN", help='To "24h" ago, or to an instant.')],
    app: CodeOption = None,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Start the executions of past instants (at most 1,000) that were not started yet, and print their ids.

    \b
    Examples:
      durable schedules backfill nightly --since 7d --until 0s
      durable schedules backfill nightly --since 2026-03-01T00:00:00Z --until 2026-03-08T00:00:00Z
    """
    now = datetime.now(UTC)
    first, last = parse_past(since, "--since", now), parse_past(until, "--until", now)

    async def run() -> list[Handle[Any]]:
        async with connection.client_with(app) as durable:
            return await durable.backfill_schedule(id, since=first, until=last)

    _print_started(asyncio.run(run()), output)


# ----


def _each(
    ids: Sequence[str],
    client: Durable,
    act: Callable[[Durable, str], Awaitable[None]],
    output: Output,
    done: str,
) -> None:
    """Do it to all of them, or, if one is not there, to none."""

    async def run() -> None:
        async with client as durable:
            for id in ids:
                await durable.get_schedule(id)
            for id in ids:
                await act(durable, id)
                acknowledge(output, id, done.format(id))

    asyncio.run(run())


def _print_started(handles: Sequence[Handle[Any]], output: Output) -> None:
    match output:
        case Output.JSON:
            print_json([{"id": handle.id, "created": handle.created} for handle in handles])
        case Output.IDS:
            for handle in handles:
                console().print(handle.id)
        case Output.TABLE:
            for handle in handles:
                console().print(handle.id if handle.created else f"{handle.id} was there")


def _lines(found: Sequence[Schedule]) -> list[Text]:
    now = datetime.now(UTC)
    return table(_HEADERS, [_row(schedule, now) for schedule in found])


def _row(schedule: Schedule, now: datetime) -> list[str]:
    last = schedule.last_fire_at
    return [
        schedule.id,
        schedule.workflow,
        _rule(schedule),
        _next(schedule, now),
        f"{format_duration(max(now - last, now - now))} ago" if last else "",
    ]


def _facts(schedule: Schedule, now: datetime) -> list[tuple[str, str]]:
    shown_in = zone(schedule.tz)
    fires, last = schedule.next_fire_at, schedule.last_fire_at
    facts = [
        ("workflow", schedule.workflow),
        ("input", to_json(schedule.input, indent=None)),
        ("when", _rule(schedule)),
        ("next", f"{_local(fires.astimezone(shown_in))}, {_next(schedule, now)}" if fires else "paused"),
        ("last", _local(last.astimezone(shown_in)) if last else "never"),
        ("catchup", schedule.catchup),
        ("overlap", schedule.overlap),
    ]
    if schedule.jitter is not None:
        facts.append(("jitter", format_duration(schedule.jitter)))
    return facts


def _rule(schedule: Schedule) -> str:
    if schedule.interval is not None:
        return f"every {format_duration(schedule.interval)}"
    return f"{schedule.cron} {clean(schedule.tz)}"


def _next(schedule: Schedule, now: datetime) -> str:
    if schedule.paused:
        return "paused"
    return "never" if schedule.next_fire_at is None else _when(schedule.next_fire_at, now)


def _when(at: datetime, now: datetime) -> str:
    return f"in {format_duration(at - now)}" if at > now else "due"


def _local(at: datetime) -> str:
    """With its offset, since a clock reads some times twice."""
    return at.isoformat(sep=" ", timespec="seconds")
