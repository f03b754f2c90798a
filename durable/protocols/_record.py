"""`quick`: records that are made so often that the price of making one counts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

T = TypeVar("T")


def quick(cls: type[T]) -> type[T]:
    """A frozen dataclass that costs what a plain one does, a third.

    The checkers go on treating it as frozen, and that is what keeps it so: nothing refuses an assignment at run time.
    """
    body: dict[str, Any] = {each.name: each for each in fields(cast("Any", cls))}
    body["__annotations__"] = {name: each.type for name, each in body.items()}
    frozen = cast("Any", cls)
    frozen.__init__ = cast("Any", dataclass(type(cls.__name__, (), body))).__init__
    del frozen.__setattr__, frozen.__delattr__
    return cls
