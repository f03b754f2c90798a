"""Compensations: what undoes the completed steps, newest first, each once and recorded."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, final


@dataclass(frozen=True, slots=True)
class Compensation:
    """What undoes one completed step."""

    order: int
    """Its step's position in the order of commits."""
    scopes: tuple[object, ...]
    """The sagas that its step was called in."""
    run: Callable[[], Coroutine[Any, Any, None]]


@final
class Compensations:
    """The compensations of an attempt that have not run yet."""

    def __init__(self) -> None:
        self._left: list[Compensation] = []

    def __bool__(self) -> bool:
        return bool(self._left)

    def add(self, compensation: Compensation) -> None:
        self._left.append(compensation)

    def clear(self) -> None:
        """Nothing here will run any more."""
        self._left.clear()

    async def run_all(self, scope: object = None) -> None:
        """Run those of `scope` (None: all), newest first, one after the other.

        One that fails for good ends the execution; the others stay, and are run when it is resumed.
        """
        while due := [left for left in self._left if scope is None or scope in left.scopes]:
            newest = max(due, key=lambda left: left.order)
            await newest.run()
            self._left.remove(newest)
