"""Forms from JSON Schemas, and what a filled-in form means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field as About

from durable import InvalidInput, Signal
from durable.dashboard.forms import fields_of, value_of
from durable.dashboard.pages.run import coarse


@dataclass
class Inner:
    x: int


@dataclass
class Everything:
    name: str
    count: int
    price: float
    sure: bool
    kind: Literal["small", "large"]
    when: datetime
    inner: Inner
    tags: list[str]
    note: str = "none"
    maybe: int | None = None
    told: Annotated[str, About(description="what they said", max_length=500)] = ""


def schema(payload: Any) -> dict[str, object]:
    return Signal("s", payload).schema.json_schema()


def test_each_property_has_the_field_that_fits_it() -> None:
    fields = {field.label.removesuffix(" (JSON)"): field for field in fields_of(schema(Everything))}
    assert {name: field.input for name, field in fields.items()} == {
        "name": "text",
        "count": "number",
        "price": "number",
        "sure": "checkbox",
        "kind": "choice",
        "when": "instant",
        "inner": "json",
        "tags": "json",
        "note": "text",
        "maybe": "number",
        "told": "long",
    }
    assert fields["kind"].choices == ("small", "large")
    assert fields["note"].default == "none"
    assert fields["told"].about == "what they said"
    assert [name for name, field in fields.items() if field.required] == [
        "name",
        "count",
        "price",
        "kind",
        "when",
        "inner",
        "tags",
    ]


def test_a_form_means_what_the_type_takes() -> None:
    form = {
        "payload.name": "7",
        "payload.count": "-3",
        "payload.price": "1.5",
        "payload.sure": "on",
        "payload.kind": "large",
        "payload.when": "2026-01-01T00:00:00Z",
        "payload.inner": '{"x": 1}',
        "payload.tags": '["a"]',
        "payload.maybe": "",
        "payload.told": "yes",
    }
    value = value_of(schema(Everything), form)
    assert Signal("s", Everything).schema.validate(value) == Everything(
        "7",
        -3,
        1.5,
        True,
        "large",
        datetime(2026, 1, 1, tzinfo=UTC),
        Inner(1),
        ["a"],
        told="yes",
    )


@pytest.mark.parametrize(
    ("payload", "form", "value"),
    [
        (None, {}, None),
        (int, {"payload": "7"}, 7),
        (str, {"payload": "7"}, "7"),
        (bool, {}, False),
        (bool, {"payload": "true"}, True),
        (int | None, {"payload": "7"}, 7),
        (int | str, {"payload": '"7"'}, "7"),
        (dict[str, int], {"payload": '{"a": 1}'}, {"a": 1}),
    ],
)
def test_a_payload_that_is_no_object_is_one_field(payload: Any, form: dict[str, str], value: object) -> None:
    assert value_of(schema(payload), form) == value


def test_without_a_type_it_is_json() -> None:
    [field] = fields_of(None)
    assert field.input == "json"
    assert value_of(None, {"payload": "[1]"}) == [1]
    assert value_of(None, {"payload": ""}) is None


@pytest.mark.parametrize(("payload", "text"), [(int, "x"), (float, "1,5"), (Inner, "{"), (list[int], "[1")])
def test_what_cannot_be_read_is_refused(payload: Any, text: str) -> None:
    form = {"payload": text, "payload.x": text}
    with pytest.raises(InvalidInput):
        value_of(schema(payload), form)


def test_an_odd_schema_is_json() -> None:
    for odd in (
        {},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#"},
        {"anyOf": []},
        {"type": "object", "properties": {}},
    ):
        assert [field.input for field in fields_of(odd)] == ["json"]


def test_what_goes_on_looks_the_same_for_a_fiftieth_of_its_age() -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    for age in (0.3, 2, 60, 3_600, 86_400, 30 * 86_400):
        looks = {coarse(since + timedelta(seconds=age * (1 + part / 1000)), since) for part in range(100)}
        assert all(look >= since + timedelta(seconds=age) for look in looks)
        assert len(looks) <= 0.1 * age + 2
        assert len(looks) <= 13
