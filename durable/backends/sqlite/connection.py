"""Connections: how they are opened, how they wait for the write lock, and what their errors become."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from random import Random
from typing import Final, Literal, TypeVar, final

from durable.errors import DurableError, StoreFull, StoreUnavailable

T = TypeVar("T")

_SHORTEST_S: Final = 0.0002
_LONGEST_S: Final = 0.002

LOG_LIMIT: Final = 16_777_216

_random = Random()
pause: Final = threading.Event().wait
"""`pause(seconds)` blocks this thread. Nothing ends it early."""


class Use(Enum):
    """What a connection is for; its value is the kibibytes of pages that it keeps, as SQLite wants to be told."""

    WRITE = "PRAGMA cache_size = -16000"
    READ = "PRAGMA cache_size = -4000"
    BESIDES = "PRAGMA cache_size = -500"
    """To write now and then, beside the writer."""


def connect(
    path: Path,
    use: Use,
    *,
    synchronous: str = "full",
    kind: type[sqlite3.Connection] = sqlite3.Connection,
    isolation_level: Literal["DEFERRED"] | None = None,
) -> sqlite3.Connection:
    """A connection to a file that exists, to be used by one thread at a time.

    SQLite's own waiting for locks is off. It is unfair: under load it starves one process for seconds.
    """
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=0,
        isolation_level=isolation_level,
        check_same_thread=False,
        cached_statements=256,
        factory=kind,
    )
    db.execute(use.value)
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("PRAGMA trusted_schema = OFF")
    if use is Use.READ:
        db.execute("PRAGMA query_only = ON")
    else:
        db.execute("PRAGMA synchronous = NORMAL" if synchronous == "normal" else "PRAGMA synchronous = FULL")
        # Only `Checkpointer` makes checkpoints, and under the write lock.
        db.execute("PRAGMA wal_autocheckpoint = 0")
        # To which a longer log is cut, when it begins anew: `LOG_LIMIT`.
        db.execute("PRAGMA journal_size_limit = 16777216")
        db.execute("PRAGMA secure_delete = OFF")
    return db


@final
class WriteLock:
    """How the connections of one store get the write lock of the file, in turn with those of other processes."""

    def __init__(self, give_up_s: float = 10.0) -> None:
        self._give_up_s = give_up_s
        self.guests = 0
        """Connections of this store that want the lock beside the writer, which lets them have it."""
        self.guests_committing = 0
        self.guests_committed = 0
        """How often a guest began to commit, and how often it came to an end. Both count up."""
        self._counting = threading.Lock()
        self.was_busy = False
        """Somebody else had it, since this was last set to False."""

    def begin(self, db: sqlite3.Connection) -> None:
        """Begin a transaction that writes.

        Raises: `StoreUnavailable` when others held the lock all the time.
        """
        self.patiently(lambda: db.execute("BEGIN IMMEDIATE"))

    @contextmanager
    def guest(self, db: sqlite3.Connection) -> Generator[None]:
        """A transaction beside the writer's. Raises: as `begin`."""
        self.come()
        try:
            self.begin(db)
            try:
                yield
                with self.committing():
                    db.execute("COMMIT")
            except BaseException:
                db.rollback()
                raise
        finally:
            self.go()

    def come(self) -> None:
        """There is a guest more, who is to `go`."""
        with self._counting:
            self.guests += 1

    def go(self) -> None:
        with self._counting:
            self.guests -= 1

    @contextmanager
    def committing(self) -> Generator[None]:
        """The commit of a guest, of which nobody here has to be told."""
        with self._counting:
            self.guests_committing += 1
        try:
            yield
        finally:
            with self._counting:
                self.guests_committed += 1

    def patiently(self, act: Callable[[], T]) -> T:
        """Try until no lock of others is in the way. Raises: as `begin`."""
        waited, longest = 0.0, _SHORTEST_S
        while True:
            try:
                return act()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            self.was_busy = True
            if waited >= self._give_up_s:
                raise StoreUnavailable(
                    f"other processes kept the database locked for {waited:.1f} s",
                    "look for a process that holds a transaction open (a shell, a backup); "
                    "the call may be repeated",
                )
            delay = _random.uniform(_SHORTEST_S, longest)
            longest = min(longest * 1.3, _LONGEST_S)
            pause(delay)
            waited += delay


def is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG)


def translate(error: BaseException) -> BaseException:
    """Our error for one of the driver's; any other as it is."""
    if not isinstance(error, sqlite3.Error):
        return error
    text = f"SQLite: {error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
    ours: DurableError
    if is_full(error):
        ours = StoreFull(text, "free disk space, or delete old executions with operator.prune")
    else:
        ours = StoreUnavailable(text, _HINTS.get(_code(error)))
    ours.__cause__ = error
    return ours


def _code(error: sqlite3.Error) -> int:
    """Without the part that says more."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


_HINTS: Final = {
    sqlite3.SQLITE_BUSY: "another process holds the database; the call may be repeated",
    sqlite3.SQLITE_READONLY: "the file or its directory is read-only: give this process permission to write both",
    sqlite3.SQLITE_PERM: "give this process permission to write the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "check that the file and its directory exist and that this process may write both",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: stop all processes, and restore it from a backup",
    sqlite3.SQLITE_NOTADB: "the file is not a database: check the path of the URL",
    sqlite3.SQLITE_IOERR: "the disk failed: look at the system's log; the call may be repeated",
}
