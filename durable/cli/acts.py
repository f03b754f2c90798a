"""`durable signal | send | prune`: what reaches executions, and what deletes them, from nothing but the store's URL."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from pydantic import JsonValue

from durable.cli import completion, known
from durable.cli.application import CodeOption
from durable.cli.connection import Connection, find_id
from durable.cli.grouping import grouped
from durable.cli.options import (
    DryRunOption,
    ExecutionArgument,
    OutputOption,
    StatusOption,
    YesOption,
    read_json,
)
from durable.cli.output import Output, acknowledge, clean, console, print_json
from durable.models import Receipt
from durable.signals import Event, Signal


@grouped
def signal(
    *,
    execution: ExecutionArgument,
    name: Annotated[
        str,
        typer.Argument(metavar="SIGNAL", help="The signal's name.", autocompletion=completion.signals),
    ],
    payload: Annotated[
        str | None, typer.Argument(metavar="[JSON]", help='Its payload; "-" reads it.')
    ] = None,
    key: Annotated[str | None, typer.Option(help="Makes sending it again harmless.")] = None,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Send a signal to an execution. It is stored when this returns.

    \b
    Examples:
      durable signal 7f3 approved '{"by": "ada"}'
      durable signal 7f3 approved - --key approval-9 < approval.json
    """
    sent = Signal(name, JsonValue)

    async def run() -> None:
        async with connection.client() as durable:
            found = await find_id(durable, execution)
            data = b"null" if payload is None else read_json(payload)
            value = sent.schema.validate_json(data, "the payload")
            await durable.handle(found).signal(sent, value, key=key)
            acknowledge(output, found, f"sent {name} to {found}")
            detail = await durable.operator.get_execution_detail(found)
            known.doubt("signal", name, known.signals(detail))

    asyncio.run(run())


@grouped
def send(
    *,
    name: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name.")],
    payload: Annotated[
        str | None, typer.Argument(metavar="[JSON]", help='Its payload; "-" reads it.')
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="Makes sending it again harmless.")] = None,
    app: CodeOption = None,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Send an event: it starts and resumes whoever asked for events of its name. It is stored when this returns.

    \b
    Examples:
      durable send payment.received '{"order_id": "42", "amount": 30}' --id payment-9
      durable send payment.received - --id payment-9 < payment.json
      durable send payment.received '{"amount": 30}' --app app:durable    # a function decides whom it starts
    """
    sent = Event(name, JsonValue)
    data = b"null" if payload is None else read_json(payload)
    value = sent.schema.validate_json(data, "the payload")

    async def run() -> Receipt:
        async with connection.client_with(app) as durable:
            return await durable.send(sent, value, id=id)

    receipt = asyncio.run(run())
    match output:
        case Output.JSON:
            print_json(receipt)
        case Output.IDS:
            for execution_id in receipt.execution_ids:
                console().print(execution_id)
        case Output.TABLE:
            sent_before = "had sent" if receipt.duplicate else "sent"
            console().print(f"{sent_before} {name} as {receipt.id}{_reached(receipt)}")


@grouped
def prune(
    *,
    older_than: Annotated[str, typer.Option("--older-than", help="Ended longer ago than this.")] = "30d",
    status: StatusOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most to delete.")] = None,
    events: Annotated[bool, typer.Option("--events", help="Delete events, and no executions.")] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    connection: Connection,
) -> None:
    """Delete executions that have ended, with all that is theirs; or, with --events, events that were sent.

    An event that is deleted is found by nobody who looks back, and its id is new again.

    \b
    Examples:
      durable prune --older-than 90d
      durable prune --older-than 1d --status completed --yes
      durable prune --older-than 90d --dry-run
      durable prune --events --older-than 90d
    """
    if events and (status or limit is not None or dry_run):
        raise typer.BadParameter("--events goes with none of --status, --limit and --dry-run")
    if not (yes or dry_run):
        which = " or ".join(status or ["whatever the end"])
        what = "events that were sent" if events else "executions that ended"
        typer.confirm(
            clean(f"Delete {what} over {older_than} ago{'' if events else f' ({which})'}?"), abort=True
        )

    async def run() -> None:
        async with connection.client() as durable:
            if events:
                pruned, kind = await durable.operator.prune_events(older_than), "event"
            else:
                pruned = await durable.operator.prune(older_than, status, limit=limit, dry_run=dry_run)
                kind = "execution"
            said = "would delete" if dry_run else "deleted"
            console().print(f"{said} {pruned} {kind}{'' if pruned == 1 else 's'}")

    asyncio.run(run())


def _reached(receipt: Receipt) -> str:
    return (
        f": {', '.join(receipt.execution_ids)}" if receipt.execution_ids else ", which concerned nobody yet"
    )
