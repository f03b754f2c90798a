"""Values without an annotation: plain JSON where JSON has the type, tagged where it lacks it.

| value | stored as |
|---|---|
| None, bool, int, finite float, str, list, dict with str keys | itself |
| tuple, set, frozenset | `{"$type": "tuple", "value": [1, 2]}` |
| bytes, datetime, date, time, timedelta, Decimal, UUID | `{"$type": "date", "value": "2024-02-29"}` |
| a dict that has a key "$type" | `{"$type": "dict", "value": {"$type": ...}}` |
| a member of an enum | `{"$type": "app.Colour", "value": "RED"}`: its name, or a flag's number |
| a model, a dataclass, a NamedTuple | `{"$type": "app.Charge", "value": ...}`, by its own annotations |
| one that its own annotations do not hold | `{"$type": "app.Charge", "fields": {...}}`, each by this table |

An instance of a subclass of one of the first three rows comes back as the type in the row, which is equal to
it. An aware datetime comes back with its offset instead of its zone.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from math import isfinite
from types import NoneType
from typing import Any, NoReturn, cast, final
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from durable.codec.adapters import adapter_of
from durable.codec.classes import find_class, is_found_again, name_of, why_not_found
from durable.codec.comparison import loss
from durable.errors import ConfigurationError, NotSerializable, shown

TAG = "$type"
MAX_DEPTH = 100
"""How deep values may be nested. Tags double it to 200 levels of JSON, the most that the parser reads."""

_VALUE = "value"
_FIELDS = "fields"
_TOO_LARGE = 10**4300  # what Python and its JSON parsers refuse to turn into text, and back
_SURROGATE = re.compile("[\ud800-\udfff]")
_SCALARS = frozenset({NoneType, bool, int, float, str})


def is_plain(value: object, room: int = MAX_DEPTH) -> bool:
    """Whether `value` is made of the exact types that JSON has alone. What they hold may still be refused."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if not room:
        return False
    if kind is dict:
        mapping = cast("dict[object, object]", value)
        for key, item in mapping.items():
            if type(key) is not str or (type(item) not in _SCALARS and not is_plain(item, room - 1)):
                return False
        return TAG not in mapping
    if kind is list:
        for item in cast("list[object]", value):
            if type(item) not in _SCALARS and not is_plain(item, room - 1):
                return False
        return True
    return False


def encode(value: object, what: str) -> object:
    """`value` as plain JSON with tags.

    Raises:
        NotSerializable: it holds something that JSON cannot, or that could not be read back.
    """
    try:
        return _Encoder(what).encode(value)
    except RecursionError:
        raise NotSerializable(what, "it is nested too deep for what is left of the stack") from None


def decode(structure: object, what: str) -> object:
    """The value that `encode` was given.

    Raises:
        NotSerializable: it is nothing that `encode` makes, or it names a class that is not found again.
    """
    try:
        return _decode(structure)
    except _CannotRead as error:
        raise NotSerializable(what, str(error)) from None
    except Exception as error:  # noqa: BLE001 - a validator is user code and may raise anything
        raise NotSerializable(what, f"it cannot be read back: {type(error).__name__}") from None


def without_tags(structure: object) -> object:
    """What people read: each tagged value replaced by the plain JSON that stands for it."""
    if isinstance(structure, list):
        return [without_tags(item) for item in cast("list[object]", structure)]
    if not isinstance(structure, dict):
        return structure
    mapping = cast("dict[str, object]", structure)
    if isinstance(tag := mapping.get(TAG), str) and len(mapping) == 2:
        if _FIELDS in mapping:
            return without_tags(mapping[_FIELDS])
        if _VALUE in mapping:
            held = mapping[_VALUE]
            if tag == "dict" and isinstance(held, dict):
                return _each(without_tags, cast("dict[str, object]", held))
            return held if "." in tag else without_tags(held)
    return _each(without_tags, mapping)


@final
class _CannotRead(ValueError):
    """The bytes are not ours, or the code that wrote them is not here."""


@final
class _Encoder:
    def __init__(self, what: str) -> None:
        self._what = what
        self._path: list[str] = []
        self._open: list[int] = []
        """The ids of what is being written, from the outside in."""

    def encode(self, value: object) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self._enum_member(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int):
            return self._integer(value)
        if isinstance(value, float):
            if not isfinite(value):
                self._refuse(f"{float(value)} is no JSON number")
            return float.__pos__(value)
        if isinstance(value, bytes):
            return _tagged("bytes", b64encode(value).decode())
        for tag, (kind, write, _) in _TEXTS.items():
            if isinstance(value, kind):
                return _tagged(tag, write(value))
        return self._container(value)

    def _container(self, value: object) -> object:
        if id(value) in self._open:
            self._refuse(f"the {type(value).__name__} contains itself")
        self._open.append(id(value))
        if len(self._open) > MAX_DEPTH:
            self._refuse(f"it is nested more than {MAX_DEPTH} levels deep")
        try:
            return self._opened(value)
        finally:
            self._open.pop()

    def _opened(self, value: object) -> object:
        if isinstance(value, dict):
            return self._mapping(cast("dict[object, object]", value))
        if isinstance(value, list):
            return self._items(cast("list[object]", value))
        if _is_record(type(value)):
            return self._record(value)
        if isinstance(value, tuple):
            return _tagged("tuple", self._items(cast("tuple[object, ...]", value)))
        if isinstance(value, set | frozenset):
            elements = cast("frozenset[object]", value)
            # In an order of its own, so that equal sets are equal bytes in every process.
            written = sorted(self._items(list(elements)), key=to_json)
            return _tagged("set" if isinstance(value, set) else "frozenset", written)
        return self._refuse(f"{type(value).__qualname__} is nothing that JSON can hold")

    def _mapping(self, mapping: dict[object, object]) -> object:
        for key in mapping:
            if not isinstance(key, str):
                self._refuse(
                    f"the key {shown(key)} is of type {type(key).__name__} and would be read back as str: "
                    "annotate the dict, dict[int, ...], or use str keys"
                )
        named = cast("dict[str, object]", mapping)
        written = {self._text(key): self._within(key, item) for key, item in named.items()}
        return _tagged("dict", written) if TAG in written else written

    def _items(self, items: list[object] | tuple[object, ...]) -> list[object]:
        return [self._within(str(position), item) for position, item in enumerate(items)]

    def _within(self, name: str, part: object) -> object:
        self._path.append(name)
        written = self.encode(part)
        self._path.pop()
        return written

    def _text(self, text: str) -> str:
        if _SURROGATE.search(text):
            self._refuse("half of a surrogate pair is no Unicode text")
        return str.__str__(text)

    def _integer(self, number: int) -> int:
        if not -_TOO_LARGE < number < _TOO_LARGE:
            self._refuse("an int of more than 4,300 digits cannot be read back")
        return int.__pos__(number)

    def _enum_member(self, member: Enum) -> object:
        kind = self._found_again(member)
        if isinstance(member, Flag):
            return _tagged(kind, self.encode(member.value))
        return _tagged(kind, self._text(member.name))

    def _record(self, record: object) -> object:
        kind = self._found_again(record)
        try:
            adapter = adapter_of(type(record))
        except ConfigurationError as error:
            self._refuse(str(error))
        try:
            data = adapter.write(record)
            if loss(record, adapter.read(data)) is None:
                return _tagged(kind, from_json(data, allow_inf_nan=False))
        except Exception:  # noqa: BLE001 - a serializer or validator is user code; the other way may do
            pass
        return {
            TAG: kind,
            _FIELDS: {name: self._within(name, part) for name, part in _fields_of(record).items()},
        }

    def _found_again(self, instance: object) -> str:
        kind = type(instance)
        if not is_found_again(kind):
            self._refuse(why_not_found(kind))
        return name_of(kind)

    def _refuse(self, reason: str) -> NoReturn:
        raise NotSerializable(self._what, reason, ".".join(self._path))


def _tagged(tag: str, written: object) -> dict[str, object]:
    return {TAG: tag, _VALUE: written}


def _fields_of(record: object) -> dict[str, object]:
    if isinstance(record, BaseModel):
        return {**vars(record), **(record.model_extra or {})}
    if is_dataclass(record):
        return {field.name: getattr(record, field.name) for field in fields(record) if field.init}
    return cast(
        "dict[str, object]", cast("Any", record)._asdict()
    )  # a NamedTuple's public method, underscore or not


def _decode(structure: object) -> object:
    if isinstance(structure, list):
        return [_decode(item) for item in cast("list[object]", structure)]
    if not isinstance(structure, dict):
        return structure
    mapping = cast("dict[str, object]", structure)
    if TAG not in mapping:
        return _each(_decode, mapping)
    tag = mapping[TAG]
    if not isinstance(tag, str) or len(mapping) != 2:
        raise _CannotRead(f"a dict with the key {TAG!r} is not as it was written")
    if _VALUE in mapping:
        held = mapping[_VALUE]
        return _decode_instance(tag, held) if "." in tag else _decode_builtin(tag, held)
    return _decode_fields(tag, mapping.get(_FIELDS))


def _decode_builtin(tag: str, held: object) -> object:
    if tag in _TEXTS and isinstance(held, str):
        return _TEXTS[tag][2](held)
    if tag in _CONTAINERS and isinstance(held, list):
        return _CONTAINERS[tag](cast("list[object]", _decode(cast("list[object]", held))))
    if tag == "dict" and isinstance(held, dict):
        return _each(_decode, cast("dict[str, object]", held))
    if tag == "bytes" and isinstance(held, str):
        return b64decode(held, validate=True)
    if tag == "untyped":  # the whole of a value that its annotation does not hold
        return _decode(held)
    raise _CannotRead(f"{TAG} {shown(tag)} is not one that is written here")


def _decode_instance(name: str, held: object) -> object:
    kind = _class(name)
    if issubclass(kind, Flag):
        if type(held) is not int:
            raise _CannotRead(f"{name} is a flag and {shown(held)} no number")
        return kind(held)
    if issubclass(kind, Enum):
        if not isinstance(held, str) or held not in kind.__members__:
            raise _CannotRead(f"{name} has no member {shown(held)}")
        return kind.__members__[held]
    return adapter_of(kind).read(to_json(held))


def _decode_fields(name: str, held: object) -> object:
    if not isinstance(held, dict):
        raise _CannotRead(f"a dict with the key {TAG!r} is not as it was written")
    kind = _class(name)
    if issubclass(kind, Enum):
        raise _CannotRead(f"{name} is an enum and has no fields")
    decoded = _each(_decode, cast("dict[str, object]", held))
    return adapter_of(kind).adopt(decoded)


def _class(name: str) -> type[Any]:
    """The class of that name, if it is of a kind that may be read."""
    kind = find_class(name)
    if kind is None:
        raise _CannotRead(f"the class {shown(name)} is not found in the modules that are imported")
    if not (_is_record(kind) or issubclass(kind, Enum)):
        raise _CannotRead(f"{name} is no model, dataclass, NamedTuple or enum")
    return kind


def _is_record(kind: type[Any]) -> bool:
    if issubclass(kind, tuple):
        return hasattr(cast("object", kind), "_fields")
    return issubclass(kind, BaseModel) or is_dataclass(kind)


def _each(read: Callable[[object], object], mapping: dict[str, object]) -> dict[str, object]:
    return {key: read(item) for key, item in mapping.items()}


def _write_timedelta(span: timedelta) -> str:
    return to_json(span)[1:-1].decode()


def _read_timedelta(text: str) -> object:
    return adapter_of(timedelta).adopt(text)


_Text = tuple[type, Callable[[object], str], Callable[[str], object]]

_TEXTS: dict[str, _Text] = {
    "datetime": (datetime, lambda value: cast("datetime", value).isoformat(), datetime.fromisoformat),
    "date": (date, lambda value: cast("date", value).isoformat(), date.fromisoformat),
    "time": (time, lambda value: cast("time", value).isoformat(), time.fromisoformat),
    "timedelta": (timedelta, lambda value: _write_timedelta(cast("timedelta", value)), _read_timedelta),
    "decimal": (Decimal, str, Decimal),
    "uuid": (UUID, str, UUID),
}
"""Tag: class, how it is written as text, how it is read. A datetime is a date too, so it comes first."""

_CONTAINERS: dict[str, Callable[[list[object]], object]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
