"""`durable cancel | rollback | retry | rerun | pause | resume | force-fail`: on executions, named or filtered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from pydantic import JsonValue

from durable.app import Durable
from durable.cli import completion, known
from durable.cli.application import CodeOption
from durable.cli.connection import Connection, find_id
from durable.cli.grouping import grouped
from durable.cli.options import (
    ByOption,
    DryRunOption,
    OutputOption,
    SinceOption,
    StatusOption,
    TagOption,
    UntilOption,
    WorkflowOption,
    YesOption,
    parse_past,
    parse_tags,
    read_json,
)
from durable.cli.output import Output, acknowledge, clean, console, error_console, print_json
from durable.codec import Schema
from durable.errors import InvalidInput, WrongStatus
from durable.models import BulkReport, ExecutionStatus
from durable.operator import APPLIES_TO

_VALUE: Schema[JsonValue] = Schema.of(JsonValue)
_DOING: Final = {
    "cancel": "cancelling",
    "retry": "retrying",
    "rerun": "rerunning",
    "pause": "pausing",
    "resume": "resuming",
    "force_fail": "failing",
    "rollback": "rolling back",
}
_MOST_SHOWN: Final = 20

IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        help="Ids of executions, or as much of each as is unique.",
        autocompletion=completion.executions,
    ),
]
ReasonOption = Annotated[str, typer.Option(help="Kept with the execution.")]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which executions are meant, when none is named."""

    status: StatusOption = None
    workflow: WorkflowOption = None
    tag: TagOption = None
    since: SinceOption = None
    until: UntilOption = None
    limit: Annotated[int | None, typer.Option(min=1, help="The most to act on, with filters.")] = None

    def __bool__(self) -> bool:
        return any((self.status, self.workflow, self.tag, self.since, self.until))

    async def bulk(self, durable: Durable, verb: str, *, reason: str, dry_run: bool, by: str) -> BulkReport:
        now = datetime.now(UTC)
        return await durable.operator.bulk(
            verb,
            status=self.status,
            workflow=self.workflow,
            tags=parse_tags(self.tag) or None,
            since=parse_past(self.since, "--since", now) if self.since else None,
            until=parse_past(self.until, "--until", now) if self.until else None,
            limit=self.limit,
            reason=reason,
            dry_run=dry_run,
            by=by,
        )


One = Callable[[Durable, str], Awaitable[str]]
"""Does it to the execution of that id, and gives what is said of it."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """The options of an act, on executions that are named or on those that match."""

    executions: IdsArgument = None
    filters: Filters
    dry_run: DryRunOption = False
    yes: YesOption = False
    by: ByOption
    output: OutputOption = Output.TABLE
    connection: Connection

    def run(self, verb: str, one: One | None = None, *, reason: str = "", app: str | None = None) -> None:
        """Do it, with the code of `app` where that decides. `one`: how, where it is more than the operator's verb."""
        if bool(self.executions) == bool(self.filters):
            raise InvalidInput(
                "either ids or filters say which executions are meant"
                if self.executions
                else "nothing says which executions are meant",
                "name them by their ids, or filter: --status, --workflow, --tag, --since, --until",
            )
        asyncio.run(self._run(verb, one, reason, app))

    async def _run(self, verb: str, one: One | None, reason: str, app: str | None) -> None:
        async with self.connection.client_with(app) as durable:
            if not self.executions:
                await self._bulk(durable, verb, reason)
                return
            for id in [await find_id(durable, given) for given in self.executions]:
                said = await (one(durable, id) if one else self._one(durable, id, verb, reason))
                if verb == "rerun" and self.output is Output.IDS:
                    console().print(said)
                else:
                    acknowledge(self.output, id, said)

    async def _one(self, durable: Durable, id: str, verb: str, reason: str) -> str:
        operator = durable.operator
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "pause": lambda: operator.pause(id, by=self.by),
            "resume": lambda: operator.resume(id, by=self.by),
            "force_fail": lambda: operator.force_fail(id, reason, by=self.by),
            "rollback": lambda: operator.rollback(id, reason, by=self.by),
        }
        if self.dry_run:
            check(id, verb, (await durable.status(id)).status)
        else:
            await acts[verb]()
        return f"{self.would}{_DOING[verb]} {id}"

    async def _bulk(self, durable: Durable, verb: str, reason: str) -> None:
        report = await self.filters.bulk(durable, verb, reason=reason, dry_run=True, by=self.by)
        if self.filters.workflow is not None and not report.done:
            known.doubt("workflow", self.filters.workflow, await known.workflows(durable))
        if not self.dry_run and report.done:
            if not self.yes:
                _ask(report)
            report = await self.filters.bulk(durable, verb, reason=reason, dry_run=False, by=self.by)
        match self.output:
            case Output.JSON:
                print_json(report)
            case Output.IDS:
                for id in report.done:
                    console().print(id)
            case Output.TABLE:
                console().print(f"{self.would}{_DOING[verb]} {_number(report)}")
                for id in report.done if self.dry_run else ():
                    console().print(f"  {id}")
        for id, why in report.refused.items():
            error_console().print(clean(f"not {id}: {why}"))

    @property
    def would(self) -> str:
        return "would be " if self.dry_run else ""


@grouped
def cancel(*, reason: ReasonOption = "", act: Act) -> None:
    """Ask executions to end as cancelled. They clean up first, and their children are cancelled with them.

    \b
    Examples:
      durable cancel 7f3 --reason "ordered twice"
      durable cancel --tag tenant=acme --status waiting --dry-run
      durable cancel --tag tenant=acme --status waiting --yes
    """

    async def one(durable: Durable, id: str) -> str:
        ended = (await durable.status(id)).status
        if not act.dry_run:
            await durable.operator.cancel(id, reason, by=act.by)
        return f"{id} had ended: {ended}" if ended.final else f"{act.would}cancelling {id}"

    act.run("cancel", one, reason=reason)


@grouped
def retry(*, act: Act) -> None:
    """Run failed or parked executions again, or go on with a rollback that failed.

    Completed steps keep their results; failed ones run again. To repeat completed ones, see `durable rerun`.

    \b
    Examples:
      durable retry 7f3
      durable retry --workflow fulfil_order --since 24h --dry-run
    """

    async def one(durable: Durable, id: str) -> str:
        execution = await durable.status(id)
        rollback = execution.status is ExecutionStatus.COMPENSATION_FAILED
        if act.dry_run and not rollback:
            check(id, "retry", execution.status)
        elif rollback and not act.dry_run:
            await durable.operator.retry_rollback(id, by=act.by)
        elif not act.dry_run:
            await durable.operator.retry(id, by=act.by)
        return f"{act.would}retrying {id}"

    act.run("retry", one)


@grouped
def pause(*, act: Act) -> None:
    """Let executions begin nothing until they are resumed. Steps that run end first; what comes meanwhile is kept.

    \b
    Examples:
      durable pause 7f3
      durable pause --workflow fulfil_order --yes
    """
    act.run("pause")


@grouped
def resume(*, act: Act) -> None:
    """Let paused executions go on.

    \b
    Examples:
      durable resume 7f3
      durable resume --workflow fulfil_order --yes
    """
    act.run("resume")


@grouped
def force_fail(*, reason: ReasonOption = "", act: Act) -> None:
    """End executions as failed, whatever they are doing. No compensation runs: `durable cancel` is the gentle way.

    \b
    Examples:
      durable force-fail 7f3 --reason "the account is gone"
    """
    act.run("force_fail", reason=reason)


@grouped
def rollback(*, reason: ReasonOption = "", act: Act) -> None:
    """Undo what executions have completed, newest first, whatever their workflows say. Those that go on end there as
    cancelled; those that failed or were cancelled keep their end.

    \b
    Examples:
      durable rollback 7f3 --reason "they stay at home"
      durable rollback --workflow book_trip --status failed --dry-run
    """
    act.run("rollback", reason=reason)


@grouped
def rerun(
    *,
    from_step: Annotated[
        str | None,
        typer.Option(
            "--from-step",
            metavar="STEP",
            help="Copy what was recorded before it.",
            autocompletion=completion.steps,
        ),
    ] = None,
    input: Annotated[str | None, typer.Option(metavar="JSON", help='Another input; "-" reads it.')] = None,
    app: CodeOption = None,
    act: Act,
) -> None:
    """Start new executions like these, from the start or from one of their steps; they stay as they are.

    \b
    Examples:
      durable rerun 7f3
      durable rerun 7f3 --from-step ship
      durable rerun 7f3 --from-step ship --input '{"id": "42", "cents": 300}'
      durable rerun 7f3 --app app:durable        # a workflow with limits, whose definition is needed
    """
    given = ... if input is None else _VALUE.validate_json(read_json(input), "the input")
    if act.filters and (from_step is not None or input is not None):
        raise InvalidInput(
            "--from-step and --input are for executions that are named", "name them by their ids"
        )

    async def one(durable: Durable, id: str) -> str:
        if act.dry_run:
            return f"would be rerunning {id}"
        new = await durable.operator.rerun(id, from_step, given, by=act.by)
        return new.id if act.output is Output.IDS else f"rerunning {id} as {new.id}"

    act.run("rerun", one, app=app)


def check(id: str, verb: str, status: ExecutionStatus) -> None:
    """Raises: `WrongStatus` when the verb does not apply."""
    if status not in APPLIES_TO[verb]:
        raise WrongStatus(id, verb, status)


def _ask(report: BulkReport) -> None:
    shown = report.done[:_MOST_SHOWN]
    for id in shown:
        error_console().print(f"  {id}")
    if len(report.done) > len(shown):
        error_console().print(f"  ... and {len(report.done) - len(shown)} more")
    typer.confirm(f"{report.verb.replace('_', '-')} {_number(report)}?", abort=True, err=True)


def _number(report: BulkReport) -> str:
    return f"{len(report.done)} execution{'' if len(report.done) == 1 else 's'}"
