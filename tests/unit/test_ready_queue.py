"""The queue over a store's ready index: what it asks the store, when, and what it keeps."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import count
from typing import cast

import anyio
import pytest
from typing_extensions import override

from durable.backends.memory import MemoryBus, MemoryStore
from durable.backends.ready_queue import ReadyQueue
from durable.clock import Clock, SystemClock, VirtualClock
from durable.errors import StoreUnavailable
from durable.protocols import (
    Capabilities,
    Doorbell,
    DurableQueue,
    DurableStore,
    NewExecution,
    Wanted,
    work_topic,
)
from durable.testing import QueueContract

pytestmark = pytest.mark.anyio

START_MS = 1_700_000_000_000
POLL_MS = 5_000
WANTED = Wanted(("default",), frozenset({"order@1"}))

numbers = count()


def bells(number: int, *, priority: int = 0) -> list[Doorbell]:
    return [Doorbell(f"x{next(numbers)}", "order", "1", "default", priority) for _ in range(number)]


def ids(doorbells: Sequence[Doorbell]) -> list[str]:
    return [bell.id for bell in doorbells]


class Partitioned:
    """Memory stores as the partitions of one, as far as a queue sees them, and how they were asked what is due."""

    def __init__(self, clock: Clock, partitions: int = 1) -> None:
        self.parts = [MemoryStore(clock) for _ in range(partitions)]
        self.asked: list[int] = []
        self.is_away = False

    async def capabilities(self) -> Capabilities:
        return replace(await self.parts[0].capabilities(), partitions=len(self.parts))

    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        self.asked.append(limit)
        if self.is_away:
            raise StoreUnavailable("away")
        return await self.parts[partition].due(partition, wanted, limit=limit, again_ms=again_ms)

    async def make_ready(self, doorbells: Sequence[Doorbell], *, partition: int = 0) -> list[Doorbell]:
        for bell in doorbells:
            spec = NewExecution(
                bell.id, bell.workflow, bell.version, b"", queue=bell.queue, priority=bell.priority
            )
            await self.parts[partition].create(spec, op_id=bell.id)
        return list(doorbells)

    async def claim(self, doorbells: Sequence[Doorbell]) -> None:
        for bell in doorbells:
            for part in self.parts:
                await part.claim(bell.id, nonce=bell.id, worker="w")

    def queue(self, bus: MemoryBus, clock: Clock) -> ReadyQueue:
        return ReadyQueue(cast("DurableStore", self), bus, clock, poll_ms=POLL_MS)


class Rig:
    """A store, its clock, and processes on them."""

    def __init__(self, partitions: int = 1) -> None:
        self.clock = VirtualClock(START_MS)
        self.store = Partitioned(self.clock, partitions)
        self.buses: list[MemoryBus] = []

    async def process(self, name: str = "") -> ReadyQueue:
        bus = MemoryBus(name=name)
        self.buses.append(bus)
        queue = self.store.queue(bus, self.clock)
        await queue.open()
        return queue

    def pass_time(self, ms: int) -> None:
        self.clock.advance_to(self.clock.now_ms() + ms)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def take(queue: ReadyQueue, limit: int = 100, wanted: Wanted = WANTED) -> list[Doorbell]:
    """Receive what must be there at once, and settle it."""
    async with asyncio.timeout(1):
        deliveries = await queue.receive(wanted, limit=limit)
    for delivery in deliveries:
        queue.ack(delivery)
    return [delivery.doorbell for delivery in deliveries]


class Waiting:
    """A receive that waits."""

    def __init__(self, queue: ReadyQueue, limit: int = 100, wanted: Wanted = WANTED) -> None:
        self.task = asyncio.create_task(take(queue, limit, wanted))

    async def begins(self) -> "Waiting":
        await anyio.wait_all_tasks_blocked()
        assert not self.task.done()
        return self


class TestContract(QueueContract):
    @pytest.fixture
    async def queue(self) -> AsyncIterator[DurableQueue]:
        self.store = Partitioned(SystemClock())
        queue = self.store.queue(MemoryBus(), SystemClock())
        await queue.open()
        yield queue
        await queue.close()

    @override
    async def announce(self, queue: DurableQueue, doorbells: Sequence[Doorbell]) -> None:
        await self.store.make_ready(doorbells)
        queue.ring(doorbells)


# ---- doorbells of this process


async def test_a_process_without_a_worker_keeps_no_doorbell(rig: Rig) -> None:
    queue = await rig.process()
    queue.ring(bells(10))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await queue.receive(WANTED, limit=1)


async def test_a_doorbell_of_this_process_costs_no_call_of_the_store(rig: Rig) -> None:
    queue = await rig.process()
    for _ in range(20):
        waiting = await Waiting(queue).begins()
        [bell] = await rig.store.make_ready(bells(1))
        queue.ring([bell])
        assert await waiting.task == [bell]
        await rig.store.claim([bell])
    assert len(rig.store.asked) == 1


async def test_what_is_rung_while_the_worker_is_busy_waits_for_it(rig: Rig) -> None:
    queue = await rig.process()
    waiting = await Waiting(queue).begins()
    first, second = bells(2)
    queue.ring([first])
    assert await waiting.task == [first]
    queue.ring([second])
    assert await take(queue) == [second]


async def test_greater_priority_comes_first_and_then_what_was_rung_first(rig: Rig) -> None:
    queue = await rig.process()
    low, high, low_too = [*bells(1), *bells(1, priority=5), *bells(1)]
    waiting = await Waiting(queue, limit=1).begins()
    queue.ring([low, high, low_too])
    assert [*await waiting.task, *await take(queue)] == [high, low, low_too]


async def test_a_doorbell_that_is_rung_twice_is_delivered_once(rig: Rig) -> None:
    queue = await rig.process()
    waiting = await Waiting(queue).begins()
    [bell] = bells(1)
    queue.ring([bell, bell])
    assert await waiting.task == [bell]


async def test_everyone_who_waits_gets_what_it_wants(rig: Rig) -> None:
    queue = await rig.process()
    mail = Wanted(("mail",), frozenset({"order@1"}))
    waiting = [await Waiting(queue).begins(), await Waiting(queue, wanted=mail).begins()]
    [ours], theirs = bells(1), Doorbell("theirs", "order", "1", "mail")
    queue.ring([theirs, ours])
    assert [await each.task for each in waiting] == [[ours], [theirs]]


async def test_a_cancelled_receive_leaves_the_doorbell_to_the_next(rig: Rig) -> None:
    queue = await rig.process()
    waiting = [await Waiting(queue, limit=1).begins() for _ in range(2)]
    queue.ring(announced := bells(1))
    waiting[0].task.cancel()
    assert await waiting[1].task == announced


# ---- doorbells of others


async def test_another_process_is_hinted_and_finds_it_in_the_store(rig: Rig) -> None:
    client, worker = await rig.process("shop"), await rig.process("shop")
    waiting = await Waiting(worker).begins()
    client.ring(announced := await rig.store.make_ready(bells(3)))
    assert await waiting.task == announced


async def test_a_hint_is_heard_by_a_worker_that_has_doorbells_of_its_own(rig: Rig) -> None:
    client, worker = await rig.process("shop"), await rig.process("shop")
    waiting = await Waiting(worker, limit=1).begins()
    worker.ring(own := bells(3))
    assert await waiting.task == own[:1]
    client.ring(theirs := await rig.store.make_ready(bells(1)))
    assert await take(worker) == [*own[1:], *theirs]


async def test_a_hint_about_another_queue_asks_nothing(rig: Rig) -> None:
    queue = await rig.process()
    waiting = await Waiting(queue).begins()
    rig.buses[0].publish([work_topic("mail")])
    await waiting.begins()
    assert len(rig.store.asked) == 1
    waiting.task.cancel()


async def test_a_hint_while_the_store_is_asked_asks_it_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await rig.process()
    asking, answering = asyncio.Event(), asyncio.Event()
    due = rig.store.due

    async def slow_due(partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        answer = await due(partition, wanted, limit=limit, again_ms=again_ms)
        asking.set()
        await answering.wait()
        return answer

    monkeypatch.setattr(rig.store, "due", slow_due)
    waiting = Waiting(queue)
    await asking.wait()
    announced = await rig.store.make_ready(bells(1))
    rig.buses[0].publish([work_topic("default")])
    answering.set()
    assert await waiting.task == announced


# ---- lost doorbells


async def test_a_lost_doorbell_is_found_by_the_poll(rig: Rig) -> None:
    queue = await rig.process()
    waiting = await Waiting(queue).begins()
    announced = await rig.store.make_ready(bells(1))
    rig.pass_time(POLL_MS - 1)
    await waiting.begins()
    rig.pass_time(1)
    assert await waiting.task == announced


async def test_the_poll_is_housekeeping_at_which_no_virtual_clock_stops(rig: Rig) -> None:
    queue = await rig.process()
    waiting = await Waiting(queue).begins()
    assert rig.clock.next_at() is None
    waiting.task.cancel()


async def test_a_lost_doorbell_is_found_even_while_others_keep_coming(rig: Rig) -> None:
    queue = await rig.process()
    waiting = await Waiting(queue, limit=1).begins()
    [lost] = await rig.store.make_ready(bells(1))
    received: list[Doorbell] = []
    for _ in range(100):
        queue.ring(await rig.store.make_ready(bells(2)))
        received += await (take(queue, limit=1) if waiting.task.done() else waiting.task)
        await rig.store.claim(received[-1:])
        rig.pass_time(POLL_MS // 20)
    assert lost in received


async def test_waiting_costs_one_call_for_each_poll(rig: Rig) -> None:
    queue = await rig.process()
    waiting = [await Waiting(queue).begins() for _ in range(5)]
    asked = len(rig.store.asked)
    for _ in range(10):
        rig.pass_time(POLL_MS)
        await anyio.wait_all_tasks_blocked()
    assert len(rig.store.asked) - asked == 10
    for each in waiting:
        each.task.cancel()


# ---- a backlog


async def test_a_backlog_is_fetched_a_little_ahead(rig: Rig) -> None:
    backlog = await rig.store.make_ready(bells(1_000))
    queue = await rig.process()
    received = await take(queue, limit=100)
    while len(received) < len(backlog):
        received += await take(queue, limit=1)
    assert received == backlog
    assert rig.store.asked[0] == 125
    assert len(rig.store.asked) < 40


async def test_what_does_not_fit_on_a_desk_is_fetched_from_the_store(rig: Rig) -> None:
    queue = await rig.process()
    waiting = await Waiting(queue, limit=10).begins()
    queue.ring(backlog := await rig.store.make_ready(bells(5_000)))
    received = await waiting.task
    while len(received) < len(backlog):
        await rig.store.claim(received[-10:])
        received += await take(queue, limit=10)
    assert {*ids(received)} == {*ids(backlog)}


async def test_a_backlog_does_not_hold_up_greater_priority_for_long(rig: Rig) -> None:
    queue = await rig.process()
    waiting = await Waiting(queue, limit=10).begins()
    queue.ring(await rig.store.make_ready(bells(5_000)))
    queue.ring(await rig.store.make_ready(bells(1, priority=9)))
    received = await waiting.task
    while all(bell.priority == 0 for bell in received):
        await rig.store.claim(received[-10:])
        received += await take(queue, limit=10)
    assert len(received) < 300


async def test_when_the_backlog_is_gone_doorbells_of_this_process_are_delivered_at_once_again(
    rig: Rig,
) -> None:
    queue = await rig.process()
    backlog = await rig.store.make_ready(bells(300))
    received = await take(queue, limit=10)
    while len(received) < len(backlog):
        received += await take(queue, limit=10)
    waiting = await Waiting(queue, limit=10).begins()
    asked = len(rig.store.asked)
    queue.ring(announced := bells(1))
    assert await waiting.task == announced
    assert len(rig.store.asked) == asked


# ---- what must not spin


async def test_what_cannot_be_claimed_is_delivered_once_for_each_ring_of_the_store(rig: Rig) -> None:
    queue = await rig.process()
    await rig.store.make_ready(bells(3))
    delivered = 0
    for _ in range(4):
        delivered += len(await take(queue))
        waiting = await Waiting(queue).begins()
        waiting.task.cancel()
        rig.pass_time(POLL_MS)
    assert delivered == 4 * 3
    assert len(rig.store.asked) <= 4 * 3


async def test_what_is_released_is_offered_again_but_not_at_this_instant(rig: Rig) -> None:
    queue = await rig.process()
    [bell] = await rig.store.make_ready(bells(1))
    [delivery] = await queue.receive(WANTED, limit=1)
    queue.release(delivery)
    queue.release(delivery)
    waiting = await Waiting(queue).begins()
    rig.pass_time(100)
    assert await waiting.task == [bell]


async def test_what_is_released_is_not_left_to_a_store_that_has_more_and_has_rung_it(rig: Rig) -> None:
    queue = await rig.process()
    ready = await rig.store.make_ready(bells(3))
    [delivery] = await queue.receive(WANTED, limit=1)
    queue.release(delivery)
    rig.pass_time(100)
    taken = [bell for _ in ready for bell in await take(queue, 1)]
    assert sorted(ids(taken)) == sorted(ids(ready))


async def test_a_store_that_is_away_is_an_error_and_asked_again_by_the_next_receive(rig: Rig) -> None:
    queue = await rig.process()
    announced = await rig.store.make_ready(bells(1))
    rig.store.is_away = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await queue.receive(WANTED, limit=1)
    rig.store.is_away = False
    assert await take(queue) == announced


# ---- partitions


@pytest.mark.parametrize("limit", [1, 3, 16, 100])
async def test_every_partition_is_served(limit: int) -> None:
    rig = Rig(partitions=16)
    ready: list[Doorbell] = []
    for partition in range(16):
        ready += await rig.store.make_ready(bells(10), partition=partition)
    queue = await rig.process()
    received: list[Doorbell] = []
    while len(received) < len(ready):
        received += await take(queue, limit)
    assert sorted(ids(received)) == sorted(ids(ready))


@pytest.mark.parametrize("limit", [1, 3, 16, 100])
async def test_a_backlog_in_one_partition_does_not_hold_up_the_others(limit: int) -> None:
    rig = Rig(partitions=4)
    await rig.store.make_ready(bells(1_000), partition=0)
    [last] = await rig.store.make_ready(bells(1), partition=3)
    queue = await rig.process()
    received: list[Doorbell] = []
    while last not in received:
        received += await take(queue, limit)
    assert len(received) <= 4 * max(limit, 2)


async def test_the_first_of_all_partitions_go_first() -> None:
    rig = Rig(partitions=16)
    ready: list[Doorbell] = []
    for number in range(48):
        ready += await rig.store.make_ready(bells(1), partition=number * 7 % 16)
        rig.pass_time(1)
    urgent = await rig.store.make_ready(bells(1, priority=1), partition=0)
    queue = await rig.process()
    received: list[Doorbell] = []
    while len(received) < 16:
        received += await take(queue, limit=1)
    assert received == urgent + ready[1:16]


async def test_what_one_worker_holds_for_its_next_slots_is_soon_rung_for_others() -> None:
    rig = Rig(partitions=16)
    for partition in range(16):
        await rig.store.make_ready(bells(1), partition=partition)
    busy, idle = await rig.process(), await rig.process()
    received = await take(busy, limit=1)
    await rig.store.claim(received)
    rig.pass_time(500)
    while len(received) < 16:
        received += await take(idle)
    assert len({*ids(received)}) == 16


async def test_a_partition_that_is_away_is_an_error_of_the_whole() -> None:
    rig = Rig(partitions=4)
    queue = await rig.process()
    rig.store.is_away = True
    with pytest.raises(StoreUnavailable):
        await queue.receive(WANTED, limit=100)


# ---- closing


async def test_a_closed_queue_leaves_no_subscription_and_no_timer(rig: Rig) -> None:
    queue = await rig.process()
    waiting = await Waiting(queue).begins()
    waiting.task.cancel()
    await anyio.wait_all_tasks_blocked()
    await queue.close()
    rig.buses[0].publish([work_topic("default")])
    assert rig.clock.next_at() is None
    assert len(rig.store.asked) == 1
