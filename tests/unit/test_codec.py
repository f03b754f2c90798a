"""What a step returns is what it gets, now and on every replay. What JSON cannot hold is refused."""

from __future__ import annotations

import contextlib
import enum
import json
import math
import sys
import types
import typing
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import typing_extensions
from hypothesis import example, given, strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    RootModel,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import to_json

from durable.codec import MAX_PAYLOAD, UNTYPED, Schema, plain
from durable.errors import InvalidInput, NotSerializable, PayloadTooLarge

if typing.TYPE_CHECKING:
    pass

T = TypeVar("T")


class Color(enum.Enum):
    RED = "r"
    ODD = (1, 2)


class Tier(enum.StrEnum):
    GOLD = "gold"


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Charge:
    id: str
    at: datetime | None = None


@dataclass(frozen=True)
class Loose:
    """Whatever is in `anything`, its annotation does not say."""

    anything: object


@dataclass(eq=False)
class ByIdentity:
    id: str


@dataclass
class Shape:
    name: str

    @dataclass
    class Corner:
        x: int


@dataclass
class Circle(Shape):
    radius: int


class Point(NamedTuple):
    x: int
    y: int


class Item(BaseModel):
    sku: str
    price: Decimal = Decimal("1.50")


class Order(BaseModel):
    id: int
    items: list[Item] = []
    note: object = None


class GiftOrder(Order):
    card: str


class Blob(BaseModel):
    data: bytes


class Reading(BaseModel):
    value: float | None


class Aliased(BaseModel):
    total: int = Field(validation_alias="totalIn", serialization_alias="totalOut")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Box(BaseModel, Generic[T]):
    held: T


class Row(typing.TypedDict):
    id: int
    due: NotRequired[date]


class NewRow(typing_extensions.TypedDict):
    id: int
    due: date


class Account(BaseModel):
    name: str
    token: SecretStr


class Doubling(BaseModel):
    """A validator that is not idempotent: what is read is never what was written."""

    n: int

    @field_validator("n")
    @classmethod
    def double(cls, n: int) -> int:
        return n * 2


class Explosive(BaseModel):
    n: int

    @model_validator(mode="before")
    @classmethod
    def explode(cls, _: object, info: ValidationInfo) -> object:
        raise KeyError(info.mode)


class Cached(BaseModel):
    """The client is not written: it is private, or excluded."""

    id: int
    client: object = Field(default=None, exclude=True)
    _cache: dict[str, int] = PrivateAttr(default_factory=dict[str, int])


class Odd:
    """Pydantic knows no way to store it."""


def deep(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def cycle() -> object:
    value: dict[str, object] = {}
    value["self"] = [value]
    return value


def check(schema: Schema[Any], value: object, *, plainly: bool | None = None) -> bytes:
    """The copy is equal, of the same type, not the same, and what every later load gives."""
    data, copy = schema.roundtrip(value)
    assert copy == value
    assert type(copy) is type(value)
    assert schema.load(data) == copy
    assert repr(schema.load(data)) == repr(copy)
    assert schema.dump(copy) == data
    json.loads(data, parse_constant=pytest.fail)
    if plainly is not None:
        assert (b"$type" in data) is not plainly
    return data


texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
plain_json = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
instants = st.datetimes(
    timezones=st.none() | st.sampled_from([UTC, ZoneInfo("Europe/London"), ZoneInfo("Asia/Kolkata")])
)
# One that exists twice, or not at all, equals none in another zone (PEP 495): a set that has it never equals another.
definite_instants = instants.filter(lambda at: at.tzinfo is None or at == at.astimezone(UTC))
hashables = (
    scalars
    | st.binary()
    | definite_instants
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.sampled_from([*Color, *Tier, *Level, Right.READ, Right.READ | Right.WRITE, Right(0)])
    | st.builds(Point, st.integers(), st.integers())
)
keys = texts | st.sampled_from(["$type", "value", "fields"])
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(hashables, max_size=3)
        | st.frozensets(hashables, max_size=3)
        | st.builds(Loose, inner)
        | st.builds(Charge, texts, st.none() | instants)
        | st.builds(Order, id=st.integers(), note=inner)
    ),
    max_leaves=12,
)


@given(plain_json)
@example({"ok": True, "n": 3})
@example({"a": -0.0, "b": 5e-324, "c": 1.7976931348623157e308, "d": 2**70, "e": "\x00\x7f\U0001f600"})
@example(10**4299)
@example("x" * 5000)
def test_json_comes_back_as_it_was_and_is_stored_plainly(value: object) -> None:
    for schema in (UNTYPED, Schema.of(object)):
        data, copy = schema.roundtrip(value)
        assert repr(copy) == repr(value) == repr(schema.load(data))
        assert b'"$type"' in data or json.loads(data) == value
    if isinstance(value, dict):
        check(Schema.of(dict[str, object]), cast("object", value))
    if isinstance(value, list):
        check(Schema.of(list[Any]), cast("object", value))


@given(values)
def test_any_value_comes_back_equal_with_or_without_an_annotation(value: object) -> None:
    data, copy = UNTYPED.roundtrip(value)
    assert UNTYPED.load(data) == copy == value or _is_ambiguous(value)
    assert type(copy) is type(value)
    for schema in (
        Schema.of(list[object]),
        Schema.of(list[dict[str, Any]]),
        Schema.of(tuple[dict[str, object], ...]),
    ):
        wrapped: object = [{"it": value}] if "list" in repr(schema) else ({"it": value},)
        data, copy = schema.roundtrip(wrapped)
        assert schema.load(data) == copy == wrapped or _is_ambiguous(value)
    plain(data)


def _is_ambiguous(value: object) -> bool:
    """Whether it holds a time that exists twice: Python calls it unequal to that of any other zone."""
    return "zoneinfo" in repr(value)


def test_changing_what_was_returned_changes_neither_the_copy_nor_the_next_load() -> None:
    for schema, value in (
        (UNTYPED, {"a": 1}),
        (UNTYPED, {"a": [1]}),
        (Schema.of(dict[str, object]), {"a": {}}),
        (Schema.of(dict[str, list[int]]), {"a": [1]}),
    ):
        data, copy = schema.roundtrip(value)
        before = repr(copy)
        value["a"] = value["b"] = [2]
        assert repr(copy) == before == repr(schema.load(data))


@pytest.mark.parametrize("value", [{"a": []}, [], {}, [[]], {"": {}}])
def test_an_empty_list_stays_a_list_and_an_empty_dict_a_dict(value: object) -> None:
    check(UNTYPED, value, plainly=True)


@pytest.mark.parametrize(
    "value",
    [
        (1, "a"),
        {1, 2},
        frozenset({"a"}),
        b"\xff\x00",
        datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC),
        datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        datetime.max.replace(tzinfo=UTC),
        date(1, 1, 1),
        time(23, 59, 59, 999999),
        timedelta.max,
        timedelta.min,
        timedelta(microseconds=-1),
        Decimal("1.10"),
        Decimal("1E+1000"),
        UUID(int=7),
        Color.RED,
        Color.ODD,
        Tier.GOLD,
        Level.LOW,
        Right.READ | Right.WRITE,
        Charge("ch_1", datetime(2024, 1, 1, tzinfo=UTC)),
        Shape.Corner(3),
        Circle("c", 3),
        Point(1, 2),
        Order(id=1, items=[Item(sku="a")]),
        {"deep": [(Charge("ch_1"), {"at": date(2024, 1, 1)})]},
    ],
)
def test_what_json_lacks_is_tagged_and_comes_back(value: object) -> None:
    check(UNTYPED, value, plainly=False)
    check(Schema.of(list[object]), [value], plainly=False)
    assert UNTYPED.roundtrip(value)[1] == Schema.of(type(value)).roundtrip(value)[1]


def test_a_lambda_that_returns_a_dataclass_just_works() -> None:
    schema = Schema.returned_by(lambda: Charge("ch_1"))
    data, copy = schema.roundtrip(Charge("ch_1"))
    assert copy == schema.load(data) == Charge("ch_1")
    assert json.loads(data) == {"$type": f"{__name__}.Charge", "value": {"id": "ch_1", "at": None}}


@pytest.mark.parametrize(
    "value",
    [
        {"$type": "tuple", "value": [1]},
        {"$type": 1},
        {"$type": None, "a": (1,)},
        [{"$type": {"$type": "dict"}}],
        {"$type": f"{__name__}.Charge", "value": {"id": "x"}},
    ],
)
def test_a_dict_that_looks_tagged_comes_back_as_the_dict_that_it_is(value: Any) -> None:
    check(UNTYPED, value)
    check(Schema.of(dict[str, object] | list[object]), value)
    if isinstance(value, dict) and len(value) == 2 and all(isinstance(held, str) for held in value.values()):
        check(Schema.of(dict[str, str]), value)


def test_typed_json_that_looks_tagged_is_not_taken_for_a_tag() -> None:
    check(Schema.of(dict[str, str]), {"$type": "date", "value": "2024-01-01"})
    check(Schema.of(dict[str, list[int]]), {"$type": [1]})


def test_a_class_is_stored_by_its_own_annotations_and_by_its_fields_where_those_do_not_hold_it() -> None:
    assert plain(check(UNTYPED, Charge("a"))) == {"id": "a", "at": None}
    data = check(UNTYPED, Loose((1, date(2024, 1, 1), Loose(b"\xff"))))
    assert plain(data) == {"anything": [1, "2024-01-01", {"anything": "/w=="}]}
    assert b'"fields"' in data
    check(UNTYPED, Blob(data=b"\xff\xfe"))
    check(UNTYPED, Order(id=1, note=GiftOrder(id=2, card="x", note=Tier.GOLD)))


def test_a_subclass_of_a_json_type_comes_back_as_that_type_because_it_is_equal_to_it() -> None:
    class Name(str):
        __slots__ = ()

    assert UNTYPED.roundtrip(OrderedDict(a=1))[1] == {"a": 1}
    assert type(UNTYPED.roundtrip(defaultdict(list, a=[Name("x")]))[1]) is dict
    assert type(UNTYPED.roundtrip(Name("x"))[1]) is str
    assert UNTYPED.roundtrip({Tier.GOLD: 1})[1] == {"gold": 1}


def test_equal_sets_are_equal_bytes() -> None:
    assert (
        len({UNTYPED.dump(set(order)) for order in (["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"])}) == 1
    )


@dataclass
class Local:
    id: int


def test_a_class_that_would_not_be_found_again_is_refused_with_a_hint() -> None:
    @dataclass
    class Inner:
        id: int

    inner = Inner(1)
    with pytest.raises(NotSerializable, match="local to a function") as refused:
        UNTYPED.dump({"a": [inner]}, "the result of step 'x'")
    assert refused.value.path == "a.0"
    assert refused.value.what == "the result of step 'x'"
    assert "module level" in str(refused.value)
    check(Schema.of(Inner), inner, plainly=True)

    impostor = type("Local", (Local,), {"__module__": __name__, "__qualname__": "Local"})
    with pytest.raises(NotSerializable, match="not found under its name"):
        UNTYPED.dump(impostor(1))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "nan is no JSON number"),
        (-math.inf, "-inf is no JSON number"),
        (Decimal("NaN"), "another value"),
        ("\ud800", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        pytest.param(10**4300, "4,300 digits", id="huge"),
        pytest.param(-(10**4300), "4,300 digits", id="-huge"),
        (cycle(), "contains itself"),
        ({1: "a"}, "the key 1 is of type int"),
        ({None: "a"}, "the key None is of type NoneType"),
        ({(1, 2): "a"}, r"the key \(1, 2\) is of type tuple"),
        (object(), "object is nothing that JSON can hold"),
        (len, "nothing that JSON can hold"),
        (Odd(), "Odd is nothing that JSON can hold"),
        (Odd, "type is nothing"),
        (bytearray(b"a"), "bytearray"),
        (iter([1]), "list_iterator"),
        (1j, "complex"),
        (types.MappingProxyType({}), "mappingproxy"),
        (Loose(Odd()), "Odd"),
        (Account(name="a", token=SecretStr("hunter2")), "SecretStr"),
        (Doubling(n=1), "another value"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_place(value: object, reason: str) -> None:
    for schema, wrapped, path in (
        (UNTYPED, value, ""),
        (UNTYPED, {"a": [0, value]}, "a.1"),
        (Schema.of(dict[str, object]), {"a": (0, value)}, "a.1"),
        (Schema.of(dict[str, list[Any]]), {"a": [0, value]}, "a.1"),
        (Schema.of(Order), Order(id=1, note=[value]), "note.0"),
    ):
        with pytest.raises(NotSerializable, match=reason) as refused:
            schema.roundtrip(wrapped, "it")
        assert refused.value.path.startswith(path)
        assert "hunter2" not in str(refused.value)
        assert refused.value.what == "it"


def test_a_hundred_levels_are_stored_and_no_more() -> None:
    check(UNTYPED, deep(100))
    value: object = ()
    for _ in range(99):
        value = (value,)
    check(UNTYPED, value)
    for too_deep in (deep(101), (value,)):
        with pytest.raises(NotSerializable, match="100 levels"):
            UNTYPED.dump(too_deep)
    with pytest.raises(NotSerializable):
        Schema.of(dict[str, list[Any]]).dump({"a": deep(201)})


def test_the_limit_of_a_payload_is_exact() -> None:
    for schema in (UNTYPED, Schema.of(str), Schema.of(Annotated[str, Field(min_length=1)])):
        text = "x" * (MAX_PAYLOAD - 2)
        data, copy = schema.roundtrip(text)
        assert (len(data), copy) == (MAX_PAYLOAD, text)
        assert schema.load(data) == text
        with pytest.raises(PayloadTooLarge) as refused:
            schema.roundtrip(text + "x", "the result of step 'report'")
        assert refused.value.what == "the result of step 'report'"
        assert (refused.value.size, refused.value.limit) == (MAX_PAYLOAD + 1, MAX_PAYLOAD)
        with pytest.raises(PayloadTooLarge):
            schema.load(data + b" ")
        with pytest.raises(PayloadTooLarge):
            schema.validate_json(data + b" ")
    with pytest.raises(PayloadTooLarge):
        plain(b" " * MAX_PAYLOAD + b"1")
    with pytest.raises(PayloadTooLarge):
        UNTYPED.dump({"a": (b"x" * MAX_PAYLOAD,)})
    with pytest.raises(PayloadTooLarge):
        Schema.of(Order).dump(Order(id=1, note=("x" * MAX_PAYLOAD,)))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (None, None),
        (int, 2**70),
        (float, 1.0),
        (bool, True),
        (str, "ä"),
        (int | str, "5"),
        (int | str, 5),
        (int | float, 1),
        (int | float, 1.0),
        (float | None, None),
        (bytes, b"\xff\x00"),
        (bytes, b""),
        (list[bytes], [b"\xff", b"a"]),
        (datetime, datetime(2024, 1, 1, tzinfo=UTC)),
        (date | str, date(2024, 1, 1)),
        (date | str, "2024-01-01"),
        (UUID | str, str(UUID(int=1))),
        (Decimal, Decimal("1.00")),
        (Decimal | str, "1.00"),
        (UUID, UUID(int=1)),
        (timedelta, timedelta(days=3)),
        (Color, Color.RED),
        (Color, Color.ODD),
        (Tier, Tier.GOLD),
        (Level, Level.LOW),
        (Literal["a", 1], 1),
        (tuple[int, ...], (1, 2)),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})),
        (dict[int, str], {1: "a"}),
        (dict[date, int], {date(2024, 1, 1): 1}),
        (dict[UUID, Charge], {UUID(int=1): Charge("a")}),
        (Sequence[int], [1]),
        (Mapping[str, int], {"a": 1}),
        (Mapping[str, object], {"a": date(2024, 1, 1)}),
        (dict[str, Any], {"at": datetime(2024, 1, 1, tzinfo=UTC), "who": {1, 2}}),
        (Charge, Charge("ch", datetime(2024, 1, 1, tzinfo=UTC))),
        (Charge | None, Charge("ch")),
        (list[Charge], [Charge("ch")]),
        (Point, Point(1, 2)),
        (Row, {"id": 1, "due": date(2024, 1, 1)}),
        (list[Row | None], [{"id": 1}, None]),
        (NewRow, {"id": 1, "due": date(2024, 1, 1)}),
        (Order, Order(id=1, items=[Item(sku="a", price=Decimal("0.10"))])),
        (Order, Order(id=1, note=(1, Tier.GOLD, Charge("x")))),
        (list[Order], [Order(id=1)]),
        (Cat | Dog, Dog(name="Rex")),
        (Pet, Cat(lives=9)),
        (list[Pet], [Cat(lives=9), Dog(name="Rex")]),
        (Box[int], Box[int](held=1)),
        (Box[Charge], Box[Charge](held=Charge("a"))),
        (RootModel[list[int]], RootModel[list[int]]([1])),
        (Aliased, Aliased(totalIn=3)),
        (Blob, Blob(data=b"abc")),
        (Blob, Blob(data=b"\xff")),
        (Json[list[int]], [1, 2]),
        (Path, Path("/tmp/x")),
        (Annotated[int, Field(gt=0)], 1),
        (T, (1, 2)),
        (list[T], [(1, 2)]),  # type: ignore[valid-type]
    ],
)
def test_an_annotated_value_comes_back_equal(annotation: object, value: object) -> None:
    check(Schema.of(annotation), value)


def test_identity_equality_counts_attributes() -> None:
    data, copy = Schema.of(ByIdentity).roundtrip(ByIdentity("a"))
    assert (copy.id, Schema.of(ByIdentity).load(data).id) == ("a", "a")
    assert UNTYPED.roundtrip([ByIdentity("a")])[1][0].id == "a"


def test_private_and_excluded_fields_are_not_written() -> None:
    value = Cached(id=1, client=Odd())
    value._cache["a"] = 1
    data, copy = Schema.of(Cached).roundtrip(value)
    assert data == b'{"id":1}'
    assert (copy.id, copy.client, copy._cache) == (1, None, {})


def test_a_subclass_under_the_annotation_of_its_base_keeps_its_class_and_fields() -> None:
    check(Schema.of(Shape), Circle("c", 3), plainly=False)
    check(Schema.of(Order), GiftOrder(id=1, card="x"), plainly=False)
    check(Schema.of(list[Shape]), [Shape("s"), Circle("c", 3)], plainly=False)
    check(Schema.of(list[Shape]), [Shape("s")], plainly=True)


def test_a_subclass_that_could_not_be_found_again_is_refused() -> None:
    class Square(Shape):
        side: int = 2

    with pytest.raises(NotSerializable, match="local to a function"):
        Schema.of(Shape).dump(Square("s"))


@pytest.mark.parametrize(
    ("annotation", "value", "given"),
    [
        (Order, {"id": 1}, Order(id=1)),
        (Charge, {"id": "a"}, Charge("a")),
        (list[int], (1, 2), [1, 2]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (int, "5", 5),
        (float, 3, 3.0),
        (bool, 1, True),
        (int, True, 1),
        (datetime, "2024-01-01T00:00:00Z", datetime(2024, 1, 1, tzinfo=UTC)),
        (dict[str, object], OrderedDict(a=1), {"a": 1}),
        (list[Shape], (Circle("c", 3),), [Circle("c", 3)]),
        (Color, "r", Color.RED),
    ],
)
def test_a_value_of_another_type_becomes_what_the_annotation_says_at_once(
    annotation: object, value: object, given: object
) -> None:
    schema = Schema.of(annotation)
    data, copy = schema.roundtrip(value)
    assert copy == given == schema.load(data)
    assert type(copy) is type(given)


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (Order, None, ""),
        (Order, {"id": "x"}, "id"),
        (int, "five", ""),
        (None, 1, ""),
        (dict[str, object], [1], ""),
        (dict[str, object], Order(id=1), ""),
        (list[Order], [Order(id=1), 2], "1"),
        (float, math.nan, ""),
        (float | None, math.inf, ""),
        (Reading, Reading(value=math.nan), "value"),
        (Reading, Reading(value=math.inf), "value"),
        (list[float], [1.0, math.nan], "1"),
        (SecretStr, SecretStr("hunter2"), ""),
        (Account, Account(name="a", token=SecretStr("hunter2")), "token"),
        (dict[tuple[int, int], str], {(1, 2): "a"}, ""),
        (str, "\ud800", ""),
        pytest.param(int, 10**4300, "", id="huge"),
        (list[int], deep(300), "0"),
        (object, deep(300), "0"),
        (Iterable[int], iter([1]), ""),
        (Callable[[], int], len, ""),
        (Doubling, Doubling(n=1), "n"),
    ],
)
def test_a_value_that_its_annotation_does_not_hold_is_refused(
    annotation: object, value: object, path: str
) -> None:
    with pytest.raises(NotSerializable) as refused:
        Schema.of(annotation).roundtrip(value)
    assert refused.value.path.startswith(path)
    assert "hunter2" not in str(refused.value)


def test_what_was_stored_before_there_was_an_annotation_is_read_after_it_has_one() -> None:
    assert Schema.of(Charge).load(UNTYPED.dump(Charge("a"))) == Charge("a")
    assert Schema.of(list[Charge]).load(UNTYPED.dump([Charge("a")])) == [Charge("a")]
    assert UNTYPED.load(Schema.of(Shape).dump(Circle("c", 3))) == Circle("c", 3)
    assert UNTYPED.load(Schema.of(list[Shape]).dump([Circle("c", 3)])) == [Circle("c", 3)]


def test_a_time_that_exists_twice_keeps_its_instant() -> None:
    twice = datetime(2024, 10, 27, 1, 30, tzinfo=ZoneInfo("Europe/London"), fold=1)
    for schema in (UNTYPED, Schema.of(datetime), Schema.of(dict[str, datetime])):
        value = {"at": twice} if "dict" in repr(schema) else twice
        copy = schema.roundtrip(value)[1]
        assert (copy["at"] if isinstance(copy, dict) else copy).isoformat() == twice.isoformat()


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


def test_extra_fields_come_back() -> None:
    check(Schema.of(Anything), Anything.model_validate({"a": [1]}), plainly=True)
    check(Schema.of(Anything), Anything.model_validate({"a": (1,)}), plainly=False)


@pytest.mark.parametrize(
    ("annotation", "value", "validated"),
    [
        (Order, {"id": "1", "items": [{"sku": "a"}]}, Order(id=1, items=[Item(sku="a")])),
        (Charge, {"id": "a", "at": "2024-01-01T00:00:00Z"}, Charge("a", datetime(2024, 1, 1, tzinfo=UTC))),
        (Aliased, {"totalIn": 3}, Aliased(totalIn=3)),
        (Aliased, {"total": 3}, Aliased(totalIn=3)),
        (Row, {"id": 1, "due": "2024-01-01"}, {"id": 1, "due": date(2024, 1, 1)}),
        (UUID, str(UUID(int=1)), UUID(int=1)),
        (set[int], [1, 2], {1, 2}),
        (None, None, None),
        (dict[str, object], {"a": 1}, {"a": 1}),
        (Pet, {"kind": "dog", "name": "Rex"}, Dog(name="Rex")),
        (Any, {"$type": "tuple", "value": [1]}, {"$type": "tuple", "value": [1]}),
    ],
)
def test_what_comes_from_outside_is_converted(annotation: object, value: object, validated: object) -> None:
    schema = Schema.of(annotation)
    assert schema.validate(value) == validated
    assert schema.validate_json(to_json(value)) == validated
    assert schema.roundtrip(schema.validate(value))[1] == validated


def test_an_instance_passes_as_it_is() -> None:
    order, row = GiftOrder(id=1, card="x"), {"a": 1}
    assert Schema.of(Order).validate(order) is order
    assert Schema.of(dict[str, object]).validate(row) is row
    assert UNTYPED.validate(order) is order


def test_what_does_not_validate_names_each_field_and_shows_no_value() -> None:
    schema = Schema.of(Order)
    bad = {"id": "hunter2", "items": [{"price": "hunter2"}]}
    for validate in (
        lambda: schema.validate(bad, "the input of buy"),
        lambda: schema.validate_json(to_json(bad)),
    ):
        with pytest.raises(InvalidInput) as refused:
            validate()
        text = str(refused.value)
        assert "id: Input should be a valid integer" in text
        assert "(got str)" in text
        assert "items.0.sku: Field required" in text
        assert "items.0.price" in text
        assert "hunter2" not in text
        assert refused.value.__cause__ is None
        assert isinstance(refused.value, ValueError)
    with pytest.raises(InvalidInput, match="the input of buy does not validate"):
        schema.validate(bad, "the input of buy")


def test_the_text_about_a_bad_value_is_bounded() -> None:
    with pytest.raises(InvalidInput) as refused:
        Schema.of(dict[str, int]).validate({"k\n" * 10_000 + str(n): "x" for n in range(50)})
    assert len(str(refused.value)) < 5000
    assert "\n" not in str(refused.value)
    assert "and 40 more" in str(refused.value)


def test_an_exception_in_a_validator_is_invalid_input_too() -> None:
    with pytest.raises(InvalidInput, match="KeyError"):
        Schema.of(Explosive).validate({"n": 1})
    with pytest.raises(InvalidInput, match="KeyError"):
        Schema.of(Explosive).validate_json(b'{"n":1}')
    with pytest.raises(NotSerializable, match="KeyError"):
        Schema.of(Explosive).load(b'{"n":1}')
    with pytest.raises(NotSerializable, match="KeyError"):
        UNTYPED.load(b'{"$type":"%s.Explosive","value":{"n":1}}' % __name__.encode())


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b'"\\ud800"', b"\xff", b"[" * 10_000, b"1" * 5000])
def test_what_is_no_json_is_invalid_input(data: bytes) -> None:
    for schema in (
        UNTYPED,
        Schema.of(dict[str, object]),
        Schema.of(Order),
        Schema.of(float),
        Schema.of(list[float]),
    ):
        with pytest.raises(InvalidInput):
            schema.validate_json(data)
        with pytest.raises(NotSerializable):
            schema.load(data)
    with pytest.raises(NotSerializable):
        plain(data)


def test_a_schema_of_json_describes_the_type() -> None:
    assert Schema.of(int).json_schema() == {"type": "integer"}
    assert Schema.of(Order).json_schema()["title"] == "Order"
    assert UNTYPED.json_schema() == {}
    assert Schema.of(Callable[[], int]).json_schema() == {}


EVERY_SCHEMA: list[Schema[Any]] = [
    *(Schema.of(annotation) for annotation in (Any, None, int, dict[str, object], list[Any], float | None)),
    *(Schema.of(annotation) for annotation in (Order, Charge, list[Shape], Pet, Row, Point, Color, Anything)),
    *(Schema.of(annotation) for annotation in (date | str, bytes, dict[int, Decimal])),
]
OURS = "Color Right Tier Charge Loose Order Point Explosive Odd Color.RED Shape.Corner Charge.__init__ deep"
NOT_OURS = (
    "builtins.eval os.system subprocess.Popen builtins.Exception enum.Enum pydantic.main.BaseModel . .."
)
KNOWN = "tuple set frozenset bytes datetime date time timedelta decimal uuid dict untyped"
tags = st.sampled_from(
    ["", *KNOWN.split(), *NOT_OURS.split(), *(f"{__name__}.{name}" for name in OURS.split())]
)
hostile = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.builds(lambda tag, held: {"$type": tag, "value": held}, tags | scalars, inner)
        | st.builds(lambda tag, held: {"$type": tag, "fields": held}, tags, inner)
        | st.builds(lambda tag, held: {"$type": tag, "value": held, "more": 1}, tags, inner)
    ),
    max_leaves=12,
)


def load_or_refuse(data: bytes) -> None:
    """Any other exception fails the test."""
    for schema in EVERY_SCHEMA:
        with contextlib.suppress(NotSerializable, PayloadTooLarge):
            schema.roundtrip(schema.load(data))
        with contextlib.suppress(InvalidInput):
            schema.validate_json(data)
    with contextlib.suppress(NotSerializable):
        json.dumps(plain(data))


@given(st.binary(max_size=200))
@example(b'{"a":1,"a":2}')
@example(b"1e999")
@example(b'{"$type":"untyped","value":1e999}')
def test_any_bytes_are_a_value_or_a_typed_error(data: bytes) -> None:
    load_or_refuse(data)


@given(hostile)
def test_any_json_is_a_value_or_a_typed_error(structure: object) -> None:
    load_or_refuse(to_json(structure))


@pytest.mark.parametrize("levels", [101, 199, 200, 201, 5000])
def test_deep_bytes_end_in_a_value_or_a_typed_error(levels: int) -> None:
    load_or_refuse(b"[" * levels + b"]" * levels)
    load_or_refuse(b'{"$type":"tuple","value":[' * levels + b"]}" * levels)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "builtins.object",
        "subprocess.Popen",
        "builtins.dict",
        f"{__name__}.Odd",
        "colorsys.x.Y",
    ],
)
def test_a_name_in_the_bytes_leads_to_no_other_code_and_imports_nothing(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(NotSerializable):
        UNTYPED.load(to_json({"$type": name, "value": ["echo"]}))
    with pytest.raises(NotSerializable):
        UNTYPED.load(to_json({"$type": name, "fields": {"args": ["echo"]}}))
    assert set(sys.modules) == before


def test_a_module_attribute_made_on_the_fly_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lazy_module")
    module.__dict__["__getattr__"] = pytest.fail
    monkeypatch.setitem(sys.modules, "lazy_module", module)
    with pytest.raises(NotSerializable, match="not found"):
        UNTYPED.load(b'{"$type":"lazy_module.Thing","value":1}')


def test_of_two_equal_keys_the_last_one_counts() -> None:
    assert UNTYPED.load(b'{"a":1,"a":2}') == {"a": 2}


def test_people_read_stored_values_without_tags() -> None:
    value = {"when": date(2024, 1, 1), "who": (Charge("a"), {Tier.GOLD}), "x": {"$type": "y", "z": (1,)}}
    assert plain(UNTYPED.dump(value)) == {
        "when": "2024-01-01",
        "who": [{"id": "a", "at": None}, ["GOLD"]],
        "x": {"$type": "y", "z": [1]},
    }
    assert plain(Schema.of(list[Shape]).dump([Circle("c", 3)])) == [{"name": "c", "radius": 3}]
    assert plain(b'{"$type":1}') == {"$type": 1}


def test_the_wire_format_does_not_change_by_accident() -> None:
    """Histories of older releases are read by newer ones."""
    stored: list[tuple[Schema[Any], object, bytes]] = [
        (UNTYPED, {"a": [1, None, True, 1.5, "ä"]}, '{"a":[1,null,true,1.5,"ä"]}'.encode()),
        (UNTYPED, (1,), b'{"$type":"tuple","value":[1]}'),
        (UNTYPED, {1}, b'{"$type":"set","value":[1]}'),
        (UNTYPED, frozenset({1}), b'{"$type":"frozenset","value":[1]}'),
        (UNTYPED, b"\xff", b'{"$type":"bytes","value":"/w=="}'),
        (
            UNTYPED,
            datetime(2024, 1, 1, tzinfo=UTC),
            b'{"$type":"datetime","value":"2024-01-01T00:00:00+00:00"}',
        ),
        (UNTYPED, date(2024, 1, 1), b'{"$type":"date","value":"2024-01-01"}'),
        (UNTYPED, time(1, 2), b'{"$type":"time","value":"01:02:00"}'),
        (UNTYPED, timedelta(days=3), b'{"$type":"timedelta","value":"P3D"}'),
        (UNTYPED, Decimal("1.0"), b'{"$type":"decimal","value":"1.0"}'),
        (UNTYPED, UUID(int=0), b'{"$type":"uuid","value":"00000000-0000-0000-0000-000000000000"}'),
        (UNTYPED, Color.RED, b'{"$type":"%s.Color","value":"RED"}' % __name__.encode()),
        (UNTYPED, Right.WRITE, b'{"$type":"%s.Right","value":2}' % __name__.encode()),
        (
            UNTYPED,
            Loose(()),
            b'{"$type":"%s.Loose","fields":{"anything":{"$type":"tuple","value":[]}}}' % __name__.encode(),
        ),
        (UNTYPED, {"$type": 1}, b'{"$type":"dict","value":{"$type":1}}'),
        (Schema.of(bytes), b"\xff\xfe", b'"__4="'),
        (Schema.of(date | str), "2024-01-01", b'{"$type":"untyped","value":"2024-01-01"}'),
        (Schema.of(Order), Order(id=1), b'{"id":1,"items":[],"note":null}'),
    ]
    for schema, value, data in stored:
        assert schema.dump(value) == data
        assert schema.load(data) == value
