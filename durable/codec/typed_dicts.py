"""`typing.TypedDict` for pydantic, which before Python 3.12 takes only that of `typing_extensions`.

The reason is that before 3.12 a class whose annotations are text does not know which of its fields are
required. Here the annotations are resolved first.
"""

from __future__ import annotations

from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import typing_extensions


def with_twins(annotation: object, within: frozenset[object] = frozenset()) -> object:
    """`annotation` with every `typing.TypedDict` in it replaced by a twin that pydantic takes.

    One that refers to itself is left alone.
    """
    if _is_typed_dict(annotation):
        return annotation if annotation in within else _twin(cast("type", annotation), within | {annotation})
    origin, args = get_origin(annotation), get_args(annotation)
    if not args or origin is Literal:
        return annotation
    if origin is Annotated:
        return Annotated[(with_twins(args[0], within), *args[1:])]
    replaced = tuple(with_twins(arg, within) for arg in args)
    if all(new is old for new, old in zip(replaced, args, strict=True)):
        return annotation
    return Union[replaced] if origin in (Union, UnionType) else cast("Any", origin)[replaced]  # noqa: UP007


def _is_typed_dict(annotation: object) -> bool:
    return typing_extensions.is_typeddict(annotation) and type(annotation).__module__ == "typing"


def _twin(typed_dict: type, within: frozenset[object]) -> object:
    required = cast("frozenset[str]", vars(typed_dict)["__required_keys__"])
    fields: dict[str, object] = {}
    for name, hint in get_type_hints(typed_dict, include_extras=True).items():
        is_marked = get_origin(hint) in (Required, NotRequired)
        mark = get_origin(hint) if is_marked else Required if name in required else NotRequired
        fields[name] = cast("Any", mark)[with_twins(get_args(hint)[0] if is_marked else hint, within)]
    twin = cast("Any", typing_extensions.TypedDict)(typed_dict.__name__, fields)
    twin.__module__, twin.__qualname__ = typed_dict.__module__, typed_dict.__qualname__
    return cast("object", twin)
