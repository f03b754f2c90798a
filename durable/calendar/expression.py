"""Reading cron expressions. croniter reads them, and more than cron does: what would surprise is refused before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from durable.calendar.rule import LAST, Rule
from durable.errors import InvalidInput, shown


class _Field(NamedTuple):
    name: str
    least: int
    greatest: int
    names: tuple[str, ...] = ()
    special: re.Pattern[str] | None = None
    """What else a term may be."""
    again: int | None = None
    """Another number for the least."""


_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (  # in croniter's order
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31, special=re.compile("l")),
    _Field("month", 1, 12, _MONTHS),
    _Field(
        "day of the week",
        0,
        6,
        _WEEKDAYS,
        re.compile(rf"(?:[0-7]|{'|'.join(_WEEKDAYS)})#[1-5]|l[0-7]"),
        again=7,
    ),
    _Field("second", 0, 59),
)
_DAY, _WEEKDAY = 2, 4
_ANY: Final = frozenset({"*", "?"})
_ALL_WEEKS: Final = frozenset({1, 2, 3, 4, 5})
_TERM: Final = re.compile(
    r"(?:\*|(?P<low>[0-9]{1,4}|[a-z]{3})(?:-(?P<high>[0-9]{1,4}|[a-z]{3}))?)(?:/(?P<step>[0-9]{1,4}))?"
)
_MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_EXAMPLES: Final = (
    "write minute, hour, day of the month, month and day of the week, as in '30 9 * * MON-FRI', and the second before "
    "them where it matters; or one of " + ", ".join(_MACROS)
)
_TERMS: Final = (
    "a field is *, or values, ranges such as 1-5 and steps such as */10, with commas between; the day of the month may "
    "be L, the last, and the day of the week MON#1, the first Monday, or L5, the last Friday"
)


def parse(expression: str) -> Rule:
    """The rule that a cron expression stands for.

    Raises:
        InvalidInput: it is no cron expression, or no day fits it.
    """
    fields = _split(expression)
    for field, text in zip(_FIELDS, fields, strict=False):
        _check(expression, field, text)

    from croniter import CroniterError, croniter  # not with `import durable`, for it takes its time

    try:
        expanded, nth = croniter.expand(" ".join(fields))
    except CroniterError as error:
        raise _refused(expression, str(error), _TERMS) from error
    values = [_values(field, listed) for field, listed in zip(_FIELDS, expanded, strict=False)]
    minutes, hours, days, months, weekdays = values[:5]
    weeks = cast("dict[int, set[int | str]]", nth)
    rule = Rule(
        seconds=values[5] if len(values) > 5 else (0,),
        minutes=minutes,
        hours=hours,
        days=frozenset(days),
        months=months,
        weekdays={
            weekday: frozenset(LAST if week == "l" else int(week) for week in weeks.get(weekday, _ALL_WEEKS))
            for weekday in weekdays
        },
        either=_ANY.isdisjoint((fields[_DAY], fields[_WEEKDAY])),
    )
    if not rule.is_possible:
        raise _refused(
            expression,
            "it would never fire, for no month that it names has such a day",
            "look at its day of the month and its month; L is the last day of any month",
        )
    return rule


def _split(expression: object) -> Sequence[str]:
    """The fields in croniter's order, in which the second is the last."""
    if not isinstance(expression, str):
        raise InvalidInput(f"a cron expression must be text, not {shown(expression)}", _EXAMPLES)
    text = " ".join(expression.lower().split())
    if text.startswith("@every"):
        raise _refused(expression, "it is an interval", "use Every('30s')")
    fields = _MACROS.get(text, text).split()
    if not 5 <= len(fields) <= 6:
        raise _refused(
            expression, f"there must be 5 fields, or 6 with the second first, not {len(fields)}", _EXAMPLES
        )
    return fields if len(fields) == 5 else [*fields[1:], fields[0]]


def _check(expression: str, field: _Field, text: str) -> None:
    """Refuse a field that is none, or that croniter reads otherwise than cron.

    To croniter 9-9 is every hour, 22-4/3 goes on with the wrong hour, MON,MON#1 is the first Monday alone, and there
    are letters for what is random or near by: H, R, W.
    """
    if field.special is not None and text == "?":
        return
    terms = text.split(",")
    ordinary = [term for term in terms if field.special is None or not field.special.fullmatch(term)]
    for term in ordinary:
        try:
            _check_term(field, term)
        except ValueError as reason:
            raise _refused(expression, f"{shown(term)} as the {field.name}: {reason}", _TERMS) from None
    if len(terms) > 1 and "*" in terms:
        raise _refused(expression, f"the {field.name} has * beside other values", "write * alone")
    if field is _FIELDS[_WEEKDAY] and 0 < len(ordinary) < len(terms):
        raise _refused(
            expression,
            f"the {field.name} mixes whole weekdays with weekdays of certain weeks",
            "write MON#1,MON#2,MON#3,MON#4,MON#5 for MON",
        )


def _check_term(field: _Field, term: str) -> None:
    """Raises `ValueError` with what is wrong."""
    match = _TERM.fullmatch(term)
    if match is None:
        raise ValueError("no value, range or step")
    low = field.least if match["low"] is None else _number(field, match["low"])
    if match["high"] is None and match["step"] is None:
        return
    high = field.greatest if match["high"] is None else _number(field, match["high"])
    if low == high:
        raise ValueError("one value only; write it alone")
    if low == field.again:
        raise ValueError(f"begin with {field.least}")
    if match["step"] is None:
        return
    if low > high:
        raise ValueError("steps through the end; write the values, with commas between")
    most = field.greatest - field.least + 1
    if not 1 <= int(match["step"]) <= most:
        raise ValueError(
            f"a step must be from 1 to {most}, for it never leads out of the field; "
            "for the same time between any two fires use Every('90m')"
        )


def _number(field: _Field, text: str) -> int:
    if not text.isdigit():
        if text not in field.names:
            raise ValueError(
                f"names known here are {', '.join(field.names)}" if field.names else "not a number"
            )
        return field.least + field.names.index(text)
    greatest = field.greatest if field.again is None else field.again
    if not field.least <= int(text) <= greatest:
        raise ValueError(f"it must be from {field.least} to {greatest}")
    return int(text)


def _values(field: _Field, listed: Sequence[int | str]) -> tuple[int, ...]:
    """What croniter lists, in order, with `LAST` for the last day of a month."""
    if "*" in listed:
        return tuple(range(field.least, field.greatest + 1))
    return tuple(sorted(LAST if value == "l" else int(value) for value in listed))


def _refused(expression: str, reason: str, hint: str) -> InvalidInput:
    return InvalidInput(f"cron expression {shown(expression)} is refused: {reason}", hint)
