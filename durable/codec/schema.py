"""`Schema`: how the values of one annotation are checked, written and read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from functools import cached_property, lru_cache
from types import FunctionType, MethodType, NoneType, UnionType
from typing import Any, Generic, TypeVar as TypingTypeVar, Union, cast, final, get_args, get_origin, overload
from weakref import WeakKeyDictionary

from pydantic import ValidationError
from pydantic_core import from_json, to_json
from typing_extensions import TypeForm, TypeVar, override

from durable.codec.adapters import Adapter, in_words, problems, shown_type
from durable.codec.annotations import NOTHING, annotated_function, parameter_type, returned_type
from durable.codec.comparison import loss
from durable.codec.untyped import TAG, decode, encode, is_plain, without_tags
from durable.errors import ConfigurationError, InvalidInput, NotSerializable, PayloadTooLarge

T = TypeVar("T")
S = TypeVar("S")

MAX_PAYLOAD = 1024 * 1024
"""The most bytes that one value may be, as JSON."""

_SOMETHING = "the value"
_NOT_JSON = "its bytes are no JSON"
_FLAT = frozenset({NoneType, bool, int, str})
"""Immutable, and read back as they are. A float may be NaN."""
_SHORT = 4096
"""Bytes below which no int has too many digits to be read back."""
_TAGGED = b'{"$type"'
_TAG = TAG.encode()


class Schema(ABC, Generic[T]):
    """How values of one type are checked, written and read. Get one from `of`, `returned_by` or `parameter`.

    `what` names the value in errors: "the result of step 'charge'".
    """

    annotation: object

    @overload
    @staticmethod
    def of(annotation: TypeForm[S]) -> Schema[S]: ...
    @overload
    @staticmethod
    def of(annotation: object) -> Schema[Any]: ...
    @staticmethod
    def of(annotation: object) -> Schema[Any]:
        """The schema of a type, kept for the next call.

        Raises:
            ConfigurationError: no value of that type can be stored.
        """
        if annotation is None:
            annotation = NoneType
        try:
            # int | str equals str | int, but where a value fits both they differ. Their texts do too.
            return _schema_of(annotation, repr(annotation))
        except TypeError:  # unhashable, such as Annotated with a list
            return _build(annotation)

    @staticmethod
    def returned_by(fn: Callable[..., object]) -> Schema[Any]:
        """The schema of what `fn` returns or, when it returns an awaitable, of what awaiting that gives.

        `UNTYPED` when nothing is annotated, or nothing that can be resolved and stored. It costs little.
        """
        if isinstance(fn, MethodType):
            fn = fn.__func__
        if type(fn) is FunctionType:
            return _RETURNED.get(fn) or _returned_by(fn)
        if isinstance(fn, type):
            return _or_untyped(fn)
        function = annotated_function(fn)
        return UNTYPED if function is None else _RETURNED.get(function) or _returned_by(function)

    @staticmethod
    def parameter(fn: Callable[..., object], index: int) -> Schema[Any]:
        """The schema of the parameter of `fn` at `index`, `UNTYPED` when it has no annotation.

        Raises:
            ConfigurationError: the annotation cannot be resolved or stored.
            IndexError: there is no such parameter.
        """
        return Schema.of(parameter_type(fn, index))

    @abstractmethod
    def roundtrip(self, value: T, what: str = _SOMETHING) -> tuple[bytes, T]:
        """The bytes to store, and the copy that `load` will read from them, for the caller to go on with.

        The copy is equal to `value` or, where `value` is of another type, to what the annotation makes of it
        (a model of a dict). It shares nothing mutable with `value`.

        Raises:
            NotSerializable: the value does not fit the annotation, or could not be read back equal.
            PayloadTooLarge: its JSON is above `MAX_PAYLOAD`.
        """

    @abstractmethod
    def load(self, data: bytes, what: str = _SOMETHING) -> T:
        """The value that was written. Of two equal keys in an object the last one counts.

        Raises:
            NotSerializable: the bytes are not such a value, or name a class that is not found again.
            PayloadTooLarge: they are above `MAX_PAYLOAD`.
        """

    @abstractmethod
    def validate(self, value: object, what: str = _SOMETHING) -> T:
        """A value from outside as an instance of the type: itself if it is one, converted if it can be.

        Raises:
            InvalidInput: it cannot. Names each field and what is wrong with it, and shows no value.
        """

    @abstractmethod
    def validate_json(self, data: bytes, what: str = _SOMETHING) -> T:
        """JSON from outside as an instance of the type. What looks like a tag is data, and names no class.

        Raises:
            InvalidInput: it is none.
            PayloadTooLarge: it is above `MAX_PAYLOAD`.
        """

    @abstractmethod
    def json_schema(self) -> dict[str, object]:
        """The JSON schema of the type; empty, which allows anything, when it has none."""

    def dump(self, value: T, what: str = _SOMETHING) -> bytes:
        """The bytes to store. Refuses what `roundtrip` refuses."""
        return self.roundtrip(value, what)[0]

    @override
    def __repr__(self) -> str:
        return f"Schema({shown_type(self.annotation)})"


def plain(data: bytes, what: str = _SOMETHING) -> object:
    """Stored bytes as plain JSON for people to read, with no tags and no class.

    Raises:
        NotSerializable: the bytes are no JSON.
        PayloadTooLarge: they are above `MAX_PAYLOAD`.
    """
    structure = _parsed(data, what)
    return without_tags(structure) if _TAG in data else structure


@final
class _Untyped(Schema[T]):
    """Values whose type JSON or a tag tells by itself. The annotation only says which types are right."""

    def __init__(self, annotation: object, kinds: frozenset[type] | None) -> None:
        self.annotation = annotation
        self._kinds = kinds

    @override
    def roundtrip(self, value: T, what: str = _SOMETHING) -> tuple[bytes, T]:
        kind = type(value)
        if self._kinds is not None and kind not in self._kinds:
            value = self._adopted(value, what)
            kind = type(value)
        try:
            if kind is dict:
                mapping = cast("dict[object, object]", value)
                for key, item in mapping.items():
                    if type(key) is not str or type(item) not in _FLAT:
                        break
                else:
                    if TAG not in mapping and len(data := to_json(value)) < _SHORT:
                        return data, cast("T", mapping.copy())
            elif kind in _FLAT and len(data := to_json(value)) < _SHORT:
                return data, value
            if is_plain(value):
                data = to_json(value)
                return _sized(data, what), cast("T", from_json(data, allow_inf_nan=False))
        except ValueError:
            pass  # the encoder tells where it is
        return self._encoded(value, what)

    @override
    def load(self, data: bytes, what: str = _SOMETHING) -> T:
        value = _parsed(data, what)
        if _TAG in data:
            value = decode(value, what)
        if self._kinds is not None and type(value) not in self._kinds:
            return self._adopted(value, what)
        return cast("T", value)

    @override
    def validate(self, value: object, what: str = _SOMETHING) -> T:
        if self._kinds is None or type(value) in self._kinds:
            return cast("T", value)
        return cast("T", _validated(self._adapter.adopt, value, what))

    @override
    def validate_json(self, data: bytes, what: str = _SOMETHING) -> T:
        try:
            value: object = from_json(_sized(data, what), allow_inf_nan=False)
        except ValueError as error:
            raise InvalidInput(f"{what} is no JSON: {error}", "send JSON, encoded in UTF-8") from None
        return self.validate(value, what)

    @override
    def json_schema(self) -> dict[str, object]:
        return {} if self._kinds is None else _json_schema(self._adapter)

    def _encoded(self, value: T, what: str) -> tuple[bytes, T]:
        data = _sized(to_json(encode(value, what)), what)
        copy = self.load(data, what)
        _check_equal(value, copy, what)
        return data, copy

    def _adopted(self, value: object, what: str) -> T:
        return cast("T", _fitted(self._adapter, value, self.annotation, what))

    @cached_property
    def _adapter(self) -> Adapter:
        return Adapter(self.annotation)


UNTYPED: Schema[Any] = _Untyped(Any, None)
"""The schema of what has no annotation."""


@final
class _Typed(Schema[T]):
    """Values of a type that pydantic knows."""

    def __init__(self, annotation: object) -> None:
        self.annotation = annotation
        self._adapter = Adapter(annotation)
        self._write = self._adapter.write
        self._read = self._adapter.read

    @override
    def roundtrip(self, value: T, what: str = _SOMETHING) -> tuple[bytes, T]:
        try:
            data = self._write(value)
            copy = cast("T", self._read(data))
            if copy == value and not data.startswith(_TAGGED):
                return _sized(data, what), copy
        except PayloadTooLarge:
            raise
        except Exception:  # noqa: BLE001 - a validator or an __eq__ is user code; told below if it matters
            pass
        return self._reconciled(value, what)

    @override
    def load(self, data: bytes, what: str = _SOMETHING) -> T:
        _sized(data, what)
        if data.startswith(_TAGGED):
            return self._decoded(data, what)
        try:
            return cast("T", self._read(data))
        except Exception as error:  # noqa: BLE001 - a validator is user code and may raise anything
            if _TAG in data:  # written when there was no annotation yet
                return self._decoded(data, what)
            raise _unreadable(error, self.annotation, what) from None

    @override
    def validate(self, value: object, what: str = _SOMETHING) -> T:
        return cast("T", _validated(self._adapter.adopt, value, what))

    @override
    def validate_json(self, data: bytes, what: str = _SOMETHING) -> T:
        return cast("T", _validated(self._adapter.adopt_json, _sized(data, what), what))

    @override
    def json_schema(self) -> dict[str, object]:
        return _json_schema(self._adapter)

    def _reconciled(self, value: T, what: str) -> tuple[bytes, T]:
        """The long way, for what is of another type, equal only part by part, or held by tags alone."""
        value = cast("T", _fitted(self._adapter, value, self.annotation, what))
        try:
            data = self._write(value)
            copy = cast("T", self._read(data))
            if loss(value, copy) is None and not data.startswith(_TAGGED):
                return _sized(data, what), copy
        except PayloadTooLarge:
            raise
        except Exception:  # noqa: BLE001 - as above
            pass
        data = to_json(encode(value, what))
        if not data.startswith(_TAGGED):
            data = b'{"$type":"untyped","value":%b}' % data
        _sized(data, what)
        copy = self._decoded(data, what)
        _check_equal(value, copy, what)
        return data, copy

    def _decoded(self, data: bytes, what: str) -> T:
        decoded = decode(_parsed(data, what), what)
        return cast("T", _fitted(self._adapter, decoded, self.annotation, what))


def _sized(data: bytes, what: str) -> bytes:
    if len(data) > MAX_PAYLOAD:
        raise PayloadTooLarge(what, len(data), MAX_PAYLOAD)
    return data


def _parsed(data: bytes, what: str) -> object:
    try:
        return cast("object", from_json(_sized(data, what), allow_inf_nan=False))
    except ValueError:
        raise NotSerializable(what, _NOT_JSON) from None


def _fitted(adapter: Adapter, value: object, annotation: object, what: str) -> object:
    try:
        return adapter.adopt(value)
    except Exception as error:  # noqa: BLE001 - a validator is user code and may raise anything
        raise _unreadable(error, annotation, what) from None


def _unreadable(error: Exception, annotation: object, what: str) -> NotSerializable:
    if not isinstance(error, ValidationError):
        reason = _NOT_JSON if isinstance(error, ValueError) else f"{type(error).__name__} while it was read"
        return NotSerializable(what, f"it is no {shown_type(annotation)}: {reason}")
    path, text = problems(error)[0]
    return NotSerializable(what, f"it is no {shown_type(annotation)}: {text}", path)


def _check_equal(value: object, copy: object, what: str) -> None:
    if lost := loss(value, copy):
        path, reason = lost
        raise NotSerializable(what, reason, path)


def _validated(adopt: Callable[[Any], object], value: object, what: str) -> object:
    try:
        return adopt(value)
    except ValidationError as error:
        # Not `from error`: its text shows the input, which may be secret.
        raise InvalidInput(f"{what} does not validate: {in_words(error)}") from None
    except Exception as error:  # a validator is user code and may raise anything
        raise InvalidInput(f"{what} does not validate: {type(error).__name__} in a validator") from error


def _json_schema(adapter: Adapter) -> dict[str, object]:
    try:
        return adapter.json_schema()
    except Exception:  # noqa: BLE001 - types may make their schemas themselves, and it is only a description
        return {}


# Which schema an annotation gets

_RETURNED: WeakKeyDictionary[FunctionType, Schema[Any]] = WeakKeyDictionary()


def _returned_by(function: FunctionType) -> Schema[Any]:
    if "return" not in function.__annotations__:
        return UNTYPED  # most lambdas, which are new at each call and not worth remembering
    schema = _or_untyped(returned_type(function))
    _RETURNED[function] = schema
    return schema


def _or_untyped(annotation: object) -> Schema[Any]:
    try:
        return Schema.of(annotation)
    except ConfigurationError:
        return UNTYPED


@lru_cache(maxsize=512)
def _schema_of(annotation: object, _text: str) -> Schema[Any]:
    return _build(annotation)


def _build(annotation: object) -> Schema[Any]:
    if annotation in (Any, object, NOTHING) or isinstance(annotation, TypingTypeVar):
        return UNTYPED
    kinds = _kinds(annotation)
    return _Typed(annotation) if kinds is None else _Untyped(annotation, kinds)


_ALONE: frozenset[object] = frozenset({NoneType, bool, int, float, str, dict, list})
_OF_ANYTHING: Mapping[object, tuple[type, ...]] = {
    dict: (dict, str, object),
    Mapping: (dict, str, object),
    MutableMapping: (dict, str, object),
    list: (list, object),
    Sequence: (list, object),
    MutableSequence: (list, object),
}


def _kinds(annotation: object) -> frozenset[type] | None:
    """The JSON types of which an annotation takes any value, whatever it holds. None when it says more."""
    if isinstance(annotation, type) and annotation in _ALONE:
        return frozenset({annotation})
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        members = [_kinds(arg) for arg in args]
        return frozenset[type]().union(*(kinds for kinds in members if kinds)) if all(members) else None
    if origin in _OF_ANYTHING:
        kind, *anything = _OF_ANYTHING[origin]
        if not args or [object if arg is Any else arg for arg in args] == anything:
            return frozenset({kind})
    return None
