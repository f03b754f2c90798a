"""Forms for JSON Schemas: a field for each simple property, JSON for everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

from durable.dashboard.acts import read_json
from durable.dashboard.values import as_json
from durable.errors import InvalidInput

Input: TypeAlias = Literal["text", "long", "number", "checkbox", "choice", "json", "instant"]
WHOLE: Final = "payload"
PREFIX: Final = "payload."

_NUMBERS: Final = ("integer", "number")


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to fill in."""

    name: str
    """As the form sends it: the payload itself, or `payload.` and a property of it."""
    label: str
    input: Input
    required: bool
    default: str = ""
    choices: Sequence[str] = ()
    about: str = ""


def fields_of(schema: Mapping[str, Any] | None) -> list[Field]:
    """What to fill in for a value of this schema; None: any JSON. Nothing, where the value is null."""
    if schema is None:
        return [Field(WHOLE, "Payload (JSON)", "json", required=False)]
    resolved = _resolved(schema, schema)
    if resolved.get("type") == "null":
        return []
    properties: object = resolved.get("properties")
    if resolved.get("type") == "object" and isinstance(properties, Mapping) and properties:
        required = cast("Sequence[str]", resolved.get("required", ()))
        return [
            _field(PREFIX + name, name, _resolved(each, schema), required=name in required)
            for name, each in cast("Mapping[str, Mapping[str, Any]]", properties).items()
        ]
    return [_field(WHOLE, str(resolved.get("title", "Payload")), resolved, required=True)]


def value_of(schema: Mapping[str, Any] | None, form: Mapping[str, str]) -> object:
    """The value that a filled-in form means. What is left empty and need not be given is left out.

    Raises:
        InvalidInput: a number is none, or JSON is none.
    """
    values: dict[str, object] = {}
    fields = fields_of(schema)
    for field in fields:
        text = form.get(field.name, "")
        if field.input == "checkbox":
            values[field.name] = text in ("on", "true")
        elif text or field.required:
            values[field.name] = _value(field, text)
    if not fields:
        return None
    if fields[0].name == WHOLE:
        return values.get(WHOLE)
    return {name.removeprefix(PREFIX): value for name, value in values.items()}


def _value(field: Field, text: str) -> object:
    match field.input:
        case "json":
            return read_json(text, field.label)
        case "number":
            try:
                return int(text) if text.lstrip("+-").isdigit() else float(text)
            except ValueError:
                raise InvalidInput(f"{field.label} must be a number") from None
        case _:
            return text


def _field(name: str, label: str, schema: Mapping[str, Any], *, required: bool) -> Field:
    kind, enum = schema.get("type"), schema.get("enum")
    about = str(schema.get("description", ""))
    default = schema.get("default")
    text = "" if default is None else default if isinstance(default, str) else as_json(default).decode()
    if isinstance(enum, Sequence) and all(isinstance(each, str) for each in cast("Sequence[object]", enum)):
        return Field(name, label, "choice", required, text, tuple(cast("Sequence[str]", enum)), about)
    if kind == "boolean":
        return Field(
            name, label, "checkbox", required=False, default="true" if default is True else "", about=about
        )
    if kind in _NUMBERS:
        return Field(name, label, "number", required, text, about=about)
    if kind == "string":
        long = schema.get("maxLength", 0) > 200
        instant = schema.get("format") == "date-time"
        return Field(
            name, label, "long" if long else "instant" if instant else "text", required, text, about=about
        )
    return Field(name, f"{label} (JSON)", "json", required, text, about=about)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, where it refers to a definition of the root; an optional one as what it is when given."""
    for _ in range(5):
        reference: object = schema.get("$ref")
        options: object = schema.get("anyOf")
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            schema = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        elif isinstance(options, Sequence):
            given = [
                each for each in cast("Sequence[Mapping[str, Any]]", options) if each.get("type") != "null"
            ]
            if len(given) != 1:
                return schema
            schema = {
                **given[0],
                **{k: v for k, v in schema.items() if k in ("default", "description", "title")},
            }
        else:
            return schema
    return schema
