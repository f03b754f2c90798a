"""Windows that are open while workers are killed: what is put together, put off or held back is there in the end, once.

DURABLE_TEST_SEED=7        the same plan again
DURABLE_TEST_LONG=1        150 kills, and 25 times as much to do; or as many kills as DURABLE_TEST_KILLS says
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic_core import from_json

from durable import Durable, ExecutionStatus, Handle
from durable.duration import to_ms
from tests.crash.evidence import Evidence
from tests.crash.fleet import Fleet, seed, until_all_ended
from tests.crash.invariants import violations
from tests.crash.workflows import PACE, feeder, gathered, paced, settled

_IS_LONG = os.environ.get("DURABLE_TEST_LONG") == "1"
WORKERS = 5
KILLS = int(os.environ.get("DURABLE_TEST_KILLS", "150" if _IS_LONG else "6"))
ROUNDS = max(1, KILLS // 6)
IN_A_ROUND = 40
KEYS = "abc"


@pytest.mark.timeout(90 + 3 * KILLS)
@pytest.mark.parametrize("fleet_anywhere", ["sqlite", "redis", "redis + rabbitmq"], indirect=True)
async def test_what_waits_for_a_window_is_there_once_though_workers_are_killed(
    fleet_anywhere: Fleet,
) -> None:
    fleet = fleet_anywhere
    plan = seed()
    print(f"DURABLE_TEST_SEED={plan}")
    began = time.monotonic()
    nodes = list(await asyncio.gather(*(fleet.node() for _ in range(WORKERS))))
    async with fleet.client() as client:
        killing = asyncio.create_task(_kill(fleet, nodes, random.Random(plan)))
        chance = random.Random(plan + 1)
        debounced: list[tuple[Handle[int], int]] = []
        for first in range(0, ROUNDS * IN_A_ROUND, IN_A_ROUND):
            debounced += await _round(client, chance, range(first, first + IN_A_ROUND))
        await killing
        await until_all_ended(client, within=60)
    fleet.end()

    evidence = await fleet.evidence()
    # A child that joins another's is known by that one's id.
    found = [text for text in violations(evidence) if not text.startswith("I13")]
    assert not found, f"DURABLE_TEST_SEED={plan}\n" + "\n".join(found[:50])
    assert {each.row.status for each in evidence.stored.values()} == {ExecutionStatus.COMPLETED}
    numbers = range(ROUNDS * IN_A_ROUND)
    direct, fed = [n for n in numbers if n % 2 == 0], [n for n in numbers if n % 2]
    _assert_batched(evidence, "gathered", [*direct, *fed], size=5)
    _assert_batched(evidence, "heard", fed, size=7)
    _assert_last_ones_won(evidence, debounced)
    # Where a gate is in another partition than who passes it, one whose word from there was lost with a worker is late.
    late = 0 if fleet.site.url.startswith("sqlite") else len(fleet.faults)
    passes = _assert_paced(evidence, late)
    kinds = Counter(each.row.workflow for each in evidence.stored.values())
    print(
        f"{len(fleet.faults)} kills, {dict(kinds)}, {passes} passes of the throttle looked at, "
        f"{time.monotonic() - began:.1f} s"
    )


async def _kill(fleet: Fleet, nodes: list[Any], chance: random.Random) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.15, 0.5))
        place = chance.randrange(WORKERS)
        await fleet.kill(nodes[place])
        nodes[place] = fleet.boot()


async def _round(
    client: Durable, chance: random.Random, numbers: Sequence[int]
) -> list[tuple[Handle[int], int]]:
    """Start one of each kind for each number; what was debounced."""
    debounced: list[tuple[Handle[int], int]] = []
    for number in numbers:
        item = chance.choice(KEYS), number
        await (client.start(feeder, item) if number % 2 else client.start(gathered, [item]))
        debounced.append((await client.start(settled, (f"{item[0]}{number // 20}", number)), number))
        await client.start(paced, number)
        await asyncio.sleep(chance.uniform(0, 0.1))
    return debounced


def _assert_batched(evidence: Evidence, workflow: str, expected: Sequence[int], *, size: int) -> None:
    """Each was put into one batch, none of which is above its size or mixes keys."""
    rows = [each.row for each in evidence.stored.values() if each.row.workflow == workflow]
    given = [from_json(row.result or b"[]") for row in rows]
    assert Counter(number for batch in given for number in batch) == Counter(expected)
    for execution, each in evidence.stored.items():
        if each.row.workflow == workflow:
            items = [item for part in each.row.input.split(b"\n") for item in from_json(part)]
            assert 1 <= len(items) <= size, execution
            assert len({key for key, _ in items}) == 1, execution


def _assert_last_ones_won(evidence: Evidence, debounced: Sequence[tuple[Handle[int], int]]) -> None:
    """Each execution has the last of all that joined it, and there is one for each that joined none."""
    joined: dict[str, list[int]] = defaultdict(list)
    for handle, number in debounced:
        joined[handle.id].append(number)
    assert sum(handle.created for handle, _ in debounced) == len(joined) < len(debounced)
    found = {
        id: from_json(each.row.result or b"null")
        for id, each in evidence.stored.items()
        if each.row.workflow == "settled"
    }
    assert found == {id: max(numbers) for id, numbers in joined.items()}


def _assert_paced(evidence: Evidence, late: int) -> int:
    """In their order but for so many that are late, and never too many in any window; how many could be looked at."""
    # One that was lost with its first owner is ready anew since then. Of all others that is since they passed.
    passed = sorted(
        (from_json(each.row.input), each.row.available_at)
        for each in evidence.stored.values()
        if each.row.workflow == "paced" and each.row.available_at <= (each.row.started_at or 0)
    )
    instants: list[int] = []
    for _, at in reversed(passed):
        if not instants or at <= instants[-1]:
            instants.append(at)
    instants.reverse()
    assert len(passed) - len(instants) <= late
    most = PACE.limit + PACE.burst
    assert all(
        last - first >= to_ms(PACE.per) - 1 for first, last in zip(instants, instants[most:], strict=False)
    )
    return len(instants)
