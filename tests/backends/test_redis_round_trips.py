"""What executions cost on Redis, in commands and in writes: what leaves in one write is at most one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final, cast

import pytest

from durable import Context, Durable, Signal, workflow
from durable.backends.redis.store import RedisStore
from durable.backends.redis.wire import Sent
from tests.brokers.fixtures import StartRedis
from tests.support import CountingStore, World, until

pytestmark = pytest.mark.anyio

NO_POLLS: Final = {"sweep": "1h", "lease": "1h"}
Go = Signal("go")


@workflow
async def plain(ctx: Context, steps: int) -> int:
    for number in range(steps):
        await ctx.step("work", lambda number=number: number)
    return steps


@workflow
async def waits(ctx: Context) -> int:
    await ctx.wait_for_signal(Go)
    return 1


class Counted:
    """A node, and what went out for it."""

    def __init__(self, store: CountingStore, node: Durable) -> None:
        self.store = store
        self.node = node
        self._before = Sent()

    @property
    def sent(self) -> Sent:
        return cast("RedisStore", self.store.within).sent

    async def rests(self) -> None:
        """Come back when nothing runs; asking no store."""
        await until(lambda: self.node.worker.idle and self.node.worker.dispatcher.active == 0)

    async def begins(self) -> None:
        await self.rests()
        self.store.reset()
        self._before = replace(self.sent)

    def since(self) -> Sent:
        return Sent(self.sent.commands - self._before.commands, self.sent.writes - self._before.writes)


@pytest.fixture
async def counted(redis_url: str, namespace: str) -> AsyncIterator[Counted]:
    async with World(redis_url, namespace=namespace) as world:
        store = CountingStore(world.store())
        node = await world.node(plain, waits, store=store, **NO_POLLS)
        counted = Counted(store, node)
        # The scripts are known after this, and the first sweep is over.
        assert await node.start_and_wait(plain, 2, timeout=5) == 2
        handle = await node.start(waits)
        await handle.signal(Go)
        assert await handle.result(5) == 1
        partitions = (await store.capabilities()).partitions
        await until(lambda: store.calls["tick"] >= partitions and store.calls["relay"] >= partitions)
        await counted.begins()
        yield counted


@pytest.mark.parametrize("steps", [1, 5, 20])
async def test_a_start_with_its_claim_is_one_write_and_so_is_each_step(counted: Counted, steps: int) -> None:
    await counted.node.start(plain, steps)
    await until(lambda: counted.store.calls["commit"] == steps)
    await counted.rests()
    calls = +counted.store.calls
    # The end travels with the commit of the last step; each verb is one command.
    assert (calls["create"], calls["claim"], calls["commit"]) == (1, 1, steps)
    assert counted.since() == Sent(commands=2 + steps, writes=1 + steps), calls


async def test_a_wait_that_is_answered_costs_one_write_for_the_signal_and_one_for_the_end(
    counted: Counted,
) -> None:
    handle = await counted.node.start(waits)
    await until(lambda: counted.store.calls["commit"] == 1)
    await counted.begins()
    await handle.signal(Go)
    await until(lambda: counted.store.calls["commit"] == 1)
    await counted.rests()
    calls = +counted.store.calls
    assert (calls["post"], calls["claim"], calls["commit"]) == (1, 1, 1)
    # The claim leaves right behind the signal.
    assert counted.since() == Sent(commands=3, writes=2), calls


async def test_a_sweep_that_finds_nothing_is_three_writes_at_once(redis_url: str, namespace: str) -> None:
    async with World(redis_url, namespace=namespace) as world:
        store = CountingStore(world.store())
        counted = Counted(store, await world.node(plain, store=store, sweep=0.1, lease="1h"))
        partitions = (await store.capabilities()).partitions
        await until(lambda: store.calls["tick"] > 2 * partitions)
        await counted.begins()
        await until(lambda: store.calls["tick"] >= 5 * partitions)
        calls = +store.calls
        # Leases and ticks; outboxes, begun in the next turns of the loop: all under way together.
        assert counted.since().writes <= 3 * (calls["live"] + 1), calls


async def test_a_burst_that_finds_its_script_unknown_sends_the_source_once(
    private_redis: StartRedis, namespace: str
) -> None:
    server = private_redis()
    async with World(server.url, namespace=namespace) as world:
        node = await world.node(plain, **NO_POLLS)
        await asyncio.to_thread(server.ask, "SCRIPT FLUSH")
        await asyncio.to_thread(server.ask, "CONFIG RESETSTAT")
        handles = await asyncio.gather(*(node.start(plain, 1) for _ in range(200)))
        assert await asyncio.gather(*(handle.result(5) for handle in handles)) == [1] * 200
        stats = await asyncio.to_thread(server.ask, "INFO commandstats")
    asked = next(line for line in stats.split() if line.startswith("cmdstat_eval:"))
    assert int(asked.partition("calls=")[2].partition(",")[0]) <= 8, stats
