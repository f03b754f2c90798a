"""The program: its commands, and what becomes of errors that leave them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated, TextIO

import typer

from durable import __version__
from durable.cli import (
    acts,
    amend,
    check,
    completion,
    dashboard,
    demo,
    describe,
    doctor,
    events,
    executions,
    export,
    limits,
    operate,
    queues,
    schedules,
    show,
    start,
    supervise,
    worker,
    workers,
)
from durable.cli.exits import ExitCode, exit_code, hint_for, tell
from durable.errors import DurableError

program = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each command has its own --help, with examples. Begin with: durable demo",
)

program.command("demo")(demo.demo)
program.command("worker")(worker.worker)
program.command("supervise")(supervise.supervise)
program.command("start")(start.start)
program.command("list")(executions.list_)
program.command("show")(show.show)
program.command("events")(events.events)
program.command("signal")(acts.signal)
program.command("send")(acts.send)
program.command("cancel")(operate.cancel)
program.command("rollback")(operate.rollback)
program.command("retry")(operate.retry)
program.command("rerun")(operate.rerun)
program.command("pause")(operate.pause)
program.command("resume")(operate.resume)
program.command("force-fail")(operate.force_fail)
program.command("skip-step")(amend.skip_step)
program.command("edit-step")(amend.edit_step)
program.add_typer(schedules.schedules, name="schedules")
program.add_typer(queues.queues, name="queues")
program.add_typer(limits.limits, name="limits")
program.add_typer(workers.workers, name="workers")
program.command("dashboard")(dashboard.dashboard)
program.command("check")(check.check)
program.command("describe")(describe.describe)
program.command("export")(export.export)
program.command("prune")(acts.prune)
program.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"durable {__version__}")
        raise typer.Exit


@program.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Durable workflows as ordinary typed async functions."""


command = cache(typer.main.get_command)
"""What Typer makes of the program's signatures, which takes longer than most commands."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. What went wrong is on stderr: a traceback only for a fault of ours."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_to_encode(stream)
    if completion.is_asked():
        return completion.answer(lambda: command(program).main([], prog_name="durable"))
    try:
        code: object = command(program).main(
            list(arguments) or ["--help"], prog_name="durable", standalone_mode=False
        )
        sys.stdout.flush()
    except typer.TyperException as error:
        tell(error.format_message(), _usage_hint(error))
        return ExitCode.USAGE
    except DurableError as error:
        tell(str(error), hint_for(error))
        return exit_code(error)
    except (typer.Abort, KeyboardInterrupt, asyncio.CancelledError):
        return ExitCode.INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the latter is what Rich and Typer make of the former
        # Whoever read has seen enough. Nothing more may be written, not even by the interpreter's own last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    return code if isinstance(code, int) else ExitCode.DONE


def _usage_hint(error: typer.TyperException) -> str:
    path: object = getattr(getattr(error, "ctx", None), "command_path", "durable")
    return f"{path} --help shows how it is called"


def _never_fail_to_encode(stream: TextIO) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
