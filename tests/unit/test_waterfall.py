"""Where the bars of a waterfall stand."""

import pytest

from durable.waterfall import Bar, Span, busy_ms, layout

HOUR = 3_600_000


def wait(start: int, end: int) -> Span:
    return Span(start, end, is_work=False)


def drawn(spans: list[Span], width: int, *, linear: bool = False) -> list[str]:
    return [
        " " * bar.offset + ("/" if bar.is_cut else "#" if span.is_work else "-") * bar.length
        for span, bar in zip(spans, layout(spans, width, linear=linear), strict=True)
    ]


@pytest.mark.parametrize(
    ("spans", "bars"),
    [
        ([], []),
        ([wait(5, 5)], ["-"]),
        ([Span(0, 10)], ["##########"]),
        ([Span(0, 10), Span(10, 20)], ["#####", "     #####"]),
        ([Span(0, 20), Span(10, 20)], ["##########", "     #####"]),
        ([Span(1000, 1010), Span(1010, 1040)], ["###", "  ########"]),
        ([Span(0, 10), wait(10, 12), Span(12, 20)], ["#####", "     -", "      ####"]),
        ([wait(0, 10), wait(10, 40)], ["---", "  --------"]),
        ([Span(0, 100), wait(100, 100)], ["##########", "         -"]),
    ],
    ids=[
        "nothing",
        "an instant",
        "one step",
        "in a row",
        "side by side",
        "cells are shared where they meet",
        "a short wait is to scale",
        "nothing but waits is to scale",
        "an instant at the end stays within",
    ],
)
def test_bars_keep_their_proportions(spans: list[Span], bars: list[str]) -> None:
    assert drawn(spans, 10) == bars


def test_a_wait_of_hours_leaves_steps_of_milliseconds_visible() -> None:
    spans = [Span(0, 60), wait(60, 60 + 4 * HOUR), Span(60 + 4 * HOUR, 120 + 4 * HOUR)]
    assert drawn(spans, 12) == ["####", "    ////", "        ####"]


def test_a_step_takes_at_least_a_millisecond() -> None:
    spans = [Span(0, 0), wait(0, HOUR), Span(HOUR, HOUR)]
    assert drawn(spans, 12) == ["####", "////////", "        ####"]


def test_the_true_axis_cuts_nothing_short() -> None:
    spans = [Span(0, 60), wait(60, 60 + 4 * HOUR), Span(60 + 4 * HOUR, 120 + 4 * HOUR)]
    assert drawn(spans, 12, linear=True) == ["#", "------------", "           #"]


def test_many_waits_share_a_third_of_the_axis() -> None:
    spans: list[Span] = []
    for hour in range(0, 6 * HOUR, HOUR):
        spans += [Span(hour, hour + 10), wait(hour + 10, hour + HOUR)]
    bars = layout(spans, 90)
    assert [bar.length for bar in bars[::2]] == [10] * 6
    assert [bar.length for bar in bars[1::2]] == [5] * 6


def test_a_pause_in_which_nothing_is_recorded_is_cut_too() -> None:
    spans = [Span(0, 100), Span(HOUR, HOUR + 100)]
    assert drawn(spans, 9) == ["###", "      ###"]


def test_a_wait_beside_work_is_cut_only_where_nothing_works() -> None:
    spans = [wait(0, HOUR), Span(0, 100)]
    assert drawn(spans, 9) == ["/////////", "######"]


def test_no_bar_leaves_the_axis() -> None:
    spans = [
        Span(start, start + length, length % 2 == 0) for start in range(0, 500, 7) for length in (0, 1, 2, 90)
    ]
    for width in (1, 2, 16, 80):
        for bar in layout(spans, width):
            assert isinstance(bar, Bar)
            assert 0 <= bar.offset < bar.offset + bar.length <= width


def test_ten_thousand_steps_are_laid_out_at_once() -> None:
    spans = [Span(n * 10, n * 10 + 5, n % 2 == 0) for n in range(10_000)]
    assert len(layout(spans, 80)) == 10_000


@pytest.mark.parametrize(
    ("spans", "busy"),
    [
        ([], 0),
        ([wait(0, 100)], 0),
        ([Span(0, 10), Span(5, 20), Span(30, 31)], 21),
        ([Span(0, 10), wait(0, 100), Span(2, 3)], 10),
    ],
)
def test_work_side_by_side_counts_once(spans: list[Span], busy: int) -> None:
    assert busy_ms(spans) == busy
