"""`durable skip-step | edit-step`: what a step has returned, as a person says it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from pydantic import JsonValue

from durable.cli import completion
from durable.cli.connection import Connection, find_id
from durable.cli.grouping import grouped
from durable.cli.options import (
    ByOption,
    ExecutionArgument,
    OutputOption,
    read_json,
)
from durable.cli.output import Output, acknowledge
from durable.codec import Schema

_VALUE: Schema[JsonValue] = Schema.of(JsonValue)
_Step = Annotated[
    str,
    typer.Argument(metavar="STEP", help="Its id, as `durable show` has it.", autocompletion=completion.steps),
]


@grouped
def skip_step(
    *,
    execution: ExecutionArgument,
    step: _Step,
    by: ByOption,
    value: Annotated[
        str | None, typer.Argument(metavar="[JSON]", help='What it gives instead; "-" reads it.')
    ] = None,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Let an execution go on as if a step had given this value: one that failed, hangs, or is to be tried again.

    \b
    Examples:
      durable skip-step 7f3 charge '{"id": "ch_1", "cents": 300}'
      durable skip-step 7f3 cool-down                 # a sleep
      durable skip-step 7f3 rollback:charge           # a compensation that was done by hand
    """
    data = b"null" if value is None else read_json(value)
    given = _VALUE.validate_json(data, "the value")

    async def run() -> None:
        async with connection.client() as durable:
            id = await find_id(durable, execution)
            await durable.operator.skip_step(id, step, given, by=by)
            acknowledge(output, id, f"skipping {step} of {id}")

    asyncio.run(run())


@grouped
def edit_step(
    *,
    execution: ExecutionArgument,
    step: _Step,
    value: Annotated[str, typer.Argument(metavar="JSON", help='What it has given now; "-" reads it.')],
    by: ByOption,
    output: OutputOption = Output.TABLE,
    connection: Connection,
) -> None:
    """Replace what a completed step has given, and let the execution go on with that.

    \b
    Examples:
      durable edit-step 7f3 quote '{"cents": 1200}'
      durable edit-step 7f3 quote - < quote.json
    """
    given = _VALUE.validate_json(read_json(value), "the value")

    async def run() -> None:
        async with connection.client() as durable:
            id = await find_id(durable, execution)
            await durable.operator.edit_step_result(id, step, given, by=by)
            acknowledge(output, id, f"edited {step} of {id}")

    asyncio.run(run())
