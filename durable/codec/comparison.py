"""Whether a copy that was read back holds what the value held."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import cast

from pydantic import BaseModel

Part = tuple[str, object, object]


def loss(value: object, copy: object, path: str = "") -> tuple[str, str] | None:
    """Where `copy` differs from `value`, and how; None when it is equal.

    Equal is what `==` says. Objects that compare by identity are equal when their attributes are. A model's
    private and excluded fields do not count: their author has said that they are not written.
    """
    try:
        if value is copy or value == copy:
            return None
        kind = type(value)
        if type(copy) is not kind:
            return path, f"{kind.__name__} would be read back as {type(copy).__name__}"
        parts = _parts(value, copy)
        if parts is None:
            return path, f"{kind.__name__} would be read back with another value"
        for name, part, part_of_copy in parts:
            if found := loss(part, part_of_copy, f"{path}.{name}" if path else name):
                return found
    except Exception as error:  # noqa: BLE001 - an __eq__ is user code and may raise anything
        return path, f"{type(value).__name__} cannot be compared with its copy ({type(error).__name__})"
    return None


def _parts(value: object, copy: object) -> Iterable[Part] | None:
    """What two unequal objects of one class consist of, side by side; None when `==` has said it all."""
    if isinstance(value, dict):
        return _of_mappings(cast("dict[object, object]", value), cast("dict[object, object]", copy))
    if isinstance(value, list | tuple):
        items, items_of_copy = cast("list[object]", value), cast("list[object]", copy)
        if len(items) != len(items_of_copy):
            return None
        return [(str(n), *pair) for n, pair in enumerate(zip(items, items_of_copy, strict=True))]
    if isinstance(value, BaseModel):
        written = [name for name, field in type(value).model_fields.items() if not field.exclude]
        extra = _of_mappings(value.model_extra or {}, cast("BaseModel", copy).model_extra or {})
        return None if extra is None else [*_attributes(value, copy, written), *extra]
    if is_dataclass(value):
        return _attributes(value, copy, [field.name for field in fields(value) if field.compare])
    if isinstance(value, datetime):
        # A time that exists twice in its zone equals none in any other zone, not even the same instant.
        is_same = value.isoformat() == cast("datetime", copy).isoformat()
        return [] if is_same else None
    if type(value).__eq__ is object.__eq__ and hasattr(value, "__dict__"):
        return _of_mappings(vars(value), vars(copy))
    return None


def _of_mappings(
    value: dict[object, object] | dict[str, object], copy: dict[object, object] | dict[str, object]
) -> list[Part] | None:
    if value.keys() != copy.keys():
        return None
    of_copy = cast("dict[object, object]", copy)
    return [(str(key), part, of_copy[key]) for key, part in value.items()]


def _attributes(value: object, copy: object, names: Iterable[str]) -> list[Part]:
    return [(name, getattr(value, name), getattr(copy, name)) for name in names]
