"""What there is in a store by name: for whoever types a part of one, or mistypes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from durable.app import Durable
from durable.cli.output import clean, error_console
from durable.models import ExecutionDetail
from durable.names import did_you_mean

_NEWEST: Final = 200
"""Executions that are looked at for the names of workflows."""
_RULES: Final = 200


async def workflows(durable: Durable) -> set[str]:
    """Of the newest executions, of schedules, of what workers can run, and those that are registered here."""
    names = {workflow.name for workflow in durable.workflows()}
    names |= {
        execution.workflow for execution in (await durable.operator.list_executions(limit=_NEWEST)).items
    }
    names |= {schedule.workflow for schedule in await durable.list_schedules()}
    for worker in await durable.operator.workers():
        names |= {known.partition("@")[0] for known in worker.workflows}
    return names


async def queues(durable: Durable) -> set[str]:
    """Those in which something waits, that are paused, or that a worker serves."""
    names = {found.queue for found in await durable.operator.queues()}
    return names | {name for worker in await durable.operator.workers() for name in worker.queues}


async def schedules(durable: Durable) -> set[str]:
    return {schedule.id for schedule in await durable.list_schedules()}


async def workers(durable: Durable) -> set[str]:
    """Those that are alive."""
    return {worker.id for worker in await durable.operator.workers()}


def signals(detail: ExecutionDetail) -> dict[str, str]:
    """Those for which an execution waits, each with the step that does."""
    waits = [wait for wait in detail.waits if wait.kind == "wait_for_signal"]
    return {name: wait.id for wait in waits for name in wait.name.split(",")}


async def rules(durable: Durable) -> set[str]:
    """Of limits at which somebody holds a slot or waits, and of those that were set."""
    held = await durable.operator.held_limits(limit=_RULES)
    return {each.rule for each in held} | set(await durable.operator.limits())


def doubt(what: str, name: str | None, known: Iterable[str]) -> None:
    """Say on stderr that a name may be mistyped, where one is allowed that nothing has yet."""
    names = set(known)
    if name is None or name in names:
        return
    if meant := did_you_mean(name, names).strip():
        error_console().print(clean(f"hint: no {what} {name!r} is known here; {meant}"))
