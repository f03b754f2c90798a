"""`Hub`: what this process's connections to one file know of each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import final

from durable.errors import StoreUnavailable


@final
class Hub:
    """Whoever watches a file for writes of other processes tells it here, and whoever wants to know is called.

    Every method may be called from any thread; listeners are called on the thread of the watcher.
    """

    def __init__(self) -> None:
        self._users = 0
        self._pid = 0
        self._listeners: tuple[Callable[[], object], ...] = ()
        self._watchers = 0

    @property
    def has_listeners(self) -> bool:
        return bool(self._listeners)

    @property
    def is_watched(self) -> bool:
        return self._watchers > 0

    def enter(self) -> None:
        """Called before the file is opened, by everybody who opens it.

        Raises: `StoreUnavailable` when the parent of this process had it open while it forked.
        """
        with _lock:
            if self._users and self._pid != os.getpid():
                raise forked()
            self._users += 1
            self._pid = os.getpid()

    def leave(self) -> None:
        """Called after the file was closed."""
        with _lock:
            self._users -= 1

    def listen(self, listener: Callable[[], object]) -> None:
        with _lock:
            self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Callable[[], object]) -> None:
        with _lock:
            self._listeners = tuple(other for other in self._listeners if other != listener)

    def watch(self, number: int) -> None:
        """One watcher more, or one less."""
        with _lock:
            self._watchers += number

    def changed(self) -> None:
        """Others have written."""
        for listener in self._listeners:
            listener()


_lock = threading.Lock()
_hubs: dict[Path, Hub] = {}


def hub_of(path: Path) -> Hub:
    """The same for all that have a file open in this process."""
    with _lock:
        return _hubs.setdefault(path.resolve(), Hub())


def check_process(opened_by: int) -> None:
    """Raises: `StoreUnavailable` when this is a child of the process that opened something."""
    if opened_by != os.getpid():
        raise forked()


def forked() -> StoreUnavailable:
    return StoreUnavailable(
        "the database was open when this process was forked",
        "fork first and open it then, or start the process with spawn: SQLite's locks do not survive a fork",
    )
