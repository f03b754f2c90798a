"""The store is away for longer than a lease, and nobody has died: nothing is taken from those who live."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from tests.brokers.fixtures import StartRedis
from tests.crash import workflows
from tests.crash.fleet import Fleet, Nursery, Site, until_all_ended
from tests.crash.invariants import violations
from tests.crash.workflows import Job

LEASE, SWEEP = 1.5, 0.3


async def test_an_outage_longer_than_the_lease_repeats_no_body(
    nursery: Nursery, tmp_path: Path, private_redis: StartRedis, namespace: str
) -> None:
    redis = private_redis(appendfsync="always")
    fleet = Fleet(nursery, tmp_path, Site(redis.url, namespace=namespace))
    for _ in range(3):
        await fleet.node(lease=LEASE, sweep=SWEEP)
    async with fleet.client() as client:
        for outage in range(2):
            for n in range(9):
                await client.start(workflows.slow, Job(9 * outage + n))
            await asyncio.sleep(LEASE / 5)
            async with fleet.fault("redis paused"):
                redis.pause()
                await asyncio.sleep(2 * LEASE)
                redis.resume()
            await asyncio.sleep(LEASE)
        await until_all_ended(client, within=30)
    fleet.end()
    evidence = await fleet.evidence(wanted={"redis paused": 2, "completed": 18})
    bodies = Counter(entry.key for entry in evidence.starts)
    assert {key: number for key, number in bodies.items() if number > 1} == {}
    assert evidence.figures["takeovers"] == 0
    assert not violations(evidence)
