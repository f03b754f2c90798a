"""Schedules as a store keeps them: an instant, and opaque data that the engine knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from durable.protocols.answers import Doorbell


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule, immutable in its id."""

    id: str
    data: bytes
    next_at: int | None
    """When it is due; None: never (paused, or over)."""
    ver: int = 0
    """How often it was saved. To save one, the `ver` that was read: 0 for one that is new."""


@dataclass(frozen=True, slots=True)
class Saved:
    """It was saved, and what was to be started is started."""

    ver: int
    execution_ids: Sequence[str]
    """Of the starts, in their order; of one that exists or was joined to, that one's."""
    doorbells: Sequence[Doorbell]
    touched: Sequence[str] = ()
    next_at: int | None = None
    """As in `Created`."""


@dataclass(frozen=True, slots=True)
class Due:
    """Schedules that are due, the longest first."""

    rows: Sequence[ScheduleRow]
    next_at: int | None
    """When the next one is due that is not."""
    now: int
