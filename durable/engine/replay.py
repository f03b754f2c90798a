"""Replay: what is recorded is given back in the order in which it was recorded.

A body of one branch asks in that order anyway. Where branches run side by side, code may look at which of them was
first; so an operation whose record is not the next one waits for its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import final

from durable.engine.waits import Wait
from durable.protocols import Checkpoint


@final
class Replay:
    """The records that the body has still to come to."""

    def __init__(self, history: Mapping[str, Checkpoint]) -> None:
        # A guard that was taken out of the code is not asked for again, and the replay is over without it.
        theirs = [c for key, c in history.items() if not key.startswith(("__", "rollback:", "patched:"))]
        self._left = {c.step_id for c in theirs}
        self._order = deque(sorted((c.seq, c.step_id) for c in theirs if c.status.final))
        self._waiting: dict[str, Wait] = {}

    @property
    def is_over(self) -> bool:
        return not self._left

    def visit(self, key: str) -> Wait | None:
        """The body has come to this record. Its follower, if that one has been waiting for its turn."""
        self._left.discard(key)
        while self._order and self._order[0][1] not in self._left:
            self._order.popleft()
        return self._waiting.pop(self._order[0][1], None) if self._order else None

    def is_next(self, key: str) -> bool:
        return key not in self._left or self._order[0][1] == key

    def wait(self, key: str, wait: Wait) -> None:
        self._waiting[key] = wait

    def first_waiting(self) -> Wait | None:
        """The operation whose turn it is when what should come before it does not come: the code has changed."""
        for _, key in self._order:
            if key in self._waiting:
                return self._waiting.pop(key)
        return None


NOTHING = Replay({})
"""Of a body that has not begun."""
