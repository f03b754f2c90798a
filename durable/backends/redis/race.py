"""Several servers asked at once, so that one that is away costs no time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TypeVar

from durable.errors import StoreUnavailable

T = TypeVar("T")


async def first_of(attempts: Iterable[Coroutine[object, object, T]]) -> T:
    """What the first one that succeeds returns; the others are cancelled.

    Raises: `StoreUnavailable` when all of them do: one that tells what each said.
    """
    asking = [asyncio.create_task(attempt, name="durable.redis.ask") for attempt in attempts]
    failures: list[StoreUnavailable] = []
    try:
        for answer in asyncio.as_completed(asking):
            try:
                return await answer
            except StoreUnavailable as error:
                failures.append(error)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        for task in asking:
            if not task.cancelled():
                task.exception()  # of one that failed too late to matter
    if len(failures) == 1:
        raise failures[0]
    raise StoreUnavailable("; ".join(str(error) for error in failures), failures[0].hint) from failures[0]
