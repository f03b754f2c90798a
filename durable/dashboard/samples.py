"""What waited in queues over the last hour, for the charts. Kept in memory, from the first look on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, final

from durable.app import Durable
from durable.errors import DurableError, NotRunning
from durable.models import QueueInfo

_INTERVAL_S: Final = 5.0
_MOST: Final = 720


@dataclass(frozen=True, slots=True)
class Sample:
    """The queues at one instant."""

    at: datetime
    queues: Sequence[QueueInfo]

    @property
    def backlog(self) -> int:
        return sum(queue.ready for queue in self.queues)

    @property
    def oldest_s(self) -> float:
        """The age of what has waited longest."""
        oldest = [queue.oldest_at for queue in self.queues if queue.oldest_at is not None]
        return max(0.0, (self.at - min(oldest)).total_seconds()) if oldest else 0.0


@final
class Samples:
    """Looks at the queues every five seconds, from the first time it is asked for as long as the application runs."""

    def __init__(self, durable: Durable) -> None:
        self._durable = durable
        self._kept: deque[Sample] = deque(maxlen=_MOST)
        self._task: asyncio.Task[None] | None = None

    async def series(self) -> Sequence[Sample]:
        """What is known, the oldest first."""
        if self._task is None or self._task.done():
            await self._look()
            self._task = asyncio.create_task(self._keep_looking(), name="durable.dashboard.samples")
        return tuple(self._kept)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            try:
                await self._look()
            except NotRunning:
                return
            except DurableError:
                continue  # the store is away: a gap in the chart

    async def _look(self) -> None:
        self._kept.append(Sample(datetime.now(UTC), await self._durable.operator.queues()))
