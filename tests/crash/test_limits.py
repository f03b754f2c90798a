"""Limits while workers are killed: never exceeded, and reached, as far as step bodies can tell."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest

from tests.crash.fleet import Fleet, seed, until_all_ended
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

    bodies = list(_bodies(fleet))
    assert len({execution for _, execution, _, _ in bodies}) == EXECUTIONS
    most = {
        key: _most_at_once((began, ended) for own, _, began, ended in bodies if own == key) for key in KEYS
    }
    in_all = _most_at_once((began, ended) for _, _, began, ended in bodies)
    print(
        f"{len(bodies)} bodies of {EXECUTIONS} executions, {len(fleet.faults)} kills, at most {most}, {in_all} in all"
    )
    assert max(most.values()) == 2
    assert in_all == 5
    assert (await fleet.evidence()).complaints == []


def _bodies(fleet: Fleet) -> Iterable[tuple[str, str, float, float]]:
    """The key, the execution, the begin and the end of each. A body whose process was killed ended with that."""
    open_ones: dict[tuple[int, str], tuple[str, float]] = {}
    for entry in fleet.ledger():
        body = entry.pid, entry.execution
        if entry.event == "start":
            open_ones[body] = entry.step, entry.mono
        elif entry.event == "end":
            key, began = open_ones.pop(body)
            yield key, entry.execution, began, entry.mono
    for (pid, execution), (key, began) in open_ones.items():
        yield key, execution, began, next(fault.until for fault in fleet.faults if fault.pid == pid)


def _most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    changes = sorted(change for began, ended in spans for change in ((began, 1), (ended, -1)))
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
