"""`Checkpointer`: keeps the write-ahead log short."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Final, final

from durable.backends.sqlite.connection import LOG_LIMIT, WriteLock
from durable.errors import StoreUnavailable

logger = logging.getLogger(__name__)

_TARGET_FRAMES: Final = 2_000
"""Pages of 4 KiB in the log when it is copied into the file."""
_GROWTH: Final = 8 << 20
"""Bytes by which the log may grow, with large payloads, before the number of commits says so."""
_LEAST: Final = 8
_MOST: Final = 4_000


@final
class Checkpointer:
    """Copies the log into the file while this process holds the write lock.

    So no two processes do it at once, and none while another one writes: SQLite before 3.51.3 may then corrupt the file
    (https://sqlite.org/wal.html#walresetbug). And the copy is complete, so that the next write begins the log anew.
    """

    def __init__(
        self, path: Path, db: sqlite3.Connection, writer: sqlite3.Connection, lock: WriteLock
    ) -> None:
        self._log = path.with_name(path.name + "-wal")
        self._db = db
        self._writer = writer
        self._lock = lock
        self._commits = 0
        self._every = 64
        self._size = 0

    def after_commit(self) -> None:
        """Called after each transaction of the writer, outside of it."""
        self._commits += 1
        if self._commits >= self._every or self._log_size() > self._size + _GROWTH:
            self._run()

    def when_idle(self) -> None:
        """Called when nothing has come for a while."""
        if self._commits:
            self._run()

    def close(self) -> None:
        self._db.close()

    def _run(self) -> None:
        commits, self._commits = self._commits, 0
        try:
            self._lock.begin(self._writer)
            try:
                _, frames, _ = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                self._writer.execute("ROLLBACK")
        except (sqlite3.Error, StoreUnavailable) as error:
            logger.warning("the write-ahead log could not be copied into the database, and grows: %s", error)
            return
        self._size = min(self._log_size(), LOG_LIMIT)
        expected = commits * _TARGET_FRAMES // max(frames, 1)
        self._every = min(max(expected, self._every // 2, _LEAST), self._every * 2, _MOST)

    def _log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0
