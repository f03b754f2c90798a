"""One connection for many tasks: what leaves together, who gets which answer, and what a lost connection means."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from durable.backends.redis.connect import connect, open_wire
from durable.backends.redis.link import Manners, dial, pack
from durable.backends.redis.location import Endpoint, Location
from durable.backends.redis.replies import Lost
from durable.backends.redis.wire import RedisWire, Script
from durable.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from tests.brokers.fixtures import StartRedis
from tests.brokers.redis_server import RedisServer
from tests.proxy import Proxy
from tests.support import until

pytestmark = pytest.mark.anyio

ECHO = Script("echo", "#!lua flags=no-writes\nreturn ARGV")
ADD_ONCE = Script(
    "add_once",
    """#!lua
if redis.call('HSETNX', KEYS[2], ARGV[1], '1') == 0 then
  return 0
end
redis.call('INCR', KEYS[1])
return 1
""",
)
ADD = Script("add", "#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def opened(stack: AsyncExitStack, url: str) -> RedisWire:
    wire = await open_wire(Location.parse(url))
    stack.push_async_callback(wire.close)
    return wire


@pytest.fixture
async def wire(stack: AsyncExitStack, redis_url: str) -> RedisWire:
    return await opened(stack, redis_url)


@pytest.fixture
def server(private_redis: StartRedis) -> RedisServer:
    """One that keeps what it has answered: with "everysec" it puts off writing while it syncs."""
    return private_redis(appendfsync="always")


# ---- who gets what


async def test_what_a_turn_of_the_loop_asks_leaves_as_one_write(wire: RedisWire, namespace: str) -> None:
    await wire.run(ECHO, [namespace], [])
    commands, writes = wire.sent.commands, wire.sent.writes
    answers = await asyncio.gather(*(wire.run(ECHO, [namespace], [index]) for index in range(500)))
    assert answers == [[str(index).encode()] for index in range(500)]
    assert wire.sent.commands - commands == 500
    assert wire.sent.writes - writes == 1


async def test_a_lone_call_is_one_round_trip(wire: RedisWire, namespace: str) -> None:
    await wire.run(ECHO, [namespace], [])
    before = wire.sent.writes
    for _ in range(10):
        await wire.run(ECHO, [namespace], ["x"])
    assert wire.sent.writes - before == 10


async def test_bytes_and_integers_arrive_as_they_are(wire: RedisWire, namespace: str) -> None:
    payloads = [bytes(range(256)), b"", b"\r\n$-1\r\n*0\r\n", "żółć\n".encode(), b"\xff" * 100_000]
    assert await wire.run(ECHO, [namespace], payloads) == payloads
    numbers = [0, -1, 2**53 - 1, 2**53 + 1, 2**63 - 1, -(2**63)]
    assert await wire.run(ECHO, [namespace], numbers) == [str(number).encode() for number in numbers]


async def test_large_payloads_of_many_tasks_pass(wire: RedisWire, namespace: str) -> None:
    payloads = [bytes([index]) * 2**20 for index in range(40)]
    answers = await asyncio.gather(*(wire.run(ECHO, [namespace], [payload]) for payload in payloads))
    assert answers == [[payload] for payload in payloads]


async def test_a_caller_that_goes_away_leaves_the_answers_of_others_alone(
    wire: RedisWire, namespace: str
) -> None:
    chance = random.Random(7)
    gone = 0
    for turns in range(6):  # cancelled before they start, before they leave, while they are under way
        tasks = [asyncio.create_task(wire.run(ECHO, [namespace], [index])) for index in range(500)]
        for _ in range(turns):
            await asyncio.sleep(0)
        cancelled = [task for task in tasks if not task.done() and chance.random() < 0.5]
        for task in cancelled:
            task.cancel()
        gone += len(cancelled)
        for index, answer in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
            is_gone = tasks[index] in cancelled
            assert isinstance(answer, asyncio.CancelledError) if is_gone else answer == [str(index).encode()]
    assert gone > 500


async def test_the_answer_of_a_server_that_dawdles_is_put_together(
    stack: AsyncExitStack, redis_url: str, namespace: str
) -> None:
    proxy = await stack.enter_async_context(Proxy.to(redis_url))
    wire = await opened(stack, proxy.url)
    proxy.at_once = 7
    asked = [[b"a" * size, size] for size in range(50)]
    answers = await asyncio.gather(*(wire.run(ECHO, [namespace], args) for args in asked))
    assert answers == [[payload, str(size).encode()] for payload, size in asked]


async def test_a_server_that_forgot_its_scripts_is_given_them_again(wire: RedisWire, namespace: str) -> None:
    async def add(times: int) -> None:
        for _ in range(times):
            await wire.run(ADD, [namespace], [1], op_id="-")

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(add(50))
        for _ in range(20):
            await wire.call("SCRIPT", "FLUSH", key=namespace)
            await asyncio.sleep(0)
    assert await wire.call("GET", namespace, key=namespace) == b"1000"


# ---- a lost connection


async def test_a_write_whose_answer_is_lost_is_of_unknown_outcome_and_is_not_sent_again(
    stack: AsyncExitStack, redis_url: str, namespace: str
) -> None:
    proxy = await stack.enter_async_context(Proxy.to(redis_url))
    wire = await opened(stack, proxy.url)
    await wire.run(ADD, [namespace], [1], op_id="first")
    answered = proxy.lose_reply(namespace.encode())
    with pytest.raises(OutcomeUnknown) as unknown:
        await wire.run(ADD, [namespace], [1], op_id="the-op")
    assert answered.is_set()
    assert unknown.value.op_id == "the-op"
    assert await wire.call("GET", namespace, key=namespace) == b"2"


async def test_a_read_whose_answer_is_lost_is_made_again(
    stack: AsyncExitStack, redis_url: str, namespace: str
) -> None:
    proxy = await stack.enter_async_context(Proxy.to(redis_url))
    wire = await opened(stack, proxy.url)
    for _ in range(3):
        proxy.lose_reply(namespace.encode())
        assert await wire.run(ECHO, [namespace], ["x"]) == [b"x"]


async def test_a_read_that_costs_every_connection_is_given_up(redis_url: str, namespace: str) -> None:
    async with Proxy.to(redis_url) as proxy:
        wire = await connect(Location.parse(proxy.url), patience_s=0.3)
        for _ in range(1000):
            proxy.lose_reply(namespace.encode())
        with pytest.raises(StoreUnavailable, match="Redis at"):
            await wire.run(ECHO, [namespace], ["x"])
        assert 2 < proxy.accepted < 50
        await wire.close()


async def test_every_write_under_way_is_told_and_later_ones_find_the_next_connection(
    stack: AsyncExitStack, redis_url: str, namespace: str
) -> None:
    proxy = await stack.enter_async_context(Proxy.to(redis_url))
    wire = await opened(stack, proxy.url)
    unknown = applied = 0
    for _ in range(20):
        calls = [asyncio.create_task(wire.run(ADD, [namespace], [1], op_id=str(n))) for n in range(50)]
        await asyncio.sleep(0)
        proxy.reset()
        for call in calls:
            try:
                await call
                applied += 1
            except OutcomeUnknown:
                unknown += 1
    counted = int(bytes(await wire.call("GET", namespace, key=namespace) or b"0"))  # type: ignore[arg-type]
    assert unknown > 0
    assert applied <= counted <= applied + unknown == 1000


async def test_calls_wait_for_a_server_that_comes_back(
    stack: AsyncExitStack, server: RedisServer, namespace: str
) -> None:
    wire = await opened(stack, server.url)
    await wire.run(ADD, [namespace], [1], op_id="a")
    server.kill()
    with suppress(OutcomeUnknown):  # as long as it is not known that the server is gone
        while True:
            async with asyncio.timeout(0.1):
                await wire.run(ADD, [namespace], [0], op_id="b")
    call = asyncio.create_task(wire.run(ADD, [namespace], [1], op_id="c"))
    await asyncio.sleep(0)
    server.start()
    assert await call == 2


async def test_a_call_does_not_wait_for_ever(server: RedisServer, namespace: str) -> None:
    wire = await connect(Location.parse(server.url), patience_s=0.2)
    server.kill()
    with pytest.raises((StoreUnavailable, OutcomeUnknown)):
        await wire.run(ADD, [namespace], [1], op_id="a")
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await wire.run(ADD, [namespace], [1], op_id="b")
    await wire.close()


async def test_a_server_that_goes_silent_is_given_up(redis_url: str) -> None:
    location = Location.parse(redis_url)
    async with Proxy.to(redis_url) as proxy:
        manners = Manners(location.login, silence_s=0.1, ping_s=0.1)
        link, _ = await dial(Endpoint("127.0.0.1", proxy.port), manners, shown="redis://proxy")
        answer = link.send(pack(("PING",)))
        assert await answer == b"PONG"
        proxy.half_open()
        answer = link.send(pack(("PING",)))
        failure = await answer
        assert isinstance(failure, Lost)
        assert failure.sent
        refused = await link.send(pack(("PING",)))
        assert isinstance(refused, Lost)
        assert not refused.sent


async def test_an_idle_connection_that_died_is_noticed(redis_url: str) -> None:
    async with Proxy.to(redis_url) as proxy:
        manners = Manners(silence_s=0.1, ping_s=0.1)
        link, _ = await dial(Endpoint("127.0.0.1", proxy.port), manners, shown="redis://proxy")
        proxy.half_open()
        await until(lambda: link.is_lost)


async def test_an_op_that_is_repeated_until_it_is_answered_counts_once_whatever_happens(
    stack: AsyncExitStack, server: RedisServer, namespace: str
) -> None:
    proxy = await stack.enter_async_context(Proxy.to(server.url))
    wire = await opened(stack, proxy.url)
    keys = [f"{namespace}:n", f"{namespace}:ops"]
    seen: Counter[str] = Counter()
    made = 0
    is_over = False

    async def keep_adding(task: int) -> None:
        nonlocal made
        number = 0
        while not is_over:
            op_id = f"{task}.{number}"
            try:
                seen[f"fresh {await wire.run(ADD_ONCE, keys, [op_id], op_id=op_id)}"] += 1
                number += 1
                made += 1
            except (OutcomeUnknown, StoreUnavailable) as error:
                seen[error.code] += 1

    async def ill_treat() -> None:
        for _ in range(5):
            proxy.reset()
            await asyncio.to_thread(server.ask, "SCRIPT FLUSH")
            await asyncio.to_thread(server.ask, "CLIENT KILL TYPE normal SKIPME yes")
            await proxy.lose_reply(namespace.encode()).wait()
            server.pause()
            asyncio.get_running_loop().call_later(0.05, server.resume)
            before = made
            await until(lambda before=before: made > before + 100)
            await asyncio.to_thread(server.restart)

    async with asyncio.TaskGroup() as group:
        for task in range(20):
            group.create_task(keep_adding(task))
        await ill_treat()
        is_over = True
    assert await wire.call("GET", keys[0], key=keys[0]) == str(made).encode()
    assert seen["outcome_unknown"] > 0
    assert seen["fresh 0"] > 0, "no repeat found its first try applied: nothing was tested"


async def test_a_stop_of_the_server_costs_a_delay_and_counts_nothing_twice(
    stack: AsyncExitStack, server: RedisServer, namespace: str
) -> None:
    wire = await opened(stack, server.url)
    await wire.run(ADD, [namespace], [0], op_id="-")
    server.pause()
    calls = [asyncio.create_task(wire.run(ADD, [namespace], [1], op_id=str(n))) for n in range(100)]
    asyncio.get_running_loop().call_later(0.5, server.resume)
    await asyncio.gather(*calls)
    assert await wire.call("GET", namespace, key=namespace) == b"100"


async def test_closing_lets_accepted_calls_be_answered(redis_url: str, namespace: str) -> None:
    wire = await open_wire(Location.parse(redis_url))
    calls = [asyncio.create_task(wire.run(ADD, [namespace], [1], op_id=str(n))) for n in range(100)]
    await asyncio.sleep(0)
    await wire.close()
    await wire.close()
    assert sorted(await asyncio.gather(*calls)) == list(range(1, 101))  # type: ignore[type-var]
    with pytest.raises(StoreUnavailable, match="closed"):
        await wire.run(ADD, [namespace], [1])


async def test_what_is_under_way_when_the_server_is_gone_does_not_hold_up_a_close(
    server: RedisServer, namespace: str
) -> None:
    wire = await open_wire(Location.parse(server.url))
    server.kill()
    await until(lambda: _fails_to_connect(server))
    call = asyncio.create_task(wire.run(ADD, [namespace], [1]))
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await wire.close()
        with pytest.raises(StoreUnavailable):
            await call


# ---- a server that refuses


async def test_a_server_that_became_a_replica_is_refused_until_it_is_a_master_again(
    stack: AsyncExitStack, server: RedisServer, namespace: str
) -> None:
    wire = await opened(stack, server.url)
    await wire.run(ADD, [namespace], [1], op_id="a")
    server.ask("REPLICAOF 127.0.0.1 1")
    with pytest.raises(StoreUnavailable, match="READONLY") as refused:
        await wire.run(ADD, [namespace], [1], op_id="b")
    assert "replica" in refused.value.hint
    server.ask("REPLICAOF NO ONE")
    assert await wire.run(ADD, [namespace], [1], op_id="c") == 2


async def test_a_server_without_memory_is_full(
    stack: AsyncExitStack, private_redis: StartRedis, namespace: str
) -> None:
    fill = Script("fill", "#!lua\nreturn redis.call('APPEND', KEYS[1], ARGV[1])")
    wire = await opened(stack, private_redis(maxmemory="3mb").url)

    async def fill_it() -> None:
        while True:
            await wire.run(fill, [namespace], [b"x" * 100_000], op_id="-")

    with pytest.raises(StoreFull, match="maxmemory"):
        await fill_it()
    assert isinstance(await wire.call("STRLEN", namespace, key=namespace), int)


async def test_a_script_that_fails_names_its_error_and_repeats_no_payload(
    wire: RedisWire, namespace: str
) -> None:
    await wire.call("SET", namespace, "no number", key=namespace)
    with pytest.raises(StoreUnavailable, match="not an integer"):
        await wire.run(ADD, [namespace], [1], op_id="a")
    with pytest.raises(StoreUnavailable, match="unknown command 'NOSUCH'") as refused:
        await wire.call("NOSUCH", b"canary", key=namespace)
    assert "canary" not in str(refused.value)


# ---- a server that promises less


async def test_a_server_that_stops_keeping_what_it_is_given_is_reported(
    stack: AsyncExitStack, server: RedisServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "durable.redis")
    wire = await opened(stack, server.url)
    assert wire.grade.grade == "D2"
    (said,) = [record.getMessage() for record in caplog.records]
    assert "is D2: " in said
    assert "AOF on (fsync always)" in said
    server.ask("CONFIG SET appendonly no")
    server.ask("CLIENT KILL TYPE normal SKIPME yes")
    await until(lambda: wire.grade.grade == "D0")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("was D2 and is D0" in warning and "appendonly" in warning for warning in warnings)
    assert await wire.run(ADD, [namespace], [1], op_id="a") == 1


def _fails_to_connect(server: RedisServer) -> bool:
    try:
        server.ask("PING")
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False
