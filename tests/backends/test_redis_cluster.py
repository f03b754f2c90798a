"""A cluster: keys on three masters, slots that move under load, masters that fail; and a master behind Sentinels."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack

import pytest

from durable import Context, Durable, Signal, workflow
from durable.backends.redis.bus import RedisBus
from durable.backends.redis.cluster import slot_of
from durable.backends.redis.connect import open_wire
from durable.backends.redis.location import Location
from durable.backends.redis.wire import RedisWire, Script
from durable.errors import OutcomeUnknown, StoreUnavailable
from durable.testing.contracts.bus import Ear
from tests.brokers.binaries import binaries
from tests.brokers.fixtures import StartRedis
from tests.brokers.redis_server import RedisServer, ask, cluster_url, free_port
from tests.brokers.run import Run
from tests.support import until

pytestmark = pytest.mark.anyio

more = Signal("more", int)
ADD = Script(
    "add",
    """#!lua
if redis.call('HSETNX', KEYS[2], ARGV[1], '1') == 0 then
  return 0
end
return redis.call('INCR', KEYS[1])
""",
)
"""Counts each op_id once: what a verb of the store does, in small."""


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def opened(stack: AsyncExitStack, url: str) -> RedisWire:
    wire = await open_wire(Location.parse(url))
    stack.push_async_callback(wire.close)
    return wire


async def add(wire: RedisWire, tag: str, op_id: str) -> None:
    """As the engine calls: the same again until it is answered."""
    while True:
        try:
            await wire.run(ADD, [f"{{{tag}}}:n", f"{{{tag}}}:ops"], [op_id], op_id=op_id)
        except (OutcomeUnknown, StoreUnavailable):
            await asyncio.sleep(0.05)
        else:
            return


async def counted(wire: RedisWire, tag: str) -> int:
    count = await wire.call("GET", f"{{{tag}}}:n", key=f"{{{tag}}}:n")
    assert isinstance(count, bytes)
    return int(count)


# ---- slots


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("123456789", 12739),
        ("foo", 12182),
        ("{foo}", 12182),
        ("{foo}:bar", 12182),
        ("a{foo}b{bar}", 12182),
        ("ź{żółć}", slot_of("żółć")),
    ],
)
def test_a_key_has_the_slot_of_what_stands_in_its_braces(key: str, slot: int) -> None:
    assert slot_of(key) == slot


def test_braces_that_hold_nothing_are_part_of_the_key() -> None:
    assert slot_of("{}foo") != slot_of("foo")
    assert slot_of("{foo") == slot_of("{foo")
    assert len({slot_of(f"{{ns:p{number:02}}}") for number in range(16)}) == 16


async def test_slots_are_those_of_the_server(redis_cluster_url: str, namespace: str) -> None:
    port = Location.parse(redis_cluster_url).endpoints[0].port
    for key in (namespace, f"{{{namespace}:p01}}:x:a", "{}a", "{a", "a{}{b}", "{{a}}"):
        assert ask(port, f"CLUSTER KEYSLOT {key}") == f":{slot_of(key)}\r\n"


async def test_keys_are_found_on_all_masters_from_any_node(
    stack: AsyncExitStack, redis_cluster_url: str, namespace: str
) -> None:
    nodes = Location.parse(redis_cluster_url).endpoints
    wires = [await opened(stack, f"redis://{node}") for node in nodes]
    for number in range(60):
        await add(wires[number % 3], f"{namespace}:{number}", "op")
    for number in range(60):
        assert await counted(wires[(number + 1) % 3], f"{namespace}:{number}") == 1
    assert len(await wires[0].each("PING")) == 3


async def test_one_turn_of_the_loop_is_one_write_for_each_master(
    stack: AsyncExitStack, redis_cluster_url: str, namespace: str
) -> None:
    wire = await opened(stack, redis_cluster_url)
    tags = [f"{namespace}:{number}" for number in range(300)]
    await asyncio.gather(*(add(wire, tag, "1") for tag in tags))
    before = wire.sent.writes
    await asyncio.gather(*(add(wire, tag, "2") for tag in tags))
    assert wire.sent.writes - before == 3


# ---- slots that move


class Reshard:
    """Moves slots with all their keys, as `redis-cli --cluster reshard` does."""

    def __init__(self, nodes: Sequence[RedisServer]) -> None:
        self._nodes = nodes
        self._ids = [_text(node.ask("CLUSTER MYID")) for node in nodes]

    def owner(self, slot: int) -> int:
        return next(
            number
            for number, node in enumerate(self._nodes)
            if any(first <= slot <= last for first, last in _own_slots(node))
        )

    async def move(self, slot: int, target: int) -> int:
        """How many keys it had."""
        source = self.owner(slot)
        await self.begin(slot, source, target)
        moved = 0
        while keys := await self._keys(slot, source):
            await self.carry(keys, source, target)
            moved += len(keys)
        await self.end(slot, source, target)
        return moved

    async def begin(self, slot: int, source: int, target: int) -> None:
        await self._ask(target, f"CLUSTER SETSLOT {slot} IMPORTING {self._ids[source]}")
        await self._ask(source, f"CLUSTER SETSLOT {slot} MIGRATING {self._ids[target]}")

    async def carry(self, keys: Sequence[str], source: int, target: int) -> None:
        port = self._nodes[target].port
        await self._ask(source, f'MIGRATE 127.0.0.1 {port} "" 0 5000 KEYS {" ".join(keys)}')

    async def end(self, slot: int, source: int, target: int) -> None:
        for number in (target, source):
            await self._ask(number, f"CLUSTER SETSLOT {slot} NODE {self._ids[target]}")
        # A node that does not know of this move yet would undo the next one, if that came at once.
        await until(lambda: len({_epoch(node) for node in self._nodes}) == 1, within=20)

    async def _keys(self, slot: int, source: int) -> list[str]:
        reply = await self._ask(source, f"CLUSTER GETKEYSINSLOT {slot} 1")
        return [line for line in reply.split("\r\n") if line.startswith("{")]

    async def _ask(self, number: int, command: str) -> str:
        reply = await asyncio.to_thread(self._nodes[number].ask, command)
        assert not reply.startswith("-"), (command, reply)
        return reply


async def test_nothing_is_lost_or_doubled_while_slots_move(
    stack: AsyncExitStack, private_redis_cluster: list[RedisServer], namespace: str
) -> None:
    reshard = Reshard(private_redis_cluster)
    wire = await opened(stack, cluster_url([node.port for node in private_redis_cluster]))
    tags = [f"{namespace}:p{number:02}" for number in range(8)]
    made = dict.fromkeys(tags, 0)
    is_over = False

    async def keep_adding(tag: str, task: int) -> None:
        while not is_over:
            await add(wire, tag, f"{task}.{made[tag]}")
            made[tag] += 1

    async with asyncio.TaskGroup() as group:
        for tag in tags:
            # One task for a tag, so that what it has made is what it counts.
            group.create_task(keep_adding(tag, 0))
        for _ in range(3):
            for tag in tags:
                slot = slot_of(f"{{{tag}}}")
                await reshard.move(slot, (reshard.owner(slot) + 1) % 3)
        is_over = True
    for tag in tags:
        assert made[tag] > 10
        assert await counted(wire, tag) == made[tag]


async def test_executions_go_on_while_the_slots_of_their_namespace_move(
    private_redis_cluster: list[RedisServer], namespace: str
) -> None:
    reshard = Reshard(private_redis_cluster)
    url = cluster_url([node.port for node in private_redis_cluster]) + "?partitions=4"
    bodies: Counter[tuple[int, int]] = Counter()

    async def increased(n: int, number: int) -> int:
        bodies[number, n] += 1
        await asyncio.sleep(0.01)
        return n + 1

    @workflow(name="count")
    async def counting(ctx: Context, number: int) -> int:
        n = 0
        for _ in range(5):
            n = await ctx.step("increase", increased, n, number)
        return n + await ctx.wait_for_signal(more)

    async with Durable([counting], store=url, namespace=namespace) as durable:
        handles = [await durable.start(counting, number) for number in range(50)]
        moved = 0
        for tag in (namespace, *(f"{namespace}:p{number:02}" for number in range(4))):
            slot = slot_of(f"{{{tag}}}")
            moved += await reshard.move(slot, (reshard.owner(slot) + 1) % 3)
        assert moved > 50
        for handle in handles:
            await handle.signal(more, 10)
        assert [await handle.result(timeout="30s") for handle in handles] == [15] * 50
    assert set(bodies.values()) == {1}


async def test_a_script_waits_while_its_keys_are_on_two_nodes(
    stack: AsyncExitStack, private_redis_cluster: list[RedisServer], namespace: str
) -> None:
    reshard = Reshard(private_redis_cluster)
    wire = await opened(stack, cluster_url([node.port for node in private_redis_cluster]))
    await add(wire, namespace, "1")
    slot = slot_of(f"{{{namespace}}}")
    source = reshard.owner(slot)
    target = (source + 1) % 3
    await reshard.begin(slot, source, target)
    await add(wire, namespace, "2")  # both keys are still where they were
    await reshard.carry([f"{{{namespace}}}:n"], source, target)
    call = asyncio.create_task(add(wire, namespace, "3"))  # one is here and one is there
    assert await counted(wire, namespace) == 2  # by ASK
    assert not call.done()
    await reshard.carry([f"{{{namespace}}}:ops"], source, target)
    await call  # both are at the target, which is asked in the place of the source
    await reshard.end(slot, source, target)
    await add(wire, namespace, "4")
    assert await counted(wire, namespace) == 4


async def test_a_wire_opened_before_a_move_finds_the_new_owner_with_one_detour(
    stack: AsyncExitStack, private_redis_cluster: list[RedisServer], namespace: str
) -> None:
    reshard = Reshard(private_redis_cluster)
    wire = await opened(stack, cluster_url([node.port for node in private_redis_cluster]))
    await add(wire, namespace, "1")
    slot = slot_of(f"{{{namespace}}}")
    await reshard.move(slot, (reshard.owner(slot) + 2) % 3)
    for round_trips in (2, 1):
        before = wire.sent.commands
        await counted(wire, namespace)
        assert wire.sent.commands - before == round_trips


# ---- masters that fail


async def test_a_replica_takes_over_from_a_master_that_died(
    stack: AsyncExitStack, private_redis_cluster: list[RedisServer], private_redis: StartRedis, namespace: str
) -> None:
    nodes = private_redis_cluster
    slot = slot_of(f"{{{namespace}}}")
    master = nodes[Reshard(nodes).owner(slot)]
    other = next(node for node in nodes if node is not master)
    replica = private_redis(
        cluster_enabled="yes",
        cluster_port=str(free_port()),
        cluster_node_timeout="1000",
        repl_diskless_sync_delay="0",
    )
    replica.ask(f"CLUSTER MEET 127.0.0.1 {master.port} {master.options['cluster-port']}")
    master_id = _text(master.ask("CLUSTER MYID"))
    await until(lambda: "+OK" in replica.ask(f"CLUSTER REPLICATE {master_id}"), within=20)
    # The URL names the node that dies, and no other.
    wire = await opened(stack, cluster_url([master.port]))
    bus = RedisBus(Location.parse(cluster_url([master.port])), namespace)
    await bus.open()
    stack.push_async_callback(bus.close)
    ear = Ear()
    await bus.subscribe("t", ear)
    await add(wire, namespace, "before")
    await until(lambda: "master_link_status:up" in replica.ask("INFO replication"), within=20)
    await until(lambda: _text(replica.ask("DBSIZE")).strip() == ":2", within=20)
    await until(lambda: "cluster_known_nodes:4" in other.ask("CLUSTER INFO"), within=20)
    master.kill()
    await add(wire, namespace, "after")
    assert await counted(wire, namespace) == 2
    await until(lambda: bus.is_connected, within=20)
    assert ear.heard


# ---- a master behind Sentinels


@pytest.fixture
def sentinels(broker_run: Run, private_redis: StartRedis) -> Iterator[tuple[str, RedisServer, RedisServer]]:
    """Two Sentinels that watch a master with one replica."""
    options = {"requirepass": "secret", "masterauth": "secret", "repl_diskless_sync_delay": "0"}
    master = private_redis(**options)
    replica = private_redis(replicaof=f"127.0.0.1 {master.port}", **options)
    servers = broker_run.servers("sentinels")
    ports = [free_port(), free_port()]
    try:
        for port in ports:
            config = servers.directory / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {servers.directory}\n"
                f"sentinel monitor orders 127.0.0.1 {master.port} 2\nsentinel auth-pass orders secret\n"
                "sentinel down-after-milliseconds orders 500\nsentinel failover-timeout orders 2000\n"
            )
            found = binaries()
            servers.start(
                found.redis_server, str(config), "--sentinel", env=found.env, log=config.with_suffix(".log")
            )
        hosts = ",".join(f"127.0.0.1:{port}" for port in (*ports, free_port()))
        yield f"redis+sentinel://:secret@{hosts}/orders", master, replica
    finally:
        servers.end()


async def test_a_master_that_moved_is_found_through_its_sentinels(
    stack: AsyncExitStack, sentinels: tuple[str, RedisServer, RedisServer], namespace: str
) -> None:
    url, master, replica = sentinels
    ports = [endpoint.port for endpoint in Location.parse(url).endpoints[:2]]
    await until(
        lambda: all(
            "num-other-sentinels\r\n$1\r\n1" in _ask(port, "SENTINEL MASTER orders") for port in ports
        ),
        within=20,
    )
    await until(
        lambda: all("num-slaves\r\n$1\r\n1" in _ask(port, "SENTINEL MASTER orders") for port in ports),
        within=20,
    )
    wire = await opened(stack, url)
    assert wire.grade.grade == "D1+HA"
    await add(wire, namespace, "1")
    await until(lambda: "\n:2\r\n" in replica.ask("DBSIZE"))
    master.kill()
    await add(wire, namespace, "2")
    assert "role:master" in replica.ask("INFO replication")
    assert await counted(wire, namespace) == 2
    # The old master is back before it has learnt that it is one no longer.
    master.start()
    for number in range(20):
        await add(wire, namespace, f"again {number}")
    assert await counted(wire, namespace) == 22


async def test_a_name_that_the_sentinels_do_not_know_is_refused(
    sentinels: tuple[str, RedisServer, RedisServer],
) -> None:
    url = sentinels[0].replace("/orders", "/invoices")
    await until(lambda: all(_ask(each.port, "PING") for each in Location.parse(url).endpoints[:2]))
    with pytest.raises(StoreUnavailable, match="knows no master 'invoices'"):
        await open_wire(Location.parse(url))


def _epoch(node: RedisServer) -> str:
    (line,) = [line for line in node.ask("CLUSTER INFO").splitlines() if "cluster_current_epoch" in line]
    return line


def _own_slots(node: RedisServer) -> list[tuple[int, int]]:
    (mine,) = [line for line in node.ask("CLUSTER NODES").splitlines() if "myself" in line]
    ranges = [word for word in mine.split(" ")[8:] if not word.startswith("[")]
    return [(int(first), int(last or first)) for first, _, last in (each.partition("-") for each in ranges)]


def _text(reply: str) -> str:
    """Of a bulk string, or of a line."""
    return reply.split("\r\n")[1] if reply.startswith("$") else reply


def _ask(port: int, command: str) -> str:
    try:
        return ask(port, command)
    except OSError:
        return ""
