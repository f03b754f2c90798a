"""One execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import ceil, floor, log2
from typing import Final

from durable.dashboard.acts import Act, acts_on
from durable.dashboard.forms import Field, fields_of
from durable.dashboard.graph import graph_of
from durable.dashboard.signals import signal_named
from durable.dashboard.site import Ask, Site
from durable.dashboard.timeline import timeline_of
from durable.errors import ConfigurationError
from durable.family import Family, load_family
from durable.models import ExecutionDetail, StepRecord

TABS: Final = (
    ("waterfall", "Waterfall"),
    ("graph", "Graph"),
    ("journal", "Journal"),
    ("data", "Input & output"),
)
_DEEPEST: Final = 2


@dataclass(frozen=True, slots=True)
class Awaited:
    """A signal that an execution waits for now, with what to fill in for it."""

    name: str
    wait: StepRecord
    fields: Sequence[Field]
    is_known: bool
    """Whether the code of the signal is here; else anything goes."""
    approval: Field | None
    """The field that says yes or no, where there is one."""


async def run(site: Site, ask: Ask) -> Mapping[str, object]:
    family = _veiled(site, await load_family(site.durable.operator, ask.id, deepest=_DEEPEST))
    detail = family.detail
    execution = detail.execution
    now = coarse(datetime.now(UTC), execution.created_at)
    tab = ask.query.get("tab", "")
    tab = tab if tab in dict(TABS) else TABS[0][0]
    linear = ask.query.get("axis") == "linear"
    acts = {act.verb: act for act in acts_on(execution.status)}
    return {
        "execution": execution,
        "detail": detail,
        "why": family.why,
        "tab": tab,
        "tabs": TABS,
        "linear": linear,
        "timeline": timeline_of(family, now, linear=linear),
        "graph": _graph(site, detail) if tab == "graph" else None,
        "awaited": awaited_by(site, detail) if "signal" in acts else [],
        "acts": acts,
        "header_acts": _header_acts(acts),
        "rolls_back": getattr(site.workflow_of(execution), "rollback", "manual") == "on_failure",
        "parent": execution.parent_id,
    }


def coarse(now: datetime, since: datetime) -> datetime:
    """An instant from which on the page looks the same for a while: the bars of what goes on grow by a fiftieth, and no
    more often than once a second."""
    age = max((now - since).total_seconds(), 1.0)
    grain = max(1.0, 2.0 ** floor(log2(age / 50)))
    return since + timedelta(seconds=ceil(age / grain) * grain)


def awaited_by(site: Site, detail: ExecutionDetail) -> list[Awaited]:
    """The signals that an execution waits for now."""
    workflow = site.workflow_of(detail.execution)
    found: list[Awaited] = []
    for wait in detail.waits:
        for name in wait.name.split(",") if wait.kind == "wait_for_signal" else ():
            try:
                signal = signal_named(workflow, name)
                schema = None if signal is None else signal.schema.json_schema()
            except ConfigurationError:  # its payload's type is none that can be stored: anything goes
                signal = schema = None
            fields = fields_of(schema)
            yes_or_no = [field for field in fields if field.input == "checkbox"]
            found.append(
                Awaited(name, wait, fields, signal is not None, yes_or_no[0] if len(yes_or_no) == 1 else None)
            )
    return found


def _header_acts(acts: Mapping[str, Act]) -> list[Act]:
    order = ("retry", "retry-rollback", "resume", "pause", "rerun", "cancel", "rollback", "force-fail")
    return [acts[verb] for verb in order if verb in acts]


def _graph(site: Site, detail: ExecutionDetail) -> Mapping[str, object]:
    workflow = site.workflow_of(detail.execution)
    if workflow is None:
        return {
            "svg": None,
            "why": "The code of this workflow is not registered with this dashboard's application.",
        }
    try:
        return {"svg": graph_of(workflow, detail), "why": ""}
    except ConfigurationError as error:
        return {"svg": None, "why": f"{error}. {error.hint}."}


def _veiled(site: Site, family: Family) -> Family:
    children = [_veiled(site, child) for child in family.children]
    return replace(
        family,
        detail=site.veil.detail(family.detail),
        why=site.veil.text("text", family.why),
        children=children,
    )
