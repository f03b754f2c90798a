"""Durations and instants as people write them, and as whole milliseconds inside.

Both are rounded up to the millisecond: a timer may be late by less than one, and never early.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from durable._error import InvalidInput, shown

Duration: TypeAlias = timedelta | int | float | str
"""A `timedelta`, seconds as a number, or a string such as "250ms", "30s", "15m", "6h", "3d", "2w"."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LONGEST = timedelta(days=36_525)
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_TEXT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|[smhdw])")
_EXAMPLES = "give a timedelta, seconds as a number, or text such as '250ms', '30s', '15m', '6h', '3d', '2w'"


def to_timedelta(value: Duration, *, what: str = "duration") -> timedelta:
    """The duration that `value` stands for.

    Raises:
        InvalidInput: it is not a duration, it is negative, or it is longer than 100 years.
    """
    seconds = _seconds(value)
    if seconds is None:
        raise InvalidInput(f"{what} must be a duration such as '30s', not {shown(value)}", _EXAMPLES)
    if not 0 <= seconds <= _LONGEST.total_seconds():  # so written that NaN is refused too
        raise InvalidInput(f"{what} must be from 0 to 100 years, not {shown(value)}", _EXAMPLES)
    return value if isinstance(value, timedelta) else timedelta(seconds=seconds)


def to_ms(value: Duration, *, what: str = "duration") -> int:
    """The duration in whole milliseconds, rounded up. Raises `InvalidInput` as `to_timedelta` does."""
    return _ceil_ms(to_timedelta(value, what=what))


def to_instant_ms(value: datetime, *, what: str = "instant") -> int:
    """Milliseconds since the Unix epoch, rounded up.

    Raises:
        InvalidInput: it is not a datetime, or one that does not say its zone.
    """
    if not _is_datetime(value):
        raise InvalidInput(
            f"{what} must be a datetime, not {shown(value)}",
            "give an aware datetime, such as datetime.now(UTC) + timedelta(hours=1)",
        )
    if value.utcoffset() is None:
        raise InvalidInput(
            f"{what} must name its time zone, but {value.isoformat()} does not",
            "make it aware: datetime(..., tzinfo=UTC), or tzinfo=ZoneInfo('Europe/London')",
        )
    return _ceil_ms(value - _EPOCH)


def format_duration(value: timedelta) -> str:
    """A duration for people, cut to its two greatest units: "60ms", "2.1s", "15m", "4h 05m", "3d 04h"."""
    if value < timedelta():
        return f"-{format_duration(-value)}"
    ms = value // _MILLISECOND
    if ms < _UNITS["s"]:
        return f"{ms}ms" if ms else "<1ms" if value else "0s"
    if ms < _UNITS["m"]:
        return f"{ms // 100 / 10:g}s"
    greater, lesser = "dh" if ms >= _UNITS["d"] else "hm" if ms >= _UNITS["h"] else "ms"
    whole, rest = divmod(ms, _UNITS[greater])
    parts = rest // _UNITS[lesser]
    return f"{whole}{greater} {parts:02}{lesser}" if parts else f"{whole}{greater}"


def _seconds(value: object) -> float | None:
    """Seconds, of any sign and size, or None for what is no duration at all."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (match := _TEXT.fullmatch(value)):
        return float(match[1]) * _UNITS[match[2]] / 1000
    return None


def _is_datetime(value: object) -> bool:
    return isinstance(value, datetime)


def _ceil_ms(span: timedelta) -> int:
    return -(-span // _MILLISECOND)
