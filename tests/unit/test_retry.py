"""Retry policies: what is tried again, how often, and after how long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, strategies as st

from durable.errors import Fail, InvalidInput, RetryAfter
from durable.retry import NO_RETRY, Retry

policies = st.builds(
    Retry,
    attempts=st.integers(1, 1_000_000_000),
    base=st.integers(0, 10_000_000).map(lambda ms: timedelta(milliseconds=ms)),
    factor=st.floats(1, 1e15),
    cap=st.integers(0, 10_000_000).map(lambda ms: timedelta(milliseconds=ms)),
    jitter=st.floats(0, 1),
)


def test_by_default_there_are_three_tries() -> None:
    retry = Retry()
    assert (retry.attempts, retry.base, retry.factor) == (3, timedelta(seconds=1), 2.0)
    assert (retry.cap, retry.jitter, retry.on) == (timedelta(hours=1), 0.2, (Exception,))


def test_policies_that_mean_the_same_are_equal_however_they_are_written() -> None:
    assert Retry(base="1m", factor=2, on=None) == Retry(base=60, on=()) == Retry(base=timedelta(minutes=1))
    assert hash(Retry(base="1m")) == hash(Retry(base=60))
    assert Retry(on=OSError) == Retry(on=(OSError,)) == Retry(on=[OSError])


def test_a_policy_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Retry().attempts = 5  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"attempts": 0}, "Retry.attempts"),
        ({"attempts": -1}, "Retry.attempts"),
        ({"attempts": True}, "Retry.attempts"),
        ({"attempts": 2.0}, "Retry.attempts"),
        ({"attempts": "3"}, "Retry.attempts"),
        ({"attempts": 10**10}, "Retry.attempts"),
        ({"base": "soon"}, "Retry.base"),
        ({"base": -1}, "Retry.base"),
        ({"cap": float("nan")}, "Retry.cap"),
        ({"cap": None}, "Retry.cap"),
        ({"factor": 0.9}, "Retry.factor"),
        ({"factor": float("inf")}, "Retry.factor"),
        ({"factor": float("nan")}, "Retry.factor"),
        ({"factor": 10**5_000}, "Retry.factor"),
        ({"factor": "2"}, "Retry.factor"),
        ({"jitter": -0.1}, "Retry.jitter"),
        ({"jitter": 1.1}, "Retry.jitter"),
        ({"jitter": float("nan")}, "Retry.jitter"),
        ({"jitter": True}, "Retry.jitter"),
        ({"on": (asyncio.CancelledError,)}, "Retry.on"),
        ({"on": BaseException}, "Retry.on"),
        ({"on": (ValueError, "KeyError")}, "Retry.on"),
        ({"on": ValueError("an instance")}, "Retry.on"),
        ({"on": 5}, "Retry.on"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(arguments: Mapping[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        Retry(**arguments)


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        (Retry(jitter=0), [1_000, 2_000, 4_000, 8_000]),
        (Retry(base="50ms", jitter=0), [50, 100, 200, 400]),
        (Retry(base="20s", cap="1m", jitter=0), [20_000, 40_000, 60_000, 60_000]),
        (Retry(base="2h", cap="1h", jitter=0), [3_600_000] * 4),
        (Retry(factor=1, jitter=0), [1_000] * 4),
        (Retry(base="1ms", factor=1.5, jitter=0), [1, 1, 2, 3]),
        (Retry(base=0), [0] * 4),
        (Retry(cap=0), [0] * 4),
    ],
)
def test_the_delay_grows_by_the_factor_up_to_the_cap(retry: Retry, delays: list[int]) -> None:
    assert [retry.delay_ms(attempt, Random(1)) for attempt in (1, 2, 3, 4)] == delays


@pytest.mark.parametrize("attempt", [1, 2, 5, 11, 12, 13, 20])
def test_the_delay_stays_within_its_jitter_and_below_the_cap(attempt: int) -> None:
    random, retry = Random(7), Retry(base="1s", cap="1h")
    middle = min(1_000 * 2 ** (attempt - 1), 3_600_000)
    delays = [retry.delay_ms(attempt, random) for _ in range(10_000)]
    assert min(delays) >= 0.8 * middle
    assert max(delays) <= min(1.2 * middle, 3_600_000)
    assert max(delays) - min(delays) > 0.15 * middle, "jitter spreads"


@given(policies, st.integers(1, 1_000_000_000), st.integers())
def test_no_policy_and_no_attempt_gives_a_delay_outside_of_its_bounds(
    retry: Retry, attempt: int, seed: int
) -> None:
    delay = retry.delay_ms(attempt, Random(seed))
    assert 0 <= delay <= retry.cap / timedelta(milliseconds=1)
    assert delay == retry.delay_ms(attempt, Random(seed)), "chance comes from the argument only"


@pytest.mark.parametrize("seconds", [0, 1])
def test_very_many_attempts_reach_the_cap_and_not_an_overflow(seconds: int) -> None:
    retry = Retry(base=seconds, factor=1e15, jitter=0)
    assert retry.delay_ms(1_000_000_000, Random(1)) == seconds * 3_600_000


group = ExceptionGroup


@pytest.mark.parametrize(
    ("retry", "error", "handled"),
    [
        (Retry(), ValueError(), True),
        (Retry(), Fail("no"), False),
        (Retry(), asyncio.CancelledError(), False),
        (Retry(), KeyboardInterrupt(), False),
        (Retry(on=OSError), ConnectionError(), True),
        (Retry(on=OSError), ValueError(), False),
        (Retry(on=OSError), RetryAfter("1s"), True),
        (Retry(on=Fail), Fail("no"), False),
        (Retry(), group("g", [ValueError(), KeyError()]), True),
        (Retry(), group("g", [ValueError(), group("h", [Fail("no")])]), False),
        (Retry(), BaseExceptionGroup("g", [ValueError(), KeyboardInterrupt()]), False),
        (Retry(on=OSError), group("g", [OSError(), RetryAfter("1s")]), True),
        (Retry(on=OSError), group("g", [OSError(), ValueError()]), False),
        (Retry(on=ExceptionGroup), group("g", [ValueError()]), True),
    ],
)
def test_what_is_listed_is_tried_again_and_a_fail_never(
    retry: Retry, error: BaseException, handled: bool
) -> None:
    assert retry.handles(error) is handled


def test_attempts_count_all_tries() -> None:
    retry = Retry(attempts=3, jitter=0)
    delays = [retry.next_delay_ms(attempt, ValueError(), Random(1)) for attempt in (1, 2, 3, 4)]
    assert delays == [1_000, 2_000, None, None]
    assert NO_RETRY.next_delay_ms(1, ValueError(), Random(1)) is None


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (RetryAfter("10s"), 10_000),
        (RetryAfter("2d"), 172_800_000),
        (RetryAfter(0), 0),
        (ExceptionGroup("g", [KeyError(), RetryAfter("10s")]), 10_000),
        (Fail("no"), None),
    ],
)
def test_retry_after_replaces_the_delay_and_a_fail_ends_it(error: Exception, delay: int | None) -> None:
    assert Retry().next_delay_ms(1, error, Random(1)) == delay


def test_retry_after_gives_no_attempt_beyond_the_last() -> None:
    assert Retry(attempts=2).next_delay_ms(2, RetryAfter("10s"), Random(1)) is None


STEP = Retry(attempts=1, base="5s", on=OSError)
WORKFLOW = Retry(attempts=4, base="5s", on=OSError)


@pytest.mark.parametrize(
    ("value", "default", "meant"),
    [
        (None, WORKFLOW, WORKFLOW),
        (Retry(attempts=9), WORKFLOW, Retry(attempts=9)),
        (7, WORKFLOW, replace(WORKFLOW, attempts=7)),
        (3, NO_RETRY, Retry(attempts=3)),
        (1, WORKFLOW, replace(WORKFLOW, attempts=1)),
        (False, WORKFLOW, replace(WORKFLOW, attempts=1)),
        (True, WORKFLOW, WORKFLOW),
        (True, NO_RETRY, Retry()),
    ],
)
def test_a_retry_argument_is_a_policy_or_a_number_of_attempts_or_a_yes_or_no(
    value: Retry | int | bool | None, default: Retry, meant: Retry
) -> None:
    assert Retry.of(value, default) == meant


@pytest.mark.parametrize("value", [0, -1, "3", 2.5], ids=repr)
def test_a_retry_argument_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"Retry\.attempts"):
        Retry.of(value, STEP)


@given(policies)
def test_a_stored_policy_comes_back_equal(retry: Retry) -> None:
    assert Retry.from_dict(json.loads(json.dumps(retry.to_dict()))) == retry


def test_exceptions_are_not_stored_and_come_from_the_code() -> None:
    stored = Retry(on=OSError).to_dict()
    assert Retry.from_dict(stored) == Retry()
    assert Retry.from_dict(stored, on=OSError) == Retry(on=OSError)


def test_a_stored_policy_may_lack_what_a_later_release_added_and_hold_what_it_dropped() -> None:
    assert Retry.from_dict({"attempts": 5, "colour": "red"}) == Retry(attempts=5)


@pytest.mark.parametrize(
    "stored",
    [{"attempts": "5"}, {"base_ms": None}, {"base_ms": -1}, {"cap_ms": 10**5_000}, {"jitter": [1]}],
    ids=["attempts", "no base", "base", "cap", "jitter"],
)
def test_a_stored_policy_is_checked_like_any_other(stored: Mapping[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Retry.from_dict(stored)
