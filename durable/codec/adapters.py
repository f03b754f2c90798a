"""pydantic's writer and reader of one type, set up so that what is written can be read."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import from_json

from durable.codec.typed_dicts import with_twins
from durable.errors import ConfigurationError

_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
_CONFIG_IS_UNUSED = "type-adapter-config-unused"
_PROBLEMS_SHOWN = 10
_CHARS_SHOWN = 200


class Adapter:
    """Writes and reads one type. Fields go by their names, never by an alias that might work one way only."""

    def __init__(self, annotation: object) -> None:
        self._pydantic = _type_adapter(annotation)
        self._to_json = self._pydantic.serializer.to_json
        self._from_json = self._pydantic.validator.validate_json
        self._from_python = self._pydantic.validator.validate_python

    def write(self, value: object) -> bytes:
        """JSON, of whatever `value` is; only reading it tells whether it is right."""
        return self._to_json(value, warnings=False, by_alias=False, round_trip=True)

    def read(self, data: bytes) -> object:
        """What `write` has written. Raises `ValueError`, or whatever a validator raises."""
        if b"NaN" in data or b"Infinity" in data:
            from_json(data, allow_inf_nan=False)
        return self._from_json(data, by_alias=False, by_name=True)

    def adopt(self, value: object) -> object:
        """`value` as an instance of the type: itself if it is one, converted if it can be."""
        return self._from_python(value, by_name=True)

    def adopt_json(self, data: bytes) -> object:
        return self._from_json(data, by_name=True)

    def json_schema(self) -> dict[str, object]:
        return self._pydantic.json_schema()


def adapter_of(kind: type) -> Adapter:
    """The adapter of a class. Raises `ConfigurationError` when pydantic knows no way to store it."""
    return _kept_adapter(cast("Hashable", kind))


def problems(error: ValidationError) -> list[tuple[str, str]]:
    """Path and text of what is wrong. Shows no value, as it may be a secret, and nothing at length."""
    listed = error.errors(include_url=False, include_context=False)
    return [
        (
            _printable(".".join(str(part) for part in one["loc"])),
            _printable(f"{one['msg']} (got {type(one['input']).__name__})"),
        )
        for one in listed[:_PROBLEMS_SHOWN]
    ]


def in_words(error: ValidationError) -> str:
    """All that is wrong, on one line."""
    told = "; ".join(f"{path}: {text}" if path else text for path, text in problems(error))
    more = error.error_count() - _PROBLEMS_SHOWN
    return f"{told}; and {more} more" if more > 0 else told


def shown_type(annotation: object) -> str:
    """An annotation as its author wrote it, more or less."""
    return annotation.__qualname__ if type(annotation) is type else str(annotation).replace("typing.", "")


@lru_cache(maxsize=512)
def _kept_adapter(kind: object) -> Adapter:
    return Adapter(kind)


def _printable(text: str) -> str:
    text = text if len(text) <= _CHARS_SHOWN else text[:_CHARS_SHOWN] + "..."
    return "".join(character if character.isprintable() else "?" for character in text)


def _type_adapter(annotation: object) -> TypeAdapter[Any]:
    try:
        if sys.version_info < (3, 12):
            annotation = with_twins(annotation)
        try:
            adapter = TypeAdapter[Any](cast("Any", annotation), config=_CONFIG)
        except PydanticUserError as error:
            if error.code != _CONFIG_IS_UNUSED:
                raise
            adapter = TypeAdapter[Any](
                cast("Any", annotation)
            )  # a model, a dataclass, a TypedDict: they have their own
        adapter.rebuild(raise_errors=True)
    except Exception as error:  # building runs user code: forward references, __get_pydantic_core_schema__
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"{shown_type(annotation)} cannot be stored: {type(error).__name__}: {reason}",
            "use a type that pydantic can write and read: a model, a dataclass, a TypedDict, plain JSON",
        ) from error
    return adapter
