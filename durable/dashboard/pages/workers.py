"""The workers that are alive."""

from __future__ import annotations

from collections.abc import Mapping

from durable.dashboard.acts import acts_for
from durable.dashboard.site import Ask, Site


async def workers(site: Site, ask: Ask) -> Mapping[str, object]:
    return {"workers": await site.durable.operator.workers(), "acts": acts_for("worker")}
