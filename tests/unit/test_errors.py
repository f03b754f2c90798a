"""Every error keeps its fields, its words and its hint, and is rebuilt from plain JSON."""

from __future__ import annotations

import copy
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from inspect import isclass

import pytest
from hypothesis import given, strategies as st

from durable import errors
from durable.errors import (
    MAX_DETAILS_BYTES,
    CompensationFailed,
    ConfigurationError,
    DurableError,
    ExecutionCancelled,
    ExecutionClosed,
    ExecutionEnded,
    ExecutionFailed,
    ExecutionNotFound,
    Fail,
    InvalidInput,
    KeyConflict,
    LeaseLost,
    LimitReached,
    NoMatchingBranch,
    NotRunning,
    NotSerializable,
    OutcomeUnknown,
    PayloadTooLarge,
    QueueUnavailable,
    ReplayMismatch,
    RetryAfter,
    ScheduleNotFound,
    StepFailed,
    StepTimeout,
    StoreFull,
    StoreUnavailable,
    UnknownWorkflow,
    WaitTimeout,
    WorkerNotFound,
    WrongStatus,
    find_in,
    leaves,
)

OUTCOME = ("order-7", "fulfil-order", 2, "shop.Declined", "no funds", "declined", {"bank": "x"})

EXAMPLES: list[DurableError] = [
    DurableError("something"),
    DurableError("something", "do this"),
    ExecutionEnded(*OUTCOME),
    ExecutionFailed(*OUTCOME),
    ExecutionFailed("order-7", "fulfil-order", 3, "ValueError", "boom"),
    ExecutionCancelled("order-7", "fulfil-order", 1, "Cancelled", "fraud"),
    CompensationFailed(*OUTCOME),
    WaitTimeout("order-7", "30s"),
    WaitTimeout("order-7", 1.5, "it is parked"),
    StepFailed("shop.Odd", "odd", "charge"),
    StepTimeout("charge", timedelta(seconds=30)),
    NoMatchingBranch("route", "'gold'", ["premium", "standard"]),
    Fail("declined"),
    Fail("declined", "declined", {"bank": ["x", 1, None]}),
    Fail("declined", details="only text"),
    RetryAfter("250ms"),
    RetryAfter(timedelta(hours=1), "rate limited"),
    ReplayMismatch("order-7", "charge", "step", "charge", "step", "validate-card", "app.py:41"),
    ReplayMismatch("order-7", "pause", "sleep", "", "signal", "approved"),
    UnknownWorkflow("fulfil-ordr", ["shipping", "fulfil-order"]),
    UnknownWorkflow("shipping", ["shipping"], "2"),
    ExecutionNotFound("order-7"),
    ScheduleNotFound("daily"),
    WorkerNotFound("host:1:ab"),
    ExecutionClosed("order-7", "completed"),
    WrongStatus("order-7", "retry_rollback", "running"),
    KeyConflict("order:42", "fulfil-order", "order-7"),
    InvalidInput("bad"),
    InvalidInput("bad", "give a good one"),
    PayloadTooLarge("the result of step 'charge'", 5_000_000, 1_048_576),
    LimitReached("order-7", "checkpoints", 10_000),
    NotSerializable("the result of step 'charge'", "a socket is no value", "items.0.sock"),
    NotSerializable("the input", "a socket is no value"),
    LeaseLost("order-7"),
    NotRunning("start() was called before `async with durable:`"),
    StoreUnavailable("no answer"),
    StoreFull("no room"),
    OutcomeUnknown("op-1"),
    OutcomeUnknown("op-1", "the connection was reset"),
    QueueUnavailable("no answer"),
    ConfigurationError("two workflows are named 'a'", "rename one"),
]


def face(error: BaseException) -> object:
    """All that tells two errors apart."""
    return type(error), error.args, str(error), vars(error)


def rebuilt(error: BaseException) -> BaseException:
    """As the engine does it: the class, and its arguments after a trip through JSON."""
    return type(error)(*json.loads(json.dumps(error.args)))


def name(error: DurableError) -> str:
    return type(error).__name__


every_error = pytest.mark.parametrize(
    "error", EXAMPLES, ids=[f"{name(error)}-{number}" for number, error in enumerate(EXAMPLES)]
)


def test_the_examples_cover_every_error() -> None:
    public = {kind for kind in vars(errors).values() if isclass(kind) and issubclass(kind, DurableError)}
    assert {type(error) for error in EXAMPLES} == public


@every_error
def test_an_error_is_rebuilt_equal_from_its_class_and_the_json_of_its_arguments(error: DurableError) -> None:
    assert face(rebuilt(error)) == face(error)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
@every_error
def test_an_error_survives_a_copy(
    error: DurableError, copied: Callable[[DurableError], DurableError]
) -> None:
    assert face(copied(error)) == face(error)


@every_error
def test_an_error_has_a_code_and_a_plain_traceback_shows_its_text_and_its_hint(error: DurableError) -> None:
    printed = "".join(traceback.format_exception(error))
    assert error.code
    assert error.code.isidentifier()
    assert error.hint
    assert f"durable.errors.{name(error)}: {error}\nhint: {error.hint}\n" in printed


@every_error
def test_an_error_has_a_docstring_of_its_own(error: DurableError) -> None:
    assert vars(type(error))["__doc__"]


def test_codes_are_stable_and_only_the_failures_share_one() -> None:
    by_code: dict[str, set[str]] = {}
    for kind in {type(error) for error in EXAMPLES}:
        by_code.setdefault(kind.code, set()).add(kind.__name__)
    assert {code: kinds for code, kinds in by_code.items() if len(kinds) > 1} == {
        "failed": {"Fail", "ExecutionFailed"}
    }
    assert by_code["unknown_workflow"] == {"UnknownWorkflow"}


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (WaitTimeout, TimeoutError),
        (StepTimeout, TimeoutError),
        (ExecutionNotFound, LookupError),
        (ScheduleNotFound, LookupError),
        (WorkerNotFound, LookupError),
        (InvalidInput, ValueError),
    ],
)
def test_an_error_with_a_builtin_twin_is_caught_as_that_too(
    kind: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(kind, builtin)


@pytest.mark.parametrize("kind", [ExecutionFailed, ExecutionCancelled, CompensationFailed])
def test_an_outcome_says_which_execution_ended_how_and_why(kind: type[ExecutionEnded]) -> None:
    error = kind(*OUTCOME)
    assert (error.execution_id, error.workflow, error.attempt) == ("order-7", "fulfil-order", 2)
    assert (error.error_type, error.message) == ("shop.Declined", "no funds")
    assert (error.code, error.details) == ("declined", {"bank": "x"})
    assert str(error).endswith("in attempt 2: shop.Declined: no funds")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ExecutionFailed, "failed"),
        (ExecutionCancelled, "cancelled"),
        (CompensationFailed, "compensation_failed"),
    ],
)
def test_an_outcome_without_a_code_of_the_user_has_a_word_for_how_it_ended(
    kind: type[ExecutionEnded], code: str
) -> None:
    assert kind("order-7", "fulfil-order", 1, "ValueError", "boom").code == code
    assert kind("order-7", "fulfil-order", 1, "ValueError", "boom", "timeout").code == "timeout"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (WaitTimeout("order-7", "4h"), "execution order-7 has not ended after 4h"),
        (WaitTimeout("order-7", 2, "it is parked"), "execution order-7 has not ended after 2s: it is parked"),
        (StepTimeout("charge", "30s"), "step charge took longer than 30s"),
        (RetryAfter("10s"), "retry after 10s"),
        (RetryAfter("10s", "slow down"), "slow down"),
        (Fail("card declined", code="declined"), "card declined"),
        (
            PayloadTooLarge("the input", 2_000_000, 1_048_576),
            "the input is 2,000,000 bytes, and 1,048,576 are allowed",
        ),
        (NotSerializable("the input", "no value", "a.b"), "the input cannot be stored: at a.b: no value"),
        (NoMatchingBranch("route", "'gold'"), "switch route has no branch for 'gold' (it has none)"),
        (ExecutionNotFound("a\nb"), "there is no execution 'a\\nb'"),
    ],
    ids=str,
)
def test_an_error_says_what_happened(error: DurableError, text: str) -> None:
    assert str(error) == text


def test_a_mismatch_names_both_sides_and_the_way_out() -> None:
    error = ReplayMismatch("order-7", "charge", "step", "charge", "signal", "approved", "app.py:41")
    assert str(error) == (
        "execution order-7 diverged at 'charge': recorded step 'charge', "
        "the code now asks for signal 'approved' (app.py:41)"
    )
    assert 'ctx.patched("approved")' in error.hint


@pytest.mark.parametrize(
    ("asked", "registered", "hint"),
    [
        (
            "fulfil-ordr",
            ["shipping", "fulfil-order"],
            "did you mean 'fulfil-order'? registered: fulfil-order, shipping;",
        ),
        ("zzz", ["shipping"], "registered: shipping;"),
        ("shipping", ["shipping"], "registered: shipping;"),
        ("zzz", [f"w{n:02}" for n in range(12)], "w09 and 2 more;"),
        ("zzz", [], "nothing is registered"),
    ],
)
def test_an_unknown_workflow_comes_with_what_is_registered(
    asked: str, registered: list[str], hint: str
) -> None:
    error = UnknownWorkflow(asked, registered)
    assert hint in error.hint
    assert ("did you mean" in error.hint) == ("did you mean" in hint)


def test_details_are_a_copy_as_json_sees_them() -> None:
    items = [1, 2]
    error = Fail(
        "no",
        details={"items": items, "pair": (1, 2), "at": datetime(2030, 1, 1, tzinfo=UTC), 7: Decimal("1.10")},
    )
    items.append(3)
    assert error.details == {"items": [1, 2], "pair": [1, 2], "at": "2030-01-01T00:00:00Z", "7": "1.10"}


def endless() -> object:
    knot: list[object] = []
    knot.append(knot)
    return knot


def deep() -> object:
    value: object = None
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "details",
    [object(), endless(), {"x": float("nan")}, {("a", "b"): 1}, b"\xff", "\ud800", {1, 2}, 10**5_000, deep()],
    ids=["object", "endless", "nan", "tuple key", "bytes", "surrogate", "set", "huge int", "deep"],
)
def test_details_that_are_no_json_never_hide_the_failure(details: object) -> None:
    error = Fail("declined", "declined", details)
    assert str(error) == "declined"
    assert face(rebuilt(error)) == face(error)


@pytest.mark.parametrize("character", ["x", '"', "\\", "é", "😀", "\x00"])
def test_details_above_64_kib_are_cut_and_say_so(character: str) -> None:
    error = Fail("no", details={"body": character * MAX_DETAILS_BYTES})
    assert isinstance(error.details, dict)
    assert error.details["truncated"] is True
    assert error.details["size"] > MAX_DETAILS_BYTES
    assert error.details["preview"].startswith('{"body":"')
    assert face(rebuilt(error)) == face(error)


def test_details_of_64_kib_are_kept() -> None:
    text = "x" * (MAX_DETAILS_BYTES - 2)
    assert Fail("no", details=text).details == text
    assert Fail("no", details=text + "x").details != text + "x"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.text(), st.none() | st.text(min_size=1), json_values)
def test_any_failure_is_rebuilt_equal(message: str, code: str | None, details: object) -> None:
    error = Fail(message, code, details)
    assert face(rebuilt(error)) == face(error)


class Declined(Fail):
    """A user's failure with a code on the class."""

    code = "declined"


class OutOfStock(Fail):
    """A user's failure with a constructor of its own."""

    def __init__(self, sku: str, left: int = 0) -> None:
        super().__init__(f"{sku}: {left} left", code="out_of_stock", details={"sku": sku})


@dataclass
class Unpaid(Fail):
    """A user's failure that never calls the constructor of ours."""

    invoice: str


def test_a_users_failure_may_set_its_code_on_the_class() -> None:
    error = Declined("no funds")
    assert error.code == "declined"
    assert face(rebuilt(error)) == face(error)


def test_a_users_failure_with_its_own_constructor_is_rebuilt_from_the_arguments_of_that_one() -> None:
    error = OutOfStock("tea", 2)
    assert error.args == ("tea", 2)
    assert (str(error), error.code, error.details) == ("tea: 2 left", "out_of_stock", {"sku": "tea"})
    assert face(rebuilt(error)) == face(error)


def test_a_users_failure_that_skips_our_constructor_still_works() -> None:
    error = Unpaid("inv-1")
    assert (str(error), error.code, error.message, error.details) == ("inv-1", "failed", "", None)
    assert face(rebuilt(error)) == face(error)


def test_retry_after_takes_a_duration_and_refuses_anything_else_where_it_is_raised() -> None:
    assert RetryAfter("90s").delay == timedelta(seconds=90)
    with pytest.raises(InvalidInput, match="RetryAfter's delay"):
        RetryAfter("soon")


def test_a_failure_inside_exception_groups_is_found() -> None:
    fail = Fail("no")
    group = ExceptionGroup(
        "tasks", [ValueError(), ExceptionGroup("inner", [KeyError(), fail]), Fail("later")]
    )
    assert find_in(group, Fail) is fail
    assert find_in(fail, Fail) is fail
    assert find_in(group, OSError) is None
    assert [type(leaf) for leaf in leaves(group)] == [ValueError, KeyError, Fail, Fail]
