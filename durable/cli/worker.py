"""`durable worker`: run executions until the process is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated

import typer

from durable import __version__
from durable.app import Durable
from durable.cli import completion
from durable.cli.application import AppOption, find_application
from durable.cli.exits import ExitCode
from durable.cli.logs import LogFormat, logging_as
from durable.cli.output import clean, console
from durable.cli.probing import Probing
from durable.cli.process import run_process
from durable.cli.stopping import Stop
from durable.duration import format_duration, to_timedelta

log = logging.getLogger("durable.worker")


def worker(
    application: Annotated[
        str | None, typer.Argument(metavar="[MODULE:NAME]", help="As --app.", show_default=False)
    ] = None,
    app: AppOption = None,
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            "-q",
            help="A queue to serve; may be repeated.",
            autocompletion=completion.own_queues,
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", help="The most executions that run at once.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="ADDRESS",
            help="Serve /metrics and /health there: 127.0.0.1:9000, or a port.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option("--log-format", help="Log all of the process, not durable alone, as this."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """Run executions of your application's workflows, until Ctrl-C or SIGTERM.

    Then what runs may end, for as long as the application's drain= allows; a second Ctrl-C stops at once, and
    other workers go on from there. An application that sets up logging logs as it says itself.

    \b
    Examples:
      durable worker app:durable
      durable worker app:durable -q email -q default --concurrency 20
      durable worker app:durable --metrics 127.0.0.1:9000 --log-format json
      DURABLE_APP=app:durable durable worker
    """
    probing = None if metrics is None else Probing(metrics)
    listeners = () if probing is None else probing.listeners
    durable = find_application(application or app).as_worker(queues or None, concurrency, listeners)
    stop = Stop(durable.stop)
    tell = log.info if log_format is LogFormat.JSON else say
    with logging_as(log_format, verbose=verbose):
        run_process(_work(durable, stop, probing, tell, until_eof=until_eof))
        logging.shutdown()
    if stop.asked > 1:
        # A sync step may still be running in its thread, for which the interpreter would wait.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ExitCode.INTERRUPTED)


async def _work(
    durable: Durable,
    stop: Stop,
    probing: Probing | None,
    say: Callable[[str], object],
    *,
    until_eof: bool,
) -> None:
    with stop.listening(), ExitStack() as probed:  # it is asked about the draining, too
        async with durable:
            if probing is not None:
                where = probed.enter_context(probing.serving(durable))
                say(f"metrics and health at {where}")
            if until_eof:
                stop.at_end_of(sys.stdin.buffer)
            say(_header(durable))
            await _first(stop.is_asked, durable.worker.told_to_drain)
            drain = format_duration(to_timedelta(durable.settings.drain_ms / 1000))
            say(f"stopping: what runs may end within {drain}; Ctrl-C again stops at once")
        say("stopped")


async def _first(*events: asyncio.Event) -> None:
    """Come back when one of them is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _header(durable: Durable) -> str:
    settings, workflows = durable.settings, durable.workflows()
    some = f"{len(workflows)} workflow{'' if len(workflows) == 1 else 's'}"
    queues = f"queues {', '.join(settings.queues)} ({settings.concurrency})"
    return f"durable {__version__} · {durable.store_url} · {some} · {queues}"


def say(text: str) -> None:
    console().print(clean(text))
    sys.stdout.flush()
