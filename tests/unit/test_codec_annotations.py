"""Which schema a function has: what its annotations say, however it is wrapped, and wherever they are resolved."""

from __future__ import annotations

import functools
import gc
import itertools
import typing
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import pytest
from pydantic import BaseModel

from durable.codec import UNTYPED, Schema
from durable.errors import ConfigurationError

if typing.TYPE_CHECKING:
    from collections import Counter as OnlyForCheckers

T = TypeVar("T")


@dataclass
class Charge:
    id: str


class Order(BaseModel):
    id: int


class Invoice(BaseModel):
    id: int = 0


class Row(typing.TypedDict):
    id: int


class Odd:
    """Pydantic knows no way to store it."""


def returns_charge(_: int) -> Charge: ...
async def awaits_charge() -> Charge: ...
def returns_awaitable() -> Awaitable[Charge]: ...
def returns_coroutine() -> Coroutine[Any, Any, Charge]: ...
def returns_unresolvable() -> OnlyForCheckers[str]: ...
def returns_odd() -> Odd: ...
def returns_any() -> Any: ...
def returns_never() -> typing.Never: ...
def returns_nothing() -> None: ...
def returns_typevar(it: T) -> T: ...
def returns_local() -> Undefined: ...  # noqa: F821
def unannotated(): ...  # type: ignore[no-untyped-def]


class Payments:
    def charge(self) -> Charge: ...
    @classmethod
    def of(cls) -> Charge: ...
    @staticmethod
    def static() -> Charge: ...
    def __call__(self) -> Charge: ...
    def me(self) -> typing.Self: ...


@functools.wraps(returns_charge)
def wrapper(*args: Any) -> Any: ...


class Step:
    """Like `@step`: an object that wraps a function."""

    def __init__(self, fn: Callable[..., object]) -> None:
        functools.update_wrapper(self, fn)

    def __call__(self, *args: object) -> object: ...


@pytest.mark.parametrize(
    "fn",
    [
        returns_charge,
        awaits_charge,
        returns_awaitable,
        returns_coroutine,
        functools.partial(returns_charge, 1),
        functools.partial(functools.partial(returns_charge), 1),
        Payments().charge,
        Payments.of,
        Payments.static,
        Payments(),
        Payments.charge,
        functools.partial(Payments().charge),
        wrapper,
        Step(returns_charge),
        functools.lru_cache(returns_charge),
        Charge,
        functools.partial(Step(awaits_charge)),
    ],
    ids=itertools.count(),
)
def test_a_function_of_any_make_tells_what_it_returns(fn: Callable[..., object]) -> None:
    assert Schema.returned_by(fn) is Schema.of(Charge)
    assert Schema.returned_by(fn) is Schema.of(Charge)


@pytest.mark.parametrize(
    "fn",
    [
        lambda: 1,
        unannotated,
        returns_unresolvable,
        returns_odd,
        returns_any,
        returns_never,
        returns_typevar,
        returns_local,
        Payments().me,
        len,
        print,
        dict.get,
        Odd,
        functools.partial(len),
    ],
)
def test_what_tells_nothing_is_untyped(fn: Callable[..., object]) -> None:
    assert Schema.returned_by(fn) is UNTYPED


def test_returning_none_is_a_type() -> None:
    assert Schema.returned_by(returns_nothing) is Schema.of(None) is Schema.of(type(None))


def test_a_local_type_that_the_function_refers_to_is_found() -> None:
    @dataclass
    class Inner:
        id: int

    def make() -> Inner:
        return Inner(1)

    def pretend() -> Inner: ...

    assert Schema.returned_by(make).roundtrip(Inner(1))[1] == Inner(1)
    assert Schema.returned_by(make).annotation is Inner
    assert Schema.returned_by(pretend) is UNTYPED


def test_an_object_that_answers_to_every_name_is_untyped() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> Any:
            return self

        def __call__(self) -> Any: ...

    assert Schema.returned_by(Proxy()) is UNTYPED


def test_looking_up_a_function_keeps_it_not_alive() -> None:
    def make() -> Charge: ...

    assert Schema.returned_by(make) is Schema.of(Charge)
    gone = weakref.ref(make)
    del make
    gc.collect()
    assert gone() is None


def test_the_order_of_a_union_is_part_of_its_schema() -> None:
    assert Schema.of(Order | Invoice) is not Schema.of(Invoice | Order)
    assert Schema.of(int | str) is Schema.of(int | str)


def test_an_annotation_that_cannot_be_hashed_has_a_schema() -> None:
    assert Schema.of(Annotated[int, []]).roundtrip(1) == (b"1", 1)


async def takes_order(ctx: object, order: Order) -> Charge: ...
async def takes_rows(ctx: object, rows: list[Row]) -> None: ...
async def takes_anything(ctx, value): ...  # type: ignore[no-untyped-def]
async def takes_odd(ctx: object, it: Odd) -> None: ...
async def takes_unresolvable(ctx: Undefined, it: OnlyForCheckers[str]) -> None: ...  # noqa: F821


def test_a_parameter_tells_its_type() -> None:
    assert Schema.parameter(takes_order, 1) is Schema.of(Order)
    assert Schema.parameter(takes_rows, 1) is Schema.of(list[Row])
    assert Schema.parameter(takes_anything, 1) is UNTYPED
    assert Schema.parameter(functools.partial(takes_order, None), 0) is Schema.of(Order)
    with pytest.raises(IndexError):
        Schema.parameter(takes_order, 2)


def test_only_the_parameter_that_is_asked_for_is_resolved() -> None:
    async def takes(ctx: Undefined, order: Order) -> Undefined: ...  # noqa: F821

    assert Schema.parameter(takes, 1) is Schema.of(Order)


def test_a_parameter_whose_type_cannot_be_resolved_or_stored_is_a_configuration_error() -> None:
    class Inner(BaseModel):
        id: int

    async def takes_local(ctx: object, it: Inner) -> None:
        print(Inner)

    for fn in (takes_local, takes_unresolvable):
        with pytest.raises(ConfigurationError, match="cannot be resolved") as refused:
            Schema.parameter(fn, 1)
        assert fn.__qualname__ in str(refused.value)
        assert "move the model to module level" in refused.value.hint
    with pytest.raises(ConfigurationError, match="Odd cannot be stored"):
        Schema.parameter(takes_odd, 1)


def test_a_type_that_pydantic_does_not_know_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="Odd cannot be stored"):
        Schema.of(Odd)
    with pytest.raises(ConfigurationError):
        Schema.of(list[Odd])
