"""When schedules fire: what cron expressions and intervals mean, and which ticks come of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from itertools import combinations
from random import Random
from statistics import mean
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from durable import Cron, Every, InvalidInput
from durable.calendar import Trigger, tick_delay_ms, tick_id
from durable.duration import to_instant_ms
from durable.names import check_name
from durable.protocols import id_root, keyed_id

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def ms(text: str) -> int:
    return to_instant_ms(datetime.fromisoformat(text).replace(tzinfo=UTC))


def texts(instants: Iterable[int]) -> list[str]:
    return [
        f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S}".removesuffix(":00") for at in instants
    ]


def fires(trigger: Trigger, after: str, limit: int) -> list[str]:
    return texts(trigger.fires(ms(after), limit=limit))


# ---- cron


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 9 * * *", ["2026-01-01 09:00", "2026-01-02 09:00"]),
        ("*/40 * * * *", ["2026-01-01 00:40", "2026-01-01 01:00", "2026-01-01 01:40"]),
        ("0 9 * * 1-5", ["2026-01-01 09:00", "2026-01-02 09:00", "2026-01-05 09:00"]),
        ("0 9 * * MON-FRI", ["2026-01-01 09:00", "2026-01-02 09:00", "2026-01-05 09:00"]),
        ("0 0 * * fri-mon", ["2026-01-02 00:00", "2026-01-03 00:00", "2026-01-04 00:00", "2026-01-05 00:00"]),
        ("0 0 * * 0", ["2026-01-04 00:00"]),
        ("0 0 * * 7", ["2026-01-04 00:00"]),
        ("0 0 1 JAN,Jul *", ["2026-07-01 00:00", "2027-01-01 00:00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("0 0 31 * *", ["2026-01-31 00:00", "2026-03-31 00:00", "2026-05-31 00:00"]),
        ("0 0 L * *", ["2026-01-31 00:00", "2026-02-28 00:00", "2026-03-31 00:00"]),
        ("0 0 * * MON#1", ["2026-01-05 00:00", "2026-02-02 00:00"]),
        ("0 0 * * L5", ["2026-01-30 00:00", "2026-02-27 00:00"]),
        ("0 0 * 2 MON#5", ["2044-02-29 00:00", "2072-02-29 00:00", "2112-02-29 00:00"]),
        ("*/30 59 23 * * *", ["2026-01-01 23:59", "2026-01-01 23:59:30", "2026-01-02 23:59"]),
        ("10 * * * * *", ["2026-01-01 00:00:10", "2026-01-01 00:01:10"]),
        ("@hourly", ["2026-01-01 01:00", "2026-01-01 02:00"]),
        ("@daily", ["2026-01-02 00:00"]),
        ("@midnight", ["2026-01-02 00:00"]),
        ("@weekly", ["2026-01-04 00:00", "2026-01-11 00:00"]),
        ("@monthly", ["2026-02-01 00:00", "2026-03-01 00:00"]),
        ("@yearly", ["2027-01-01 00:00"]),
        ("@Annually", ["2027-01-01 00:00"]),
        ("  0   9 * *\t* \n", ["2026-01-01 09:00"]),
    ],
)
def test_an_expression_says_when(expression: str, expected: list[str]) -> None:
    assert fires(Cron(expression), "2026-01-01", len(expected)) == expected


def test_a_day_fits_by_its_number_or_its_weekday_where_both_are_given() -> None:
    assert fires(Cron("0 0 13 * FRI"), "2026-02-01", 3) == [
        "2026-02-06 00:00",
        "2026-02-13 00:00",
        "2026-02-20 00:00",
    ]
    assert fires(Cron("0 0 13 * FRI"), "2026-04-10", 2) == ["2026-04-13 00:00", "2026-04-17 00:00"]
    assert fires(Cron("0 0 31 2 MON"), "2026-01-01", 1) == ["2026-02-02 00:00"]
    assert fires(Cron("0 0 ? * FRI"), "2026-02-07", 1) == ["2026-02-13 00:00"]


def test_the_zone_decides_what_nine_in_the_morning_is() -> None:
    new_york = Cron("0 9 * * *", tz="America/New_York")
    assert fires(new_york, "2026-03-07", 2) == ["2026-03-07 14:00", "2026-03-08 13:00"]
    assert fires(Cron("0 9 * * *", tz="Asia/Kathmandu"), "2026-03-07", 1) == ["2026-03-07 03:15"]
    assert Cron("0 9 * * *").tz == "UTC"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 1 * * *", ["2026-03-28 01:30", "2026-03-29 01:00", "2026-03-30 00:30"]),
        ("0 1 * * *", ["2026-03-28 01:00", "2026-03-29 01:00", "2026-03-30 00:00"]),
        ("0 2 * * *", ["2026-03-28 02:00", "2026-03-29 01:00", "2026-03-30 01:00"]),
        ("*/20 1 29 3 *", ["2026-03-29 01:00", "2027-03-29 00:00"]),
        ("*/20 1,2 29 3 *", ["2026-03-29 01:00", "2026-03-29 01:20", "2026-03-29 01:40", "2027-03-29 00:00"]),
    ],
)
def test_a_time_that_the_clocks_leave_out_fires_right_after_the_gap_and_once(
    expression: str, expected: list[str]
) -> None:
    assert fires(Cron(expression, tz="Europe/London"), "2026-03-28", len(expected)) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 1 * * *", ["2026-10-24 00:30", "2026-10-25 00:30", "2026-10-26 01:30"]),
        ("0 2 * * *", ["2026-10-24 01:00", "2026-10-25 02:00"]),
        (
            "*/30 0-2 25 10 *",
            [f"2026-10-{time}" for time in ("24 23:00", "24 23:30", "25 00:00", "25 00:30", "25 02:00")],
        ),
    ],
)
def test_a_time_that_comes_twice_fires_the_first_time(expression: str, expected: list[str]) -> None:
    assert fires(Cron(expression, tz="Europe/London"), "2026-10-23 12:00", len(expected)) == expected


def test_nothing_fires_while_the_clocks_read_what_they_read_before() -> None:
    cron = Cron("*/10 1,3 * * *", tz="Europe/London")
    for minute in range(60):
        assert cron.after(ms(f"2026-10-25 01:{minute:02}")) == ms("2026-10-25 03:00")


@pytest.mark.parametrize("expression", ["*/30 * * * *", "0,30 0-23 * * *", "0 */30 */1 * * *"])
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-07-01"])
def test_an_expression_that_leaves_out_no_hour_follows_real_time(expression: str, day: str) -> None:
    found = list(Cron(expression, tz="Europe/London").fires(ms(day), limit=96))
    assert found == [ms(day) + half * 30 * MINUTE for half in range(1, 97)]


def test_an_hourly_time_does_not_move_on_the_day_of_a_gap() -> None:
    quarter_past = Cron("15 * * * *", tz="Europe/London")
    assert fires(quarter_past, "2026-03-29", 3) == [
        "2026-03-29 00:15",
        "2026-03-29 01:15",
        "2026-03-29 02:15",
    ]


def test_half_an_hour_is_put_back_at_lord_howe() -> None:
    # 02:00 at 11 hours ahead becomes 01:30 at 10 1/2.
    at_half_past = Cron("30 * * * *", tz="Australia/Lord_Howe")
    assert fires(at_half_past, "2026-04-04 14:00", 3) == [
        "2026-04-04 14:30",
        "2026-04-04 15:00",
        "2026-04-04 16:00",
    ]
    once = Cron("45 1 * * *", tz="Australia/Lord_Howe")
    assert fires(once, "2026-04-04", 2) == ["2026-04-04 14:45", "2026-04-05 15:15"]


def test_a_day_that_a_zone_leaves_out_fires_as_the_next_begins() -> None:
    assert fires(Cron("0 9 * * *", tz="Pacific/Apia"), "2011-12-29", 3) == [
        "2011-12-29 19:00",
        "2011-12-30 10:00",
        "2011-12-30 19:00",
    ]
    assert fires(Cron("0 9 30 12 *", tz="Pacific/Apia"), "2011-12-29", 1) == ["2011-12-30 10:00"]


def test_an_instant_never_follows_itself() -> None:
    cron = Cron("0 9 * * *")
    nine = ms("2026-01-01 09:00")
    assert (cron.after(nine - 1), cron.after(nine), cron.after(nine + 1)) == (nine, nine + DAY, nine + DAY)


def test_there_is_an_end_of_time_and_no_error() -> None:
    cron = Cron("0 0 29 2 *", tz="Pacific/Kiritimati")
    assert cron.after(ms("9996-03-01")) is None
    assert cron.after(ms("9999-12-31")) is None
    assert cron.after(10**18) is None
    assert cron.after(-(10**18)) is not None
    assert Cron("* * * * *", tz="Pacific/Pago_Pago").after(ms("9998-12-31 23:59")) is None
    assert list(cron.fires(ms("9992-01-01"), limit=9)) == [ms("9992-02-28 10:00"), ms("9996-02-28 10:00")]
    assert Cron("@hourly").latest(ms("9998-12-31"), 10**17) == ms("9998-12-31 23:00")


# ---- what is refused


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("", "5 fields"),
        ("* * * *", "5 fields"),
        ("0 0 1 1 * * 2026", "5 fields.*not 7"),
        ("@reboot", "5 fields"),
        ("@every 5m", "interval"),
        ("60 * * * *", "minute.*from 0 to 59"),
        ("0 24 * * *", "hour.*from 0 to 23"),
        ("0 0 0 * *", "day of the month.*from 1 to 31"),
        ("0 0 1-32 * *", "day of the month.*from 1 to 31"),
        ("0 0 * 13 *", "month.*from 1 to 12"),
        ("0 0 * * 8", "day of the week.*from 0 to 7"),
        ("60 * * * * *", "second.*from 0 to 59"),
        ("0 0 * FRI *", "'fri' as the month"),
        ("0 0 * * Monday", "'monday' as the day of the week"),
        ("MON 0 * * *", "'mon' as the minute"),
        ("-1 * * * *", "'-1' as the minute"),
        ("1.5 * * * *", "'1.5' as the minute"),
        ("1,,2 * * * *", "'' as the minute"),
        ("*/0 * * * *", "step must be from 1 to 60"),
        ("*/90 * * * *", "Every"),
        ("5/70 * * * *", "step must be from 1 to 60"),
        ("59/15 * * * *", "one value"),
        ("0 9-9 * * *", "one value"),
        ("0 0 * * MON-1", "one value"),
        ("0 0 * * 7-0", "begin with 0"),
        ("0 22-4/3 * * *", "list|commas"),
        ("*,5 * * * *", "beside"),
        ("0 0 *,L * *", "beside"),
        ("0 0 * * MON,MON#1", "mixes"),
        ("0 0 * * 0-6,1#2", "mixes"),
        ("0 0 * * MON#6", "mon#6"),
        ("0 0 * * MON-FRI#1", "mon-fri#1"),
        ("0 0 L-3 * *", "l-3"),
        ("0 0 15W * *", "15w"),
        ("H * * * *", "'h' as the minute"),
        ("R(0-9) * * * *", "as the minute"),
        ("? * * * *", "as the minute"),
        ("0 0 31 2 *", "never"),
        ("0 0 30 2 *", "never"),
        ("0 0 31 2,4,6,9,11 *", "never"),
        ("٣ * * * *", "as the minute"),
        ("9" * 5_000 + " * * * *", "as the minute"),
        (b"* * * * *", "must be text"),
        (5, "must be text"),
        (None, "must be text"),
    ],
)
def test_what_would_surprise_or_never_fire_is_refused_with_a_hint(expression: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match=text) as caught:
        Cron(expression)
    assert caught.value.hint != InvalidInput.hint
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("tz", "hint"),
    [
        ("Europe/Londn", "Europe/London"),
        ("europe/london", "Europe/London"),
        ("Mars/Olympus", "'Europe/London'"),
        ("+01:00", "'Europe/London'"),
        ("", "'Europe/London'"),
        ("Europe", "'Europe/London'"),
        ("../UTC", "'Europe/London'"),
        ("/etc/localtime", "'Europe/London'"),
        ("localtime", "'Europe/London'"),
        ("right/UTC", "'Europe/London'"),
        ("x" * 5_000, "'Europe/London'"),
        ("a\0b", "'Europe/London'"),
        (UTC, "'Europe/London'"),
        (None, "'Europe/London'"),
    ],
)
def test_an_unknown_zone_is_refused_with_a_hint(tz: Any, hint: str) -> None:
    with pytest.raises(InvalidInput, match="must name a zone of the tz database") as caught:
        Cron("@daily", tz=tz)
    assert hint in caught.value.hint


@given(st.text("0123456789*/-,#?LW@ MONFRIhr", max_size=30) | st.text(max_size=30))
@example("0 0 * * 1#")
@example("0 0 l,l * *")
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        cron = Cron(text)
    except InvalidInput:
        return
    assert cron.after(0) is not None


@pytest.mark.parametrize(
    ("field", "least", "greatest"), [(0, 0, 59), (1, 0, 23), (2, 1, 31), (3, 1, 12), (4, 0, 7)]
)
def test_a_step_is_counted_from_the_beginning_of_its_range(field: int, least: int, greatest: int) -> None:
    ranges = list(combinations(range(least, greatest + 1), 2))
    chance = Random(field)
    for low, high in chance.sample(ranges, min(len(ranges), 200)):
        step = chance.randint(1, high - low)
        fields = ["0", "0", "1", "1", "?"] if field < 4 else ["0", "0", "?", "*", "?"]
        fields[field] = f"{low}-{high}/{step}"
        listed = fields.copy()
        listed[field] = ",".join(map(str, range(low, high + 1, step)))
        start = ms("2026-12-31 23:59")
        found = list(Cron(" ".join(fields)).fires(start, limit=70))
        assert found == list(Cron(" ".join(listed)).fires(start, limit=70)), fields


# ---- intervals


def test_an_interval_is_counted_from_its_anchor_and_does_not_drift() -> None:
    every = Every("30s").anchored(7)
    assert every.after(7) == 30_007
    assert every.after(30_006) == 30_007
    assert every.after(30_007) == 60_007
    assert every.after(7 + 30_000 * 10**6 + 29_999) == 7 + 30_000 * (10**6 + 1)


def test_nothing_fires_before_one_interval_has_passed() -> None:
    every = Every("1h").anchored(DAY)
    assert list(every.fires(0, DAY + 2 * HOUR)) == [DAY + HOUR, DAY + 2 * HOUR]
    assert every.after(-(10**15)) == DAY + HOUR


@given(
    st.integers(1, 10**10),
    st.integers(-(10**13), 10**13),
    st.integers(-(10**13), 10**13),
)
def test_an_interval_fires_at_whole_numbers_of_intervals_and_leaves_none_out(
    interval: int, anchor: int, instant: int
) -> None:
    every = Every(timedelta(milliseconds=interval)).anchored(anchor)
    at = every.after(instant)
    count, rest = divmod(at - anchor, interval)
    assert (rest, count >= 1, at > instant) == (0, True, True)
    assert count == 1 or at - interval <= instant


@pytest.mark.parametrize("interval", [0, "0s", -1, "soon", None, True, "101w2", timedelta(days=-1)])
def test_an_interval_that_is_none_is_refused(interval: Any) -> None:
    with pytest.raises(InvalidInput, match=r"Every\.interval"):
        Every(interval)


# ---- both


def test_triggers_that_mean_the_same_are_equal_and_never_change() -> None:
    assert Cron("0 9  * * *") == Cron("0 9 * * *", tz="UTC") != Cron("0 9 * * *", tz="Europe/London")
    assert len({Cron("@daily"), Cron("@daily"), Every("60s"), Every("1m"), Every(60)}) == 2
    assert Every("1m") != Every("1m").anchored(1)
    assert repr(Cron("0 9 * * *", tz="Asia/Tokyo")) == "Cron(expression='0 9 * * *', tz='Asia/Tokyo')"
    with pytest.raises(FrozenInstanceError):
        Cron("@daily").tz = "UTC"  # type: ignore[misc]  # that is the point


def test_what_was_missed_between_two_instants_is_listed_the_last_one_included() -> None:
    cron = Cron("0 * * * *")
    noon = ms("2026-01-01 12:00")
    assert list(cron.fires(noon, noon + 3 * HOUR)) == [noon + hour * HOUR for hour in (1, 2, 3)]
    assert list(cron.fires(noon, noon + 3 * HOUR, limit=2)) == [noon + HOUR, noon + 2 * HOUR]
    assert list(cron.fires(noon, noon + HOUR - 1)) == []
    assert list(cron.fires(noon, noon - DAY)) == []
    assert list(cron.fires(noon, limit=0)) == []


@given(st.integers(0, 40_000), st.integers(-1_000, 40_000))
def test_the_latest_is_the_last_of_all(after_minutes: int, minutes: int) -> None:
    after = ms("2026-02-20 12:00") + after_minutes * MINUTE
    until = after + minutes * MINUTE
    for trigger in (Cron("45 1,7 * * *", tz="Europe/London"), Every("7h").anchored(ms("2026-03-01"))):
        assert trigger.latest(after, until) == max(trigger.fires(after, until), default=None)


def test_the_latest_of_a_year_of_seconds_is_found_without_counting_them() -> None:
    start = ms("2026-01-01")

    class Counted(Trigger):
        looks = 0

        def after(self, instant_ms: int) -> int | None:
            self.looks += 1
            return Cron("* * * * * *").after(instant_ms)

    counted = Counted()
    assert counted.latest(start, start + 365 * DAY + 1) == start + 365 * DAY
    assert counted.looks < 60


def test_importing_durable_does_not_wait_for_croniter() -> None:
    program = "import sys, durable; durable.Every('30s'); print('croniter' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"


# ---- ticks


def test_a_tick_has_an_id_of_its_own_that_any_process_can_tell() -> None:
    at = ms("2026-03-29 01:00")
    assert tick_id("daily", at) == f"{tick_id('daily', at).partition(':')[0]}:20260329T010000Z"
    ids = {
        tick_id(schedule, at + late)
        for schedule in ("daily", "dail", "daily:1")
        for late in (0, 1, 250, 1000)
    }
    assert len(ids) == 12
    assert tick_id("daily", at + 7).endswith(":20260329T010000.007Z")


def test_the_id_of_a_tick_is_the_one_that_was_stored_before() -> None:
    assert tick_id("daily", 0) == "e103e8395e47a047398b:19700101T000000Z"
    assert tick_delay_ms("1h", "daily", 0) == 3_314_369


def test_all_ticks_of_a_schedule_are_in_one_partition() -> None:
    ids = [tick_id("a:b/c#[d]", at) for at in (0, 1, DAY, 50 * 365 * DAY)]
    assert len({id_root(tick) for tick in ids}) == 1
    assert [check_name(tick, "the id") for tick in ids] == ids
    assert len(max(ids, key=len)) < 50
    assert id_root(ids[0]) != keyed_id("schedule", "a:b/c#[d]")


def test_a_tick_is_delayed_by_up_to_the_jitter_and_always_by_as_much() -> None:
    delays = [tick_delay_ms("10s", "daily", at * DAY) for at in range(2_000)]
    assert delays == [tick_delay_ms(10, "daily", at * DAY) for at in range(2_000)]
    assert 0 <= min(delays) < 100
    assert 9_900 < max(delays) <= 10_000
    assert 4_700 < mean(delays) < 5_300
    assert delays != [tick_delay_ms("10s", "weekly", at * DAY) for at in range(2_000)]
    assert {tick_delay_ms("1ms", "daily", at) for at in range(50)} == {0, 1}


def test_without_jitter_a_tick_is_not_delayed() -> None:
    assert tick_delay_ms(0, "daily", 5) == 0
    with pytest.raises(InvalidInput, match="jitter"):
        tick_delay_ms("a bit", "daily", 5)
