"""`StepStubs`: what stands in for the functions of steps in a test."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import final

from typing_extensions import override

from durable.engine.host import Stubs

_DECORATION = re.compile(r"^(#[0-9.]+/)?(?P<name>.*?)(\[\d+\])?(#\d+)?$")


@final
class StepStubs(Stubs):
    """Results and failures by the step's id, or by its name for every use of it."""

    def __init__(self) -> None:
        self.results: dict[str, object] = {}
        self.failures: dict[str, list[object]] = {}

    @override
    def replace(self, step_id: str, fn: Callable[..., object]) -> Callable[..., object]:
        names = (step_id, _DECORATION.sub(r"\g<name>", step_id))
        failing = next((name for name in names if self._fails(name)), None)
        if failing is not None:
            return self._failing(failing)
        stubbed = next((name for name in names if name in self.results), None)
        return fn if stubbed is None else _giving(self.results[stubbed])

    def _fails(self, name: str) -> bool:
        return name in self.failures and self.failures[name][1] != 0

    def _failing(self, name: str) -> Callable[..., object]:
        failure = self.failures[name]
        if isinstance(failure[1], int):
            failure[1] -= 1

        async def fail(*args: object, **kwargs: object) -> object:
            assert isinstance(failure[0], Exception)
            raise failure[0]

        return fail


def _giving(result: object) -> Callable[..., object]:
    async def give(*args: object, **kwargs: object) -> object:
        if not callable(result) or isinstance(result, type):
            return result
        given = result(*args, **kwargs)
        return await given if inspect.isawaitable(given) else given

    return give
