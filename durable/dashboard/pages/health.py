"""Whether all is well: what an operator looks at first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from durable.dashboard.site import Ask, Site
from durable.duration import format_duration
from durable.errors import DurableError
from durable.models import ExecutionStatus

_SLOW_S: Final = 0.25
_OLD: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that is well or is not."""

    name: str
    is_well: bool
    value: str
    advice: str = ""


async def health(site: Site, ask: Ask) -> Mapping[str, object]:
    signs = await signs_of(site)
    stuck = await site.durable.operator.list_stuck(limit=20) if signs[0].is_well else None
    return {
        "signs": signs,
        "is_well": all(sign.is_well for sign in signs),
        "stuck": [site.veil.execution(each) for each in stuck.items] if stuck else [],
        "store": site.durable.store_url,
        "environment": site.environment,
    }


async def signs_of(site: Site) -> Sequence[Sign]:
    """What can be told from the store."""
    operator = site.durable.operator
    began = time.monotonic()
    try:
        counts = await operator.counts()
        took = time.monotonic() - began
        queues, workers = await operator.queues(), await operator.workers()
    except DurableError as error:
        return [Sign("store", False, "cannot be reached", str(error))]
    now = datetime.now(UTC)
    oldest = min((queue.oldest_at for queue in queues if queue.oldest_at and not queue.paused), default=None)
    age = max(now - oldest, timedelta()) if oldest else timedelta()
    free = sum(max(0, worker.slots - worker.busy) for worker in workers if not worker.draining)
    served = {queue for worker in workers for queue in worker.queues if not worker.draining}
    unserved = [queue.queue for queue in queues if queue.ready and queue.queue not in served]
    stuck = counts[ExecutionStatus.PARKED] + counts[ExecutionStatus.COMPENSATION_FAILED]
    paused = [queue.queue for queue in queues if queue.paused]
    return [
        Sign("store", took < _SLOW_S, f"{_bucket(took)} for a look", "it answers slowly"),
        Sign(
            "workers", bool(workers), f"{len(workers)} alive, {free} slots free", "start one: durable worker"
        ),
        Sign(
            "oldest ready execution",
            age < _OLD,
            format_duration(timedelta(seconds=round(age.total_seconds()))) if oldest else "nothing waits",
            "workers do not keep up, or none serves its queue and knows its workflow and version",
        ),
        Sign(
            "queues without a worker",
            not unserved,
            ", ".join(unserved) or "none",
            "start a worker that serves them: durable worker -q NAME",
        ),
        Sign("paused queues", not paused, ", ".join(paused) or "none", "resume them on the page Queues"),
        Sign("need repair", not stuck, str(stuck), "parked, or with a compensation that failed: see below"),
    ]


def _bucket(seconds: float) -> str:
    """Coarse, so that the page changes when something has changed."""
    for limit in (0.005, 0.025, 0.1, 0.25, 1, 5):
        if seconds < limit:
            return f"under {format_duration(timedelta(seconds=limit))}"
    return "more than 5 s"
