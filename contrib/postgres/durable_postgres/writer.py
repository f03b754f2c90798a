"""`Writer`: serves groups of requests, each group in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Final, final

from durable.errors import StoreUnavailable
from durable_postgres.driver import Row
from durable_postgres.errors import FAILURES, is_conflict, is_unknown, translate
from durable_postgres.lane import Waiting
from durable_postgres.pool import Share

SERVE: Final = "SELECT * FROM durable.serve($1, $2::durable.request[], $3, $4)"
_TRIES: Final = 12
_PAUSE_S: Final = 0.002


async def run(
    share: Share, statement: str, *parameters: object, op_id: str | None = None, plans_anew: bool = False
) -> list[Row]:
    """The rows of a statement, which is a transaction of its own.

    With `plans_anew` the server plans it for these parameters; otherwise it may go on with a plan that suited others,
    and saves the time for planning. It is tried again when another transaction was in its way; and one that only
    reads, which has no `op_id`, when the connection is lost, for a second or so.

    Raises: `StoreUnavailable`, `StoreFull`, `InvalidInput`; and `OutcomeUnknown` of a write.
    """
    for attempt in range(_TRIES):
        is_last = attempt == _TRIES - 1
        try:
            async with share.connection() as connection:
                if plans_anew:
                    return await (await connection.prepare(statement)).fetch(*parameters)
                return await connection.fetch(statement, *parameters)
        except StoreUnavailable:
            if is_last or op_id is not None:
                raise
        except FAILURES as error:
            if is_last or not (is_conflict(error) or (op_id is None and is_unknown(error))):
                raise translate(error, op_id) from error
        await pause(attempt)
    raise AssertionError


async def pause(attempt: int) -> None:
    """Let those who are in the way get through."""
    await asyncio.sleep(Random().uniform(0, _PAUSE_S * 2 ** min(attempt, 6)))


@final
class Writer:
    """One request that is refused harms none of its neighbours. When a group fails, nothing of it is written, and
    each is tried again alone."""

    def __init__(self, share: Share, ns: int) -> None:
        self._share = share
        self._ns = ns

    async def serve(self, group: Sequence[Waiting]) -> None:
        # In one order everywhere: who locks the same executions then waits, and does not block.
        group = sorted(group, key=lambda waiting: waiting[0].ids)
        requests = [request for request, _ in group]
        ids = sorted({id for request in requests for id in request.ids})
        parameters = [request.fields for request in requests], ids, any(request.gated for request in requests)
        try:
            async with self._share.connection() as connection:
                rows = await connection.fetch(SERVE, self._ns, *parameters)
        except StoreUnavailable as error:
            fail(group, error)
        except FAILURES as error:
            is_certain = not is_unknown(error) and (len(group) > 1 or is_conflict(error))
            for waiting in group:
                if is_certain or waiting[0].op_id is None:
                    await self._serve_alone(waiting)
                else:
                    fail([waiting], translate(error, waiting[0].op_id))
        else:
            for (_, future), row in zip(group, rows, strict=True):
                if not future.done():
                    future.set_result(row)

    async def _serve_alone(self, waiting: Waiting) -> None:
        request, future = waiting
        parameters = [request.fields], sorted(set(request.ids)), request.gated
        try:
            [row] = await run(self._share, SERVE, self._ns, *parameters, op_id=request.op_id)
        except Exception as error:  # noqa: BLE001 whoever asked is told
            fail([waiting], error)
        else:
            if not future.done():
                future.set_result(row)


def fail(group: Sequence[Waiting], error: BaseException) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
