"""One measurement in a process of its own: `python -m benchmarks.one <workload> <subject> <scale>` prints JSON.

The JSON has `figures`, or for a peer that cannot do it `absent`, with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks import (
    ceiling,
    memory_of_sleepers,
    profile,
    w1_throughput,
    w2_latency,
    w3_signal,
    w4_sleepers,
    w5_long,
    w6_fanout,
    w7_takeover,
)
from benchmarks.figures import BACKENDS, CONTRIBUTED, SHARED, Figure
from benchmarks.peers import measure
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.environments import Absent
from benchmarks.scale import costs, history, idle, stored, timers, waiting, workers, writers
from benchmarks.worlds import ProcessFailed, World, say, world
from durable.cli.process import run_process


@dataclass(frozen=True)
class Workload:
    """A question, and what answers it."""

    question: str
    figures: Sequence[Figure]
    measure: Callable[[World, float], Awaitable[dict[str, float]]]
    backends: Sequence[str] = BACKENDS


EVERYWHERE = (*BACKENDS, *CONTRIBUTED)

_MODULES = {
    "w1": (w1_throughput, EVERYWHERE),
    "w2": (w2_latency, EVERYWHERE),
    "w3": (w3_signal, EVERYWHERE),
    "w4": (w4_sleepers, EVERYWHERE),
    "w5": (w5_long, EVERYWHERE),
    "w6": (w6_fanout, EVERYWHERE),
    "w7": (w7_takeover, (*SHARED, *CONTRIBUTED)),
    "sleepers": (memory_of_sleepers, BACKENDS),
    "ceiling": (ceiling, BACKENDS),
    "profile": (profile, BACKENDS),
    "stored": (stored, ("sqlite-full", "redis")),
    "timers": (timers, ("memory", "sqlite-full", "redis")),
    "waiting": (waiting, BACKENDS),
    "history": (history, BACKENDS),
    "workers": (workers, SHARED),
    "writers": (writers, ("sqlite-full", "sqlite-normal")),
    "costs": (costs, BACKENDS),
    "idle": (idle, BACKENDS),
}
"""What answers a question, and on which backends it is asked."""

WORKLOADS = {
    name: Workload((module.__doc__ or "").partition("\n")[0], module.FIGURES, module.measure, backends)
    for name, (module, backends) in _MODULES.items()
}

GROUPS = {
    "everyday": ("w1", "w2", "w3", "w4", "w5", "w6", "w7", "sleepers", "ceiling"),
    "scale": ("costs", "idle", "sleepers", "waiting", "history", "workers", "writers", "timers", "stored"),
}


async def measured(workload: str, backend: str, scale: float) -> dict[str, float]:
    with world(backend) as where:
        return await WORKLOADS[workload].measure(where, scale)


async def answer(workload: str, subject: str, scale: float) -> dict[str, object]:
    if subject not in PEERS:
        return {"figures": await measured(workload, subject, scale)}
    try:
        return {"figures": await measure.measured(subject, workload, scale)}
    except (Absent, ProcessFailed) as error:
        return {"absent": str(error)}


if __name__ == "__main__":
    say(run_process(answer(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
