"""Cron: wall-clock times, in the zone that they are meant in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from typing_extensions import override

from durable.calendar.expression import parse
from durable.calendar.rule import Rule
from durable.calendar.trigger import Trigger
from durable.calendar.wall_clock import WallClock

_YEAR_2, _YEAR_9999 = -62_104_060_800, 253_370_764_800
_TWO_DAYS = 172_800
"""More than any two readings of one instant differ, and within it clocks are changed at most once."""


@final
@dataclass(frozen=True, slots=True, init=False)
class Cron(Trigger):
    """Fires when a clock on the wall reads a time that `expression` names: `Cron("0 9 * * *", tz="Europe/London")`.

    There are five fields (minute, hour, day of the month, month, day of the week) or six, with the second first; or
    `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Names are known (MON-FRI, JAN), `L` for the last day of the
    month, `MON#1` and `L5` for the first Monday and the last Friday. Where both fields of the day are given, neither
    of them `*`, a day has to fit one of them.

    Where clocks are changed, each time that is named fires once: at the first instant at which the clocks read it or
    are past it. So a time that they leave out fires right after the gap, several of one gap together; and one that
    comes twice fires the first time. Only an expression that leaves out no hour (`*/30 * * * *`) follows real time
    instead: it fires at every instant at which the clocks read a time that it names, the second time as well, and
    there is nothing to make up for after a gap.

    Raises:
        InvalidInput: it is no such expression, no day ever fits it, or `tz` is no zone of the tz database.
    """

    expression: str
    tz: str
    _rule: Rule = field(repr=False, compare=False)
    _clock: WallClock = field(repr=False, compare=False)

    def __init__(self, expression: str, tz: str = "UTC") -> None:
        set_field = object.__setattr__
        set_field(self, "_rule", parse(expression))
        set_field(self, "_clock", WallClock(tz))
        set_field(self, "expression", " ".join(expression.split()))
        set_field(self, "tz", tz)

    @override
    def after(self, instant_ms: int) -> int | None:
        passed = max(_YEAR_2, instant_ms // 1000)
        if passed >= _YEAR_9999:
            return None
        at = self._in_real_time(passed + 1) if self._rule.is_hourly else self._once(passed)
        return None if at is None or at >= _YEAR_9999 else at * 1000

    def _once(self, passed: int) -> int | None:
        """The first second after `passed`: of a time further than the clocks have ever read by then."""
        reading = self._rule.next(self._clock.furthest(passed) + 1)
        return None if reading is None else self._clock.first(reading)

    def _in_real_time(self, at: int) -> int | None:
        """The first second from `at` on at which the clocks read a time that is named."""
        while True:
            offset = self._clock.offset(at)
            reading = self._rule.next(at + offset)
            if reading is None:
                return None
            found = reading - offset  # unless the clocks are changed before
            known = min(found, at + _TWO_DAYS)
            if self._clock.offset(known) != offset:
                at = self._clock.change(at, known)
            elif known == found:
                return found
            else:
                at = found - _TWO_DAYS  # whatever the offset is by then, nothing is named before
