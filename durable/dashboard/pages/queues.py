"""Queues and limits: what waits, for how long, and for what."""

from __future__ import annotations

from collections.abc import Mapping

from durable.dashboard.acts import acts_for
from durable.dashboard.site import Ask, Site


async def queues(site: Site, ask: Ask) -> Mapping[str, object]:
    operator = site.durable.operator
    samples = await site.samples.series()
    return {
        "acts": acts_for("queue"),
        "queues": await operator.queues(),
        "limits": await operator.held_limits(),
        "set_limits": await operator.limits(),
        "series": [
            [round(sample.at.timestamp(), 1), sample.backlog, round(sample.oldest_s, 1)] for sample in samples
        ],
    }
