"""The times that a cron expression names, as a clock on the wall reads them. Zones and instants are not known here."""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import final

_DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
_YEAR_AFTER_LAST = 9999
_MONTHS_IN_CYCLE = 4_800
"""In 400 years the Gregorian calendar comes back to the same weekdays: what is not in them never is."""

LAST = -1
"""Among the weeks of `Rule.weekdays`: the last of the month."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A cron expression, read. All values are in order."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    days: frozenset[int]
    """Of the month; with `LAST` also its last, whatever its number."""
    weekdays: Mapping[int, frozenset[int]]
    """From 0, a Sunday, to 6: those of which weeks of the month, from 1 to 5 or `LAST`."""
    either: bool
    """Whether a day fits by its number or its weekday, and not only by both."""

    @property
    def is_hourly(self) -> bool:
        """Whether no hour of a fitting day is left out."""
        return len(self.hours) == 24

    @property
    def is_possible(self) -> bool:
        """Whether any day fits at all."""
        return self._day(_EPOCH) is not None

    def next(self, reading: int) -> int | None:
        """The first time that fits from `reading` on, which counts: both in seconds since 1970-01-01 00:00:00.

        None when there is none before the year 9999.
        """
        day, second = divmod(reading, _DAY)
        found = self._day(day + _EPOCH)
        if found == day + _EPOCH:
            if (time := self._time(second)) is not None:
                return day * _DAY + time
            found = self._day(day + _EPOCH + 1)
        if found is None:
            return None
        return (found - _EPOCH) * _DAY + _seconds(self.hours[0], self.minutes[0], self.seconds[0])

    def _time(self, since_midnight: int) -> int | None:
        """The first time of day from `since_midnight` on, if the day still has one."""
        hour, rest = divmod(since_midnight, 3600)
        minute, second = divmod(rest, 60)
        hours, minutes, seconds = self.hours, self.minutes, self.seconds
        h = bisect_left(hours, hour)
        if h < len(hours) and hours[h] == hour:
            m = bisect_left(minutes, minute)
            if m < len(minutes) and minutes[m] == minute:
                s = bisect_left(seconds, second)
                if s < len(seconds):
                    return _seconds(hour, minute, seconds[s])
                m += 1
            if m < len(minutes):
                return _seconds(hour, minutes[m], seconds[0])
            h += 1
        return _seconds(hours[h], minutes[0], seconds[0]) if h < len(hours) else None

    def _day(self, first: int) -> int | None:
        """The first day that fits from `first` on; both count from the first day of the year 1."""
        start = date.fromordinal(first)
        year, month, day = start.year, start.month, start.day
        for _ in range(_MONTHS_IN_CYCLE + 1):
            if month in self.months and (found := self._day_of(year, month, day)) is not None:
                return date(year, month, found).toordinal()
            month, day = month % 12 + 1, 1
            year += month == 1
            if year == _YEAR_AFTER_LAST:
                break
        return None

    def _day_of(self, year: int, month: int, first: int) -> int | None:
        """The first day that fits among those of a month, from the day `first` on."""
        fits = any if self.either else all
        before, length = monthrange(year, month)  # the weekday of the day before the 1st, as numbered here
        for day in range(first, length + 1):
            by_number = day in self.days or (day == length and LAST in self.days)
            weeks = self.weekdays.get((before + day) % 7, ())
            by_weekday = (day + 6) // 7 in weeks or (day + 7 > length and LAST in weeks)
            if fits((by_number, by_weekday)):
                return day
        return None


def _seconds(hour: int, minute: int, second: int) -> int:
    return (hour * 60 + minute) * 60 + second
