"""Classes by name: how a stored name leads back to a class without importing anything."""

from __future__ import annotations

import sys

_BUILTINS = "builtins"


def name_of(kind: type) -> str:
    """`module.Class`; a builtin's name alone, as a traceback has it."""
    return kind.__qualname__ if kind.__module__ == _BUILTINS else f"{kind.__module__}.{kind.__qualname__}"


def find_class(name: str) -> type | None:
    """The class of that name in the modules that are imported now, or None. Runs no code of any module."""
    parts = name.split(".")
    if len(parts) == 1:
        return _defined_in(_BUILTINS, parts)
    for split in range(len(parts) - 1, 0, -1):
        if found := _defined_in(".".join(parts[:split]), parts[split:]):
            return found
    return None


def is_found_again(kind: type) -> bool:
    return find_class(name_of(kind)) is kind


def why_not_found(kind: type) -> str:
    """What the author of a class can do about it, when `is_found_again` is false."""
    where = "local to a function" if "<locals>" in kind.__qualname__ else "not found under its name"
    return (
        f"the class {kind.__qualname__} is {where} and could not be read back: annotate what returns it, "
        "or move it to module level"
    )


def _defined_in(module: str, path: list[str]) -> type | None:
    # vars() and not getattr(): a module's or a metaclass's __getattr__ is code.
    found: object = sys.modules.get(module)
    for name in path:
        try:
            found = vars(found).get(name)
        except TypeError:  # it has no __dict__
            return None
    if isinstance(found, type) and found.__module__ == module and found.__qualname__ == ".".join(path):
        return found
    return None
