"""Limits while workers are killed: never exceeded, and reached, as far as step bodies can tell."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.crash.fleet import Fleet, seed, until_all_ended
from tests.crash.ledger import bodies, most_at_once
from tests.crash.workflows import limited

WORKERS, KILLS, EXECUTIONS, KEYS = 5, 8, 200, "abc"
_ENDED_WITHIN = 60.0


@pytest.mark.timeout(150)
async def test_limits_hold_and_are_reached_while_workers_are_killed(fleet: Fleet) -> None:
    plan = seed()
    chance = random.Random(plan)
    print(f"DURABLE_TEST_SEED={plan}")
    nodes = [fleet.boot(concurrency=10) for _ in range(WORKERS)]
    for node in nodes:
        await node.ready()
    async with fleet.client() as client:
        for number in range(EXECUTIONS):
            await client.start(limited, (KEYS[number % len(KEYS)], number))
            if number % 10 == 9:
                await asyncio.sleep(0.05)
            if number % (EXECUTIONS // KILLS) == 0:
                victim = nodes.pop(chance.randrange(len(nodes)))
                await fleet.kill(victim)
                nodes.append(fleet.boot(concurrency=10))
        await until_all_ended(client, within=_ENDED_WITHIN)
        counts = await client.operator.counts()
        assert counts["completed"] == EXECUTIONS
        assert list(await client.operator.held_limits()) == []
    fleet.end()

    ran = list(bodies(fleet.ledger(), fleet.killed()))
    assert len({body.execution for body in ran}) == EXECUTIONS
    most = {key: most_at_once(body for body in ran if body.step == key) for key in KEYS}
    in_all = most_at_once(ran)
    print(
        f"{len(ran)} bodies of {EXECUTIONS} executions, {len(fleet.faults)} kills, at most {most}, {in_all} in all"
    )
    assert max(most.values()) == 2
    assert in_all == 5
    assert (await fleet.evidence()).complaints == []
