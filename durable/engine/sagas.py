"""Sagas: a part of a body whose compensations run when it is left by an exception."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import final

from typing_extensions import override

from durable.engine.attempt import Attempt
from durable.engine.body import ContinueAsNew

SCOPES: ContextVar[tuple[object, ...]] = ContextVar("durable.sagas", default=())
"""The sagas that the running code is in, the innermost last."""


@final
class Saga(AbstractAsyncContextManager[None, None]):
    """Runs the compensations that were registered inside, when anything leaves it by an exception."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @override
    async def __aenter__(self) -> None:
        self._token = SCOPES.set((*SCOPES.get(), self))

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        SCOPES.reset(self._token)
        if self._attempt.live and error is not None and not isinstance(error, ContinueAsNew):
            await self._attempt.compensations.run_all(self)
