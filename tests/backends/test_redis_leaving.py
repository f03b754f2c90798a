"""Leaving while Redis is away: it takes no longer than a call waits for the server, and a hurry takes no time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import pytest

from durable import Context, Durable, workflow
from durable.backends.redis.wire import PATIENCE_S
from tests.brokers.fixtures import StartRedis
from tests.brokers.redis_server import RedisServer
from tests.support import until

pytestmark = pytest.mark.anyio

HURRIED_S = 2.0


@pytest.fixture
def server(private_redis: StartRedis) -> RedisServer:
    return private_redis(appendonly="yes", appendfsync="always")


@pytest.fixture
async def goes_on() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def node(server: RedisServer, goes_on: asyncio.Event) -> AsyncIterator[Durable]:
    """One that has a step to commit when the server has gone and it `goes_on`."""
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await goes_on.wait()

    @workflow
    async def order(ctx: Context) -> None:
        await ctx.step("first", work)
        await ctx.step("second", lambda: None)

    async with Durable([order], store=server.url, sweep="100ms", lease="2s", drain="100ms") as node:
        await node.start(order)
        await begun.wait()
        yield node


@pytest.mark.parametrize("fault", [RedisServer.pause, RedisServer.kill])
async def test_leaving_a_redis_that_is_away_takes_at_most_one_patience(
    fault: Callable[[RedisServer], None], node: Durable, server: RedisServer, goes_on: asyncio.Event
) -> None:
    fault(server)
    goes_on.set()
    left_at = time.monotonic()
    await node.__aexit__(None, None, None)
    assert time.monotonic() - left_at < PATIENCE_S + 0.5


@pytest.mark.parametrize("fault", [RedisServer.pause, RedisServer.kill])
async def test_stopping_now_does_not_wait_for_a_redis_that_is_away(
    fault: Callable[[RedisServer], None], node: Durable, server: RedisServer, goes_on: asyncio.Event
) -> None:
    fault(server)
    goes_on.set()
    left_at = time.monotonic()
    await node.stop()
    await node.__aexit__(None, None, None)
    assert time.monotonic() - left_at < HURRIED_S


async def test_a_second_signal_ends_the_farewell_to_a_redis_that_is_away(
    node: Durable, server: RedisServer, goes_on: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "durable.worker")
    server.pause()
    goes_on.set()
    leaving = asyncio.create_task(node.__aexit__(None, None, None))
    await until(lambda: "given back" in caplog.text)
    hurried_at = time.monotonic()
    await node.stop()
    await leaving
    assert time.monotonic() - hurried_at < HURRIED_S
    assert caplog.text.count("without a word") == 1
