"""What a function's annotations say, resolved where they are text."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from types import FunctionType, MethodType
from typing import TypeVar, cast, get_args, get_origin, get_type_hints

from durable.errors import ConfigurationError

Function = Callable[..., object]

NOTHING: object = inspect.Parameter.empty
"""No annotation, or none that says anything."""

_WRAPPERS_FOLLOWED = 100


def annotated_function(fn: Function) -> FunctionType | None:
    """The plain function behind a partial, a method, a decorator or a callable object, if there is one."""
    candidate: object = fn
    for _ in range(_WRAPPERS_FOLLOWED):
        if isinstance(candidate, FunctionType):
            return candidate
        if isinstance(candidate, partial):
            candidate = cast("partial[object]", candidate).func
        elif isinstance(candidate, MethodType):
            candidate = candidate.__func__
        elif isinstance(candidate, type):
            return None
        elif "__wrapped__" in getattr(candidate, "__dict__", {}):
            candidate = vars(candidate)["__wrapped__"]
        else:
            candidate = inspect.getattr_static(type(candidate), "__call__", None)
    return None


def returned_type(function: FunctionType) -> object:
    """What the function returns or, if that is to be awaited, gives then; `NOTHING` where that is not known.

    A type that is local to an outer function is found when the function refers to it.
    """
    try:
        annotation = function.__annotations__.get("return", NOTHING)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        annotation = _resolved(annotation, function, {name: cell.cell_contents for name, cell in cells})
    except Exception:  # noqa: BLE001 - an annotation is any expression, and a step may do without
        return NOTHING
    if get_origin(annotation) in (Awaitable, Coroutine):
        annotation = get_args(annotation)[-1]
    return annotation


def parameter_type(fn: Function, index: int) -> object:
    """The type of the parameter at `index`, or `NOTHING`.

    Raises:
        ConfigurationError: the annotation names something that is not there.
        IndexError: there is no such parameter.
    """
    function = annotated_function(fn)
    if function is None:
        return NOTHING
    try:
        parameter = list(inspect.signature(fn).parameters.values())[index]
        return _resolved(parameter.annotation, function, {})
    except IndexError:
        raise
    except Exception as error:  # an annotation is any expression
        raise ConfigurationError(
            f"an annotation of {function.__module__}.{function.__qualname__} cannot be resolved: {error}",
            "move the model to module level, and import it there outside `if TYPE_CHECKING`",
        ) from error


def _resolved(annotation: object, function: FunctionType, names: dict[str, object]) -> object:
    if annotation is NOTHING or isinstance(annotation, type):
        return annotation
    if isinstance(annotation, TypeVar):
        return NOTHING

    def bearer() -> None: ...

    bearer.__annotations__ = {"it": annotation}
    module = inspect.unwrap(function).__globals__
    return get_type_hints(bearer, module, names, include_extras=True)["it"]
