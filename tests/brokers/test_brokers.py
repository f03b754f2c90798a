"""The test brokers themselves: they answer, may be ill-treated, and end with the run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import pytest
import redis.asyncio as redis
from aio_pika.abc import AbstractConnection

from tests.brokers.fixtures import StartRedis
from tests.brokers.rabbit_node import RabbitNode
from tests.brokers.redis_server import RedisServer
from tests.brokers.run import Run, runs


@asynccontextmanager
async def client(url: str, **options: object) -> AsyncIterator["redis.Redis"]:
    connection = redis.from_url(url, **options)
    try:
        yield connection
    finally:
        await connection.aclose()


async def test_redis_keeps_what_it_is_given(redis_url: str, namespace: str) -> None:
    async with client(redis_url) as connection:
        await connection.set(namespace, "kept")
        assert await connection.get(namespace) == b"kept"
        info = await connection.info("persistence")
        assert info["aof_enabled"] == 1


async def test_a_redis_killed_and_started_again_has_its_data(private_redis: StartRedis) -> None:
    server = private_redis(appendfsync="always")
    async with client(server.url) as connection:
        await connection.set("a", "1")
    server.restart()
    async with client(server.url) as connection:
        assert await connection.get("a") == b"1"


async def test_a_paused_redis_says_nothing(private_redis: StartRedis) -> None:
    server = private_redis()
    async with client(server.url, socket_timeout=0.1) as connection:
        server.pause()
        with pytest.raises(redis.TimeoutError):
            await connection.ping()
        server.resume()
        assert await connection.ping()


async def test_redis_with_tls_and_a_password(private_redis: StartRedis) -> None:
    server = private_redis(tls=True, requirepass="hush")
    async with client(server.url) as connection:
        assert await connection.ping()


async def test_the_cluster_serves_every_slot(redis_cluster_url: str, namespace: str) -> None:
    host, _, port = redis_cluster_url.rpartition("@")[2].partition(",")[0].partition(":")
    cluster = redis.RedisCluster(host=host, port=int(port))
    async with cluster:
        await asyncio.gather(*(cluster.set(f"{namespace}{number}", number) for number in range(50)))
        assert len(cluster.get_primaries()) == 3


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AbstractConnection]:
    connection = await aio_pika.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_rabbitmq_keeps_a_quorum_queue(amqp_url: str, namespace: str) -> None:
    async with connected(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(namespace, durable=True, arguments={"x-queue-type": "quorum"})
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), routing_key=namespace)
        message = await queue.get(timeout=5)
        assert message is not None
        assert message.body == b"hello"
        await message.ack()
        await queue.delete(if_unused=False, if_empty=False)


async def test_a_rabbitmq_closes_its_connections_when_told(private_rabbit: RabbitNode) -> None:
    async with connected(private_rabbit.url) as connection:
        closed = asyncio.Event()
        connection.close_callbacks.add(lambda *_: closed.set())
        await private_rabbit.ctl("close_all_connections", "a test")
        await asyncio.wait_for(closed.wait(), 5)


async def test_a_rabbitmq_is_killed_and_started_again(private_rabbit: RabbitNode) -> None:
    private_rabbit.kill()
    private_rabbit.start()
    private_rabbit.wait()
    async with connected(private_rabbit.url) as connection:
        assert not connection.is_closed


def test_servers_that_are_ended_leave_no_process_and_no_file(broker_run: Run) -> None:
    servers = broker_run.servers("mine")
    server = RedisServer(servers)
    servers.end()
    assert not runs(server.pid)
    assert not servers.directory.exists()
