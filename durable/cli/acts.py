"""`durable signal | send | cancel | retry | prune`: what can be done to executions from nothing but the store's URL."""

from __future__ import annotations

import asyncio
import getpass
from typing import Annotated

import typer
from pydantic import JsonValue

from durable.cli.application import CodeOption
from durable.cli.connection import connect, connect_with_code, find_id
from durable.cli.options import (
    BusOption,
    ExecutionArgument,
    ExecutionsArgument,
    NamespaceOption,
    OutputOption,
    QueueOption,
    StoreOption,
    read_json,
)
from durable.cli.output import Output, acknowledge, clean, console, print_json
from durable.models import ExecutionStatus, Receipt
from durable.signals import Event, Signal


def signal(
    execution: ExecutionArgument,
    name: Annotated[str, typer.Argument(metavar="SIGNAL", help="The signal's name.")],
    payload: Annotated[
        str | None, typer.Argument(metavar="[JSON]", help='Its payload; "-" reads it.')
    ] = None,
    key: Annotated[str | None, typer.Option(help="Makes sending it again harmless.")] = None,
    output: OutputOption = Output.TABLE,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
) -> None:
    """Send a signal to an execution. It is stored when this returns.

    \b
    Examples:
      durable signal 7f3 approved '{"by": "ada"}'
      durable signal 7f3 approved - --key approval-9 < approval.json
    """
    sent = Signal(name, JsonValue)

    async def run() -> None:
        async with connect(store, namespace, queue, bus) as durable:
            found = await find_id(durable, execution)
            data = b"null" if payload is None else read_json(payload)
            value = sent.schema.validate_json(data, "the payload")
            await durable.handle(found).signal(sent, value, key=key)
            acknowledge(output, found, f"sent {name} to {found}")

    asyncio.run(run())


def send(
    name: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name.")],
    payload: Annotated[
        str | None, typer.Argument(metavar="[JSON]", help='Its payload; "-" reads it.')
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="Makes sending it again harmless.")] = None,
    app: CodeOption = None,
    output: OutputOption = Output.TABLE,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
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
        async with connect_with_code(app, store, namespace, queue, bus) as durable:
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


def cancel(
    executions: ExecutionsArgument,
    reason: Annotated[str, typer.Option(help="Kept with the execution.")] = "",
    output: OutputOption = Output.TABLE,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
) -> None:
    """Ask executions to end as cancelled. They clean up first, and their children are cancelled with them.

    \b
    Examples:
      durable cancel 7f3 --reason "ordered twice"
      durable list --tag tenant=acme --status waiting -o ids | xargs durable cancel
    """

    async def run() -> None:
        async with connect(store, namespace, queue, bus) as durable:
            for id in [await find_id(durable, given) for given in executions]:
                status = (await durable.status(id)).status
                await durable.cancel(id, reason)
                acknowledge(output, id, f"{id} had ended: {status}" if status.final else f"cancelling {id}")

    asyncio.run(run())


def retry(
    executions: ExecutionsArgument,
    output: OutputOption = Output.TABLE,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
) -> None:
    """Run failed or parked executions again, or go on with a rollback that failed.

    Completed steps keep their results; failed ones run again.

    \b
    Examples:
      durable retry 7f3
      durable list --status failed -o ids | xargs -n1 durable retry
    """

    async def run() -> None:
        async with connect(store, namespace, queue, bus) as durable:
            for id in [await find_id(durable, given) for given in executions]:
                status = (await durable.status(id)).status
                if status is ExecutionStatus.COMPENSATION_FAILED:
                    await durable.operator.retry_rollback(id, by=_me())
                else:
                    await durable.operator.retry(id, by=_me())
                acknowledge(output, id, f"retrying {id}")

    asyncio.run(run())


def prune(
    older_than: Annotated[str, typer.Option("--older-than", help="Ended longer ago than this.")] = "30d",
    status: Annotated[list[str] | None, typer.Option("--status", help="Only these; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most to delete.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
) -> None:
    """Delete executions that have ended, with all that is theirs.

    \b
    Examples:
      durable prune --older-than 90d
      durable prune --older-than 1d --status completed --yes
    """
    if not yes:
        which = " or ".join(status or ["whatever the end"])
        typer.confirm(clean(f"Delete executions that ended over {older_than} ago ({which})?"), abort=True)

    async def run() -> None:
        async with connect(store, namespace, queue, bus) as durable:
            pruned = await durable.operator.prune(older_than, status, limit=limit)
            console().print(f"deleted {pruned} execution{'' if pruned == 1 else 's'}")

    asyncio.run(run())


def _reached(receipt: Receipt) -> str:
    return (
        f": {', '.join(receipt.execution_ids)}" if receipt.execution_ids else ", which concerned nobody yet"
    )


def _me() -> str:
    """Who does it, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return ""
