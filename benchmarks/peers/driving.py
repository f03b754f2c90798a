"""What the drivers of the peers share: how much, how long, and the lines of JSON on standard output.

Drivers run in environments of their own, where nothing of ours is installed.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import uvloop

WORK_BUDGET = 15.0
"""Seconds after which no more executions are begun where it is counted how many are done."""
LATENCY_BUDGET = 6.0
"""Seconds after which a series of single executions ends, when it has enough samples."""
_ENOUGH = 20
LEASE = 1.0
PATIENCE = 60.0


@dataclass(frozen=True)
class Settings:
    """What the suite asks of a driver."""

    role: str
    scale: float
    urls: dict[str, str]
    argument: str = ""

    @classmethod
    def given(cls) -> Settings:
        return cls(**json.loads(sys.argv[1]))

    def count(self, full: int, least: int = 1) -> int:
        """How many of a thing that there are `full` of at scale 1."""
        return max(least, round(full * self.scale))

    @property
    def sleep_ms(self) -> int:
        return max(50, round(3000 * min(1.0, 10 * self.scale)))


def within_budget(executions: int) -> Iterator[int]:
    """Their numbers, until there are no more or the time is over."""
    ends = time.perf_counter() + WORK_BUDGET
    return takewhile(lambda _: time.perf_counter() < ends, range(executions))


class Series:
    """Times of single executions, one after the other."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._ends = time.perf_counter() + LATENCY_BUDGET
        self.seconds: list[float] = []

    def goes_on(self) -> bool:
        """Whether there is another to measure: not when there are enough, and the time is over."""
        done = len(self.seconds)
        return done < self._most and (done < min(_ENOUGH, self._most) or time.perf_counter() < self._ends)

    def figures(self) -> dict[str, float]:
        ordered = sorted(self.seconds)
        return {
            "p50 ms": statistics.median(ordered) * 1000,
            "p99 ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
        }


def growth(marks: Sequence[float]) -> float:
    """How long the last tenth of the steps took, against the first tenth; `marks` are the instants between them."""
    spans = [after - before for before, after in pairwise(marks)]
    tenth = max(1, len(spans) // 10)
    return statistics.mean(spans[-tenth:]) / statistics.mean(spans[:tenth])


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def run_process(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop, as our own workers are."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def told() -> str:
    """The next line from the suite; empty when it is gone."""
    return sys.stdin.readline().strip()


def told_to_go() -> bool:
    return bool(told())


def peak_memory_mb() -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024 * 1024 if sys.platform == "darwin" else 1024)
