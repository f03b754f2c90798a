"""Cron against an oracle that does not calculate: it looks at the clock on the wall, every minute or every second.

In every zone of the tz database, about days on which its clocks are changed and about others.

DURABLE_TEST_SEED=7       the same days and instants again
DURABLE_TEST_LONG=1       200 expressions in every zone, about all of its changes from 2000 to 2040
"""

from __future__ import annotations

import os
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import cycle, islice, pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import pytest

from durable.calendar import Cron

IS_LONG = os.environ.get("DURABLE_TEST_LONG") == "1"
SEED = int(os.environ.get("DURABLE_TEST_SEED", "20000101"))
FIRST_YEAR, LAST_YEAR = 2000, 2040
HOUR, DAY = 3600, 86_400
ZONES = sorted(available_timezones() - {"localtime"})

ODD_ZONES = (
    "Africa/Cairo",  # put forward at midnight
    "Africa/Casablanca",  # put back for Ramadan
    "America/Caracas",  # by half an hour
    "America/Havana",  # at midnight, and from 01:00 back to 00:00
    "America/New_York",
    "America/Nuuk",  # before midnight
    "America/Sao_Paulo",  # from midnight back to the day before
    "America/St_Johns",  # at 00:01
    "Antarctica/Casey",  # by three hours
    "Antarctica/Troll",  # by two hours
    "Asia/Kathmandu",  # 05:45 ahead
    "Asia/Pyongyang",
    "Australia/Lord_Howe",  # by half an hour
    "Europe/Dublin",  # winter is the exception
    "Europe/London",
    "Pacific/Apia",  # a day left out
    "Pacific/Chatham",  # at 02:45
)

WRITTEN = (
    *(
        "* * * * *",
        "*/5 * * * *",
        "*/30 * * * *",
        "0 * * * *",
        "15 * * * *",
        "59 * * * *",
        "@hourly",
        "7/20 * * * *",
    ),
    *("0 0-23 * * *", "10,50 */1 * * MON", "0 * 29 2 *", "30 * L * *", "45 * * * 7", "5 * 25-31 10 *"),
    *(
        "0 0 * * *",
        "30 0 * * *",
        "0 1 * * *",
        "30 1 * * *",
        "0 2 * * *",
        "1 2 * * *",
        "30 2 * * *",
        "59 2 * * *",
    ),
    *(
        "0 3 * * *",
        "0 4 * * *",
        "45 2 * * *",
        "59 23 * * *",
        "0 23 * * *",
        "0 9 * * *",
        "0 12 * * *",
        "15 14 * * *",
    ),
    *(
        "0 */2 * * *",
        "0 1/2 * * *",
        "*/15 0-4 * * *",
        "* 1 * * *",
        "* 2 * * *",
        "*/10 1,2,3 * * *",
        "0 22-4 * * *",
    ),
    *(
        "*/20 0-22 * * *",
        "30 23,0 * * *",
        "0 0,12 * * *",
        "@daily",
        "@midnight",
        "@weekly",
        "@monthly",
        "@yearly",
    ),
    *(
        "0 9 * * 1-5",
        "0 9 * * MON-FRI",
        "0 9 * * FRI-MON",
        "30 2 * * SUN",
        "30 1 * * 7",
        "0 0 * * 0,6",
        "0 3 * * */2",
    ),
    *(
        "0 0 1 * *",
        "0 0 15 * *",
        "0 0 31 * *",
        "0 0 29 2 *",
        "0 0 30 4,6 *",
        "0 0 L * *",
        "59 23 L 2 *",
        "0 0 1,L * *",
    ),
    *("30 2 25-31 3 *", "30 2 25-31 10 *", "0 0 13 * FRI", "0 2 1-7 * SUN", "0 0 31 2 MON", "0 0 */2 * MON"),
    *(
        "0 0 * * MON#1",
        "0 2 * * SUN#1",
        "0 1 * * L0",
        "0 0 * * L5",
        "0 0 * * FRI#5",
        "0 0 1 * TUE#2",
        "0 0 ? * 2#3",
    ),
    *(
        "0 0 1 1 *",
        "0 0 1 JAN,JUL *",
        "0 0 30 12 *",
        "0 9 31 DEC *",
        "0 0 28-31 * *",
        "0 12 * 10-3 *",
        "0 6 * NOV-FEB *",
    ),
    *(
        "0 0 * * * *",
        "*/20 * * * * *",
        "30 59 * * * *",
        "59 59 23 * * *",
        "15,45 30 1 * * *",
        "*/10 30 2 * * *",
    ),
    *(
        "0 0 9 * * MON-FRI",
        "0/25 */7 2-3 * * *",
        "1 0 0 1 * *",
        "0 0 2 L 3,10 *",
        "* * 2 * * SUN",
        "30 0 * * * L0",
    ),
)


# ---- the oracle: what an expression says, and what a clock shows


class Field(NamedTuple):
    least: int
    greatest: int
    names: str = ""

    def number(self, text: str) -> int:
        return int(text) if text.isdigit() else self.names.split().index(text.upper()) + self.least

    def values(self, text: str) -> set[int]:
        found: set[int] = set()
        for term in text.split(","):
            span, _, step = term.partition("/")
            low, _, high = span.partition("-")
            if span in {"*", "?"}:
                first, last = self.least, self.greatest
            else:
                first = self.number(low)
                last = self.number(high) if high else self.greatest if step else first
            if last < first:  # over the end and on from the beginning
                last += self.greatest - self.least + 1
            size = self.greatest - self.least + 1
            found |= {
                (value - self.least) % size + self.least for value in range(first, last + 1, int(step or 1))
            }
        return found


SECONDS, MINUTES, HOURS = Field(0, 59), Field(0, 59), Field(0, 23)
DAYS = Field(1, 31)
MONTHS = Field(1, 12, "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC")
WEEKDAYS = Field(0, 6, "SUN MON TUE WED THU FRI SAT")
MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


class Oracle:
    """An expression as cron(5) describes it."""

    def __init__(self, expression: str) -> None:
        fields = MACROS.get(expression, expression).split()
        self.unit = 1 if len(fields) == 6 else 60
        second, minute, hour, self.day, month, self.weekday = fields if self.unit == 1 else ["0", *fields]
        self.times = {
            (h * 60 + m) * 60 + s
            for h in HOURS.values(hour)
            for m in MINUTES.values(minute)
            for s in SECONDS.values(second)
        }
        self.is_hourly = HOURS.values(hour) == set(range(24))
        self.months = MONTHS.values(month)
        self.has_day = cache(self._has_day)

    def names(self, reading: int) -> bool:
        return reading % DAY in self.times and self.has_day(reading // DAY)

    def _has_day(self, number: int) -> bool:
        day = date(1970, 1, 1) + timedelta(days=number)
        if day.month not in self.months:
            return False
        if "*" in {self.day[:2], self.weekday[:2]} or "?" in {self.day, self.weekday}:
            return self._by_number(day) and self._by_weekday(day)
        return self._by_number(day) or self._by_weekday(day)

    def _by_number(self, day: date) -> bool:
        terms = self.day.split(",")
        if "L" in terms and (day + timedelta(days=1)).day == 1:
            return True
        return any(day.day in DAYS.values(term) for term in terms if term != "L")

    def _by_weekday(self, day: date) -> bool:
        today = day.isoweekday() % 7
        for term in self.weekday.split(","):
            if term.startswith("L"):
                if today == int(term[1]) % 7 and (day + timedelta(days=7)).month != day.month:
                    return True
            elif "#" in term:
                weekday, _, week = term.partition("#")
                same = [day - timedelta(days=7 * back) for back in range(6)]
                if today in WEEKDAYS.values(weekday) and int(week) == sum(d.month == day.month for d in same):
                    return True
            elif today in WEEKDAYS.values(term):
                return True
        return False


class Look(NamedTuple):
    """A look at the clock."""

    at: int
    reads: int
    passed: Sequence[int]
    """What the clock had never read before, up to what it reads now."""


def read(zone: ZoneInfo, at: int) -> int:
    ahead = datetime.fromtimestamp(at, zone).utcoffset()
    assert ahead is not None
    return at + ahead.days * DAY + ahead.seconds


def watch(zone: ZoneInfo, start: int, end: int, unit: int) -> Iterator[Look]:
    """Looks at the clock from `start` on and before `end`, once it has been watched for more than a day.

    Changes are at whole minutes, so that within a minute the clock goes as usual.
    """
    furthest = max(read(zone, at) for at in range(start - 27 * HOUR, start, 60)) + 60 - unit
    for at in range(start, end, unit):
        reads = read(zone, at)
        yield Look(at, reads, range(furthest + unit, reads + unit, unit))
        furthest = max(furthest, reads)


def fires(oracle: Oracle, looks: Sequence[Look]) -> list[int]:
    if oracle.is_hourly:
        return [look.at for look in looks if oracle.names(look.reads)]
    return [look.at for look in looks if any(oracle.names(reading) for reading in look.passed)]


# ---- what is tried


def expressions() -> list[str]:
    """Those above, and as many more, made at random, as there are to 200."""
    chance = random.Random(200)

    def values(field: Field, *, stars: float) -> str:
        size = field.greatest - field.least + 1
        kind = chance.random()
        if kind < stars:
            return "*"
        low, high = sorted(chance.sample(range(field.least, field.greatest + 1), 2))
        if kind < stars + 0.1:
            return f"*/{chance.randint(1, size)}"
        if kind < stars + 0.25:
            return f"{low}-{high}"
        if kind < stars + 0.35:
            return f"{low}-{high}/{chance.randint(1, size)}"
        return ",".join(str(chance.randint(field.least, field.greatest)) for _ in range(chance.randint(1, 3)))

    made: dict[str, None] = dict.fromkeys(WRITTEN)
    while len(made) < 200:
        day = values(DAYS, stars=0.6)
        month = values(MONTHS, stars=0.8) if "3" not in day[:1] else "*"
        fields = [
            values(MINUTES, stars=0.05),
            values(HOURS, stars=0.25),
            day,
            month,
            values(WEEKDAYS, stars=0.6),
        ]
        if chance.random() < 0.15:
            fields.insert(0, values(SECONDS, stars=0.02))
        made[" ".join(fields)] = None
    return list(made)


EXPRESSIONS = expressions()


@cache
def oracle_of(expression: str) -> Oracle:
    return Oracle(expression)


def first_of(year: int) -> int:
    return (date(year, 1, 1) - date(1970, 1, 1)).days * DAY


def changes(tz: str, first_year: int, last_year: int) -> list[int]:
    """The minutes from which on the clocks read otherwise than one minute after the minute before."""
    zone = ZoneInfo(tz)

    def ahead(at: int) -> int:
        return read(zone, at) - at

    def between(low: int, high: int) -> int:
        while high - low > 60:
            middle = (low + high) // 120 * 60
            low, high = (middle, high) if ahead(middle) == ahead(low) else (low, middle)
        return high

    looks = range(first_of(first_year), first_of(last_year + 1), DAY)
    return [between(low, high) for low, high in pairwise(looks) if ahead(low) != ahead(high)]


def some_day(chance: random.Random) -> int:
    return chance.randrange(first_of(FIRST_YEAR), first_of(LAST_YEAR + 1), DAY)


def check(tz: str, about: int, tried: Sequence[str], chance: random.Random) -> None:
    """Whether all of `tried` fire when the oracle says so, from hours before the instant `about` to a day after it."""
    zone = ZoneInfo(tz)
    windows = {60: (about - 4 * HOUR, about + 26 * HOUR), 1: (about - HOUR // 3, about + HOUR)}
    looks = {
        unit: list(watch(zone, *windows[unit], unit)) for unit in {oracle_of(each).unit for each in tried}
    }
    for expression in tried:
        cron, oracle = Cron(expression, tz), oracle_of(expression)
        start, end = windows[oracle.unit]
        expected = [at * 1000 for at in fires(oracle, looks[oracle.unit])]
        window = f"{cron} from {datetime.fromtimestamp(start, UTC)} to {datetime.fromtimestamp(end, UTC)}"
        assert list(cron.fires(start * 1000 - 1, end * 1000 - 1, limit=len(expected) + 1)) == expected, window
        assert cron.latest(start * 1000 - 1, end * 1000 - 1) == (expected[-1] if expected else None), window
        near = range(max(start, about - 2 * HOUR) * 1000, min(end, about + 3 * HOUR) * 1000)
        for instant in chance.sample(near, 6) + [
            chance.randrange(start * 1000, end * 1000) for _ in range(3)
        ]:
            found = cron.after(instant)
            assert found is not None, window
            assert [found][: found < end * 1000] == expected[bisect_right(expected, instant) :][:1], (
                f"{cron} after {instant}"
            )


@pytest.mark.timeout(3600 if IS_LONG else 60)
@pytest.mark.parametrize("tz", ZONES)
def test_cron_fires_as_the_clocks_of_every_zone_are_read(tz: str) -> None:
    chance = random.Random(f"{SEED} {tz}")
    if IS_LONG:
        tried = cycle(chance.sample(EXPRESSIONS, len(EXPRESSIONS)))
        for instant in [*changes(tz, FIRST_YEAR, LAST_YEAR), *(some_day(chance) for _ in range(20))]:
            check(tz, instant, list(islice(tried, 10)), chance)
    else:
        year = chance.randint(FIRST_YEAR, LAST_YEAR)
        instants = changes(tz, year, year) or [some_day(chance)]
        check(tz, chance.choice(instants), chance.sample(EXPRESSIONS, 2), chance)


@pytest.mark.parametrize("tz", ODD_ZONES)
def test_cron_fires_as_the_clocks_of_odd_zones_are_read(tz: str) -> None:
    chance = random.Random(f"{SEED} {tz}")
    instants = changes(tz, 2007, 2026) or [first_of(2026)]
    for instant in chance.sample(instants, min(len(instants), 3)):
        check(tz, instant, chance.sample(EXPRESSIONS, 20), chance)


def test_the_day_that_apia_left_out_and_the_hours_about_it() -> None:
    (left_out,) = (at for at in changes("Pacific/Apia", 2011, 2011) if at == 1_325_239_200)
    check("Pacific/Apia", left_out, EXPRESSIONS, random.Random(SEED))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_cron_knows_leap_years_weekdays_and_ends_of_months(expression: str) -> None:
    chance = random.Random(f"{SEED} {expression}")
    years = (
        range(FIRST_YEAR, LAST_YEAR + 1) if IS_LONG else chance.sample(range(FIRST_YEAR, LAST_YEAR + 1), 2)
    )
    cron, oracle = Cron(expression), oracle_of(expression)
    first_time = min(oracle.times)
    for year in years:
        days = range(first_of(year) // DAY, first_of(year + 1) // DAY)
        expected = [day * DAY + first_time for day in days if oracle.has_day(day)]
        found = [at // 1000 for day in days for at in cron.fires(day * DAY * 1000 - 1, limit=1)]
        assert sorted(at for at in set(found) if at < first_of(year + 1)) == expected, year
