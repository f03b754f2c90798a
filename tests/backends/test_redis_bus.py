"""Hints over Redis: the contract, on a server and on a cluster, and what a lossy connection does to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest
from typing_extensions import override

from durable.backends.redis.bus import RedisBus
from durable.backends.redis.location import Location
from durable.errors import StoreUnavailable
from durable.protocols import ALL_TOPICS, EventBus, execution_topic
from durable.testing import BusContract
from durable.testing.contracts.bus import Ear
from tests.brokers.fixtures import StartRedis
from tests.brokers.redis_server import RedisServer
from tests.proxy import Proxy
from tests.support import until

pytestmark = pytest.mark.anyio


async def opened(stack: AsyncExitStack, url: str, namespace: str) -> RedisBus:
    bus = RedisBus(Location.parse(url), namespace)
    await bus.open()
    stack.push_async_callback(bus.close)
    return bus


class OverRedis(BusContract):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url

    @override
    @pytest.fixture
    async def peers(self, url: str, namespace: str) -> AsyncIterator[Sequence[EventBus]]:
        async with AsyncExitStack() as stack:
            yield [await opened(stack, url, namespace) for _ in range(3)]

    @pytest.fixture
    def bus(self, peers: Sequence[EventBus]) -> EventBus:
        return peers[0]


class TestRedisBus(OverRedis):
    pass


class TestRedisClusterBus(OverRedis):
    @override
    @pytest.fixture
    def url(self, redis_cluster_url: str) -> str:
        return redis_cluster_url


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def server(private_redis: StartRedis) -> RedisServer:
    return private_redis()


async def test_namespaces_and_databases_of_one_server_do_not_hear_each_other(
    redis_url: str, namespace: str, stack: AsyncExitStack
) -> None:
    ours = await opened(stack, redis_url, namespace)
    others = [
        await opened(stack, redis_url, f"{namespace}-2"),
        await opened(stack, redis_url.removesuffix("/0") + "/1", namespace),
    ]
    ears = [Ear() for _ in others]
    for other, ear in zip(others, ears, strict=True):
        await other.subscribe("t", ear)
    ours.publish(["t", ALL_TOPICS])
    for other in others:
        last = Ear()
        await other.subscribe("last", last)
        await last.hears(lambda other=other: other.publish(["last"]))  # type: ignore[misc]
    assert [ear.heard for ear in ears] == [0, 0]


async def test_a_topic_costs_no_round_trip(
    server: RedisServer, namespace: str, stack: AsyncExitStack
) -> None:
    bus = await opened(stack, server.url, namespace)
    before = _commands(server)
    ears = [Ear() for _ in range(10_000)]
    subscriptions = [await bus.subscribe(execution_topic(str(index)), ear) for index, ear in enumerate(ears)]
    bus.publish([execution_topic("7")])
    for subscription in subscriptions:
        subscription.close()
    assert ears[7].heard == 1
    assert _commands(server) - before <= 2  # the message, and this question


async def test_the_hints_of_one_turn_are_one_message(
    server: RedisServer, namespace: str, stack: AsyncExitStack
) -> None:
    one, other = [await opened(stack, server.url, namespace) for _ in range(2)]
    ears = [Ear() for _ in range(100)]
    for index, ear in enumerate(ears):
        await other.subscribe(f"t{index}", ear)
    before = _commands(server)
    for index in range(100):
        one.publish([f"t{index}"])
    await ears[-1].listen()
    assert all(ear.heard == 1 for ear in ears)
    assert _commands(server) - before <= 2


async def test_everybody_is_hinted_when_a_connection_that_was_cut_is_back(
    server: RedisServer, namespace: str, stack: AsyncExitStack
) -> None:
    one, other = [await opened(stack, server.url, namespace) for _ in range(2)]
    ears = [Ear(), Ear()]
    await one.subscribe("a", ears[0])
    await other.subscribe("b", ears[1])
    server.ask("CLIENT KILL TYPE pubsub")
    for ear in ears:
        await ear.listen()
    await ears[1].hears(lambda: one.publish(["b"]))


async def test_everybody_is_hinted_when_a_connection_that_went_silent_is_replaced(
    redis_url: str, namespace: str, stack: AsyncExitStack
) -> None:
    proxy = await stack.enter_async_context(Proxy.to(redis_url))
    bus = await opened(stack, proxy.url, namespace)
    ear = Ear()
    await bus.subscribe("t", ear)
    proxy.half_open()
    await ear.listen()


async def test_without_a_server_hints_stay_in_the_process_and_go_out_when_it_is_back(
    server: RedisServer, namespace: str, stack: AsyncExitStack
) -> None:
    one, other = [await opened(stack, server.url, namespace) for _ in range(2)]
    here, there, later = Ear(), Ear(), Ear()
    await one.subscribe("t", here)
    await other.subscribe("t", there)
    server.kill()
    await until(lambda: one.is_connected is False and other.is_connected is False)
    await one.subscribe("later", later)
    one.publish(["t", "later"])
    assert (here.heard, later.heard, there.heard) == (1, 1, 0)
    server.start()
    await there.listen()
    await there.hears(lambda: one.publish(["t"]))


async def test_many_hints_without_a_server_become_one_for_all(
    server: RedisServer, namespace: str, stack: AsyncExitStack
) -> None:
    bus = await opened(stack, server.url, namespace)
    server.kill()
    await until(lambda: not bus.is_connected)
    bus.publish(execution_topic(str(index)) for index in range(200_000))
    assert bus.pending <= 10_002


async def test_a_bus_that_finds_nothing_raises_and_can_be_opened_later(
    server: RedisServer, namespace: str
) -> None:
    server.kill()
    bus = RedisBus(Location.parse(server.url), namespace)
    with pytest.raises(StoreUnavailable, match="the Redis at"):
        await bus.open()
    with pytest.raises(StoreUnavailable, match="not open"):
        await bus.subscribe("t", Ear())
    server.start()
    await bus.open()
    ear = Ear()
    await bus.subscribe("t", ear)
    bus.publish(["t"])
    assert ear.heard == 1
    await bus.close()


async def test_a_user_who_may_not_subscribe_is_told_so(server: RedisServer, namespace: str) -> None:
    server.ask("ACL SETUSER guest on >secret +@all ~* resetchannels")
    location = Location.parse(server.url.replace("redis://", "redis://guest:secret@"))
    with pytest.raises(StoreUnavailable, match="NOPERM") as refused:
        await RedisBus(location, namespace).open()
    assert "ACL SETUSER" in refused.value.hint
    assert "secret" not in str(refused.value)


async def test_what_is_not_from_a_bus_is_passed_over(
    server: RedisServer, namespace: str, stack: AsyncExitStack
) -> None:
    bus = await opened(stack, server.url, namespace)
    ear = Ear()
    await bus.subscribe("t", ear)
    for garbage in ('""', r'"\xff\xfe\x00"', '"no topics"', r'"\n\n\n"'):
        assert server.ask(f"PUBLISH {namespace}:0:hints {garbage}") == ":1\r\n"
    await ear.hears(lambda: bus.publish(["t"]))


def _commands(server: RedisServer) -> int:
    info = server.ask("INFO stats")
    (line,) = [line for line in info.splitlines() if line.startswith("total_commands_processed:")]
    return int(line.partition(":")[2])
