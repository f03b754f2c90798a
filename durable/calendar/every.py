"""Intervals: the same time between any two fires, whatever the clocks on the wall do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import final

from typing_extensions import override

from durable.calendar.trigger import Trigger
from durable.duration import Duration, to_ms
from durable.errors import InvalidInput


@final
@dataclass(frozen=True, slots=True, init=False)
class Every(Trigger):
    """Fires again and again, `interval` apart: `Every("30s")`.

    The first fire is one interval after the schedule came to be, and the k-th is k intervals after it: lateness does
    not add up, and a restart moves nothing. A day is 24 hours here, also where clocks change: for "nine in the
    morning" use `Cron`.

    Raises:
        InvalidInput: the interval is not a duration, or it is 0.
    """

    interval: timedelta
    anchor_ms: int
    """What intervals are counted from. The epoch, until `anchored` says otherwise."""

    def __init__(self, interval: Duration) -> None:
        interval_ms = to_ms(interval, what="Every.interval")
        if interval_ms == 0:
            raise InvalidInput("Every.interval must be longer than 0", "give one such as '30s' or '6h'")
        set_field = object.__setattr__
        set_field(self, "interval", timedelta(milliseconds=interval_ms))
        set_field(self, "anchor_ms", 0)

    def anchored(self, anchor_ms: int) -> Every:
        """The same interval, counted from `anchor_ms`, which itself is never a fire."""
        anchored = Every(self.interval)
        object.__setattr__(anchored, "anchor_ms", anchor_ms)
        return anchored

    @override
    def after(self, instant_ms: int) -> int:
        interval_ms = to_ms(self.interval)
        passed = (instant_ms - self.anchor_ms) // interval_ms
        return self.anchor_ms + max(1, passed + 1) * interval_ms
