"""The workflows that the dashboard's application has registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import quantiles
from typing import Final

from markupsafe import Markup

from durable.dashboard.graph import graph_of
from durable.dashboard.site import Ask, Site
from durable.errors import ConfigurationError, UnknownWorkflow
from durable.models import Execution, ExecutionStatus, WorkflowInfo

_SAMPLE: Final = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """How the last executions of a workflow went."""

    executions: Sequence[Execution]

    @property
    def going(self) -> int:
        return sum(not each.status.final for each in self.executions)

    @property
    def failed(self) -> int:
        return sum(
            each.status in (ExecutionStatus.FAILED, ExecutionStatus.COMPENSATION_FAILED)
            for each in self._ended
        )

    @property
    def ended(self) -> int:
        return len(self._ended)

    @property
    def percentiles(self) -> tuple[timedelta, timedelta] | None:
        """The time from start to end that half of those that completed took at most, and 95 of 100."""
        took = [
            (each.finished_at - each.started_at).total_seconds()
            for each in self._ended
            if each.finished_at and each.started_at and each.status is ExecutionStatus.COMPLETED
        ]
        if not took:
            return None
        cuts = quantiles(took, n=100, method="inclusive") if len(took) > 1 else took * 99
        return timedelta(seconds=cuts[49]), timedelta(seconds=cuts[94])

    @property
    def _ended(self) -> list[Execution]:
        return [each for each in self.executions if each.status.final]


async def workflows(site: Site, ask: Ask) -> Mapping[str, object]:
    infos = site.durable.workflows()
    chosen, svg, why = _chosen(site, infos, ask.query.get("name", ""), ask.query.get("version") or None)
    standings = {
        name: Standing((await site.executions(workflow=name, limit=_SAMPLE)).items)
        for name in dict.fromkeys(info.name for info in infos)
    }
    return {
        "infos": infos,
        "standings": standings,
        "chosen": chosen,
        "svg": svg,
        "why": why,
        "sample": _SAMPLE,
    }


def _chosen(
    site: Site, infos: Sequence[WorkflowInfo], name: str, version: str | None
) -> tuple[WorkflowInfo | None, Markup | None, str]:
    if not name:
        return None, None, ""
    try:
        workflow = site.durable.workflow(name, version)
    except UnknownWorkflow as error:
        return None, None, str(error)
    try:
        return workflow.info, graph_of(workflow), ""
    except ConfigurationError as error:
        return workflow.info, None, f"{error}. {error.hint}."
