"""Executions that flow control holds back cost nobody else anything, however many they are.

What a call costs is counted inside the store: the instructions of SQLite's virtual machine, the time for which Redis
ran commands, the opcodes of the memory store. Of several equal calls the cheapest counts, and is held against one at a
store in which twenty are held.

DURABLE_TEST_LONG=1       100,000 held, or as many as DURABLE_TEST_HELD says
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol, final

import pytest
import redis

from durable.backends import backend_for
from durable.clock import SystemClock
from durable.models import ExecutionStatus
from durable.protocols import Close, Committed, DurableStore, Gate, GateKind
from durable.testing.contracts.store.acts import HELD, LATER, WANTED, Owner, create, ids, new, own, partitions
from tests.brokers.fixtures import StartRedis

_IS_LONG = os.environ.get("DURABLE_TEST_LONG") == "1"
FEW: Final = 20
MANY: Final = int(os.environ.get("DURABLE_TEST_HELD", "100000" if _IS_LONG else "800"))
MOST: Final = 1.5
_LOOKS: Final = 3

DONE = Close(ExecutionStatus.COMPLETED, b"")
SLOTS = Gate("order/slots", "held", GateKind.SLOTS, 1, keeps=True)
RATE = Gate("order/rate", "held", GateKind.RATE, 1, LATER)


class Meter(Protocol):
    """Tells what calls of a store cost."""

    unit: str
    times: int
    """How often to make a call until the least that it costs is known well enough."""
    blur: int
    """By how much that may still differ."""

    def total(self) -> int:
        """Of all so far."""
        ...


@final
class Instructions:
    """Of all connections of SQLite that were opened since it was made."""

    unit, times, blur = "instructions", 5, 0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._number = 0
        connect = sqlite3.connect

        def counted(*args: Any, **options: Any) -> sqlite3.Connection:
            db = connect(*args, **options)
            db.set_progress_handler(self._count, 1)
            return db

        monkeypatch.setattr(sqlite3, "connect", counted)

    def _count(self) -> int:
        self._number += 1
        return 0

    def total(self) -> int:
        return self._number


@final
class ServerTime:
    """For which a Redis that nobody else uses has run commands."""

    unit, times, blur = "us", 40, 30

    def __init__(self, url: str) -> None:
        self._connection = redis.Redis.from_url(url)

    def total(self) -> int:
        stats: dict[str, dict[str, int]] = self._connection.info("commandstats")
        return sum(
            stat["usec"] for name, stat in stats.items() if name.partition("_")[2].startswith(_CALLS_OF_REDIS)
        )

    def close(self) -> None:
        self._connection.close()


_CALLS_OF_REDIS: Final = ("evalsha", "zrange", "zcount", "zcard", "hgetall", "hget")
"""What the store sends. What a script calls is counted again by itself, here as there."""


@final
class Opcodes:
    """That this thread has run, while it was told to count."""

    unit, times, blur = "opcodes", 5, 0

    def __init__(self) -> None:
        self._number = 0

    def __enter__(self) -> Opcodes:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._number += event == "opcode"
        return self._trace

    def total(self) -> int:
        return self._number


# ---- what is done


Call = Callable[["Site"], Awaitable[object]]


@final
class Site:
    """A store at which many are held back."""

    def __init__(self, store: DurableStore) -> None:
        self.store = store
        self.owners: dict[str, Owner] = {}
        """The holder of the slot that the others wait for, and the last that was claimed besides."""
        self.made = ""
        self.keys = 0

    async def fill(self, number: int) -> None:
        """One holds a slot, one has passed a rate of one in ten minutes; so many wait at the one and at the other."""
        for gate in (SLOTS, RATE):
            self.owners[gate.rule] = await own(self.store, await create(self.store, gates=[gate]))
            for first in range(0, number, 100):
                await asyncio.gather(*[self.start(gate) for _ in range(min(100, number - first))])

    async def start(self, *gates: Gate) -> None:
        answer = await self.store.create(new(gates=gates), op_id=ids.nonce())
        self.made = answer.id

    async def start_of_another_key(self) -> None:
        self.keys += 1
        await self.start(Gate(SLOTS.rule, f"key {self.keys}", GateKind.SLOTS, 1))

    async def claim(self) -> None:
        self.owners[""] = await own(self.store, self.made)

    async def end(self, rule: str = "") -> Committed:
        owner = self.owners[rule]
        answer = await owner.send(owner.batch(DONE))
        assert isinstance(answer, Committed), answer
        return answer

    async def hand_on(self) -> None:
        """The holder ends, and the next in line is claimed."""
        [bell] = (await self.end(SLOTS.rule)).doorbells
        self.owners[SLOTS.rule] = await own(self.store, bell.id)

    async def due(self) -> None:
        for part in await partitions(self.store):
            await self.store.due(part, WANTED, limit=100, again_ms=0)

    async def tick(self) -> None:
        for part in await partitions(self.store):
            await self.store.tick(part, live=HELD, limit=100)


WORK: Final[dict[str, Call]] = {
    "start of another key": Site.start_of_another_key,
    "its claim": Site.claim,
    "its end": Site.end,
    "start without a key": Site.start,
    "claim of it": Site.claim,
    "end of it": Site.end,
    "start of the held key": lambda site: site.start(SLOTS),
    "start at the throttle": lambda site: site.start(RATE),
    "handing on of the slot": Site.hand_on,
    "due": Site.due,
    "tick": Site.tick,
}
"""What clients and workers do all the time. Each in its turn, and again from the first on."""

LOOKS: Final[dict[str, Call]] = {
    "gate": lambda site: site.store.gate(SLOTS.name),
    "gates": lambda site: site.store.gates(),
    "depths": lambda site: site.store.depths(),
    "counts": lambda site: site.store.counts(),
}
"""What an operator asks now and then, and what may count all that is held."""


async def compare(few: Site, many: Site, meter: Meter) -> None:
    """The least that each call costs, at the one site and at the other."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for turn in range(meter.times):
        for name, call in {**WORK, **(LOOKS if turn < _LOOKS else {})}.items():
            for site, costs in zip((few, many), found.setdefault(name, ([], [])), strict=True):
                before = meter.total()
                await call(site)
                costs.append(meter.total() - before)
    least = {name: (min(one), min(other)) for name, (one, other) in found.items()}
    lines = {
        name: f"{name}: {one} {meter.unit} beside {FEW}, {other} beside {MANY:,}: {other / max(one, 1):.2f}"
        for name, (one, other) in least.items()
    }
    print("\n".join(lines.values()))
    assert not [lines[name] for name in WORK if least[name][1] > MOST * least[name][0] + meter.blur]


@asynccontextmanager
async def opened(url: str, namespace: str = "default") -> AsyncIterator[DurableStore]:
    opener = backend_for(url).open_store
    assert opener is not None
    store: DurableStore = opener(url, namespace=namespace, clock=SystemClock())
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_what_is_held_back_costs_others_nothing_in_memory() -> None:
    async with opened("memory://") as one, opened("memory://") as other:
        few, many = Site(one), Site(other)
        await few.fill(FEW)
        await many.fill(MANY)
        with Opcodes() as meter:
            await compare(few, many, meter)


async def test_what_is_held_back_costs_others_nothing_on_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Instructions(monkeypatch)
    few_at, many_at = (f"sqlite:///{tmp_path / name}.db?synchronous=normal" for name in ("few", "many"))
    async with opened(few_at) as one, opened(many_at) as other:
        few, many = Site(one), Site(other)
        await few.fill(FEW)
        await many.fill(MANY)
        await compare(few, many, meter)


async def test_what_is_held_back_costs_others_nothing_on_redis(private_redis: StartRedis) -> None:
    url = private_redis().url
    async with opened(url, "few") as one, opened(url, "many") as other:
        few, many = Site(one), Site(other)
        await few.fill(FEW)
        await many.fill(MANY)
        with closing(ServerTime(url)) as meter:
            await compare(few, many, meter)
