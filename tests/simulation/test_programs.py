"""Random programs on nodes that die, over ports that fail, held against what they must give.

DURABLE_TEST_LONG=1       200,000 seeds; or as many as DURABLE_TEST_SEEDS says
DURABLE_TEST_SEED=n       that seed only
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from durable.testing.simulation.loop import EndlessSimulation
from durable.testing.simulation.simulate import (
    SimulationReport,
    differences,
    in_a_thread,
    run_seed,
    without_faults,
)
from durable.testing.simulation.world import Scenario
from tests.simulation.programs import OPERATIONS, Plan, ops_of, plan, program

_IS_LONG = os.environ.get("DURABLE_TEST_LONG") == "1"
_SEEDS = int(os.environ.get("DURABLE_TEST_SEEDS", "200000" if _IS_LONG else "2000"))
_ONLY = os.environ.get("DURABLE_TEST_SEED")
_PARTS = 4

FAULTS = {
    *(
        f"store {kind} {verb}"
        for kind in ("error", "unknown", "late", "delay", "stall")
        for verb in ("claim", "commit", "tick", "due", "live")
    ),
    *(f"{port} {kind}" for port in ("bus", "queue") for kind in ("drop", "duplicate", "delay")),
    *(f"node {kind}" for kind in ("kill", "pause", "restart")),
}
ANSWERS = {
    "claim Claimed",
    "claim NotClaimed",
    "commit Committed",
    "commit Fenced",
    "create Created",
    "post NotPosted",
    "post Posted",
    "tick Ticked",
}


def run_programs(
    seeds: Iterable[int], ops: Counter[str], is_cancelled: Callable[[], bool]
) -> SimulationReport:
    report = SimulationReport()
    for seed in seeds:
        if is_cancelled():
            break
        plan_ = plan(seed)
        ops.update(ops_of(plan_.root))
        wrong = what_is_wrong(plan_, seed, report)
        assert not wrong, (
            f"seed {seed} (again: DURABLE_TEST_SEED={seed}): {'; '.join(wrong)}\n"
            f"expected {plan_.expected}; cancelled after {plan_.cancel_after} s; signals {plan_.signals}\n"
            f"{json.dumps(plan_.root, indent=1)}"
        )
    return report


def what_is_wrong(plan_: Plan, seed: int, report: SimulationReport) -> list[str]:
    scenario = Scenario(program, plan_.root, [program], plan_.drive)
    try:
        plain = without_faults(scenario)
        if not plan_.is_fine(plain.outcome):
            return [f"without any fault it ended as {plain.outcome}"]
        return list(differences(plain, run_seed(scenario, seed, report), plan_.is_fine))
    except EndlessSimulation as error:
        return [str(error)]


def seeds_of(part: int) -> Iterable[int]:
    if _ONLY is not None:
        return [int(_ONLY)]
    return range(_SEEDS * part // _PARTS, _SEEDS * (part + 1) // _PARTS)


@pytest.mark.timeout(36_000 if _IS_LONG else 600)
@pytest.mark.parametrize("part", [0] if _ONLY else range(_PARTS))
async def test_programs_give_what_they_must_whatever_goes_wrong(part: int) -> None:
    ops: Counter[str] = Counter()
    report = await in_a_thread(lambda is_cancelled: run_programs(seeds_of(part), ops, is_cancelled))

    if _ONLY is None and _SEEDS >= 2000:
        assert set(OPERATIONS) <= set(ops)
        assert set(report.outcomes) == {"completed", "failed", "cancelled"}
        assert report.losses > 0
        assert sorted(FAULTS - set(report.faults)) == []
        assert sorted(ANSWERS - set(report.answers)) == []
