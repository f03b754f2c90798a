"""`Sweeps`: `due` and `tick` of one process, one after the other.

due, tick ─▶ Lane ─▶ durable.sweep(...): what a turn of the event loop asks for, `due` first, in one transaction

Side by side, a `due` would ring what a tick has just made ready and told, and its answer might come after that was
claimed: a doorbell for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, final

from durable.protocols import Live, Wanted
from durable_postgres.driver import Row
from durable_postgres.lane import Lane, Waiting
from durable_postgres.pool import Share
from durable_postgres.requests import Request
from durable_postgres.texts import stored
from durable_postgres.writer import fail, run

_SWEEP: Final = "SELECT * FROM durable.sweep($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_NO_DUE: Final = (None,) * 5
_NO_TICK: Final = (None,) * 3


@final
class Sweeps:
    def __init__(self, share: Share, ns: int) -> None:
        self._share = share
        self._ns = ns
        self._lane = Lane(self._serve, width=1)

    def due(self, wanted: Wanted, limit: int, again_ms: int) -> asyncio.Future[Row]:
        """Doorbells."""
        lanes = [(queue, *_named(name)) for queue in wanted.queues for name in wanted.workflows]
        columns = [[stored(lane[place]) for lane in lanes] for place in range(3)]
        return self._lane.submit(Request("due", (*columns, limit, again_ms), ()))

    def tick(self, live: Live, limit: int) -> asyncio.Future[Row]:
        """A `durable.ticked`."""
        workers = [stored(worker) for worker in live.workers]
        return self._lane.submit(Request("tick", (live.at, workers, limit), ()))

    async def close(self) -> None:
        await self._lane.close()

    async def _serve(self, group: Sequence[Waiting]) -> None:
        dues = [waiting for waiting in group if waiting[0].op_id == "due"]
        ticks = [waiting for waiting in group if waiting[0].op_id == "tick"]
        for due, tick in zip_longest(dues, ticks):
            await self._sweep(due, tick)

    async def _sweep(self, due: Waiting | None, tick: Waiting | None) -> None:
        asked = (*(due[0].fields if due else _NO_DUE), *(tick[0].fields if tick else _NO_TICK))
        try:
            [answers] = await run(self._share, _SWEEP, self._ns, *asked, op_id="sweep")
        except Exception as error:  # noqa: BLE001 whoever asked is told
            fail([waiting for waiting in (due, tick) if waiting is not None], error)
            return
        for waiting, answer in zip((due, tick), answers, strict=True):
            if waiting is not None and not waiting[1].done():
                waiting[1].set_result(answer)


def _named(workflow: str) -> tuple[str, str]:
    name, _, version = workflow.rpartition("@")
    return name, version
