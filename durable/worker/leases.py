"""`Leases`: whom a worker takes for dead."""

from __future__ import annotations

from typing import Final, final

from durable.protocols import Live, WorkerInfo

_NOBODY_IS_DEAD: Final = Live({}, 0)


@final
class Leases:
    """What the looks at all leases, one for each sweep, say about who is dead.

    A worker that has not renewed its lease is dead, unless it could not: while the store is away, all leases run out,
    and whoever is back first would take what the others are working on. So after looks that were far apart everybody
    has the time of one lease to come back. That is no more than a worker that died then would have been given; and
    it is given once, however far apart the next looks are, so that a slow store does not keep the dead alive.
    """

    def __init__(self, worker_id: str, *, lease_ms: int, interval_ms: int) -> None:
        self._worker_id = worker_id
        self._lease_ms = lease_ms
        self._longest_ms = interval_ms + lease_ms // 2
        self._looked_at: int | None = None
        self._patient_until: int | None = None
        self.live = _NOBODY_IS_DEAD
        """What a tick may go by: whoever is not in it, and has owned something since before it, is dead."""

    def look(self, live: Live) -> None:
        """This is what the store has said."""
        before, self._looked_at = self._looked_at, live.at
        if self._patient_until is None and before is not None and live.at - before > self._longest_ms:
            self._patient_until = live.at + self._lease_ms
        if self._patient_until is not None and live.at < self._patient_until:
            self.live = _NOBODY_IS_DEAD
            return
        self._patient_until = None
        # This process knows that it is alive, even where its heart is late.
        mine = WorkerInfo(self._worker_id, live.at)
        self.live = Live({**live.workers, self._worker_id: mine}, live.at)
