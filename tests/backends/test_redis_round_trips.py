"""What executions cost on Redis, in commands and in writes: what leaves in one write is at most one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final, cast

import pytest

from durable import Context, Durable, Signal, workflow
from durable.backends.redis import scripts
from durable.backends.redis.store import RedisStore
from durable.backends.redis.wire import Sent
from tests.brokers.fixtures import StartRedis
from tests.brokers.redis_server import RedisServer, cluster_url
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


@workflow
async def raises(ctx: Context, children: int) -> int:
    return sum(await ctx.gather(*(ctx.run(plain, 1) for _ in range(children))))


@workflow
async def sleeps(ctx: Context) -> int:
    await ctx.sleep(0.05)
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
        node = await world.node(plain, waits, raises, sleeps, store=store, **NO_POLLS)
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


async def test_a_result_that_comes_from_here_costs_no_command(counted: Counted) -> None:
    assert await counted.node.start_and_wait(plain, 1, timeout=5) == 1
    await counted.rests()
    assert counted.since() == Sent(commands=3, writes=2), +counted.store.calls


async def test_a_child_among_many_costs_three_commands(counted: Counted) -> None:
    """Its start, its claim and its end; and its share of what they have in common, as word of the ends to their parent:
    a command or two for each write, of which there are more when the machine is busy and less goes together."""
    assert await counted.node.start_and_wait(raises, 20, timeout=5) == 20
    await counted.rests()
    sent = counted.since()
    assert sent.commands - sent.writes <= 20 * 3 + 5, sent
    assert sent.writes <= 30, sent


async def test_a_sleep_costs_a_look_at_each_partition(counted: Counted) -> None:
    partitions = (await counted.store.capabilities()).partitions
    handle = await counted.node.start(sleeps)
    assert await handle.result(5) == 1
    await counted.rests()
    sent, calls = counted.since(), +counted.store.calls
    # A look for what is due, another where something was, and the queue's for what is ready; the timer, and its letter.
    assert sent.commands <= calls["tick"] + calls["due"] + 10, (sent, calls)
    assert calls["tick"] <= 3 * partitions, calls
    assert sent.writes <= 14, (sent, calls)


async def test_a_sweep_that_finds_nothing_is_one_write(redis_url: str, namespace: str) -> None:
    async with World(redis_url, namespace=namespace) as world:
        store = CountingStore(world.store())
        counted = Counted(store, await world.node(plain, store=store, sweep=0.1, lease="1h"))
        partitions = (await store.capabilities()).partitions
        await until(lambda: store.calls["tick"] > 2 * partitions)
        await counted.begins()
        await until(lambda: store.calls["tick"] >= 5 * partitions)
        calls = +store.calls
        # The queue's look for what is ready, leases, ticks and outboxes: 3 for each partition, and one.
        assert counted.since().writes <= calls["live"] + 1, calls
        assert all(calls[verb] >= 4 * partitions for verb in ("due", "relay", "tick")), calls


async def test_a_server_is_told_every_script_before_it_is_asked_to_run_one(
    private_redis: StartRedis, namespace: str
) -> None:
    server = private_redis()
    async with World(server.url, namespace=namespace) as world:
        node = await world.node(plain, waits, **NO_POLLS)
        handle = await node.start(waits)
        await handle.signal(Go)
        assert await handle.result(5) == 1
        assert await node.start_and_wait(plain, 2, timeout=5) == 2
        stats = await asyncio.to_thread(server.ask, "INFO everything")
    assert "cmdstat_evalsha:" in stats
    assert "cmdstat_eval:" not in stats
    assert "NOSCRIPT" not in stats


async def test_each_master_of_a_cluster_is_told_every_script(
    private_redis_cluster: list[RedisServer], namespace: str
) -> None:
    url = cluster_url([server.port for server in private_redis_cluster])
    async with World(url, namespace=namespace) as world:
        await world.node(plain, **NO_POLLS)
        shas = " ".join(script.sha for script in scripts.ALL)
        for server in private_redis_cluster:
            known = await asyncio.to_thread(server.ask, f"SCRIPT EXISTS {shas}")
            assert known.split()[1:] == [":1"] * len(scripts.ALL)


async def test_who_may_not_load_scripts_brings_each_along(private_redis: StartRedis, namespace: str) -> None:
    server = private_redis()
    server.ask("ACL SETUSER guest on >canary ~* &* +@all -script")
    url = server.url.replace("redis://", "redis://guest:canary@")
    async with World(url, namespace=namespace) as world:
        node = await world.node(plain, **NO_POLLS)
        assert await node.start_and_wait(plain, 2, timeout=5) == 2


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
