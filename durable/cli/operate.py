"""`durable cancel | retry | rerun | pause | resume | force-fail`: on executions that are named, or that match."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from pydantic import JsonValue

from durable.app import Durable
from durable.cli import completion, known
from durable.cli.application import CodeOption
from durable.cli.connection import connect, connect_with_code, find_id
from durable.cli.options import (
    BusOption,
    ByOption,
    DryRunOption,
    NamespaceOption,
    OutputOption,
    QueueOption,
    SinceOption,
    StatusOption,
    StoreOption,
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
_Reason = Annotated[str, typer.Option(help="Kept with the execution.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="The most to act on, with filters.")]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which executions are meant, when none is named."""

    status: list[str] | None
    workflow: str | None
    tag: list[str] | None
    since: str | None
    until: str | None
    limit: int | None

    def __bool__(self) -> bool:
        return any((self.status, self.workflow, self.tag, self.since, self.until))

    async def bulk(
        self, durable: Durable, verb: str, *, reason: str = "", dry_run: bool, by: str
    ) -> BulkReport:
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


def cancel(
    by: ByOption,
    executions: IdsArgument = None,
    reason: _Reason = "",
    status: StatusOption = None,
    workflow: WorkflowOption = None,
    tag: TagOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: _Limit = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
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
      durable cancel --tag tenant=acme --status waiting --dry-run
      durable cancel --tag tenant=acme --status waiting --yes
    """
    filters = Filters(status, workflow, tag, since, until, limit)

    async def one(durable: Durable, id: str) -> str:
        ended = (await durable.status(id)).status
        if not dry_run:
            await durable.operator.cancel(id, reason, by=by)
        return f"{id} had ended: {ended}" if ended.final else f"{_would(dry_run)}cancelling {id}"

    act = _Act("cancel", by, executions, filters, dry_run, yes, output, reason)
    asyncio.run(act.run(connect(store, namespace, queue, bus), one))


def retry(
    by: ByOption,
    executions: IdsArgument = None,
    status: StatusOption = None,
    workflow: WorkflowOption = None,
    tag: TagOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: _Limit = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
) -> None:
    """Run failed or parked executions again, or go on with a rollback that failed.

    Completed steps keep their results; failed ones run again. To repeat completed ones, see `durable rerun`.

    \b
    Examples:
      durable retry 7f3
      durable retry --workflow fulfil_order --since 24h --dry-run
    """
    filters = Filters(status, workflow, tag, since, until, limit)

    async def one(durable: Durable, id: str) -> str:
        execution = await durable.status(id)
        rollback = execution.status is ExecutionStatus.COMPENSATION_FAILED
        if dry_run and not rollback:
            _check(id, "retry", execution.status)
        elif rollback and not dry_run:
            await durable.operator.retry_rollback(id, by=by)
        elif not dry_run:
            await durable.operator.retry(id, by=by)
        return f"{_would(dry_run)}retrying {id}"

    act = _Act("retry", by, executions, filters, dry_run, yes, output)
    asyncio.run(act.run(connect(store, namespace, queue, bus), one))


def pause(
    by: ByOption,
    executions: IdsArgument = None,
    status: StatusOption = None,
    workflow: WorkflowOption = None,
    tag: TagOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: _Limit = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
) -> None:
    """Let executions begin nothing until they are resumed. Steps that run end first; what comes meanwhile is kept.

    \b
    Examples:
      durable pause 7f3
      durable pause --workflow fulfil_order --yes
    """
    filters = Filters(status, workflow, tag, since, until, limit)
    act = _Act("pause", by, executions, filters, dry_run, yes, output)
    asyncio.run(act.run(connect(store, namespace, queue, bus)))


def resume(
    by: ByOption,
    executions: IdsArgument = None,
    status: StatusOption = None,
    workflow: WorkflowOption = None,
    tag: TagOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: _Limit = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
) -> None:
    """Let paused executions go on.

    \b
    Examples:
      durable resume 7f3
      durable resume --workflow fulfil_order --yes
    """
    filters = Filters(status, workflow, tag, since, until, limit)
    act = _Act("resume", by, executions, filters, dry_run, yes, output)
    asyncio.run(act.run(connect(store, namespace, queue, bus)))


def force_fail(
    by: ByOption,
    executions: IdsArgument = None,
    reason: _Reason = "",
    status: StatusOption = None,
    workflow: WorkflowOption = None,
    tag: TagOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: _Limit = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
) -> None:
    """End executions as failed, whatever they are doing. No compensation runs: `durable cancel` is the gentle way.

    \b
    Examples:
      durable force-fail 7f3 --reason "the account is gone"
    """
    filters = Filters(status, workflow, tag, since, until, limit)
    act = _Act("force_fail", by, executions, filters, dry_run, yes, output, reason)
    asyncio.run(act.run(connect(store, namespace, queue, bus)))


def rerun(
    by: ByOption,
    executions: IdsArgument = None,
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
    status: StatusOption = None,
    workflow: WorkflowOption = None,
    tag: TagOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: _Limit = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
    store: StoreOption = None,
    namespace: NamespaceOption = "default",
    queue: QueueOption = None,
    bus: BusOption = None,
) -> None:
    """Start new executions like these, from the start or from one of their steps; they stay as they are.

    \b
    Examples:
      durable rerun 7f3
      durable rerun 7f3 --from-step ship
      durable rerun 7f3 --from-step ship --input '{"id": "42", "cents": 300}'
      durable rerun 7f3 --app app:durable        # a workflow with limits, whose definition is needed
    """
    filters = Filters(status, workflow, tag, since, until, limit)
    given = ... if input is None else _VALUE.validate_json(read_json(input), "the input")
    if filters and (from_step is not None or input is not None):
        raise InvalidInput(
            "--from-step and --input are for executions that are named", "name them by their ids"
        )

    async def one(durable: Durable, id: str) -> str:
        if dry_run:
            return f"would be rerunning {id}"
        new = await durable.operator.rerun(id, from_step, given, by=by)
        return new.id if output is Output.IDS else f"rerunning {id} as {new.id}"

    act = _Act("rerun", by, executions, filters, dry_run, yes, output)
    asyncio.run(act.run(connect_with_code(app, store, namespace, queue, bus), one))


@dataclass(frozen=True, slots=True)
class _Act:
    """One act, on executions that are named or on those that match."""

    verb: str
    by: str
    ids: Sequence[str] | None
    filters: Filters
    dry_run: bool
    yes: bool
    output: Output
    reason: str = ""

    async def run(
        self, connected: Durable, one: Callable[[Durable, str], Awaitable[str]] | None = None
    ) -> None:
        if bool(self.ids) == bool(self.filters):
            raise InvalidInput(
                "either ids or filters say which executions are meant"
                if self.ids
                else "nothing says which executions are meant",
                "name them by their ids, or filter: --status, --workflow, --tag, --since, --until",
            )
        async with connected as durable:
            if self.ids:
                for id in [await find_id(durable, given) for given in self.ids]:
                    said = await (one or self._one)(durable, id)
                    if self.verb == "rerun" and self.output is Output.IDS:
                        console().print(said)
                    else:
                        acknowledge(self.output, id, said)
            else:
                await self._bulk(durable)

    async def _one(self, durable: Durable, id: str) -> str:
        operator = durable.operator
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "pause": lambda: operator.pause(id, by=self.by),
            "resume": lambda: operator.resume(id, by=self.by),
            "force_fail": lambda: operator.force_fail(id, self.reason, by=self.by),
        }
        if self.dry_run:
            _check(id, self.verb, (await durable.status(id)).status)
        else:
            await acts[self.verb]()
        return f"{_would(self.dry_run)}{_DOING[self.verb]} {id}"

    async def _bulk(self, durable: Durable) -> None:
        report = await self.filters.bulk(durable, self.verb, reason=self.reason, dry_run=True, by=self.by)
        if self.filters.workflow is not None and not report.done:
            known.doubt("workflow", self.filters.workflow, await known.workflows(durable))
        if not self.dry_run and report.done:
            if not self.yes:
                self._ask(report)
            report = await self.filters.bulk(
                durable, self.verb, reason=self.reason, dry_run=False, by=self.by
            )
        match self.output:
            case Output.JSON:
                print_json(report)
            case Output.IDS:
                for id in report.done:
                    console().print(id)
            case Output.TABLE:
                number = len(report.done)
                what = f"{number} execution{'' if number == 1 else 's'}"
                console().print(f"{_would(self.dry_run)}{_DOING[self.verb]} {what}")
                for id in report.done if self.dry_run else ():
                    console().print(f"  {id}")
        for id, why in report.refused.items():
            error_console().print(clean(f"not {id}: {why}"))

    def _ask(self, report: BulkReport) -> None:
        shown = report.done[:_MOST_SHOWN]
        for id in shown:
            error_console().print(f"  {id}")
        if len(report.done) > len(shown):
            error_console().print(f"  ... and {len(report.done) - len(shown)} more")
        number = len(report.done)
        verb = self.verb.replace("_", "-")
        typer.confirm(f"{verb} {number} execution{'' if number == 1 else 's'}?", abort=True, err=True)


def _check(id: str, verb: str, status: ExecutionStatus) -> None:
    if status not in APPLIES_TO[verb]:
        raise WrongStatus(id, verb, status)


def _would(dry_run: bool) -> str:
    return "would be " if dry_run else ""
