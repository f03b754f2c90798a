"""What the clocks on the walls of a zone read, and when.

A reading is what such a clock shows, as the seconds since it would have shown 1970-01-01 00:00:00. When clocks are
put forward, some readings are left out, and when they are put back, some come twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import final
from zoneinfo import ZoneInfo, available_timezones

from durable.errors import InvalidInput, shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# `right/` counts leap seconds, which no timestamp does; the others are whatever a machine is set to.
_NOT_ZONES = ("right/", "posix/", "localtime", "posixrules")


@final
class WallClock:
    """The clocks of one zone of the tz database. Instants and readings are whole seconds.

    Clocks are taken to be changed at most once in two days, which holds for all that the database knows.

    Raises:
        InvalidInput: there is no such zone.
    """

    __slots__ = ("_zone",)

    def __init__(self, tz: str) -> None:
        self._zone = zone(tz)

    def offset(self, at: int) -> int:
        """How far the clocks are ahead of UTC at the instant `at`."""
        return _offset(self._at(at))

    def furthest(self, at: int) -> int:
        """The furthest that the clocks have ever read, up to and including the instant `at`."""
        shown_now = self._at(at)
        if shown_now.fold:  # for the second time: they had come to the end of what comes twice
            put_back = self.change(at + _offset(shown_now) - _offset(shown_now.replace(fold=0)), at)
            return put_back - 1 + self.offset(put_back - 1)
        return at + _offset(shown_now)

    def first(self, reading: int) -> int:
        """The first instant at which the clocks read `reading` or further."""
        shown_first = (_EPOCH + timedelta(seconds=reading)).replace(tzinfo=self._zone)
        before, after = _offset(shown_first), _offset(shown_first.replace(fold=1))
        if before < after:  # never shown: they were put forward over it
            return self.change(reading - after, reading - before)
        return reading - before

    def change(self, low: int, high: int) -> int:
        """When the clocks are changed, as the first instant with the new offset: after `low`, and at `high` at last.

        Between the two there must be one change.
        """
        offset = self.offset(high)
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle) == offset:
                high = middle
            else:
                low = middle
        return high

    def _at(self, at: int) -> datetime:
        return (_EPOCH + timedelta(seconds=at)).astimezone(self._zone)


def _offset(moment: datetime) -> int:
    offset = moment.utcoffset() or timedelta()
    return offset.days * 86_400 + offset.seconds


def zone(tz: str) -> tzinfo:
    """The zone of that name.

    Raises:
        InvalidInput: the tz database has none; the hint names those that are spelled alike.
    """
    if tz == "UTC":
        return UTC
    try:
        if tz.startswith(_NOT_ZONES):
            raise ValueError(tz)
        return ZoneInfo(tz)
    # Also for what is no name but a directory, or a path out of the database.
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise InvalidInput(f"tz must name a zone of the tz database, not {shown(tz)}", _hint(tz)) from error


def _hint(tz: object) -> str:
    known = {name.casefold(): name for name in available_timezones() if not name.startswith(_NOT_ZONES)}
    if not known:
        return "this machine has no tz database: pip install tzdata"
    close = get_close_matches(str(tz).casefold(), known, n=3, cutoff=0.7)
    meant = f"did you mean {' or '.join(known[name] for name in close)}? " if close else ""
    return f"{meant}give a name such as 'Europe/London' or 'UTC', which is the default"
