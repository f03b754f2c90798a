"""A broker that is ill-treated: nobody waits for it, nothing fails because of it, and soon doorbells ring again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import aiormq
import pytest

from durable.backends.rabbitmq import RabbitQueue
from durable.backends.rabbitmq.location import Location
from durable.backends.rabbitmq.topology import BANDS, Topology
from durable.ids import Ids
from durable.protocols import Doorbell, Wanted
from tests.brokers.rabbit_node import RabbitNode
from tests.support import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

WANTED = Wanted(("default",), frozenset({"order@1"}))
SOON = 30.0

ids = Ids()


def bell() -> Doorbell:
    return Doorbell(ids.execution_id(), "order", "1", "default")


class Pair:
    """A process that rings, and one that receives what is rung."""

    def __init__(self, url: str, namespace: str) -> None:
        self.namespace = namespace
        self.ringer = RabbitQueue(Location.parse(url), namespace)
        self.receiver = RabbitQueue(Location.parse(url), namespace)

    async def rings_through(self, *, within: float = SOON) -> None:
        """Come back when a doorbell that is rung now or later comes through."""

        async def receive() -> None:
            while True:
                for delivery in await self.receiver.receive(WANTED, limit=100):
                    self.receiver.ack(delivery)
                    if delivery.doorbell.id in rung:
                        return

        rung: set[str] = set()
        received = asyncio.create_task(receive())
        async with asyncio.timeout(within):
            while not received.done():
                doorbell = bell()
                rung.add(doorbell.id)
                self.ringer.ring([doorbell])
                await asyncio.wait((received,), timeout=0.1)
        await received


@pytest.fixture
async def pair(private_rabbit: RabbitNode, namespace: str) -> AsyncIterator[Pair]:
    pair = Pair(private_rabbit.url, namespace)
    await pair.ringer.open()
    await pair.receiver.open()
    await pair.rings_through()
    yield pair
    await pair.receiver.close()
    await pair.ringer.close()


Fault = Callable[[RabbitNode, Pair], Awaitable[object]]


async def delete_queues(node: RabbitNode, pair: Pair) -> None:
    for band in BANDS:
        await node.ctl("delete_queue", f"{pair.namespace}:q:default:{band}")


async def restart(node: RabbitNode, pair: Pair) -> None:
    await node.ctl("stop_app")
    await node.ctl("start_app")


async def wipe(node: RabbitNode, pair: Pair) -> None:
    await node.ctl("stop_app")
    await node.ctl("force_reset")
    await node.ctl("start_app")


FAULTS: dict[str, Fault] = {
    "connections closed": lambda node, pair: node.ctl("close_all_connections", "test"),
    "queues deleted": delete_queues,
    "restarted": restart,
    "wiped": wipe,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_doorbells_come_through_again_after(fault: str, private_rabbit: RabbitNode, pair: Pair) -> None:
    await FAULTS[fault](private_rabbit, pair)
    await pair.rings_through()


@pytest.mark.parametrize("by_whom", ["by the ringer", "by somebody else"])
async def test_a_queue_that_is_deleted_and_declared_again_is_consumed_again_within_seconds(
    by_whom: str, private_rabbit: RabbitNode, pair: Pair
) -> None:
    topology = Topology(pair.namespace, passive=False, shown="the broker")
    for _ in range(4):  # the broker tells some consumers of it, and not others
        waiting = asyncio.create_task(pair.receiver.receive(WANTED, limit=1))
        async with aiormq.connect(private_rabbit.url) as connection:
            channel = await connection.channel()
            for band in BANDS:
                await channel.queue_delete(topology.name("default", band))
            if by_whom == "by somebody else":
                for band in BANDS:
                    await topology.declare_queue(channel, "default", band)
        waiting.cancel()
        await asyncio.wait((waiting,))
        await pair.rings_through(within=5)


async def test_a_queue_that_we_may_not_declare_is_consumed_again_soon_after_it_is_there_again(
    private_rabbit: RabbitNode, pair: Pair
) -> None:
    passive = Pair(f"{private_rabbit.url}?declare=passive", pair.namespace)
    await passive.ringer.open()
    await passive.receiver.open()
    await passive.rings_through()
    waiting = asyncio.create_task(passive.receiver.receive(WANTED, limit=1))
    await pair.ringer.close()
    await pair.receiver.close()
    topology = Topology(pair.namespace, passive=False, shown="the broker")
    async with aiormq.connect(private_rabbit.url) as connection:
        channel = await connection.channel()
        for band in BANDS:
            await channel.queue_delete(topology.name("default", band))
        consumer = passive.receiver._consumer
        await until(lambda: consumer._link.channel is None)
        for band in BANDS:
            await topology.declare_queue(channel, "default", band)
    waiting.cancel()
    await asyncio.wait((waiting,))
    await passive.rings_through(within=5)
    await passive.receiver.close()
    await passive.ringer.close()


async def test_a_lost_connection_is_one_line_in_our_log_and_the_drivers_is_the_applications_own(
    private_rabbit: RabbitNode, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    def lines(logger: str, text: str) -> list[logging.LogRecord]:
        return [each for each in caplog.records if each.name.startswith(logger) and text in each.getMessage()]

    caplog.set_level(logging.DEBUG, "durable.rabbitmq")
    of_the_application = await aiormq.connect(private_rabbit.url)
    await private_rabbit.ctl("close_all_connections", "test")
    await until(lambda: len(lines("durable.rabbitmq", "is lost: CONNECTION_FORCED - test")) == 4)
    await pair.rings_through()
    await until(lambda: of_the_application.is_closed)
    [theirs] = lines("aiormq", "Unexpected connection close")
    assert theirs.levelno == logging.ERROR
    details = lines("durable.rabbitmq.driver", "Unexpected connection close")
    assert [each.levelname for each in details] == ["DEBUG"] * 4


async def test_a_broker_that_is_away_is_told_of_once_by_each_connection_and_again_when_it_is_back(
    private_rabbit: RabbitNode, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    def number(text: str) -> int:
        return sum(text in each.getMessage() for each in caplog.records if each.name == "durable.rabbitmq")

    caplog.set_level(logging.INFO, "durable.rabbitmq")
    await private_rabbit.ctl("stop_app")
    await asyncio.gather(pair.ringer.close(), pair.receiver.close())
    caplog.clear()
    pair = Pair(f"{private_rabbit.url}?required=0", pair.namespace)
    await pair.ringer.open()
    await private_rabbit.ctl("eval", "ok.")  # while some more attempts fail
    await private_rabbit.ctl("start_app")
    await until(lambda: number("is there again") == 2, within=SOON)
    assert number("tried again") == number("Connect call failed") == 2
    assert not [each for each in caplog.records if each.name.startswith("aiormq")]
    await pair.ringer.close()


async def test_a_connection_that_goes_while_a_letter_is_handed_over_loses_it_and_fails_nothing(
    private_rabbit: RabbitNode, pair: Pair
) -> None:
    publisher = pair.ringer._publisher
    lost = publisher.lost
    pair.ringer.ring([bell()])
    dropping = asyncio.create_task(publisher._link._drop())  # it begins before the letter's own task does
    await dropping
    await until(lambda: publisher.lost == lost + 1)
    await pair.rings_through()


async def test_a_receive_that_was_waiting_hears_what_is_rung_after_the_fault(
    private_rabbit: RabbitNode, pair: Pair
) -> None:
    waiting = asyncio.create_task(pair.receiver.receive(WANTED, limit=1))
    await private_rabbit.ctl("close_all_connections", "test")
    async with asyncio.timeout(SOON):
        while not waiting.done():
            pair.ringer.ring([bell()])
            await asyncio.wait((waiting,), timeout=0.1)
    assert len(waiting.result()) == 1


async def test_what_was_received_before_a_fault_can_be_settled_after_it(
    private_rabbit: RabbitNode, pair: Pair
) -> None:
    pair.ringer.ring([bell(), bell()])
    first, second = [
        *await pair.receiver.receive(WANTED, limit=1),
        *await pair.receiver.receive(WANTED, limit=1),
    ]
    await private_rabbit.ctl("close_all_connections", "test")
    pair.receiver.ack(first)
    pair.receiver.release(second)
    await pair.rings_through()


async def test_ringing_never_waits_for_a_broker_that_is_held(private_rabbit: RabbitNode, pair: Pair) -> None:
    private_rabbit.pause()
    try:
        pair.ringer.ring([bell() for _ in range(20_000)])
        pair.ringer.ring([bell()])
        await until(lambda: pair.ringer.figures["lost"] > 0)
    finally:
        private_rabbit.resume()
    await pair.rings_through()


async def test_a_broker_without_memory_stops_nobody_and_is_used_again_when_it_has_some(
    private_rabbit: RabbitNode, pair: Pair
) -> None:
    await private_rabbit.raise_memory_alarm()
    try:
        pair.ringer.ring([bell()])
        await until(lambda: pair.ringer.figures["lost"] > 0)
    finally:
        await private_rabbit.clear_memory_alarm()
    await pair.rings_through()


async def test_an_open_and_a_close_do_not_hang_on_a_broker_that_is_held(
    private_rabbit: RabbitNode, namespace: str
) -> None:
    queue = RabbitQueue(Location.parse(f"{private_rabbit.url}?required=0"), namespace)
    private_rabbit.pause()
    try:
        async with asyncio.timeout(15):
            await queue.open()
            queue.ring([bell()])
            await queue.close()
    finally:
        private_rabbit.resume()


async def test_a_queue_that_may_do_without_its_broker_uses_it_as_soon_as_it_is_there(
    private_rabbit: RabbitNode, namespace: str
) -> None:
    pair = Pair(f"{private_rabbit.url}?required=0", namespace)
    await private_rabbit.ctl("stop_app")
    try:
        await pair.ringer.open()
        await pair.receiver.open()
        pair.ringer.ring([bell()])
    finally:
        await private_rabbit.ctl("start_app")
    await pair.rings_through()
    await pair.receiver.close()
    await pair.ringer.close()


@pytest.mark.parametrize(
    "body", [b"", b"not ours", b'{"v": 2}', b"\xff" * 100_000], ids=["empty", "text", "version", "long"]
)
async def test_a_message_that_is_not_ours_goes_to_the_dead_ones_and_disturbs_nobody(
    private_rabbit: RabbitNode, pair: Pair, body: bytes
) -> None:
    connection = await aiormq.connect(private_rabbit.url)
    channel = await connection.channel()
    work = asyncio.create_task(pair.receiver.receive(WANTED, limit=1))
    before = await pair.ringer.dead_letters()
    await channel.basic_publish(
        body, exchange=f"{pair.namespace}:work", routing_key=f"{pair.namespace}:q:default:p1"
    )
    await until(lambda: pair.receiver.figures["malformed"] == 1)

    async def is_dead() -> bool:
        declared = await channel.queue_declare(f"{pair.namespace}:dead", passive=True)
        return declared.message_count == 1

    await until(is_dead)
    assert (before, await pair.ringer.dead_letters()) == (0, 1)
    await connection.close()
    work.cancel()
    await asyncio.wait((work,))
    await pair.rings_through()


async def test_a_busy_worker_leaves_what_it_has_no_slot_for_to_others(
    private_rabbit: RabbitNode, pair: Pair
) -> None:
    bells = [bell() for _ in range(10)]
    pair.ringer.ring(bells)
    [mine] = await pair.receiver.receive(WANTED, limit=1)
    other = RabbitQueue(Location.parse(private_rabbit.url), pair.namespace)
    await other.open()
    theirs: set[str] = set()
    async with asyncio.timeout(SOON):
        while len(theirs) < 9:
            theirs |= {delivery.doorbell.id for delivery in await other.receive(WANTED, limit=100)}
    assert theirs == {each.id for each in bells} - {mine.doorbell.id}
    await other.close()


@pytest.mark.parametrize(
    ("namespace", "queue"),
    [("amq", "default"), ("amq.direct", "default"), ("a", "b:q:c"), ("a", "list[0]"), ("n" * 100, "q" * 200)],
    ids=["amq", "amq.direct", "colons", "brackets", "long"],
)
async def test_any_name_of_ours_is_a_name_on_the_broker(
    private_rabbit: RabbitNode, namespace: str, queue: str
) -> None:
    ringer = RabbitQueue(Location.parse(private_rabbit.url), namespace)
    receiver = RabbitQueue(Location.parse(private_rabbit.url), namespace)
    await ringer.open()
    await receiver.open()
    rung = Doorbell(ids.execution_id(), "order", "1", queue)
    ringer.ring([rung])
    async with asyncio.timeout(SOON):
        [delivery] = await receiver.receive(Wanted((queue,), frozenset({"order@1"})), limit=1)
    assert delivery.doorbell == rung
    receiver.ack(delivery)
    await receiver.close()
    await ringer.close()


async def test_doorbells_that_nobody_wants_do_not_circle_for_ever(
    private_rabbit: RabbitNode, pair: Pair
) -> None:
    waiting = asyncio.create_task(pair.receiver.receive(WANTED, limit=1))
    number = 20
    pair.ringer.ring([Doorbell(ids.execution_id(), "unknown", "1", "default") for _ in range(number)])
    # Each is rung on as often as it may be, and then it is left to the sweep: the broker has none of them any more.

    def ended() -> int:
        return sum(each.figures[how] for each in (pair.ringer, pair.receiver) for how in ("given up", "lost"))

    await until(lambda: ended() >= number, within=SOON)
    topology = Topology(pair.namespace, passive=True, shown="the broker")
    async with aiormq.connect(private_rabbit.url) as connection:
        channel = await connection.channel()
        for band in BANDS:
            declared = await channel.queue_declare(topology.name("default", band), passive=True)
            assert declared.message_count == 0
    assert pair.receiver.figures["given up"] > 0
    waiting.cancel()
    await asyncio.wait((waiting,))
    await pair.rings_through()
