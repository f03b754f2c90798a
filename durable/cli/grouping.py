"""Options that commands share, declared once: the fields of a dataclass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import TypeVar, cast, get_type_hints

R = TypeVar("R")


def grouped(command: Callable[..., R]) -> Callable[..., R]:
    """The command as Typer wants it: with the fields of each dataclass among its parameters in the place of that one.

    Such a dataclass may hold others. `Connection` is one: each command that needs a store has its options.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters = [
        each.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[each.name])
        for each in signature(command).parameters.values()
    ]

    def call(**given: object) -> R:
        return command(**{each.name: _built(each, given) for each in parameters})

    flat = [option for each in parameters for option in _flat(each)]
    call.__doc__, call.__name__, call.__module__ = command.__doc__, command.__name__, command.__module__
    call.__annotations__ = {option.name: option.annotation for option in flat}
    vars(call)["__signature__"] = Signature(flat)
    return call


def _flat(parameter: Parameter) -> Iterator[Parameter]:
    group = _group(parameter)
    if group is None:
        yield parameter
        return
    for field in _fields(group):
        yield from _flat(field)


def _built(parameter: Parameter, given: Mapping[str, object]) -> object:
    group = _group(parameter)
    if group is None:
        return given[parameter.name]
    return group(**{field.name: _built(field, given) for field in _fields(group)})


def _group(parameter: Parameter) -> type | None:
    kind = cast("object", parameter.annotation)
    return kind if isinstance(kind, type) and is_dataclass(kind) else None


def _fields(group: type) -> Iterator[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = Parameter.empty if field.default is MISSING else field.default
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name])
