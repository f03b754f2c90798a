"""`@step`, its compensation, and `current_step()`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from inspect import signature
from threading import Event

import pytest

from durable import ConfigurationError, InvalidInput, Retry, StepInfo, current_step, step
from durable.steps import STEP, function_name

pytestmark = pytest.mark.anyio


@step
async def length(text: str) -> int:
    """How long it is."""
    return len(text)


@step(name="wide", retry=3, timeout="2s")
def width(text: str) -> int:
    return len(text)


@width.undo
def narrow(width: int) -> str:
    return f"undone {width}"


class Payments:
    def __init__(self, rate: int) -> None:
        self.rate = rate

    @step
    async def pay(self, amount: int) -> int:
        return self.rate * amount

    def __call__(self, amount: int) -> int:
        return amount


async def test_a_step_is_still_an_ordinary_function() -> None:
    assert await length("four") == 4
    assert width("four") == 4
    assert narrow(4) == "undone 4"
    assert (length.__name__, length.__doc__) == ("length", "How long it is.")
    assert list(signature(length).parameters) == ["text"]


def test_its_options_are_its_own_or_the_functions() -> None:
    assert (length.name, length.retry, length.timeout_ms, length.compensation) == ("length", None, None, None)
    assert (width.name, width.timeout_ms, width.compensation) == ("wide", 2000, narrow)
    assert width.retry is not None
    assert width.retry.attempts == 3
    policy = Retry(attempts=7, base="5s")
    assert step(retry=policy)(len).retry == policy


async def test_a_method_that_is_a_step_is_bound_to_its_object() -> None:
    assert await Payments(3).pay(2) == 6
    assert Payments(3).pay.name == "pay"
    assert list(signature(Payments(3).pay).parameters) == ["amount"]
    assert await Payments.pay(Payments(5), 2) == 10


@pytest.mark.parametrize("name", ["__own", "rollback:x", "a b", ""])
def test_hostile_and_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="the name of a step"):
        step(name=name)(len)


def test_what_does_not_give_one_value_is_no_step() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    for wrong in [numbers, later, "reserve", 3]:
        with pytest.raises(ConfigurationError, match="needs a function that returns one value"):
            step()(wrong)


def test_a_compensation_takes_one_value_and_there_is_one() -> None:
    @step
    def charge() -> int:
        return 1

    with pytest.raises(ConfigurationError, match=r"nothing cannot undo step charge"):

        @charge.undo
        def nothing() -> None: ...

    charge.undo(print)
    with pytest.raises(ConfigurationError, match="two compensations: print and refund"):

        @charge.undo
        def refund(charged: int) -> None: ...


def test_a_compensation_may_be_a_step_itself() -> None:
    @step
    def charge() -> int:
        return 1

    charge.undo(width)
    assert charge.compensation is width.fn


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (len, "len"),
        (length, "length"),
        (partial(partial(width, "x")), "width"),
        (Payments(1), "Payments"),
        (Payments, "Payments"),
        (Payments(1).pay, "pay"),
        ("x".upper, "upper"),
        (lambda: 1, "<lambda>"),
    ],
)
def test_the_name_that_is_recorded_for_a_function(fn: object, name: str) -> None:
    assert function_name(fn) == name


async def test_a_step_knows_itself_also_in_its_thread() -> None:
    cancelled = Event()
    info = StepInfo("x1", "charge", 2, "x1:charge", cancelled.is_set)
    token = STEP.set(info)
    try:
        assert current_step() is info
        assert await asyncio.to_thread(lambda: current_step().attempt) == 2
        assert not current_step().cancelled
        cancelled.set()
        assert current_step().cancelled
    finally:
        STEP.reset(token)


def test_outside_a_step_there_is_none() -> None:
    with pytest.raises(ConfigurationError, match="outside a step"):
        current_step()
