"""Saying the same thing to the store until it has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from durable.errors import OutcomeUnknown, StoreFull, StoreUnavailable

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 2.0


async def persist(call: Callable[[], Awaitable[T]], *, patience: float | None = None) -> T:
    """The answer to `call`, which is made again, unchanged, while the store is away, full, or silent.

    Each call carries an `op_id` (or a nonce, or a message id), so a repeat of one that was applied gives its answer.
    `patience` is the seconds after which the last error is raised; None: never.
    """
    pause, waited = _FIRST_PAUSE, 0.0
    while True:
        try:
            return await call()
        except (StoreUnavailable, StoreFull, OutcomeUnknown):
            if patience is not None and waited >= patience:
                raise
        await asyncio.sleep(pause)
        waited += pause
        pause = min(pause * 2, _LONGEST_PAUSE)


def pauses() -> Iterator[float]:
    """Seconds to wait before each next try, without end."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE)
