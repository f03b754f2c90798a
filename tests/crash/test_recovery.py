"""What the rig takes for neglect, and what it does not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from tests.crash.evidence import Evidence, Fault
from tests.crash.fleet import Fleet
from tests.crash.recovery import Recovery, Shift, idlers, recoveries, undisturbed
from tests.crash.trace import Claim, Commit, Trace

OWNER, TAKER, OTHER = 1, 2, 3  # processes
OUTAGES = ("redis killed", "redis paused")


def claim(at: float, ver: int, pid: int, crashes: int = 0) -> Claim:
    return Claim("x", f"n{pid}", pid, at - 0.01, at, ver, crashes=crashes)


def recovery(*faults: Fault, taken: Claim, shifts: list[Shift], **more: Any) -> Recovery:
    trace = Trace(claims=[claim(1.0, 0, OWNER), taken], **more)
    evidence = Evidence(trace=trace, faults=faults)
    (found,) = recoveries(evidence, undisturbed(shifts, faults, OUTAGES))
    return found


def test_what_is_lost_is_neglected_while_another_worker_works_in_peace() -> None:
    kill = Fault("kill", OWNER, 2.0, 2.1)
    found = recovery(
        kill,
        taken=claim(12.0, 0, TAKER, 1),
        shifts=[Shift(OWNER, 0, 2), Shift(OTHER, 4, 9), Shift(TAKER, 8, 20)],
    )
    assert (found.seconds, found.neglected, found.losses) == (10.0, 5.0, 1)


def test_nothing_is_neglected_while_the_store_is_away_or_the_worker_is_stopped() -> None:
    faults = [
        Fault("redis paused", 0, 3.0, 6.0),
        Fault("stop", TAKER, 7.0, 10.0),
        Fault("kill", OWNER, 2.0, 2.1),
        Fault("stop", OTHER, 10.5, 11.0),
        Fault("rabbitmq paused", 0, 10.2, 11.8),
    ]
    found = recovery(*faults, taken=claim(12.0, 0, TAKER, 1), shifts=[Shift(TAKER, 0, 20)])
    assert (found.seconds, found.neglected) == (10.0, 2.0)


def test_a_worker_that_has_claimed_something_else_was_not_idle() -> None:
    kill = Fault("kill", OWNER, 2.0, 2.1)
    evidence = Evidence(
        trace=Trace(
            claims=[
                claim(1.0, 0, OWNER),
                claim(12.0, 0, TAKER, 1),
                replace(claim(5.0, 0, OTHER), execution="y"),
            ]
        ),
        faults=[kill],
    )
    (found,) = recoveries(evidence, [Shift(OTHER, 0, 20)])
    assert found.neglected == 7.0


def test_an_owner_whose_claim_nobody_heard_of_was_lost_too() -> None:
    kill = Fault("kill", OWNER, 2.0, 2.1)
    assert recovery(kill, taken=claim(5.0, 0, TAKER, 2), shifts=[]).losses == 2
    progress = Commit("x", "n1", OWNER, 1.5, 0, "n1:0", "run", unheard=1)
    assert recovery(kill, taken=claim(5.0, 1, TAKER, 1), shifts=[], commits=[progress]).losses == 1


def test_what_its_owner_gave_back_was_not_lost() -> None:
    evidence = Evidence(
        trace=Trace(claims=[claim(1.0, 0, OWNER), claim(9.0, 1, TAKER)]),
        faults=[Fault("kill", OWNER, 2.0, 2.1)],
    )
    assert recoveries(evidence, []) == []


def test_a_worker_that_claims_nothing_in_a_whole_truce_is_idle() -> None:
    calm = [Shift(OWNER, 0, 10), Shift(TAKER, 0, 10), Shift(OTHER, 4, 10)]
    assert idlers([claim(5.0, 0, TAKER), claim(2.0, 0, OWNER)], calm, [(3.0, 8.0)]) == [calm[0]]


async def test_in_a_truce_no_fault_begins_and_none_is_under_way(fleet: Fleet) -> None:
    ended = asyncio.Event()
    seen: list[str] = []

    async def harm(name: str) -> None:
        async with fleet.fault(name):
            seen.append(f"{name} begins")
            await ended.wait()
        seen.append(f"{name} ends")

    first = asyncio.create_task(harm("first"))
    await asyncio.sleep(0)
    truce = asyncio.create_task(fleet.truce(0.0))
    await asyncio.sleep(0)
    second = asyncio.create_task(harm("second"))
    await asyncio.sleep(0)
    assert fleet.has_truce
    assert (seen, fleet.truces) == (["first begins"], [])
    ended.set()
    await asyncio.gather(first, truce, second)
    assert seen == ["first begins", "first ends", "second begins", "second ends"]
    first_fault, second_fault = fleet.faults
    ((began, over),) = fleet.truces
    assert first_fault.until <= began <= over <= second_fault.at
