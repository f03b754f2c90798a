"""Durations and instants: what people may write, what is refused, and how they are shown."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from durable.duration import format_duration, to_instant_ms, to_ms, to_timedelta
from durable.errors import InvalidInput

CENTURY = timedelta(days=36_525)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("250ms", 250),
        ("30s", 30_000),
        ("15m", 900_000),
        ("6h", 21_600_000),
        ("3d", 259_200_000),
        ("2w", 1_209_600_000),
        ("1.5h", 5_400_000),
        ("0.1s", 100),
        ("1.1s", 1_100),
        ("0s", 0),
        ("007s", 7_000),
        (30, 30_000),
        (0, 0),
        (-0.0, 0),
        (0.1, 100),
        (2.5, 2_500),
        (timedelta(minutes=1), 60_000),
        (CENTURY, 3_155_760_000_000),
        ("36525d", 3_155_760_000_000),
    ],
)
def test_a_duration_is_a_timedelta_or_seconds_or_a_number_with_its_unit(
    value: timedelta | float | str, ms: int
) -> None:
    assert to_ms(value) == ms
    assert to_timedelta(value) == timedelta(milliseconds=ms)


@pytest.mark.parametrize("value", [timedelta(microseconds=1), 0.000_001, 0.000_9, "0.9ms"])
def test_a_part_of_a_millisecond_counts_as_a_whole_one_so_that_no_timer_is_early(
    value: timedelta | float | str,
) -> None:
    assert to_ms(value) == 1


@pytest.mark.parametrize(
    "value",
    [
        "",
        "30",
        "s",
        "30 s",
        " 30s",
        "30s\n",
        "1h30m",
        "30S",
        "5M",
        "1y",
        "-5s",
        "+5s",
        ".5s",
        "5.s",
        "1e3s",
        "nan",
        "٣s",
        "9" * 5_000 + "s",
        "36526d",
        True,
        False,
        -1,
        -0.001,
        float("nan"),
        float("inf"),
        float("-inf"),
        10**5_000,
        4e9,
        1e300,
        timedelta(microseconds=-1),
        CENTURY + timedelta(microseconds=1),
        timedelta.max,
        None,
        b"30s",
        [30],
        1j,
    ],
    ids=lambda value: "huge int" if isinstance(value, int) and value > 1 else repr(value)[:60],
)
def test_what_is_no_duration_is_refused_with_its_name_and_examples(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^timeout must be ") as caught:
        to_ms(value, what="timeout")
    assert "'30s'" in caught.value.hint
    assert len(str(caught.value)) < 200


def test_the_refusal_shows_the_value() -> None:
    with pytest.raises(InvalidInput) as caught:
        to_timedelta("30 seconds", what="lease")
    assert str(caught.value) == "lease must be a duration such as '30s', not '30 seconds'"


@given(st.timedeltas(min_value=timedelta(), max_value=CENTURY))
def test_milliseconds_are_never_less_than_the_duration_and_less_than_one_more(value: timedelta) -> None:
    assert value <= timedelta(milliseconds=to_ms(value)) < value + timedelta(milliseconds=1)
    assert to_timedelta(value.total_seconds()) == value


@given(st.integers(0, 10**9), st.sampled_from(["ms", "s"]))
def test_text_with_a_whole_number_is_exact(number: int, unit: str) -> None:
    assert to_ms(f"{number}{unit}") == number * {"ms": 1, "s": 1_000}[unit]


@given(st.text())
def test_text_is_a_duration_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        assert to_timedelta(text) >= timedelta()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(), "0s"),
        (timedelta(microseconds=400), "<1ms"),
        (timedelta(milliseconds=60), "60ms"),
        (timedelta(milliseconds=999, microseconds=999), "999ms"),
        (timedelta(seconds=1), "1s"),
        (timedelta(seconds=2, milliseconds=149), "2.1s"),
        (timedelta(seconds=30), "30s"),
        (timedelta(seconds=59, milliseconds=999), "59.9s"),
        (timedelta(minutes=1), "1m"),
        (timedelta(minutes=2, seconds=5, milliseconds=900), "2m 05s"),
        (timedelta(minutes=59, seconds=59), "59m 59s"),
        (timedelta(hours=4, minutes=5), "4h 05m"),
        (timedelta(hours=4, seconds=59), "4h"),
        (timedelta(days=3, hours=4), "3d 04h"),
        (timedelta(weeks=2), "14d"),
        (timedelta(seconds=-2, milliseconds=-100), "-2.1s"),
    ],
)
def test_a_duration_is_shown_by_its_two_greatest_units(value: timedelta, text: str) -> None:
    assert format_duration(value) == text


@given(st.timedeltas())
def test_any_duration_can_be_shown_in_a_few_characters(value: timedelta) -> None:
    assert len(format_duration(value)) <= 15


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), -1_000),
        (datetime(2030, 1, 1, tzinfo=UTC), 1_893_456_000_000),
        (datetime(2030, 7, 1, 1, tzinfo=ZoneInfo("Europe/London")), 1_909_094_400_000),
        (datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1),
        (datetime(1970, 1, 1, 0, 0, 0, 1_001, tzinfo=UTC), 2),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), -62_135_647_200_000),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), 253_402_344_000_000),
    ],
    ids=str,
)
def test_an_instant_is_milliseconds_since_the_epoch_rounded_up(value: datetime, ms: int) -> None:
    assert to_instant_ms(value) == ms


def test_a_naive_datetime_is_refused_with_the_way_to_make_it_aware() -> None:
    with pytest.raises(InvalidInput, match="at must name its time zone, but 2030-01-01T09:00:00") as caught:
        to_instant_ms(datetime(2030, 1, 1, 9), what="at")  # noqa: DTZ001 naive on purpose
    assert "tzinfo=UTC" in caught.value.hint


@pytest.mark.parametrize("value", [date(2030, 1, 1), "2030-01-01T09:00:00Z", 1_893_456_000, None], ids=repr)
def test_what_is_no_datetime_is_no_instant(value: Any) -> None:
    with pytest.raises(InvalidInput, match="at must be a datetime, not ") as caught:
        to_instant_ms(value, what="at")
    assert "aware datetime" in caught.value.hint
