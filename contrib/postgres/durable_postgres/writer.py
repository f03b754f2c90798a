"""`Writer`: serves groups of requests, each group in one transaction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Final, final

from durable.errors import StoreUnavailable
from durable_postgres.driver import Row
from durable_postgres.errors import FAILURES, is_conflict, is_held, is_unknown, translate
from durable_postgres.lane import Waiting
from durable_postgres.pool import Share

SERVE: Final = "SELECT * FROM durable.serve($1, $2::durable.request[], $3, $4, $5)"
_TRIES: Final = 12
_PAUSE_S: Final = 0.002
_SOON_MS: Final = 250
"""So long a group waits for a lock; the store's own transactions take less."""
_AT_ONCE_MS: Final = 20
"""And each of it, to find who has to wait longer."""
_TURN_MS: Final = 1_000
_PATIENCE_S: Final = 5.0

_Own = tuple[str, ...]
"""The execution that a request is about."""


async def run(
    share: Share, statement: str, *parameters: object, op_id: str | None = None, plans_anew: bool = False
) -> list[Row]:
    """The rows of a statement, which is a transaction of its own.

    With `plans_anew` the server plans it for these parameters; otherwise it may go on with a plan that suited others,
    and saves the time for planning. It is tried again when another transaction was in its way, but for one that holds
    a lock for longer than this may wait; and one that only reads, which has no `op_id`, when the connection is lost,
    for a second or so.

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
            may_be_repeated = is_conflict(error) or (op_id is None and is_unknown(error))
            if is_last or is_held(error) or not may_be_repeated:
                raise translate(error, op_id) from error
        await pause(attempt)
    raise AssertionError


async def pause(attempt: int) -> None:
    """Let those who are in the way get through."""
    await asyncio.sleep(Random().uniform(0, _PAUSE_S * 2 ** min(attempt, 6)))


@final
class Writer:
    """One request that is refused harms none of its neighbours. When a group fails, nothing of it is written, and
    each is tried again alone.

    Nor does one harm them that has to wait for long, for what a transaction of a user holds. Such a transaction may
    be open for seconds, and others of the store are not: who is held up longer than they are leaves the lane, with
    what follows it for the same execution, and waits in turns on connections apart.
    """

    def __init__(self, share: Share, patient: Share, ns: int) -> None:
        """`share`: of the lane. `patient`: for those who have to wait."""
        self._share = share
        self._patient = patient
        self._ns = ns
        self._held_up: dict[_Own, deque[tuple[Waiting, float]]] = {}
        """With the instants of the loop at which each has waited for long enough."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, group: Sequence[Waiting]) -> None:
        group = [waiting for waiting in group if not self._follows(waiting)]
        if not group:
            return
        # In one order everywhere: who locks the same executions then waits, and does not block.
        group.sort(key=lambda waiting: waiting[0].ids)
        requests = [request for request, _ in group]
        ids = sorted({id for request in requests for id in request.ids})
        fields = [request.fields for request in requests]
        is_gated = any(request.gated for request in requests)
        try:
            async with self._share.connection() as connection:
                rows = await connection.fetch(SERVE, self._ns, fields, ids, is_gated, _SOON_MS)
        except StoreUnavailable as error:
            fail(group, error)
        except FAILURES as error:
            is_certain = not is_unknown(error) and (len(group) > 1 or is_conflict(error))
            again: list[Waiting] = []
            for waiting in group:
                if is_certain or waiting[0].op_id is None:
                    again.append(waiting)
                else:
                    fail([waiting], translate(error, waiting[0].op_id))
            await self._serve_each(again)
        else:
            for (_, future), row in zip(group, rows, strict=True):
                if not future.done():
                    future.set_result(row)

    async def close(self) -> None:
        """Come back when nobody waits any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve_each(self, group: Sequence[Waiting]) -> None:
        for waiting in group:
            if self._follows(waiting) or await self._serve_alone(waiting, self._share, _AT_ONCE_MS):
                continue
            if not self._follows(waiting):
                queue = self._held_up[_own(waiting)] = deque()
                self._follows(waiting)
                task = asyncio.get_running_loop().create_task(self._wait(_own(waiting), queue))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _follows(self, waiting: Waiting) -> bool:
        """Whether its execution is held up, and it waits behind what asked before."""
        queue = self._held_up.get(_own(waiting))
        if queue is not None:
            queue.append((waiting, asyncio.get_running_loop().time() + _PATIENCE_S))
        return queue is not None

    async def _wait(self, own: _Own, queue: deque[tuple[Waiting, float]]) -> None:
        """In turns, and the more there are the shorter, so that none keeps a connection from others for long."""
        loop = asyncio.get_running_loop()
        try:
            while queue:
                waiting, deadline = queue[0]
                is_last = loop.time() >= deadline
                turn_ms = _AT_ONCE_MS if is_last else max(_AT_ONCE_MS, _TURN_MS // len(self._held_up))
                if await self._serve_alone(waiting, self._patient, turn_ms, is_last=is_last):
                    queue.popleft()
        except BaseException:  # the loop ends, and cancels all its tasks
            for (_, future), _ in queue:
                future.cancel()
            raise
        finally:
            del self._held_up[own]

    async def _serve_alone(
        self, waiting: Waiting, share: Share, patience_ms: int, *, is_last: bool = False
    ) -> bool:
        """Settle it; False: it is held up, and this is not the last time."""
        request, future = waiting
        parameters = [request.fields], sorted(set(request.ids)), request.gated, patience_ms
        try:
            [row] = await run(share, SERVE, self._ns, *parameters, op_id=request.op_id)
        except Exception as error:  # noqa: BLE001 whoever asked is told
            if is_held(error.__cause__) and not is_last:
                return False
            fail([waiting], error)
        else:
            if not future.done():
                future.set_result(row)
        return True


def _own(waiting: Waiting) -> _Own:
    return waiting[0].ids[:1]


def fail(group: Sequence[Waiting], error: BaseException) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(error)
