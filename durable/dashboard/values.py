"""Values and records as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic_core import to_json


def as_json(value: object) -> bytes:
    """JSON of plain values and of records; instants in ISO 8601. What JSON has no number for is text."""
    return to_json(value, inf_nan_mode="strings", fallback=_otherwise)


def _otherwise(value: object) -> object:
    return dict(cast("Mapping[object, object]", value)) if isinstance(value, Mapping) else repr(value)
