"""`durable start`: start an execution of a workflow of the user's own application, and perhaps wait for it."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Annotated, Any, Final

import typer

from durable.app import Durable
from durable.cli import completion, known
from durable.cli.application import AppOption, find_application, is_reference
from durable.cli.exits import ExitCode, tell
from durable.cli.options import OutputOption, parse_instant, parse_tags, read_json
from durable.cli.output import Output, clean, console, error_console, print_json, to_json
from durable.duration import to_timedelta
from durable.errors import ConfigurationError, InvalidInput, WaitTimeout
from durable.handle import Handle
from durable.models import Execution, ExecutionStatus

_LOOK_EVERY: Final = timedelta(seconds=1)
"""At a status that may say that waiting is in vain."""


def start(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODULE:NAME] WORKFLOW [JSON]",
            help='What to start, with which input; "-" reads it.',
            autocompletion=completion.own_workflows,
        ),
    ],
    app: AppOption = None,
    key: Annotated[str | None, typer.Option(help="At most one execution for each workflow and key.")] = None,
    delay: Annotated[str | None, typer.Option(metavar="DURATION", help='Not before that: "1h".')] = None,
    at: Annotated[str | None, typer.Option(metavar="INSTANT", help="Not before then, in ISO 8601.")] = None,
    priority: Annotated[int | None, typer.Option(help="Greater goes first.")] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue",
            "-q",
            help="Another queue than the workflow's.",
            autocompletion=completion.own_queues,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Another version than the highest.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result, and print it.")] = False,
    timeout: Annotated[str | None, typer.Option(metavar="DURATION", help="How long to wait.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start an execution, and print its id. A worker runs it: `durable worker`.

    \b
    Examples:
      durable start --app app:durable fulfil_order '{"id": "42", "total": 30}'
      durable start app:durable fulfil_order - --key order:42 < order.json
      durable start report --wait --timeout 5m
    """
    reference, name, data = _arguments(arguments, app)
    if timeout is not None and not wait:
        raise InvalidInput("--timeout needs --wait", "the execution itself goes on, however long you wait")
    patience = None if timeout is None else to_timedelta(timeout, what="--timeout")
    begin_at = None if at is None else parse_instant(at, "--at")
    tags = parse_tags(tag)
    durable = find_application(reference).as_client()
    if durable.store_url.startswith("memory:"):
        raise ConfigurationError(
            "memory:// is seen by one process only, so that no worker would find this execution",
            "give your Durable a store that is shared, such as sqlite:///durable.db",
        )
    workflow: Any = durable.workflow(name, version)
    value = (
        None if data is None else workflow.input_schema.validate_json(data, f"the input of workflow {name}")
    )

    async def run() -> int:
        async with durable:
            handle: Handle[Any] = await durable.start(
                workflow, value, key=key, delay=delay, at=begin_at, priority=priority, queue=queue, tags=tags
            )
            known.doubt("queue", queue, {each.queue for each in durable.workflows()})
            if not handle.created:
                error_console().print(f"{handle.id} had been started with that key")
            if not wait:
                _print_started(handle, output)
                return ExitCode.DONE
            return await _wait(durable, handle, patience, output)

    raise typer.Exit(asyncio.run(run()))


def _arguments(given: list[str], app: str | None) -> tuple[str | None, str, bytes | None]:
    """The application, the workflow and the input among the positional arguments."""
    words = list(given)
    if len(words) > 1 and is_reference(words[0]) and (len(words) == 3 or not _is_input(words[1])):
        app = words.pop(0)
    match words:
        case [name]:
            return app, name, None
        case [name, text]:
            return app, name, read_json(text)
        case _:
            raise InvalidInput(
                f"start takes a workflow and its input, not {len(words)} arguments",
                "put the JSON into quotes, as one argument",
            )


def _is_input(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return text == "-"
    return True


async def _wait(durable: Durable, handle: Handle[Any], patience: timedelta | None, output: Output) -> int:
    """Wait for the result and print it; give up on what only a person can bring on its way again."""
    loop = asyncio.get_running_loop()
    deadline = None if patience is None else loop.time() + patience.total_seconds()
    said = ""
    while True:
        left = None if deadline is None else max(0.0, deadline - loop.time())
        pause = _LOOK_EVERY.total_seconds() if left is None else min(left, _LOOK_EVERY.total_seconds())
        try:
            await handle.result(timeout=pause)
        except WaitTimeout as error:
            execution = await handle.status()
            if execution.status is ExecutionStatus.PARKED:
                return _parked(execution)
            if left is not None and left <= pause:
                raise WaitTimeout(handle.id, patience or timedelta(), error.reason) from None
            if execution.status != said:
                said = execution.status
                error_console().print(clean(f"{handle.id}: {await durable.operator.explain(handle.id)}"))
        else:
            execution = await handle.status()
            if output is Output.TABLE:
                console().print(to_json(execution.result))
            else:
                _print_started(handle, output, execution)
            return ExitCode.DONE


def _parked(execution: Execution) -> int:
    why = f": {execution.error.message}" if execution.error else ""
    tell(
        f"execution {execution.id} is parked until somebody repairs it{why}",
        f"mend the cause, then `durable retry {execution.id}`",
    )
    return ExitCode.MISMATCH if execution.code == "replay_mismatch" else ExitCode.FAILED


def _print_started(handle: Handle[Any], output: Output, execution: Execution | None = None) -> None:
    if output is not Output.JSON:
        console().print(handle.id)
    elif execution is None:
        print_json({"id": handle.id, "created": handle.created})
    else:
        print_json({"id": handle.id, "created": handle.created, "result": execution.result})
