"""Where the time of an execution went: into steps, into waits, or between them. Pure: from what is recorded."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Final

from durable.engine.frames import Try, unpack_tries
from durable.engine.transitions import TRIES
from durable.models import Timings
from durable.protocols import Checkpoint, CheckpointStatus, ExecutionRow

Span = tuple[int, int]
"""Milliseconds: from, to."""
_WORK: Final = frozenset({"step", "rollback"})
_WAITS: Final = frozenset({"sleep", "wait_for_signal", "wait_for_event", "wait_for", "child"})


def tries_of(history: Iterable[Checkpoint]) -> Mapping[str, Sequence[Try]]:
    """The failed tries of each step that was tried again."""
    return {
        c.step_id.removeprefix(TRIES): unpack_tries(c.data) for c in history if c.step_id.startswith(TRIES)
    }


def spans_of(c: Checkpoint, tries: Sequence[Try], now: int) -> tuple[list[Span], list[Span]]:
    """When a body ran for this record, and when it waited."""
    if c.kind in _WAITS or (c.kind == "step" and c.status is CheckpointStatus.OPEN):
        return [], [(c.started_at, now if c.finished_at is None else max(c.finished_at, c.started_at))]
    if c.kind not in _WORK:
        return [], []
    working = [(each.started_at, each.finished_at) for each in tries]
    if c.finished_at is not None:
        working.append((c.started_at, c.finished_at))
    waiting = [(before[1], max(before[1], after[0])) for before, after in pairwise(working)]
    if c.finished_at is None and working:
        waiting.append((working[-1][1], max(now, working[-1][1])))
    return working, waiting


class Queueing:
    """For how long things stood behind what came before them in their branch."""

    def __init__(self, row: ExecutionRow, history: Sequence[Checkpoint]) -> None:
        self._began = row.started_at if row.started_at is not None else row.created_at
        self._ends: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for c in history:
            if c.finished_at is not None and c.kind != "switch":
                path = "" if c.step_id.startswith("__") else _branch(c.step_id)
                self._ends[path].append((c.finished_at, c.seq))
        for ends in self._ends.values():
            ends.sort()

    def before(self, c: Checkpoint, started_at: int) -> timedelta:
        """Until it began at this instant."""
        latest, path = self._began, _branch(c.step_id)
        while True:
            ends = self._ends.get(path, ())
            place = bisect_left(ends, (started_at + 1, 0))
            if place and ends[place - 1][1] == c.seq:
                place -= 1  # itself, which took no time
            if place:
                latest = max(latest, ends[place - 1][0])
            if not path:
                return _ms(max(0, started_at - latest))
            path = path.rpartition(".")[0]


def timings_of(row: ExecutionRow, history: Sequence[Checkpoint], now: int) -> Timings:
    tries = tries_of(history)
    end = row.finished_at if row.finished_at is not None else max(now, row.created_at)
    working: list[Span] = []
    waiting: list[Span] = []
    if row.started_at is None and row.available_at > row.created_at:
        waiting.append((row.created_at, row.available_at))
    for c in history:
        if not c.step_id.startswith("__"):
            work, waits = spans_of(c, tries.get(c.step_id, ()), now)
            working += work
            waiting += waits
    # What was copied from another execution lies before this one's time.
    working, waiting = _within(working, row.created_at, end), _within(waiting, row.created_at, end)
    busy, either = _covered(working), _covered([*working, *waiting])
    total = end - row.created_at
    return Timings(_ms(total), _ms(busy), _ms(either - busy), _ms(total - either))


def total(spans: Iterable[Span]) -> timedelta:
    return _ms(sum(to - since for since, to in spans))


def _within(spans: Iterable[Span], begin: int, end: int) -> list[Span]:
    cut = [(max(since, begin), min(to, end)) for since, to in spans]
    return [(since, to) for since, to in cut if since < to]


def _covered(spans: Iterable[Span]) -> int:
    """Milliseconds in at least one of them."""
    covered, reached = 0, 0
    for since, to in sorted(spans):
        if to > reached:
            covered += to - max(since, reached)
            reached = to
    return covered


def _branch(step_id: str) -> str:
    own = step_id.removeprefix("rollback:")
    return own.partition("/")[0].removeprefix("#") if own.startswith("#") else ""


def _ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)
