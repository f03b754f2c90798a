"""The machine's clock, and how it follows the store's."""

from __future__ import annotations

import pytest

from durable.clock import SystemClock


@pytest.mark.parametrize("difference", [-3_600_000, -700, 700, 3_600_000])
def test_a_clock_follows_one_that_differs(difference: int) -> None:
    theirs, ours = SystemClock(), SystemClock()
    theirs._offset += difference / 1000
    asked_at = ours.now_ms()
    ours.follow(theirs.now_ms(), asked_at)
    assert abs(ours.now_ms() - theirs.now_ms()) <= 50


def test_a_clock_is_not_moved_by_an_answer_that_took_long() -> None:
    clock = SystemClock()
    offset = clock._offset
    now = clock.now_ms()
    for read_at in (now - 5_000, now - 2_000, now):
        clock.follow(read_at, asked_at_ms=now - 5_000)
    assert clock._offset == offset


def test_a_clock_that_follows_is_never_ahead_of_what_is_certain() -> None:
    clock = SystemClock()
    now = clock.now_ms()
    clock.follow(now - 10_000, asked_at_ms=now - 1_000)
    assert now - 9_050 <= clock.now_ms() <= now - 8_950
