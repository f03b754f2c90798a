"""`durable check`: whether code that is about to be deployed fits the executions that are alive, or were exported."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from inspect import getsourcefile
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

import durable as durable_package
from durable.app import Durable
from durable.cli import completion, known
from durable.cli.application import AppOption, find_application
from durable.cli.exits import ExitCode
from durable.cli.options import OutputOption
from durable.cli.output import Output, clean, console, error_console, print_json, print_lines
from durable.engine.rehearsal import Fit, Verdict
from durable.errors import ConfigurationError, ExecutionNotFound, InvalidInput
from durable.history import History, load_histories
from durable.lint import Finding, lint_file
from durable.models import ExecutionStatus

_ALIVE: Final = [status.value for status in ExecutionStatus if not status.final]
_PAGE: Final = 500
_MARKS: Final = {
    Fit.FITS: ("✓", "green", "fit"),
    Fit.NEEDS_PATCHED: ("!", "magenta", "need patched"),
    Fit.DIVERGES: ("✗", "red", "diverge"),
    Fit.UNKNOWN_WORKFLOW: ("?", "yellow", "are not known here"),
    Fit.UNDECIDED: ("?", "yellow", "are undecided"),
}


def check(
    application: Annotated[
        str | None, typer.Argument(metavar="[MODULE:NAME]", help="Your Durable, as with --app.")
    ] = None,
    app: AppOption = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            help="Only these, by default all that have not ended; may be repeated.",
            autocompletion=completion.statuses,
        ),
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(
            "--workflow", "-w", help="Only of this workflow.", autocompletion=completion.own_workflows
        ),
    ] = None,
    histories: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Replay these instead: a file of `durable export`, or a directory of them."
        ),
    ] = None,
    lint: Annotated[bool, typer.Option("--lint", help="Only look at the code; no store is needed.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check workflows before a deploy: look for what would differ on a replay, then replay the executions that
    are alive with the code as it is now. No step runs, and nothing is written.

    \b
    Exit code 5 when an execution does not fit, 1 when only the linter found an error, else 0.

    \b
    Examples:
      durable check --app app:durable
      durable check app:durable --status running,waiting
      durable check app:durable --histories tests/histories
      durable check app:durable --lint
    """
    durable = find_application(application or app).as_client()
    findings = [finding for path in _sources(durable) for finding in lint_file(path, _shown(path))]
    if lint:
        verdicts: list[Verdict] = []
    else:
        verdicts = asyncio.run(_replayed(durable, histories, _statuses(status), workflow))
        if not verdicts:
            known.doubt("workflow", workflow, {each.name for each in durable.workflows()})
    match output:
        case Output.TABLE:
            _print(findings, verdicts, is_replay=not lint)
        case Output.JSON:
            print_json({"findings": findings, "verdicts": verdicts})
        case Output.IDS:
            for verdict in verdicts:
                if not verdict.is_safe:
                    console().print(clean(verdict.execution_id))
    if any(not verdict.is_safe for verdict in verdicts):
        raise typer.Exit(ExitCode.MISMATCH)
    if any(not finding.is_warning for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


# ---- what is looked at


def _sources(durable: Durable) -> list[Path]:
    """The files of the workflows, and of what was imported with them from below the current directory."""
    found = {Path(file) for workflow in durable.definitions() if (file := getsourcefile(workflow.fn))}
    here, ours = Path.cwd(), Path(durable_package.__file__).parent
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py"):
            path = Path(file)
            is_installed = "site-packages" in path.parts or path.is_relative_to(ours)
            if path.is_relative_to(here) and not is_installed:
                found.add(path)
    return sorted(path for path in found if path.is_file())


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _statuses(given: Sequence[str] | None) -> list[str]:
    return [word for text in given or [] for word in text.split(",") if word] or _ALIVE


async def _replayed(
    durable: Durable, path: Path | None, statuses: Sequence[str], workflow: str | None
) -> list[Verdict]:
    async with AsyncExitStack() as stack:
        if path is None:
            if durable.store_url.startswith("memory:"):
                raise ConfigurationError(
                    "memory:// is seen by one process only, so that there is nothing to replay",
                    "check exported histories with --histories, or the code alone with --lint",
                )
            await stack.enter_async_context(durable)
        replay = await stack.enter_async_context(durable.rehearsing())
        if path is not None:
            return [await replay(history) for history in _exported(path, workflow)]
        return [await replay(history) async for history in _alive(durable, statuses, workflow)]


async def _alive(durable: Durable, statuses: Sequence[str], workflow: str | None) -> AsyncIterator[History]:
    cursor: str | None = None
    while True:
        page = await durable.operator.list_executions(
            status=statuses, workflow=workflow, limit=_PAGE, cursor=cursor
        )
        for execution in page.items:
            try:
                yield await durable.operator.get_history(execution.id)
            except ExecutionNotFound:
                continue  # pruned meanwhile
        if page.cursor is None:
            return
        cursor = page.cursor


def _exported(path: Path, workflow: str | None) -> list[History]:
    found: list[History] = []
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise InvalidInput(f"there are no histories in {path}", "write some with `durable export`")
    for file in files:
        try:
            histories = load_histories(file.read_bytes())
        except InvalidInput as error:
            raise InvalidInput(f"{file}: {error}", error.hint) from None
        found += [history for history in histories if workflow in (None, history.row.workflow)]
    return found


# ---- what is said


def _print(findings: Sequence[Finding], verdicts: Sequence[Verdict], *, is_replay: bool) -> None:
    lines = [Text(clean(str(finding)), "yellow" if finding.is_warning else "") for finding in findings]
    kinds = Counter((v.workflow, v.version, v.fit) for v in verdicts)
    order = list(Fit)
    for (name, version, fit), number in sorted(
        kinds.items(), key=lambda i: (*i[0][:2], order.index(i[0][2]))
    ):
        mark, style, what = _MARKS[fit]
        lines.append(Text(f"{mark} {clean(name)} {clean(version)}  {number} {what}", style))
        if fit is Fit.FITS:
            continue
        for verdict in verdicts:
            if (verdict.workflow, verdict.version, verdict.fit) == (name, version, fit):
                lines.append(Text(f"  {clean(verdict.execution_id)}: {clean(verdict.text)}"))
                if verdict.hint:
                    lines.append(Text(f"    {clean(verdict.hint)}", "dim"))
    print_lines(lines)
    error_console().print(_summary(findings, verdicts, is_replay=is_replay))


def _summary(findings: Sequence[Finding], verdicts: Sequence[Verdict], *, is_replay: bool) -> str:
    errors = sum(not finding.is_warning for finding in findings)
    linted = f"{_number(errors, 'error')}, {_number(len(findings) - errors, 'warning')} in the code"
    if not is_replay:
        return linted
    unsafe = sum(not verdict.is_safe for verdict in verdicts)
    return (
        f"{linted}; {_number(len(verdicts), 'execution')} replayed, {unsafe} of them must not meet this code"
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
