"""Brokers that cannot be used: a typed error, soon, that names the URL without its password, and what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiormq
import pytest

from durable import Context, Durable, workflow
from durable.backends import backend_for
from durable.backends.rabbitmq import RabbitQueue
from durable.backends.rabbitmq.location import Location
from durable.errors import ConfigurationError, QueueUnavailable
from durable.ids import Ids
from durable.protocols import Doorbell, Wanted
from tests.brokers.password import PASSWORD
from tests.brokers.redis_server import free_port

pytestmark = pytest.mark.anyio

WANTED = Wanted(("default",), frozenset({"order@1"}))
ids = Ids()


async def refused(url: str, namespace: str = "shop") -> QueueUnavailable:
    began = time.monotonic()
    with pytest.raises(QueueUnavailable) as refusal:
        await RabbitQueue(Location.parse(url), namespace).open()
    assert time.monotonic() - began < 5
    assert "hunter2" not in str(refusal.value) + refusal.value.hint
    return refusal.value


async def test_nobody_there(namespace: str) -> None:
    error = await refused(f"amqp://ada:hunter2@127.0.0.1:{free_port()}/")
    assert "cannot be reached" in str(error)
    assert "127.0.0.1" in str(error)


async def test_a_server_that_says_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert "does not answer" in str(await refused(f"amqp://ada:hunter2@127.0.0.1:{port}/"))
    server.close()


async def test_a_wrong_password(amqp_url: str) -> None:
    error = await refused(amqp_url.replace(PASSWORD, "hunter2"))
    assert "refuses the user or the password" in str(error)


async def test_a_virtual_host_that_does_not_exist(amqp_url: str) -> None:
    assert "virtual host" in str(await refused(f"{amqp_url}nowhere"))


async def test_a_broker_without_tls(amqp_url: str) -> None:
    assert "TLS" in str(await refused(amqp_url.replace("amqp://", "amqps://")))


async def test_a_queue_with_other_arguments_is_explained(amqp_url: str, namespace: str) -> None:
    connection = await aiormq.connect(amqp_url)
    channel = await connection.channel()
    await channel.queue_declare(f"{namespace}:dead", durable=True)
    error = await refused(amqp_url, namespace)
    assert f"queue {namespace}:dead" in str(error)
    assert "inequivalent arg 'x-" in str(error)
    assert "declare=passive" in error.hint
    await channel.queue_delete(f"{namespace}:dead")
    await connection.close()


async def test_a_work_queue_with_other_arguments_costs_no_start(amqp_url: str, namespace: str) -> None:
    """It is logged, and everything goes on by the sweep."""

    @workflow
    async def order(ctx: Context) -> int:
        return 1

    connection = await aiormq.connect(amqp_url)
    channel = await connection.channel()
    for band in ("p0", "p1", "p2"):
        await channel.queue_declare(f"{namespace}:q:default:{band}", durable=True)
    settings = {"store": f"memory://{namespace}", "queue": amqp_url, "namespace": namespace, "sweep": 0.1}
    async with Durable([order], worker=False, **settings) as client, Durable([order], **settings):
        assert await client.start_and_wait(order, timeout=20) == 1
    for band in ("p0", "p1", "p2"):
        await channel.queue_delete(f"{namespace}:q:default:{band}")
    await connection.close()


async def test_what_is_only_to_be_checked_is_not_created(amqp_url: str, namespace: str) -> None:
    error = await refused(f"{amqp_url}?declare=passive", namespace)
    assert "does not exist" in str(error)
    await RabbitQueue(Location.parse(amqp_url), namespace).open()


async def test_what_others_have_declared_is_used(amqp_url: str, namespace: str) -> None:
    declared = RabbitQueue(Location.parse(amqp_url), namespace)
    await declared.open()
    waiting = asyncio.create_task(declared.receive(WANTED, limit=1))
    declared.ring([bell := Doorbell(ids.execution_id(), "order", "1", "default")])
    assert ids_of(await waiting) == [bell.id]
    await declared.close()
    passive = RabbitQueue(Location.parse(f"{amqp_url}?declare=passive"), namespace)
    await passive.open()
    passive.ring([bell])
    assert ids_of(await passive.receive(WANTED, limit=1)) == [bell.id]
    await passive.close()


def ids_of(deliveries: Sequence[object]) -> list[str]:
    return [delivery.doorbell.id for delivery in deliveries]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url",
    [
        "amqp:///",
        "amqp://host:port/",
        "amqp://host/#x",
        "amqp://ada:hunter2@host/?declare=never",
        "amqp://ada:hunter2@host/?required=yes",
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str) -> None:
    opener = backend_for(url).open_queue
    assert opener is not None
    with pytest.raises(ConfigurationError) as refusal:
        opener(url, namespace="shop", clock=None)  # type: ignore[arg-type]
    assert "hunter2" not in str(refusal.value)
