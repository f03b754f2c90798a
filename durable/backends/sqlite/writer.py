"""`Writer`: the one connection of a store that writes executions, and its transactions."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, final

from durable.backends.sqlite.checkpointer import Checkpointer
from durable.backends.sqlite.connection import WriteLock, is_full, pause, translate
from durable.backends.sqlite.hub import Hub
from durable.backends.sqlite.lane import Answer, Request
from durable.backends.sqlite.unit import Conflict, Unit
from durable.errors import DurableError, OutcomeUnknown, StoreUnavailable

_YIELD_S: Final = 0.0002
_COMPANY: Final = 1_000
_POLLS: Final = ((300, 0.001), (700, 0.005))
"""So many times, at this interval, the file is looked at after it has changed; then only now and then."""
_SLOW_POLL_S: Final = 0.05
_UNWATCHED_S: Final = 0.25
_IDLE_S: Final = 1.0


@final
class Writer:
    """Serves requests to write, a group in one transaction.

    One that is refused harms none of its neighbours. When one fails, nothing of the group is written, and each is
    tried again alone.
    """

    def __init__(
        self, db: sqlite3.Connection, unit: Unit, lock: WriteLock, checkpointer: Checkpointer, hub: Hub
    ) -> None:
        self._db = db
        self._unit = unit
        self._lock = lock
        self._checkpointer = checkpointer
        self._hub = hub
        self._has_served = False
        self._version: int = self._db.execute("PRAGMA data_version").fetchone()[0]
        self._guests_seen = 0
        """Commits of guests that are in `_version` for sure."""
        self._company = 0
        """Transactions to come that are followed by a pause, since there was a sign of another process."""
        self._polls = 0
        """Since the file was changed by another process."""
        self._waited = 0.0
        """Since the last request."""
        hub.watch(1)

    # -- the lane

    def serve(self, group: Sequence[Request[Unit]]) -> Sequence[Answer]:
        self._has_served = True
        unit = self._unit
        try:
            self._lock.begin(self._db)
            self._look(unit.begin)
            answers = [_decide(unit, request) for request in group]
            unit.flush()
        except Exception as error:  # noqa: BLE001 whoever asked is told
            self._roll_back()
            if isinstance(error, Conflict) and not unit.is_exact:
                return self._serve_exactly(group)
            if len(group) == 1 or isinstance(error, StoreUnavailable):
                return [(future, None, translate(error)) for _, future, _ in group]
            return [answer for request in group for answer in self.serve([request])]
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            return [(future, None, _failure(op_id, error)) for _, future, op_id in group]
        return answers

    def rest(self) -> float:
        if self._has_served:
            self._has_served = False
            self._waited = 0.0
            self._give_way()
            self._checkpointer.after_commit()
        elif self._waited >= _IDLE_S:
            self._waited = 0.0
            self._checkpointer.when_idle()
        elif self._hub.has_listeners:
            self._poll()
        interval = self._interval() if self._hub.has_listeners else _UNWATCHED_S
        self._waited += interval
        return interval

    def close(self) -> None:
        self._hub.watch(-1)
        self._checkpointer.close()
        self._db.close()

    # -- one transaction

    def _serve_exactly(self, group: Sequence[Request[Unit]]) -> Sequence[Answer]:
        """Once more, so that the one that would be in conflict is found and refused."""
        self._unit.is_exact = True
        try:
            return self.serve(group)
        finally:
            self._unit.is_exact = False

    def _roll_back(self) -> None:
        self._unit.forget()
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # it is rolled back when the connection is used next
                self._db.execute("ROLLBACK")

    # -- other processes

    def _give_way(self) -> None:
        """Let others have the lock, if there are any: it is not fair, and this thread would be back first."""
        if self._lock.was_busy:
            self._lock.was_busy = False
            self._company = _COMPANY
        if self._lock.guests or self._company:
            self._company = max(self._company - 1, 0)
            pause(_YIELD_S)

    def _poll(self) -> None:
        self._polls += 1
        with contextlib.suppress(sqlite3.Error):  # the next write meets it too
            self._look(lambda: self._db.execute("PRAGMA data_version").fetchone()[0])

    def _look(self, data_version: Callable[[], int]) -> None:
        """Was the file changed by another process? When a guest may have done it, it is taken to be the guest."""
        committed = self._lock.guests_committed  # to be read before the version, which then has them all
        version = data_version()
        if version != self._version:
            self._version = version
            if self._lock.guests_committing == self._guests_seen:
                self._company = _COMPANY
                self._polls = 0
                self._hub.changed()
        self._guests_seen = committed

    def _interval(self) -> float:
        return next((seconds for number, seconds in _POLLS if self._polls < number), _SLOW_POLL_S)


def _decide(unit: Unit, request: Request[Unit]) -> Answer:
    act, future, _ = request
    try:
        return (future, act(unit), None)
    except DurableError as refusal:
        return (future, None, refusal)


def _failure(op_id: str, error: sqlite3.Error) -> BaseException:
    """Of a transaction that could not be committed."""
    if is_full(error):
        return translate(error)
    unknown = OutcomeUnknown(op_id, str(error))
    unknown.__cause__ = error
    return unknown
