"""What a run of the suite found, as it is kept: each measurement of each round, nothing summed up."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Self

from tests.brokers.binaries import binaries

_BUSY = 0.5
"""Runnable processes per core before the run begins, above which times say little."""


@dataclass(frozen=True)
class Measurement:
    """What one workload on one subject gave in one round."""

    round: int
    workload: str
    subject: str
    took: float
    """Seconds, its preparation included."""
    figures: dict[str, float]


@dataclass(frozen=True)
class Absence:
    """What could not be measured, and why. Without a workload: all of the subject."""

    subject: str
    reason: str
    workload: str | None = None


@dataclass(frozen=True)
class Record:
    """One run."""

    command: str
    taken_at: str
    machine: dict[str, str | float]
    rounds: int
    scale: float
    load_after: float = 0.0
    measurements: Sequence[Measurement] = ()
    absences: Sequence[Absence] = ()

    @property
    def is_busy(self) -> bool:
        """Whether others used the machine when the run began: its times are too long then."""
        return float(self.machine["load"]) > _BUSY * float(self.machine["cores"])

    @property
    def seconds(self) -> float:
        return sum(each.took for each in self.measurements)

    def of(self, workload: str, subject: str) -> list[dict[str, float]]:
        """Its figures, round by round."""
        return [
            each.figures
            for each in sorted(self.measurements, key=lambda each: each.round)
            if (each.workload, each.subject) == (workload, subject)
        ]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        kept = json.loads(path.read_text())
        kept["measurements"] = tuple(Measurement(**each) for each in kept["measurements"])
        kept["absences"] = tuple(Absence(**each) for each in kept["absences"])
        return cls(**kept)


def load() -> float:
    """Runnable processes, on average over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def describe_machine() -> dict[str, str | float]:
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory GiB": _memory_gib(),
        "fsync ms": _fsync_ms(),
        "load": load(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "Redis": _first_word(_redis_version(), after="v="),
        "Node": _output("node", "--version").removeprefix("v"),
        "PostgreSQL": _first_word(_output("psql", "--version"), after="(PostgreSQL) "),
    }


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _memory_gib() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError):
        return 0.0


def _fsync_ms() -> float:
    """How long the disk of the temporary directory takes to keep 4 KiB, which decides what a flushed commit costs."""
    took: list[float] = []
    with tempfile.TemporaryFile() as file:
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return round(median(took) * 1000, 3)


def _redis_version() -> str:
    try:
        found = binaries()
    except RuntimeError:
        return ""
    return _output(str(found.redis_server), "--version", env=found.env)


def _output(*command: str, env: dict[str, str] | None = None) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env).stdout.strip()


def _first_word(text: str, *, after: str) -> str:
    return (text.partition(after)[2].split() or [""])[0]


@dataclass
class Notebook:
    """A record that is being made."""

    command: str
    rounds: int
    scale: float
    machine: dict[str, str | float] = field(default_factory=describe_machine)
    taken_at: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    measurements: list[Measurement] = field(default_factory=list[Measurement])
    absences: list[Absence] = field(default_factory=list[Absence])

    def record(self) -> Record:
        return Record(
            self.command,
            self.taken_at,
            self.machine,
            self.rounds,
            self.scale,
            load(),
            self.measurements,
            self.absences,
        )
