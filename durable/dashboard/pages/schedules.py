"""Schedules, with when they fire next."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from durable.dashboard.acts import acts_for
from durable.dashboard.site import Ask, Site
from durable.duration import format_duration
from durable.errors import DurableError
from durable.models import Schedule

_FIRES: Final = 5


@dataclass(frozen=True, slots=True)
class Line:
    schedule: Schedule
    rule: str
    fires: Sequence[tuple[datetime, datetime]]
    """The next instants: in the schedule's zone, and in UTC, which the script shows in the reader's own."""


async def schedules(site: Site, ask: Ask) -> Mapping[str, object]:
    found = [site.veil.schedule(each) for each in await site.durable.list_schedules()]
    fires = await asyncio.gather(*(_next_fires(site, each) for each in found))
    lines = [Line(each, _rule(each), at) for each, at in zip(found, fires, strict=True)]
    return {"lines": lines, "acts": acts_for("schedule")}


async def _next_fires(site: Site, schedule: Schedule) -> list[tuple[datetime, datetime]]:
    try:
        fires = await site.durable.next_fires(schedule.id, _FIRES)
    except DurableError:  # it was removed since
        return []
    zone = ZoneInfo(schedule.tz)
    return [(at.astimezone(zone), at.astimezone(UTC)) for at in fires]


def _rule(schedule: Schedule) -> str:
    if schedule.cron is not None:
        return schedule.cron
    return f"every {format_duration(schedule.interval)}" if schedule.interval is not None else ""
