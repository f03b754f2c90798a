"""Medians of the rounds with their spread, beside the goals: as a table, and as JSON."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure
from benchmarks.one import WORKLOADS

Rounds = Mapping[tuple[str, str], Sequence[Mapping[str, float]]]
"""(workload, backend) -> what each round gave."""

_BUSY = 0.5
"""Runnable processes per core before we begin, above which times say little."""


def machine() -> dict[str, object]:
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "system": platform.platform(),
        "cores": cores,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load": round(load, 2),
        "busy": load > _BUSY * cores,
    }


@dataclass(frozen=True)
class Row:
    """One figure on one backend."""

    workload: str
    figure: Figure
    backend: str
    values: Sequence[float]
    shares: Sequence[float]
    """Of the ceiling in the same round, where one was measured: 1.0 is as good as a bare program."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def share(self) -> float | None:
        return statistics.median(self.shares) if self.shares else None

    @property
    def must(self) -> float | None:
        return self.figure.must.get(self.backend)

    @property
    def goal(self) -> float | None:
        return self.figure.goal.get(self.backend)

    @property
    def verdict(self) -> str:
        """What is met: `goal`, `must`, or `below`; empty where nothing is asked or it cannot be told."""
        value = self.share if self.figure.limits_are_shares else self.median
        if value is None or (self.must is None and self.goal is None):
            return ""
        for name, limit in (("goal", self.goal), ("must", self.must)):
            if limit is not None and self.figure.meets(value, limit):
                return name
        return "below"

    def record(self) -> dict[str, object]:
        return {
            "workload": self.workload,
            "figure": self.figure.name,
            "backend": self.backend,
            "median": self.median,
            "values": list(self.values),
            "share_of_ceiling": self.share,
            "must": self.must,
            "goal": self.goal,
            "limits_are_shares": self.figure.limits_are_shares,
            "met": self.verdict,
        }


def rows(rounds: Rounds) -> list[Row]:
    found: list[Row] = []
    for (workload, backend), measured in rounds.items():
        for figure in WORKLOADS[workload].figures:
            values = [figures[figure.name] for figures in measured if figure.name in figures]
            if values:
                shares = _shares(figure, workload, values, rounds.get(("ceiling", backend), ()))
                found.append(Row(workload, figure, backend, values, shares))
    return found


def _shares(
    figure: Figure, workload: str, values: Sequence[float], ceilings: Sequence[Mapping[str, float]]
) -> list[float]:
    name = f"{workload}: {figure.name}"
    tops = [ceiling[name] for ceiling in ceilings if name in ceiling]
    pairs = zip(values, tops, strict=False)
    return [value / top if figure.higher_is_better else top / value for value, top in pairs]


_COLUMNS = ("", "figure", "backend", "median", "least - most", "of ceiling", "must", "goal", "met")


def table(found: Sequence[Row]) -> str:
    lines = [_COLUMNS, *map(_cells, found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if 3 <= column <= 7 else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.workload,
        row.figure.name,
        row.backend,
        _number(row.median),
        f"{_number(min(row.values))} - {_number(max(row.values))}",
        "" if row.share is None else f"{row.share:.1%}",
        _limit(row.figure, row.must),
        _limit(row.figure, row.goal),
        row.verdict,
    )


def _limit(figure: Figure, limit: float | None) -> str:
    if limit is None:
        return ""
    return f"{limit:.0%} of ceiling" if figure.limits_are_shares else f"{limit:g}"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.3f}"
