"""Bodies that block the loop or take the process with them; workers that are told to leave, or just die."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from durable import ExecutionFailed
from tests.crash import workflows
from tests.crash.fleet import Fleet, until_all_ended
from tests.crash.invariants import violations
from tests.crash.recovery import recoveries
from tests.crash.workflows import Job

LEASE, SWEEP = 1.0, 0.2


@pytest.mark.parametrize("lease", [1.5, 0.8])
async def test_a_body_that_blocks_the_loop_for_five_leases_keeps_its_lease_and_runs_once(
    fleet: Fleet, lease: float
) -> None:
    await asyncio.gather(*(fleet.node(lease=lease, sweep=lease / 5) for _ in range(2)))
    async with fleet.client() as client:
        handle = await client.start(workflows.blocking, 5 * lease)
        assert await handle.result(timeout=10 * lease + 10) == "done"
    fleet.end()
    evidence = await fleet.evidence()
    assert Counter(entry.step for entry in evidence.starts) == {"block": 1}
    assert evidence.figures["takeovers"] == 0
    assert not violations(evidence)
    assert "the event loop of worker" in fleet.logs(), "nobody is told what blocks the loop"


@pytest.mark.timeout(180)
async def test_a_body_that_kills_its_worker_each_time_is_failed_as_poison_while_others_progress(
    fleet: Fleet,
) -> None:
    settings = {"lease": 0.8, "sweep": 0.15, "max_crashes": 3}
    nodes = list(await asyncio.gather(*(fleet.node(**settings) for _ in range(2))))

    async def supervise() -> None:
        while True:
            for place, node in enumerate(nodes):
                if not node.alive:
                    nodes[place] = fleet.boot(**settings)
            await asyncio.sleep(0.02)

    supervisor = asyncio.create_task(supervise())
    try:
        async with fleet.client() as client:
            deadly = await client.start(workflows.deadly)
            others = []
            began = time.monotonic()
            while (await deadly.status()).status.final is False:
                assert time.monotonic() - began < 60
                others.append(await client.start(workflows.trip, Job(len(others))))
                await asyncio.sleep(0.3)
            with pytest.raises(ExecutionFailed) as failure:
                await deadly.result(timeout=1)
            await until_all_ended(client, within=30)
            ended = [(await other.status()).status for other in others]
    finally:
        supervisor.cancel()
        await asyncio.wait((supervisor,))
    fleet.end()
    evidence = await fleet.evidence()
    assert failure.value.code == "poison"
    bodies = Counter(entry.step for entry in evidence.starts)
    assert bodies["die"] == 3
    assert set(ended) == {"completed"}, ended
    assert not violations(evidence)


@pytest.mark.timeout(180)
async def test_a_rolling_restart_under_load_repeats_no_step_that_takes_less_than_half_the_drain(
    fleet: Fleet,
) -> None:
    """SIGTERM: what runs is finished or given back between two steps, never in the middle of one."""
    nodes = list(await asyncio.gather(*(fleet.node(drain=2.0, lease=5.0) for _ in range(2))))
    loops = 0
    async with fleet.client() as client:
        handles = [await client.start(workflows.chain, 20) for _ in range(8)]
        for place in (0, 1, 0, 1):
            await asyncio.sleep(0.5)
            handles += [await client.start(workflows.slow, Job(loops)) for _ in range(2)]
            successor = await fleet.node(drain=2.0, lease=5.0)
            await fleet.terminate(nodes[place])
            nodes[place] = successor
            loops += 1
        await until_all_ended(client, within=60)
        ended = [(await handle.status()).status for handle in handles]
    fleet.end()
    evidence = await fleet.evidence(wanted={"term": 4})
    assert set(ended) == {"completed"}, ended
    bodies = Counter(entry.key for entry in evidence.starts)
    assert not {key: number for key, number in bodies.items() if number > 1}
    assert evidence.figures["takeovers"] == 0
    assert not violations(evidence)


async def test_what_a_killed_worker_held_goes_on_within_a_lease_and_two_sweeps(fleet: Fleet) -> None:
    nodes = [await fleet.node(lease=LEASE, sweep=SWEEP) for _ in range(2)]
    async with fleet.client() as client:
        for n in range(5):
            for _ in range(3):
                await client.start(workflows.slow, Job(n))
            await asyncio.sleep(0.3)
            await fleet.kill(nodes[n % 2])
            nodes[n % 2] = await fleet.node(lease=LEASE, sweep=SWEEP)
            await asyncio.sleep(LEASE)
        await until_all_ended(client, within=30)
    fleet.end()
    evidence = await fleet.evidence(wanted={"kill": 5, "takeovers": 3})
    seconds = [each.seconds for each in recoveries(evidence, fleet.calm())]
    print(f"recovery of {len(seconds)}: {seconds}")
    assert not violations(evidence)
    assert max(seconds) <= LEASE + 2 * SWEEP + 1.0
