"""One measurement in a process of its own: `python -m benchmarks.one <workload> <backend> <scale>` prints JSON."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks import (
    ceiling,
    memory_of_sleepers,
    w1_throughput,
    w2_latency,
    w3_signal,
    w4_sleepers,
    w5_long,
    w6_fanout,
    w7_takeover,
)
from benchmarks.figures import BACKENDS, SHARED, Figure
from benchmarks.worlds import World, say, world
from durable.cli.process import run_process


@dataclass(frozen=True)
class Workload:
    """A question, and what answers it."""

    question: str
    figures: Sequence[Figure]
    measure: Callable[[World, float], Awaitable[dict[str, float]]]
    backends: Sequence[str] = BACKENDS


WORKLOADS = {
    name: Workload(
        (module.__doc__ or "").partition("\n")[0],
        module.FIGURES,
        module.measure,
        SHARED if module is w7_takeover else BACKENDS,
    )
    for name, module in {
        "w1": w1_throughput,
        "w2": w2_latency,
        "w3": w3_signal,
        "w4": w4_sleepers,
        "w5": w5_long,
        "w6": w6_fanout,
        "w7": w7_takeover,
        "sleepers": memory_of_sleepers,
        "ceiling": ceiling,
    }.items()
}


async def measured(workload: str, backend: str, scale: float) -> dict[str, float]:
    with world(backend) as where:
        return await WORKLOADS[workload].measure(where, scale)


if __name__ == "__main__":
    say(run_process(measured(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
