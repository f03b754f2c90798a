"""Schedules while workers are killed: each instant starts one execution, whoever fires it and dies; none is left out.

The schedules are as if all workers had been away since they were made. Eight come at once, make up for it, and go on
with the instants of the present. They are killed at random, and right before and after the write that fires.

DURABLE_TEST_SEED=7        the same plan again
DURABLE_TEST_LONG=1        an hour to make up for, 200 kills; or as many seconds as DURABLE_TEST_INSTANTS says, and as
                           many kills as DURABLE_TEST_KILLS
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from durable import Durable, ExecutionStatus
from durable.calendar import tick_id
from durable.clock import SystemClock, VirtualClock
from tests.crash.evidence import Stored
from tests.crash.fleet import Fleet, seed, until_all_ended
from tests.crash.indoors import Indoors
from tests.crash.invariants import violations
from tests.crash.ledger import bodies, most_at_once
from tests.crash.workflows import tick

_IS_LONG = os.environ.get("DURABLE_TEST_LONG") == "1"
WORKERS = 8
MISSED = int(os.environ.get("DURABLE_TEST_INSTANTS", "3600" if _IS_LONG else "100"))
KILLS = int(os.environ.get("DURABLE_TEST_KILLS", "200" if _IS_LONG else "6"))
_ENDED_WITHIN = 120.0 if _IS_LONG else 30.0
_SECOND = 1000


@pytest.mark.timeout(90 + MISSED // 10 + KILLS)
async def test_each_instant_starts_one_execution_though_workers_are_killed_as_they_fire(
    fleet_anywhere: Fleet | Indoors,
) -> None:
    fleet = fleet_anywhere
    plan = seed()
    chance = random.Random(plan)
    print(f"DURABLE_TEST_SEED={plan}")
    began = time.monotonic()
    then = SystemClock().now_ms() - MISSED * _SECOND
    async with fleet.client(VirtualClock(then)) as client:
        await client.ensure_schedule(tick, 0.005, id="all", interval="1s", catchup="all")
        await client.ensure_schedule(tick, 0.005, id="latest", interval="1s")
        await client.ensure_schedule(tick, 0.3, id="skip", interval="1s", overlap="skip")
    async with fleet.client(VirtualClock(then + (MISSED - 10) * _SECOND)) as client:
        await client.ensure_schedule(tick, 0.02, id="queue", interval="1s", catchup="all", overlap="queue")

    async with fleet.client() as client:
        workers = list(await asyncio.gather(*(_worker(fleet, chance) for _ in range(WORKERS))))
        while len(fleet.faults) < KILLS:
            victim = workers[chance.randrange(WORKERS)]
            wait = chance.uniform(0.1, 0.5)
            for _ in range(5):  # one that has died by itself is noticed long before its lease is over
                await asyncio.sleep(wait / 5)
                for place, worker in enumerate(workers):
                    if not worker.alive:
                        await fleet.kill(worker)
                        workers[place] = await _worker(fleet, chance)
            if victim.alive:
                await fleet.kill(victim)
                workers[workers.index(victim)] = await _worker(fleet, chance)
        calm = SystemClock().now_ms()
        last: dict[str, int] = {}
        for id in ("all", "latest", "skip", "queue"):
            last[id] = await _paused(client, id, after=calm if id in ("all", "latest") else 0)
        await until_all_ended(client, within=_ENDED_WITHIN)
        stored, found = await _read(fleet)
    fleet.end()
    assert not found, f"DURABLE_TEST_SEED={plan}\n" + "\n".join(found[:50])

    grid = range(then + _SECOND, last["all"] + 1, _SECOND)
    names = {
        tick_id(id, instant): id
        for id, its_last in last.items()
        for instant in range(then + _SECOND, its_last + 1, _SECOND)
    }
    assert set(stored) <= set(names)
    made = Counter(names[id] for id in stored)
    print(
        f"{made['all']} instants of {len(grid)}, {MISSED} of them missed, {dict(made)}; {len(fleet.faults)} kills, "
        f"{time.monotonic() - began:.1f} s"
    )
    assert made["all"] == len(grid) >= MISSED
    assert made["queue"] == (last["queue"] - then) // _SECOND - (MISSED - 10)
    # What was missed is one execution: the instant at which the first worker came.
    latest = sorted(id for id, of in names.items() if of == "latest" and id in stored)
    assert 1 <= made["latest"] <= (last["latest"] - then) // _SECOND - MISSED + 1
    assert latest[-1] == tick_id("latest", last["latest"])
    for id, each in stored.items():
        assert each.row.status is ExecutionStatus.COMPLETED, id
        assert [step.step_id for step in each.history] == ["first", "second"], id
    _assert_one_at_a_time(fleet, stored, {id for id in stored if names[id] == "queue"})
    _assert_one_at_a_time(fleet, stored, {id for id in stored if names[id] == "skip"})


async def _worker(fleet: Fleet | Indoors, chance: random.Random) -> Any:
    """Every other one that is a process of its own dies right before or after a write of its that fires."""
    if isinstance(fleet, Indoors):
        return await fleet.node()
    point = f"save_schedule.{chance.choice(('before', 'after'))}:{chance.randint(1, 3)}"
    return fleet.boot(crash_at=chance.choice((point, "")))


async def _paused(client: Durable, id: str, *, after: int) -> int:
    """Pause a schedule when it has fired for an instant that is later than that; the last one that it fired for."""
    while True:
        fired = (await client.get_schedule(id)).last_fire_at
        if fired is not None and fired.timestamp() * 1000 > after:
            break
        await asyncio.sleep(0.05)
    await client.pause_schedule(id)
    fired = (await client.get_schedule(id)).last_fire_at
    assert fired is not None
    return round(fired.timestamp() * 1000)


async def _read(fleet: Fleet | Indoors) -> tuple[Mapping[str, Stored], list[str]]:
    """All that is stored, and what is wrong with the run."""
    if isinstance(fleet, Indoors):
        return await fleet.stored()
    evidence = await fleet.evidence()
    return evidence.stored, violations(evidence)


def _assert_one_at_a_time(fleet: Fleet | Indoors, stored: Mapping[str, Stored], ids: set[str]) -> None:
    """As their bodies tell, and the store."""
    ran = [body for body in bodies(fleet.ledger(), fleet.killed()) if body.execution in ids]
    assert most_at_once(ran) == 1
    spans = sorted((stored[id].row.started_at or 0, stored[id].row.finished_at or 0) for id in ids)
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))
