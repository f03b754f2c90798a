"""Whether all is well: what an operator looks at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from durable.dashboard.site import Ask, Site
from durable.duration import format_duration
from durable.errors import DurableError
from durable.models import Health

_SLOW_S: Final = 0.25
_OLD: Final = timedelta(minutes=1)
_LATE: Final = timedelta(seconds=30)
_SOON: Final = timedelta(seconds=6)
"""Who sleeps until a timer that another process has set looks every 5 seconds."""
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that is well or is not."""

    name: str
    is_well: bool
    value: str
    advice: str = ""


async def health(site: Site, ask: Ask) -> Mapping[str, object]:
    signs, found = await look(site)
    return {
        "signs": signs,
        "is_well": all(sign.is_well for sign in signs),
        "stuck": [site.veil.execution(each) for each in found.stuck[:_SHOWN]] if found else [],
        "store": site.durable.store_url,
        "environment": site.environment,
    }


async def look(site: Site) -> tuple[Sequence[Sign], Health | None]:
    """What is found now, and what it means; None while the store is away."""
    try:
        found = await site.durable.operator.health()
    except DurableError as error:
        return [Sign("store", False, "cannot be reached", str(error))], None
    return _signs(found), found


def _signs(found: Health) -> Sequence[Sign]:
    took = found.store_took.total_seconds()
    serving = [worker for worker in found.workers if not worker.draining]
    free = sum(max(0, worker.slots - worker.busy) for worker in serving)
    served = {queue for worker in serving for queue in worker.queues}
    unserved = [each.queue for each in found.queues if each.ready and each.queue not in served]
    paused = [each.queue for each in found.queues if each.paused]
    signs = [
        Sign("store", took < _SLOW_S, f"{_bucket(took)} for a look", "it answers slowly"),
        Sign(
            "workers",
            bool(found.workers),
            f"{len(found.workers)} alive, {free} slots free",
            "start one: durable worker",
        ),
        Sign(
            "oldest ready execution",
            found.ready_age < _OLD,
            _seconds(found.ready_age) if any(each.ready for each in found.queues) else "nothing waits",
            "workers do not keep up, or none serves its queue and knows its workflow and version",
        ),
        Sign(
            "timers",
            found.timer_lag < _LATE,
            f"{_seconds(found.timer_lag)} late" if found.timer_lag >= _SOON else "on time",
            "no worker looks for what is due, or they cannot keep up with it",
        ),
        Sign(
            "queues without a worker",
            not unserved,
            ", ".join(unserved) or "none",
            "start a worker that serves them: durable worker -q NAME",
        ),
        Sign("paused queues", not paused, ", ".join(paused) or "none", "resume them on the page Queues"),
        Sign(
            "need repair",
            not found.need_repair,
            str(found.need_repair),
            "parked, or with a compensation that failed: see below",
        ),
        Sign(
            "replay mismatches",
            not found.mismatches,
            str(found.mismatches),
            "deploy code that fits what is recorded, then retry them; durable check names the places",
        ),
    ]
    if found.dead_letters is not None:
        signs.append(
            Sign(
                "dead letters",
                not found.dead_letters,
                str(found.dead_letters),
                "somebody sends to the broker what is not durable's, or no worker survives a message",
            )
        )
    return signs


def _seconds(span: timedelta) -> str:
    return format_duration(timedelta(seconds=round(span.total_seconds())))


def _bucket(seconds: float) -> str:
    """Coarse, so that the page changes when something has changed."""
    for limit in (0.005, 0.025, 0.1, 0.25, 1, 5):
        if seconds < limit:
            return f"under {format_duration(timedelta(seconds=limit))}"
    return "more than 5 s"
