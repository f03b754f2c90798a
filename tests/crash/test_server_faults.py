"""Servers that are killed, paused and robbed while workers die too: nothing is lost, changed or done twice needlessly.

DURABLE_TEST_SEED=7       the same plan again
DURABLE_TEST_LONG=1       1,000 faults of servers; or as many as DURABLE_TEST_SERVER_FAULTS says
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any, final

import pytest

from tests.brokers.fixtures import StartRedis
from tests.brokers.password import with_password
from tests.brokers.rabbit_node import RabbitNode
from tests.brokers.redis_server import RedisServer
from tests.crash.chaos import Monkey, survives, worth_showing
from tests.crash.fleet import Fleet, Nursery, Site, seed

_IS_LONG = os.environ.get("DURABLE_TEST_LONG") == "1"
WORKERS = 8 if _IS_LONG else 3
WORKER_FAULTS = int(os.environ.get("DURABLE_TEST_KILLS", "5000" if _IS_LONG else "70"))
SERVER_FAULTS = int(os.environ.get("DURABLE_TEST_SERVER_FAULTS", "1000" if _IS_LONG else "16"))

pytestmark = pytest.mark.timeout(200 + 2 * WORKER_FAULTS + 5 * SERVER_FAULTS)


async def test_nothing_is_lost_while_redis_rabbitmq_and_workers_are_ill_treated(
    nursery: Nursery, tmp_path: Any, private_redis: StartRedis, private_rabbit: RabbitNode, namespace: str
) -> None:
    plan = seed()
    redis = private_redis(appendfsync="always")
    site = Site(with_password(redis.url), queue=private_rabbit.url, namespace=namespace)
    fleet = Fleet(nursery, tmp_path, site)
    servers = ServerNemesis(fleet, redis, private_rabbit, random.Random(plan + 2), SERVER_FAULTS)
    workers = Monkey(fleet, random.Random(plan + 1), WORKER_FAULTS, workers=WORKERS)
    wanted = worth_showing(WORKER_FAULTS) | {"server faults": SERVER_FAULTS, "redis killed": 2}
    evidence = await survives(fleet, plan, [servers, workers], wanted)
    print({kind: number for kind, number in evidence.figures.items() if kind.startswith(("redis", "rabbit"))})


@final
class ServerNemesis:
    """Does one thing after another to the servers. Each heals it before the next."""

    def __init__(
        self, fleet: Fleet, redis: RedisServer, rabbit: RabbitNode, chance: random.Random, faults: int
    ) -> None:
        self._fleet = fleet
        self._redis = redis
        self._rabbit = rabbit
        self._chance = chance
        self._queues = [f"{fleet.site.namespace}:q:default:p{band}" for band in range(3)]
        quick: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("redis killed", self._kill_redis),
            ("redis killed", self._kill_redis),
            ("redis paused", self._pause_redis),
            ("redis paused", self._pause_redis),
            ("redis scripts forgotten", lambda: self._ask("SCRIPT FLUSH")),
            ("redis clients killed", lambda: self._ask("CLIENT KILL TYPE normal")),
            ("redis subscribers killed", lambda: self._ask("CLIENT KILL TYPE pubsub")),
            ("rabbitmq paused", self._pause_rabbit),
        ]
        slow: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("rabbitmq connections closed", lambda: rabbit.ctl("close_all_connections", "chaos")),
            ("rabbitmq restarted", self._restart_rabbit),
            ("rabbitmq queues deleted", self._delete_queues),
            ("rabbitmq queues purged", self._purge_queues),
            ("rabbitmq without memory", self._exhaust_rabbit),
            ("rabbitmq wiped", self._wipe_rabbit),
        ]
        # Each of them, and then what chance has it; a call of rabbitmqctl takes a second of a whole core.
        plan = [*quick, *slow]
        plan += chance.choices(quick, k=max(0, faults - len(plan)))
        chance.shuffle(plan)
        self._plan = plan[:faults]

    async def begin(self) -> None:
        pass

    async def run(self) -> None:
        for kind, act in self._plan:
            await asyncio.sleep(self._chance.uniform(0.2, 1.2))
            async with self._fleet.fault(kind):
                await act()

    async def _ask(self, command: str) -> None:
        await asyncio.to_thread(self._redis.ask, command)

    async def _kill_redis(self) -> None:
        await asyncio.to_thread(self._redis.kill)
        await asyncio.sleep(self._chance.uniform(0, 0.5))
        await asyncio.to_thread(self._redis.start)

    async def _pause_redis(self) -> None:
        self._redis.pause()
        try:
            await asyncio.sleep(self._chance.uniform(0.1, 10.0 if _IS_LONG else 2.5))
        finally:
            self._redis.resume()

    async def _pause_rabbit(self) -> None:
        self._rabbit.pause()
        try:
            await asyncio.sleep(self._chance.uniform(0.1, 3.0))
        finally:
            self._rabbit.resume()

    async def _restart_rabbit(self) -> None:
        await self._rabbit.ctl("stop_app")
        await self._rabbit.ctl("start_app")

    async def _wipe_rabbit(self) -> None:
        await self._rabbit.ctl("stop_app")
        await self._rabbit.ctl("force_reset")
        await self._rabbit.ctl("start_app")

    async def _delete_queues(self) -> None:
        for queue in self._queues:
            try:
                await self._rabbit.ctl("delete_queue", queue)
            except AssertionError:
                continue  # not declared yet, or deleted with another fault

    async def _purge_queues(self) -> None:
        for queue in self._queues:
            try:
                await self._rabbit.ctl("purge_queue", queue)
            except AssertionError:
                continue

    async def _exhaust_rabbit(self) -> None:
        await self._rabbit.raise_memory_alarm()
        await self._rabbit.clear_memory_alarm()
