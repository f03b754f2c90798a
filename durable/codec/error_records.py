"""Errors as they are stored: what is recorded of an exception, and the exception that it becomes again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn, NotRequired, cast

from pydantic import ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict

from durable.codec.adapters import adapter_of, in_words
from durable.codec.classes import find_class, is_found_again, name_of
from durable.codec.comparison import loss
from durable.codec.schema import MAX_PAYLOAD
from durable.codec.untyped import decode, encode
from durable.errors import DurableError, Fail, NotSerializable, PayloadTooLarge, StepFailed, find_in, shown
from durable.models import ErrorRecord

MAX_MESSAGE = 8 * 1024
MAX_ARGUMENTS = 64 * 1024
"""Bytes of JSON. Arguments that are larger are not kept, and the exception is not rebuilt."""

_WHAT = "the error"
_SHOWN_OF_GROUP = 5


def record_error(error: BaseException, *, step_id: str | None = None) -> ErrorRecord:
    """What is stored of an exception. Never raises, whatever the exception does.

    `code` and `details` are those of the exception or, when it is a group, of the `Fail` in it.
    """
    if (stands_for := _stands_for(error)) is not None:
        return stands_for
    source = find_in(error, Fail) or (error if isinstance(error, DurableError) else None)
    recipe = _recipe(error)
    return ErrorRecord(
        error_type=_text(name_of(type(error))),
        message=_message(error),
        args=recipe.arguments if recipe else (),
        rebuildable=recipe is not None,
        code=None if source is None else _text(str(source.code)),
        details=_details(source),
        step_id=step_id,
        retry=not isinstance(source, Fail),
        attributes=recipe.attributes if recipe else {},
    )


def rebuild(record: ErrorRecord) -> Exception:
    """The exception that the record was made of, if its class is found again; else what is closest.

    That is a `Fail` for what must not be tried again and `StepFailed` for all others, both with `error_type`
    and `message`. The class comes from the modules that are imported, and must be an exception.
    """
    if record.rebuildable:
        kind = find_class(record.error_type)
        try:
            if kind is not None and issubclass(kind, Exception):
                return _constructed(kind, record.args, record.attributes)
        except Exception:  # noqa: BLE001 - the constructor is user code, and may have changed since
            pass
    if record.retry:
        return StepFailed(record.error_type, record.message, record.step_id or "")
    fail = Fail(record.message, record.code, record.details)
    vars(fail).update(error_type=record.error_type, step_id=record.step_id)
    return fail


def dump_error(record: ErrorRecord) -> bytes:
    """The record as JSON. Never raises for what `record_error` or `load_error` gave.

    Raises:
        NotSerializable: `args`, `attributes` or `details` hold what JSON cannot.
    """
    stored = _Stored(type=record.error_type, message=record.message)
    if record.rebuildable:
        stored["args"] = encode(list(record.args), _WHAT)
    if record.attributes:
        stored["attributes"] = encode(dict(record.attributes), _WHAT)
    if record.code is not None:
        stored["code"] = record.code
    if record.details is not None:
        stored["details"] = encode(record.details, _WHAT)
    if record.step_id is not None:
        stored["step_id"] = record.step_id
    if not record.retry:
        stored["retry"] = False
    return to_json(stored)


def load_error(data: bytes) -> ErrorRecord:
    """The record that was written. It is not rebuildable when an argument's class is not found any more.

    Raises:
        NotSerializable: the bytes are no such record.
        PayloadTooLarge: they are above `MAX_PAYLOAD`.
    """
    if len(data) > MAX_PAYLOAD:
        raise PayloadTooLarge(_WHAT, len(data), MAX_PAYLOAD)
    try:
        stored = cast("_Stored", adapter_of(_Stored).read(data))
    except ValidationError as error:
        raise NotSerializable(_WHAT, in_words(error)) from None
    except ValueError:
        raise NotSerializable(_WHAT, "its bytes are no JSON") from None
    arguments = _decoded(stored.get("args"), list)
    attributes = _decoded(stored.get("attributes", {}), dict)
    is_whole = arguments is not None and attributes is not None
    return ErrorRecord(
        error_type=stored["type"],
        message=stored["message"],
        args=tuple(cast("list[object]", arguments)) if is_whole else (),
        rebuildable=is_whole,
        code=stored.get("code"),
        details=_decoded(stored.get("details"), object),
        step_id=stored.get("step_id"),
        retry=stored.get("retry", True),
        attributes=cast("dict[str, object]", attributes) if is_whole else {},
    )


class _Stored(TypedDict):
    type: str
    message: str
    args: NotRequired[object]
    attributes: NotRequired[object]
    code: NotRequired[str]
    details: NotRequired[object]
    step_id: NotRequired[str]
    retry: NotRequired[bool]


class _Recipe(NamedTuple):
    """What an exception is made of again."""

    arguments: tuple[object, ...]
    attributes: Mapping[str, object]
    """Those that the arguments alone do not bring back."""


def _recipe(error: BaseException) -> _Recipe | None:
    if not isinstance(error, Exception) or not is_found_again(kind := type(error)):
        return None
    try:
        arguments = cast("list[object]", _copied(list(_arguments(error))))
        attributes = _attributes_beyond(vars(_constructed(kind, arguments, {})), error)
        again = _constructed(kind, arguments, attributes)
        if str(again) != str(error) or loss(list(error.args), list(again.args)) is not None:
            return None
        return _Recipe(tuple(arguments), attributes)
    except Exception:  # noqa: BLE001 - constructors and __str__ are user code; and recording must not fail
        return None


def _arguments(error: Exception) -> tuple[object, ...]:
    """What its constructor takes. An `OSError` and whoever defines `__reduce__` keep it apart from `args`."""
    constructor, arguments, *_ = cast("tuple[object, ...]", error.__reduce__())
    return cast("tuple[object, ...]", arguments) if constructor is type(error) else error.args


def _attributes_beyond(constructed: Mapping[str, object], error: Exception) -> dict[str, object]:
    attributes: dict[str, object] = {}
    for name, value in vars(error).items():
        if name.startswith("__") or (name in constructed and loss(value, constructed[name]) is None):
            continue
        try:
            attributes[name] = _copied(value)
        except (NotSerializable, PayloadTooLarge):
            continue  # it stays as the constructor makes it
    return attributes if len(to_json(encode(attributes, _WHAT))) <= MAX_ARGUMENTS else {}


def _constructed(
    kind: type[Exception], arguments: Sequence[object], attributes: Mapping[str, object]
) -> Exception:
    error = kind(*arguments)
    if type(error) is not kind:
        _refuse(f"{kind.__qualname__}() makes something else")
    vars(error).update(attributes)
    return error


def _copied(value: object) -> object:
    written = encode(value, _WHAT)
    if (size := len(to_json(written))) > MAX_ARGUMENTS:
        raise PayloadTooLarge(_WHAT, size, MAX_ARGUMENTS)
    copy = decode(written, _WHAT)
    if loss(value, copy) is not None:
        _refuse("it would be read back changed")
    return copy


def _refuse(reason: str) -> NoReturn:
    raise NotSerializable(_WHAT, reason)


def _stands_for(error: BaseException) -> ErrorRecord | None:
    """The record that `error` was rebuilt from, when it stands for an exception whose class was not found."""
    if isinstance(error, StepFailed):
        return ErrorRecord(_text(error.error_type), _text(error.message), step_id=error.step_id or None)
    if type(error) is Fail and "error_type" in vars(error):
        return ErrorRecord(
            _text(str(vars(error)["error_type"])),
            _text(error.message),
            code=_text(str(error.code)),
            details=_details(error),
            step_id=cast("str | None", vars(error).get("step_id")),
            retry=False,
        )
    return None


def _details(error: DurableError | None) -> object:
    details = getattr(error, "details", None)
    try:
        return _copied(details)
    except (NotSerializable, PayloadTooLarge):
        return shown(details)


def _decoded(written: object, kind: type) -> object:
    """What was written, or None when it cannot be read here or is something else."""
    try:
        value = decode(written, _WHAT)
    except NotSerializable:
        return None
    return value if isinstance(value, kind) else None


def _message(error: BaseException) -> str:
    try:
        message = str(error)
        if issubclass(type(error), BaseExceptionGroup):
            members = cast("BaseExceptionGroup[BaseException]", error).exceptions
            message += "".join(f"; {type(member).__name__}: {member}" for member in members[:_SHOWN_OF_GROUP])
    except Exception:  # noqa: BLE001 - a __str__ is user code
        return f"<unprintable {type(error).__name__}>"
    return _text(message)


def _text(text: str) -> str:
    """At most `MAX_MESSAGE` bytes of it, with nothing in it that is no Unicode."""
    return text.encode(errors="backslashreplace")[:MAX_MESSAGE].decode(errors="ignore")
