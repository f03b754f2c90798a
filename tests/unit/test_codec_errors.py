"""An exception that leaves a step is itself, on the first run and on each replay, or else `StepFailed`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic_core import to_json
from typing_extensions import override

from durable.codec import MAX_PAYLOAD, dump_error, load_error, rebuild, record_error
from durable.errors import (
    DurableError,
    ExecutionFailed,
    Fail,
    InvalidInput,
    NotSerializable,
    PayloadTooLarge,
    RetryAfter,
    StepFailed,
    StepTimeout,
)
from durable.models import ErrorRecord


class CardDeclined(Exception):
    pass


class Declined(Exception):
    """Its attributes come from its arguments."""

    def __init__(self, reason: str, amount: Decimal) -> None:
        super().__init__(reason, amount)
        self.reason = reason
        self.amount = amount


class Coded(Exception):
    """An attribute that is not among `args`."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class Reworded(Exception):
    """`args` is not what the constructor takes."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"declined: {reason}")


class KeywordOnly(Exception):
    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


class Reduced(Exception):
    """As `Reworded`, but it says how it is made again."""

    def __init__(self, reason: str, times: int) -> None:
        super().__init__(f"declined {times} times: {reason}")
        self.reason, self.times = reason, times

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.reason, self.times)


class Unprintable(Exception):
    @override
    def __str__(self) -> str:
        raise RuntimeError("no")


class Counting(Exception):
    """Each one that is made says something else."""

    __slots__ = ("number",)
    made = 0

    def __init__(self) -> None:
        Counting.made += 1
        self.number = Counting.made

    @override
    def __str__(self) -> str:
        return str(self.number)


class Shapeshifter(Exception):
    def __new__(cls, *args: object) -> Any:
        return ValueError(*args) if args == ("again",) else super().__new__(cls, *args)


class OutOfStock(Fail):
    code = "out_of_stock"


class Warehouse:
    class Closed(Exception):
        pass


class Stopped(BaseException):
    pass


@dataclass
class Card:
    number: str


def replayed(error: BaseException, step_id: str | None = "charge") -> Exception:
    """What the body gets on a replay, after checking that it gets the same on the first run."""
    record = record_error(error, step_id=step_id)
    data = dump_error(record)
    assert len(data) <= MAX_PAYLOAD
    json.loads(data, parse_constant=pytest.fail)
    assert load_error(data) == record
    first, again = rebuild(record), rebuild(load_error(data))
    assert type(first) is type(again)
    assert (str(first), first.args) == (str(again), again.args)
    assert dump_error(record_error(again, step_id=step_id)) == data
    return again


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        ValueError("bad", 1, None, [1, {"a": 2.5}]),
        KeyError("k"),
        ZeroDivisionError("division by zero"),
        FileNotFoundError(2, "No such file or directory", "/tmp/x"),
        TimeoutError("slow"),
        ConnectionResetError(104, "reset"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        CardDeclined("no", datetime(2024, 1, 1, tzinfo=UTC), (1, 2), {3}, timedelta(days=1)),
        CardDeclined(Card("4242")),
        Declined("limit", Decimal("9.90")),
        Reduced("limit", 3),
        Warehouse.Closed("sunday"),
        Fail("declined", code="declined", details={"a": [1]}),
        OutOfStock("none left", details=[1]),
        RetryAfter("10s", "busy"),
        StepTimeout("charge", "30s"),
        InvalidInput("bad", "do better"),
        ExecutionFailed("x1", "ship", 3, "app.Boom", "boom", "declined", {"a": 1}),
    ],
)
def test_an_exception_that_can_be_made_again_is_itself(error: Exception) -> None:
    again = replayed(error)
    assert again is not error
    assert type(again) is type(error)
    assert (str(again), again.args) == (str(error), error.args)
    assert {**vars(again)} == {**vars(error)}


def test_attributes_beside_the_arguments_come_back_as_far_as_json_can_hold_them() -> None:
    error = Coded("no", "declined")
    error.at = datetime(2024, 1, 1, tzinfo=UTC)  # type: ignore[attr-defined]
    error.response = object()  # type: ignore[attr-defined]
    error.add_note("a note is for people, and not kept")
    again = replayed(error)
    assert vars(again) == {"code": "declined", "at": datetime(2024, 1, 1, tzinfo=UTC)}


class LocalError:
    """Names that are taken by something that is no exception."""


def local_exceptions() -> list[Exception]:
    class Local(Exception):
        pass

    impostor = type("CardDeclined", (CardDeclined,), {"__module__": __name__, "__qualname__": "CardDeclined"})
    taken = type("LocalError", (Exception,), {"__module__": __name__, "__qualname__": "LocalError"})
    lost = type("Lost", (Exception,), {"__module__": "no.such.module"})
    return [Local("l"), impostor("i"), taken("t"), lost("x")]


@pytest.mark.parametrize(
    "error",
    [
        *local_exceptions(),
        Reworded("limit"),
        KeywordOnly(reason="limit"),
        CardDeclined(object()),
        CardDeclined(float("nan")),
        CardDeclined("x" * 70_000),
        CardDeclined(ValueError("inner")),
        Counting(),
        ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    ],
    ids=range(12),
)
def test_an_exception_that_cannot_be_made_again_is_step_failed(error: Exception) -> None:
    again = replayed(error)
    assert isinstance(again, StepFailed)
    assert again.error_type.rpartition(".")[2] == type(error).__qualname__.rpartition(".")[2]
    assert again.step_id == "charge"
    assert again.message.startswith(str(error)[:8000])


def test_an_exception_whose_constructor_gives_something_else_is_step_failed() -> None:
    error = Shapeshifter("first")
    error.args = ("again",)
    assert isinstance(replayed(error), StepFailed)


def test_the_type_of_an_error_is_written_as_in_a_traceback() -> None:
    assert record_error(ValueError("a")).error_type == "ValueError"
    assert record_error(CardDeclined("a")).error_type == f"{__name__}.CardDeclined"
    assert record_error(Warehouse.Closed()).error_type == f"{__name__}.Warehouse.Closed"
    assert str(record_error(ValueError("a"))) == "ValueError: a"
    assert str(record_error(ValueError())) == "ValueError"


def test_recording_never_fails() -> None:
    record = record_error(Unprintable("a"))
    assert record.message == "<unprintable Unprintable>"
    assert not record.rebuildable
    assert isinstance(replayed(Unprintable()), StepFailed)

    record = record_error(Stopped("now"))
    assert (record.error_type, record.message, record.rebuildable) == (f"{__name__}.Stopped", "now", False)

    assert record_error(ValueError("\ud800")).message == "\\ud800"
    assert isinstance(replayed(ValueError("\ud800")), StepFailed)

    fail = Fail("a")
    fail.details = object()
    fail.code = "\udfff"
    assert "object" in str(record_error(fail).details)
    dump_error(record_error(fail))

    error = ValueError("a")
    error.args = (error,)
    dump_error(record_error(error))


def test_messages_are_cut() -> None:
    record = record_error(CardDeclined("ä" * 10_000))
    assert len(record.message.encode()) == 8 * 1024
    assert str(rebuild(record)) == "ä" * 10_000
    assert len(record_error(CardDeclined("x" * 1_000_000)).message) == 8 * 1024
    assert not record_error(CardDeclined("x" * 1_000_000)).rebuildable


def test_a_group_says_what_is_in_it() -> None:
    record = record_error(ExceptionGroup("several", [ValueError("a"), KeyError("b")]))
    assert record.message == "several (2 sub-exceptions); ValueError: a; KeyError: 'b'"


def test_fail_carries_its_code_and_details_and_is_not_retried() -> None:
    for error in (
        Fail("no", code="declined", details={"a": 1}),
        ExceptionGroup("g", [ValueError(), Fail("no", code="declined", details={"a": 1})]),
    ):
        record = record_error(error)
        assert (record.code, record.details, record.retry) == ("declined", {"a": 1}, False)
    assert record_error(OutOfStock("none")).code == "out_of_stock"
    for error in (ValueError("a"), StepTimeout("s", 1), RetryAfter(1)):
        assert record_error(error).retry
    assert record_error(ValueError("a")).code is None
    assert record_error(StepTimeout("s", 1)).code == "step_timeout"


def test_a_fail_whose_class_is_not_found_is_still_a_fail() -> None:
    class Local(Fail):
        code = "local"

    again = replayed(Local("no", details=[1]))
    assert type(again) is Fail
    assert (again.message, again.code, again.details) == ("no", "local", [1])
    record = record_error(again)
    assert record.error_type.endswith("Local")
    assert (record.code, record.details, record.retry, record.step_id) == ("local", [1], False, "charge")


def test_step_failed_is_recorded_as_what_it_stands_for() -> None:
    again = replayed(KeywordOnly(reason="limit"), step_id="charge#2")
    record = record_error(again, step_id="outer")
    assert (record.error_type, record.message) == (f"{__name__}.KeywordOnly", "limit")
    assert (record.step_id, record.code) == ("charge#2", None)


def test_what_is_rebuilt_shares_nothing_with_what_was_raised() -> None:
    held: list[int] = []
    again = rebuild(record_error(CardDeclined(held)))
    held.append(1)
    assert again.args == ([],)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "eval",
        "SystemExit",
        "KeyboardInterrupt",
        "builtins.ValueError.x",
        "json.loads",
        "",
        ".",
        f"{__name__}.Stopped",
    ],
)
def test_a_name_in_the_bytes_leads_to_no_other_code(name: str) -> None:
    error = rebuild(load_error(to_json({"type": name, "message": "m", "args": ["echo"]})))
    assert isinstance(error, StepFailed)
    assert error.error_type == name


def test_an_argument_whose_class_is_gone_makes_it_step_failed() -> None:
    data = dump_error(record_error(CardDeclined(Card("4242"))))
    record = load_error(data.replace(b'.Card"', b'.Gone"'))
    assert not record.rebuildable
    assert isinstance(rebuild(record), StepFailed)


def test_a_constructor_that_has_changed_since_makes_it_step_failed() -> None:
    record = ErrorRecord(f"{__name__}.KeywordOnly", "m", args=("x",), rebuildable=True)
    assert isinstance(rebuild(record), StepFailed)


def test_records_that_were_made_by_hand_are_stored() -> None:
    record = ErrorRecord("durable.errors.ExecutionCancelled", "fraud", code="cancelled", retry=False)
    assert load_error(dump_error(record)) == record


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"type":1,"message":"a"}', b'{"type":"a"}', b"\xff", b"[" * 999]
)
def test_what_is_no_record_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(NotSerializable):
        load_error(data)


fields = st.sampled_from(
    ["type", "message", "args", "attributes", "code", "details", "retry", "step_id", "$type", "value"]
)
texts = st.sampled_from(
    ["ValueError", "OSError", "UnicodeDecodeError", f"{__name__}.Declined", "tuple", "durable.errors.Fail"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
structures = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner | texts, max_size=6),
    max_leaves=15,
)


@given(st.binary(max_size=100) | structures.map(to_json))
def test_any_bytes_are_an_error_or_a_typed_error(data: bytes) -> None:
    try:
        record = load_error(data)
    except DurableError as refused:
        assert isinstance(refused, NotSerializable | PayloadTooLarge)  # noqa: PT017 - either way is right
    else:
        dump_error(record_error(rebuild(record)))


def test_bytes_above_the_limit_are_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        load_error(b" " * (MAX_PAYLOAD + 1))


def test_the_wire_format_does_not_change_by_accident() -> None:
    """Histories of older releases are read by newer ones."""
    assert dump_error(record_error(ValueError("a", (1,)), step_id="s")) == (
        b'{"type":"ValueError","message":"(\'a\', (1,))","args":["a",{"$type":"tuple","value":[1]}],"step_id":"s"}'
    )
    assert dump_error(record_error(Fail("no", "declined", {"a": 1}))) == (
        b'{"type":"durable.errors.Fail","message":"no","args":["no","declined",{"a":1}],'
        b'"code":"declined","details":{"a":1},"retry":false}'
    )
