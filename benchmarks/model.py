"""How large a system is for a load that this machine cannot make: arithmetic on what one execution costs.

An execution of `s` steps costs `base + s * step`, of the processor of a worker, of a Redis master and of the network.
What is spread over several masters costs each of them its share; nothing else is shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.record import Record
from benchmarks.report import number
from benchmarks.scale.costs import ELSEWHERE

STORE = "redis"
LOADS = (100, 1_000, 10_000, 100_000)
"""Executions a second."""
STEPS = 5
BUSY = 0.6
"""The share of a processor that a system should be planned with."""
RETENTION_DAYS = 1

Markdown = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


@dataclass(frozen=True)
class Cost:
    """Of one execution, in whatever it is counted in."""

    base: float
    step: float

    @classmethod
    def of(cls, one: float, five: float) -> Cost:
        step = max(0.0, (five - one) / 4)
        return cls(max(0.0, one - step), step)

    def __call__(self, steps: int) -> float:
        return self.base + steps * self.step


@dataclass(frozen=True)
class Constants:
    """What was measured of one execution on Redis."""

    worker_us: Cost
    redis_us: Cost
    network_kb: Cost
    kept_kb: Cost
    """In the memory of Redis, by one that has ended."""
    messages: float
    sleeping_kb: float
    """In the memory of the worker that holds it."""

    @classmethod
    def of(cls, record: Record) -> Constants | None:
        """None when something is missing."""
        costs, asleep = (_medians(record, name, STORE) for name in ("costs", "sleepers"))
        broker = _medians(record, "costs", "redis+rabbitmq")

        def cost(what: str) -> Cost:
            return Cost.of(costs[f"one step: {what}"], costs[f"five steps: {what}"])

        try:
            return cls(
                cost("CPU µs"),
                cost("Redis CPU µs"),
                cost("Redis KB"),
                cost("Redis KB kept"),
                broker[ELSEWHERE],
                asleep["KB each"],
            )
        except KeyError:
            return None


@dataclass(frozen=True)
class Size:
    """What a load needs."""

    workers: int
    masters: int
    network_mb: float
    """A second, in and out of all masters."""
    messages: float
    """A second, at the most: one carries what is ready at the same time."""
    memory_gb: float
    """Of all masters, for what has ended and is kept for a day."""


def size(constants: Constants, load: float, steps: int = STEPS) -> Size:
    return Size(
        math.ceil(load * constants.worker_us(steps) / 1e6 / BUSY),
        math.ceil(load * constants.redis_us(steps) / 1e6 / BUSY),
        load * constants.network_kb(steps) / 1024,
        load * constants.messages,
        load * 86_400 * RETENTION_DAYS * constants.kept_kb(steps) / 2**20,
    )


def text(record: Record, markdown: Markdown) -> str:
    constants = Constants.of(record)
    if constants is None:
        return "The measurements that it needs are missing."
    measured = [
        ("processor time of a worker, µs", constants.worker_us),
        ("processor time of Redis, µs", constants.redis_us),
        ("in and out of Redis, KB", constants.network_kb),
        ("kept by Redis after its end, KB", constants.kept_kb),
    ]
    lines = [(name, number(cost.base), number(cost.step), number(cost(STEPS))) for name, cost in measured]
    others = [
        ("messages to the broker, of an execution that another process takes", number(constants.messages)),
        ("KB in a worker of one that sleeps", number(constants.sleeping_kb)),
    ]
    sizes = [(f"{load:,}", size(constants, load)) for load in LOADS]
    table = [
        (
            load,
            f"{each.workers:,}",
            f"{each.masters:,}",
            number(each.network_mb),
            number(each.messages),
            number(each.memory_gb),
        )
        for load, each in sizes
    ]
    columns = (
        "executions/s",
        "worker cores",
        "Redis masters",
        "MB/s",
        "messages/s, at most",
        "GB kept for a day",
    )
    return "\n\n".join(
        (
            markdown(("what an execution costs", "base", "each step", f"with {STEPS} steps"), lines),
            markdown(("besides", ""), others),
            f"So for executions of {STEPS} steps, with processors {BUSY:.0%} busy:",
            markdown(columns, table),
        )
    )


def _medians(record: Record, workload: str, subject: str) -> dict[str, float]:
    rounds = record.of(workload, subject)
    names = {name for figures in rounds for name in figures}
    return {name: median(figures[name] for figures in rounds if name in figures) for name in names}
