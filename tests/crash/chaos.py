"""Chaos: what happens to a fleet while the world around it goes on, and how both are held against each other."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from pydantic_core import to_json

from durable import Durable, ExecutionStatus, Handle, Operator
from durable.engine.operator_acts import EDIT_STEP, PAUSE, RESUME, RETRY, SKIP_STEP
from durable.errors import (
    DurableError,
    ExecutionClosed,
    ExecutionEnded,
    InvalidInput,
    OutcomeUnknown,
    StoreUnavailable,
    WrongStatus,
)
from tests.crash import workflows
from tests.crash.evidence import Ack, Evidence
from tests.crash.fleet import Fleet, Node, NodeGone, spread, until_all_ended
from tests.crash.invariants import violations
from tests.crash.ledger import digest
from tests.crash.recovery import Shift, idlers, recoveries
from tests.crash.workflows import Approved, Basket, Broken, Item, Job, Mending

LEAST_EXECUTIONS = 100
LEASE, SWEEP, DRAIN = 1.5, 0.3, 0.3
ALLOWANCE = 2.0
NEGLECT = LEASE + 2 * SWEEP + SWEEP + ALLOWANCE
"""How long a worker that nothing disturbs, and that has no other work, may leave alone what another has lost: until the
lease has run out, two sweeps have found it, and a doorbell that got lost is rung again (I17); and what a connection
that is made anew and a machine that is busy may add to that."""
_BEFORE_TRUCES_S, _BETWEEN_TRUCES_S = 10.0, 30.0
_LEFT_IN_PEACE = 2
_BETWEEN_STARTS_S = 0.25
_HEALED_S = 60.0
_MENDED_S = 120.0


class Nemesis(Protocol):
    """Does harm, until it has done enough."""

    async def begin(self) -> None:
        """Make ready for `run`."""
        ...

    async def run(self) -> None:
        """Come back when all is done, and everything works again."""
        ...


async def survives(
    fleet: Fleet, plan: int, nemeses: Sequence[Nemesis], wanted: Mapping[str, int]
) -> Evidence:
    """Run a fleet through it all, and assert that nothing was lost, changed, or done again without need.

    `wanted` is what has to happen for the run to show anything (I19); `plan` is its seed.
    """
    print(f"DURABLE_TEST_SEED={plan}, in {fleet.directory}")
    began = time.monotonic()
    async with fleet.client() as client:
        outside = Outside(client, fleet, random.Random(plan))
        for nemesis in nemeses:
            await nemesis.begin()
        chaos = asyncio.gather(*(nemesis.run() for nemesis in nemeses))
        truces = asyncio.create_task(_truces(fleet))
        try:
            await outside.run(until=chaos.done)
            await chaos
        finally:
            chaos.cancel()
            truces.cancel()
            await asyncio.gather(chaos, truces, return_exceptions=True)
        healed = time.monotonic()
        await until_all_ended(client, within=_HEALED_S)
        settled = time.monotonic() - healed
        await outside.read_results()
    fleet.end()

    evidence = await fleet.evidence(wanted=wanted)
    calm = fleet.calm()
    recovered = recoveries(evidence, calm)
    print(
        f"{evidence.figures['kill']} kills, {evidence.figures['stop']} stops, {evidence.figures['term']} drains; "
        f"settled {settled:.1f} s after them, {time.monotonic() - began:.1f} s in all\n"
        f"{len(recovered)} recoveries, after {spread([each.seconds for each in recovered])}; "
        f"of that beside an idle worker {spread([each.neglected for each in recovered])}"
    )
    print(dict(sorted(evidence.figures.items())))
    found = violations(evidence) + outside.surprises(evidence) + neglected(fleet, evidence, calm)
    assert not found, f"DURABLE_TEST_SEED={plan}\n" + "\n".join(found[:50])
    errors = [line for line in fleet.logs().splitlines() if " ERROR durable" in line]
    assert not errors, f"DURABLE_TEST_SEED={plan}\n" + "\n".join(errors[:50])
    return evidence


async def _truces(fleet: Fleet) -> None:
    """Now and then enough of peace to see that all goes on."""
    await asyncio.sleep(_BEFORE_TRUCES_S)
    while True:
        await fleet.truce(NEGLECT + 1.0)  # a worker may have to boot first
        await asyncio.sleep(_BETWEEN_TRUCES_S)


def neglected(fleet: Fleet, evidence: Evidence, calm: Sequence[Shift]) -> list[str]:
    """I17: what a worker has lost goes on when the lease, two sweeps and a poll are over, however many more faults
    there are, as soon as one other worker is left in peace for so long. And no worker that lives is deaf."""
    found = [
        f"I17: {each.execution} was lost, and for {each.neglected:.2f} s nobody had it though a worker was idle"
        for each in recoveries(evidence, calm)
        if each.neglected > NEGLECT * each.losses
    ]
    found += [
        f"I17: process {shift.pid} claimed nothing in a truce, with {shift.ended - shift.began:.1f} s of peace"
        for shift in idlers(evidence.trace.claims, calm, fleet.truces)
    ]
    long = sum(shift.ended - shift.began > NEGLECT for shift in calm)
    if long < _LEFT_IN_PEACE:
        found.append(f"I19: {long} times a worker was left in peace, at least {_LEFT_IN_PEACE} were wanted")
    return found


def worth_showing(faults: int) -> dict[str, int]:
    """What has to happen when workers meet this many faults."""
    return {
        "kills and stops": faults * 4 // 5,
        "kill": faults // 3,
        "stop": faults // 6,
        "takeovers": 10,
        "fenced": 1,
        "repeats": 1,
        "timeouts": 2,
        "signals taken": 10,
        "compensations": 10,
        "children": 10,
        "continued": 3,
        "pause applied": 2,
        "mended": 3,
        "reruns": 1,
        "completed": LEAST_EXECUTIONS // 3,
        "failed": 3,
        "cancelled": 2,
    }


@final
class Monkey:
    """Does to each of a number of workers, in turns of its own, what chance has it."""

    def __init__(self, fleet: Fleet, chance: random.Random, faults: int, *, workers: int) -> None:
        self._fleet = fleet
        self._chances = [random.Random(chance.random()) for _ in range(workers)]
        self._left = faults
        self._nodes: list[Node] = []

    async def begin(self) -> None:
        self._nodes = [self._boot() for _ in self._chances]
        for node in self._nodes:
            await node.ready()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for place, chance in enumerate(self._chances):
                group.create_task(self._torment(place, chance))

    def _boot(self) -> Node:
        return self._fleet.boot(lease=LEASE, sweep=SWEEP, drain=DRAIN)

    async def _torment(self, place: int, chance: random.Random) -> None:
        while self._left > 0:
            if chance.random() < 0.15:  # while it boots, if it does: what it holds by then is its lease
                node = await self._attended(place, chance.uniform(0.05, 0.4))
            else:
                await self._working(place)
                node = await self._attended(place, chance.uniform(0.4, 1.6))
            self._left -= node.is_ready
            what = chance.random()
            if what < 0.56:
                await self._fleet.kill(node)
                self._nodes[place] = self._boot()
            elif what < 0.63:
                await self._fleet.terminate(await self._working(place))
                self._nodes[place] = self._boot()
            else:
                await self._fleet.stop_for(node, chance.uniform(0.1, 1.0) ** 0.5 * 3 * LEASE)
        await self._working(place)

    async def _attended(self, place: int, seconds: float) -> Node:
        """The worker at that place, so many seconds later, but not in a truce."""
        until = time.monotonic() + seconds
        while True:
            if not self._nodes[place].alive:
                self._begin_again(place)
            if time.monotonic() >= until and not self._fleet.has_truce:
                return self._nodes[place]
            await asyncio.sleep(0.05)

    async def _working(self, place: int) -> Node:
        """The worker at that place, as soon as it works."""
        while True:
            try:
                return await self._nodes[place].ready()
            except NodeGone:
                self._begin_again(place)

    def _begin_again(self, place: int) -> None:
        """As a supervisor does, with a worker that ended because the servers were away when it began."""
        node = self._nodes[place]
        if node.is_ready or "Unavailable" not in node.tail():
            raise NodeGone(f"it ended with {node.poll()}:\n{node.tail()}")
        self._nodes[place] = self._boot()


@dataclass(frozen=True)
class Case:
    """An execution that the test started, and how it may end."""

    handle: Handle[Any]
    workflow: str
    may_end: tuple[str, ...]
    payloads: list[str]
    """What was sent to it and accepted, in order, where the result holds it."""
    given: dict[int, str] = field(default_factory=dict[int, str])
    """What an operator gave it, by its place in the result."""


@final
class Outside:
    """The world around the workers: starts executions, sends signals, cancels, and remembers what it was told."""

    def __init__(self, client: Durable, fleet: Fleet, chance: random.Random) -> None:
        self._client = client
        self._fleet = fleet
        self._chance = chance
        self._cases: list[Case] = []
        self._started = -1

    async def run(self, until: Callable[[], bool]) -> None:
        """Start executions, one after the other, until the faults are over."""
        kinds: list[Callable[[int], Coroutine[Any, Any, None]]] = [
            self._order,
            self._order,
            self._cancelled_order,
            self._trip,
            self._fan,
            self._family,
            self._collect,
            self._stubborn,
            self._slow,
        ]
        async with asyncio.TaskGroup() as group:
            while self._started + 1 < LEAST_EXECUTIONS or not until():
                n = self._started = self._started + 1
                kind = kinds[n] if n < len(kinds) else self._chance.choice(kinds)
                group.create_task(kind(n))
                await asyncio.sleep(_BETWEEN_STARTS_S * self._chance.uniform(0.2, 1.8))

    # ---- kinds of executions

    async def _order(self, n: int) -> None:
        """Approved early, in time or never; and paused by an operator, while its steps run or while it waits."""
        patience = 30.0 if n % 4 else 0.4
        handle = await self._start(n, workflows.order, Job(n, patience), "completed")
        if n % 4 == 0:
            return
        if n % 2:
            await asyncio.sleep(self._chance.uniform(0.0, 1.5))
        if n % 4 == 1:
            await self._stands_still(handle)
        await self._signal(handle, Approved, f"ok{n}", f"k{n}")
        await self._signal(handle, Approved, f"ok{n}", f"k{n}")  # the same again counts once
        if n % 4 == 2:
            await self._stands_still(handle)

    async def _cancelled_order(self, n: int) -> None:
        handle = await self._start(n, workflows.order, Job(n, 60.0), "cancelled")
        await asyncio.sleep(self._chance.uniform(0.0, 2.0))
        await self._insist(lambda: handle.cancel(f"the test's {n}"))
        self._fleet.acks.append(Ack("cancel", handle.id))

    async def _trip(self, n: int) -> None:
        fails = n % 3 != 0
        await self._start(n, workflows.trip, Job(n, fails=fails), "failed" if fails else "completed")

    async def _fan(self, n: int) -> None:
        if n % 2:
            await self._start(n, workflows.fan, Job(n), "completed")
        else:
            await self._broken(n)

    async def _broken(self, n: int) -> None:
        """Fails, is mended by an operator, and is then repeated from its last step."""
        mended: Mending = self._chance.choice(("skip", "edit", "retry"))
        case = await self._case(n, workflows.broken, Broken(n, mended), "completed")
        id = case.handle.id
        await self._reaches(case.handle, ExecutionStatus.FAILED)
        if mended == "skip":
            case.given[1] = f"skipped{n}"
            await self._act(id, SKIP_STEP, lambda: self._operator.skip_step(id, "second", f"skipped{n}"))
        elif mended == "edit":
            case.given[0] = "fit"
            await self._act(id, EDIT_STEP, lambda: self._operator.edit_step_result(id, "first", "fit"))
        else:
            await self._act(id, RETRY, lambda: self._operator.retry(id))
        await self._reaches(case.handle, ExecutionStatus.COMPLETED)
        key = f"job:{n}:again"
        again = await self._insist(lambda: self._operator.rerun(id, "third", key=key))
        self._acked_start(again, "broken", key)
        self._cases.append(Case(again, "broken", ("completed",), [], case.given))

    async def _family(self, n: int) -> None:
        await self._start(n, workflows.family, Job(n, fails=n % 2 == 0), "completed")

    async def _stubborn(self, n: int) -> None:
        await self._start(n, workflows.stubborn, Job(n), "completed")

    async def _slow(self, n: int) -> None:
        """One of its steps is skipped while it runs, or edited when it has ended, if the act comes at the time."""
        case = await self._case(n, workflows.slow, Job(n), "completed")
        id = case.handle.id
        await asyncio.sleep(self._chance.uniform(0.3, 1.2))
        value = f"given{n}"
        if n % 2:
            await self._act(id, EDIT_STEP, lambda: self._operator.edit_step_result(id, "long0", value))
        else:
            await self._act(id, SKIP_STEP, lambda: self._operator.skip_step(id, "long1", value))

    async def _collect(self, n: int) -> None:
        wanted = self._chance.choice((2, 4, 6))
        handle = await self._start(n, workflows.collect, Basket(wanted), "completed")
        payloads = next(case.payloads for case in reversed(self._cases) if case.handle is handle)
        for i in range(wanted):
            if i > 1:
                await asyncio.sleep(self._chance.uniform(0.0, 0.6))
            payload = f"item{n}.{i}"
            await self._signal(handle, Item, payload, payload)
            payloads.append(payload)
            if i % 2:
                await self._signal(handle, Item, payload, payload)

    # ---- what it does

    async def _start(self, n: int, workflow: Any, input: object, *may_end: str) -> Handle[Any]:
        return (await self._case(n, workflow, input, *may_end)).handle

    async def _case(self, n: int, workflow: Any, input: object, *may_end: str) -> Case:
        key = f"job:{n}"
        if n % 5 == 0:  # from two places at once
            handle, other = await asyncio.gather(
                self._insist(lambda: self._client.start(workflow, input, key=key)),
                self._insist(lambda: self._client.start(workflow, input, key=key)),
            )
            self._acked_start(other, workflow.name, key)
        else:
            handle = await self._insist(lambda: self._client.start(workflow, input, key=key))
        self._acked_start(handle, workflow.name, key)
        case = Case(handle, workflow.name, may_end, [])
        self._cases.append(case)
        return case

    def _acked_start(self, handle: Handle[Any], workflow: str, key: str) -> None:
        self._fleet.acks.append(Ack("start", handle.id, workflow, key, created=handle.created))

    async def _signal(self, handle: Handle[Any], signal: Any, payload: str, key: str) -> None:
        try:
            await self._insist(lambda: handle.signal(signal, payload, key=key))
        except ExecutionClosed:
            return
        self._fleet.acks.append(Ack("signal", handle.id, signal.name, key))

    async def _stands_still(self, handle: Handle[Any]) -> None:
        """Paused for a while, by somebody who resumes it until that is known to have been done."""
        id = handle.id
        await asyncio.sleep(self._chance.uniform(0.0, 0.4))
        if await self._act(id, PAUSE, lambda: self._operator.pause(id)):
            await asyncio.sleep(self._chance.uniform(0.0, 1.5))
            await self._act(id, RESUME, lambda: self._operator.resume(id))

    async def _act(self, id: str, verb: str, call: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Whether it was accepted, and not too late for what the execution does."""
        try:
            await self._insist(call)
        except (InvalidInput, WrongStatus):
            return False
        self._fleet.acks.append(Ack("act", id, verb))
        return True

    async def _reaches(self, handle: Handle[Any], status: ExecutionStatus) -> None:
        """Come back when it has this status."""
        deadline = time.monotonic() + _MENDED_S
        while (found := (await self._insist(handle.status)).status) is not status:
            assert time.monotonic() < deadline, f"{handle.id} is {found}, and not {status}"
            await asyncio.sleep(0.1)

    @property
    def _operator(self) -> Operator:
        return self._client.operator

    async def _insist(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Every call carries a key, so that it may be repeated until the store has answered."""
        while True:
            try:
                return await call()
            except (StoreUnavailable, OutcomeUnknown):
                await asyncio.sleep(0.1)

    # ---- how it went

    async def read_results(self) -> None:
        """What callers are told about the ends, while the workers still work."""
        for case in self._cases:
            try:
                await case.handle.result(timeout=0.2)
            except ExecutionEnded:
                pass
            except DurableError as error:
                print(f"{case.workflow} {case.handle.id}: {error}")
                continue
            execution = await case.handle.status()
            value = "" if execution.result is None else digest(to_json(execution.result))
            self._fleet.acks.append(Ack("result", case.handle.id, execution.status, value=value))

    def surprises(self, evidence: Evidence) -> list[str]:
        """Ends that no such execution may have."""
        found = []
        for case in self._cases:
            stored = evidence.stored.get(case.handle.id)
            if stored is None:
                continue
            row = stored.row
            if row.status not in case.may_end:
                found.append(f"{case.workflow} {row.id} ended as {row.status}: {row.error!r}")
            elif case.given and any(
                json.loads(row.result or b"[]")[place] != value for place, value in case.given.items()
            ):
                found.append(f"{case.workflow} {row.id} gave {row.result!r}, was given {case.given}")
            elif case.payloads and row.result != to_json(case.payloads):
                found.append(f"{case.workflow} {row.id} collected {row.result!r}, was sent {case.payloads}")
        return found
