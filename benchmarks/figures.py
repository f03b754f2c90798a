"""What a workload measures, and how good each figure should be."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

REDIS = ("redis", "redis+rabbitmq")
SHARED = ("sqlite-full", "sqlite-normal", *REDIS)
"""Those that several processes can work on."""
BACKENDS = ("memory", *SHARED)
CONTRIBUTED = ("postgresql",)
"""Those of contributed packages: measured where they are asked for by name, and without a ceiling."""

Limits = Mapping[str, float]
"""Backend -> limit."""


@dataclass(frozen=True)
class Figure:
    """One number that a workload gives. Its limits are of the figure itself, or of its share of the ceiling."""

    name: str
    higher_is_better: bool = False
    must: Limits = field(default_factory=dict[str, float])
    goal: Limits = field(default_factory=dict[str, float])
    limits_are_shares: bool = False
    ratios: Mapping[str, Mapping[str, tuple[float | None, float]]] = field(
        default_factory=dict[str, Mapping[str, tuple[float | None, float]]]
    )
    """Backend -> peer -> how many times better we must be, and want to be."""
    is_compared: bool = True
    """Whether one is better than another for it: else it says how to read the others."""

    def meets(self, value: float, limit: float) -> bool:
        return value >= limit if self.higher_is_better or self.limits_are_shares else value <= limit


def on(backends: Sequence[str], limit: float) -> dict[str, float]:
    return dict.fromkeys(backends, limit)


def count(full: int, scale: float, least: int = 1) -> int:
    """How many of a thing that there are `full` of at scale 1."""
    return max(least, round(full * scale))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def p50_and_p99(seconds: Sequence[float], prefix: str = "") -> dict[str, float]:
    return {
        f"{prefix}p50 ms": statistics.median(seconds) * 1000,
        f"{prefix}p99 ms": percentile(seconds, 0.99) * 1000,
    }
