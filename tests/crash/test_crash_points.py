"""Every write of one workflow is a place to die: right before it and right after it, in a real process.

`CRASH_AT=commit.after:3` runs that point alone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from durable import ExecutionStatus
from tests.crash import workflows
from tests.crash.evidence import Ack, Evidence
from tests.crash.fleet import Fleet, Node, Nursery, sqlite_site, until_all_ended
from tests.crash.invariants import violations
from tests.crash.workflows import Go, Job

SWEEP = 0.15
PACE = {"lease": 0.8, "sweep": SWEEP}
RESULT = ["first", "left", "right", "go on", "refused: not so", "again"]
VERBS = ("claim", "commit", "tick", "due")
_AT_ONCE = 6
_ENDS_WITHIN_S = 30.0


@dataclass(frozen=True)
class Run:
    """One life of the workflow, and what was seen of it."""

    evidence: Evidence
    crashed: bool
    recovered_s: float
    """From the crash to the first claim after it."""
    result: object
    status: str

    @property
    def bodies(self) -> Counter[str]:
        return Counter(entry.step for entry in self.evidence.starts)

    @property
    def writes(self) -> Counter[str]:
        """How many of each kind there were. How many commits depends on which of them came to travel together."""
        trace = self.evidence.trace
        return Counter({"claim": len(trace.claims), "commit": len(trace.commits), "tick": 2, "due": 2})

    def was_to_crash(self, point: str) -> bool:
        """Whether it came past the point; not asked of sweeps, which are a matter of time."""
        verb, _, number = point.replace(":", ".").split(".")
        return verb in {"claim", "commit"} and self.writes[verb] >= int(number)

    @property
    def rolled_back(self) -> list[str]:
        """The compensations on record, in their order."""
        found = [s for s in self.evidence.stored.values() if s.row.workflow == "undoing"]
        assert len(found) == 1
        return [c.step_id for c in found[0].history if c.kind == "rollback" and c.status.final]


async def test_a_crash_right_before_or_after_any_write_changes_nothing_but_the_time_it_takes(
    nursery: Nursery, tmp_path: Path
) -> None:
    chosen = os.environ.get("CRASH_AT")
    healthy = await undisturbed(nursery, tmp_path / "healthy")
    once = healthy.bodies
    points = [
        f"{verb}.{side}:{number}"
        for verb in VERBS
        for side in ("before", "after")
        # How often the store is swept is a matter of time; but what the sweeps of one life do is known.
        for number in range(1, healthy.writes[verb] + 1)
    ]
    turn = asyncio.Semaphore(_AT_ONCE)

    async def at(point: str) -> Run:
        async with turn:
            return await crashing(nursery, tmp_path / point, point)

    points = [chosen] if chosen else points
    runs = dict(zip(points, await asyncio.gather(*(at(point) for point in points)), strict=True))
    wrong = [text for point, run in runs.items() for text in differences(point, run, once)]
    assert not wrong, "\n".join(wrong)
    reached = [point for point, run in runs.items() if run.crashed]
    recoveries = sorted((run.recovered_s, point) for point, run in runs.items() if run.crashed)
    print(f"{len(reached)} of {len(points)} points reached; the slowest recoveries: {recoveries[-5:]}")
    if not chosen:
        survived = [point for point, run in runs.items() if not run.crashed and run.was_to_crash(point)]
        assert not survived, f"points that were passed without a crash: {survived}"


async def test_every_write_answered_by_an_error_after_it_was_applied_costs_no_body(
    nursery: Nursery, tmp_path: Path
) -> None:
    healthy = await undisturbed(nursery, tmp_path / "healthy")
    run = await life(nursery, tmp_path / "unknown", unknown="create,claim,commit,post")
    assert not differences("unknown", run, healthy.bodies)
    assert run.bodies == healthy.bodies


async def test_sweeps_answered_by_an_error_after_they_were_applied_cost_time_only(
    nursery: Nursery, tmp_path: Path
) -> None:
    healthy = await undisturbed(nursery, tmp_path / "healthy")
    run = await life(nursery, tmp_path / "unknown", unknown="tick,due")
    assert not differences("unknown", run, healthy.bodies)
    assert run.bodies == healthy.bodies


def differences(point: str, run: Run, once: Counter[str]) -> list[str]:
    """How this life differs from one that nothing disturbed, beyond what a crash at that point may cost."""
    found = [f"{point}: {text}" for text in violations(run.evidence)]
    if (run.status, run.result) != (ExecutionStatus.COMPLETED, RESULT):
        found.append(f"{point}: it ended as {run.status} with {run.result}")
    if run.rolled_back != ["rollback:three", "rollback:two", "rollback:one"]:
        found.append(f"{point}: compensated {run.rolled_back}")
    more = run.bodies - once
    if once - run.bodies:
        found.append(f"{point}: bodies that never ran: {dict(once - run.bodies)}")
    if any(number > 1 for number in more.values()):
        found.append(f"{point}: bodies that ran more than once too often: {dict(more)}")
    # In between two commits of this workflow there are at most two bodies, those of its branches.
    if more.total() > 2 or (more and not run.crashed):
        found.append(f"{point}: bodies that ran again: {dict(more)}")
    return found


async def undisturbed(nursery: Nursery, directory: Path) -> Run:
    """A life without a crash."""
    run = await life(nursery, directory)
    assert not differences("undisturbed", run, run.bodies)
    shutil.rmtree(directory)
    return run


async def crashing(nursery: Nursery, directory: Path, point: str) -> Run:
    run = await life(nursery, directory, crash_at=point)
    if not violations(run.evidence):
        shutil.rmtree(directory)
    return run


async def life(nursery: Nursery, directory: Path, *, crash_at: str = "", unknown: str = "") -> Run:
    """Start the workflow, run it on a node that crashes, if it is to, and finish it on one that does not."""
    directory.mkdir()
    fleet = Fleet(nursery, directory, sqlite_site(directory))
    try:
        async with fleet.client() as client:
            handle = await client.start(workflows.small, Job(1), key=directory.name)
            fleet.acks.append(Ack("start", handle.id, "small", directory.name, created=True))
            await handle.signal(Go, "go on", key="go")
            fleet.acks.append(Ack("signal", handle.id, "go", "go"))
            node = await fleet.boot(**PACE, crash_at=crash_at, unknown=unknown).ready_or_gone()
            deadline = time.monotonic() + _ENDS_WITHIN_S
            while node.alive and not (await handle.status()).status.final:
                assert time.monotonic() < deadline, (
                    f"{crash_at} {await client.operator.explain(handle.id)}\n{node.tail()}"
                )
                await asyncio.sleep(0.02)
            crashed = not node.alive or (bool(crash_at) and await dies_soon(node))
            crashed_at = time.monotonic()
            if crashed:
                await fleet.node(**PACE)
            await until_all_ended(client, within=_ENDS_WITHIN_S)
            execution = await handle.status()
    finally:
        fleet.end()
    evidence = await fleet.evidence()
    later = [claim.answered for claim in evidence.trace.claims if claim.asked > crashed_at]
    recovered = min(later, default=crashed_at) - crashed_at
    return Run(evidence, crashed, recovered, execution.result, execution.status)


async def dies_soon(node: Node) -> bool:
    """The end of the execution may be seen before the process has come to its point behind that write."""
    with suppress(TimeoutError):
        await node.gone(3 * SWEEP)
    return not node.alive


pytestmark = pytest.mark.timeout(300)
