"""Two API processes that only start, signal and wait, and four workers that only consume, one of which dies at a time.

DURABLE_TEST_SEED=7         the same plan again
DURABLE_TEST_EXECUTIONS=n   so many, instead of 2,000
"""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest

from tests.crash.fleet import Fleet, Node, seed, spread, until_all_ended
from tests.crash.invariants import violations
from tests.crash.recovery import recoveries

EXECUTIONS = int(os.environ.get("DURABLE_TEST_EXECUTIONS", "2000"))
WORKERS, APIS = 4, 2
BETWEEN_KILLS_S = 2.0
LEASE = 1.5
PACE = {"lease": LEASE, "sweep": 0.3, "concurrency": 50}


@pytest.mark.timeout(100 + EXECUTIONS // 10)
async def test_two_thousand_executions_end_though_a_worker_dies_every_two_seconds(
    fleet_on_servers: Fleet,
) -> None:
    fleet = fleet_on_servers
    plan = seed()
    print(f"DURABLE_TEST_SEED={plan}, in {fleet.directory}")
    chance = random.Random(plan)
    began = time.monotonic()
    workers = list(await asyncio.gather(*(fleet.node(**PACE) for _ in range(WORKERS))))
    share = EXECUTIONS // APIS
    apis = [
        await fleet.node(starts=[api * share, (api + 1) * share - 1], concurrency=share // 4)
        for api in range(APIS)
    ]
    # One is held for longer than its lease, and comes back to what others have taken over: what it writes is refused.
    pauses = asyncio.create_task(pause_again_and_again(fleet, workers.pop()))
    while any(api.alive for api in apis):
        await asyncio.sleep(BETWEEN_KILLS_S)
        place = chance.randrange(len(workers))
        await fleet.kill(workers[place])
        workers[place] = fleet.boot(**PACE)
    pauses.cancel()
    seconds = time.monotonic() - began
    async with fleet.client() as client:
        await until_all_ended(client, within=30)
    assert [api.poll() for api in apis] == [0, 0], "\n".join(api.tail() for api in apis)
    fleet.end()

    evidence = await fleet.evidence(
        wanted={
            "fenced": 1,
            "completed": 2 * EXECUTIONS,
            "acked result": EXECUTIONS,
            "kill": 2,
            "takeovers": 10,
            "repeats": 1,
        }
    )
    recovered = recoveries(evidence, fleet.calm())
    print(
        f"{EXECUTIONS} executions in {seconds:.1f} s, {evidence.figures['kill']} kills; "
        f"{len(recovered)} recoveries, after {spread([each.seconds for each in recovered])}"
    )
    print(dict(sorted(evidence.figures.items())))
    found = violations(evidence)
    assert not found, f"DURABLE_TEST_SEED={plan}\n" + "\n".join(found[:50])


async def pause_again_and_again(fleet: Fleet, node: Node) -> None:
    while True:
        await asyncio.sleep(0.7)
        await fleet.stop_for(node, LEASE + 0.7)
