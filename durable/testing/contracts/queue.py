"""`QueueContract`: what a `DurableQueue` must do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from durable.ids import Ids
from durable.protocols import Delivery, Doorbell, DurableQueue, Wanted

PATIENCE = 10.0
"""Seconds until a doorbell that does not come fails the test."""
WANTED = Wanted(("default",), frozenset({"order@1"}))

ids = Ids()


def bell(*, workflow: str = "order", version: str = "1", queue: str = "default") -> Doorbell:
    """The doorbell of an execution that does not exist yet."""
    return Doorbell(ids.execution_id(), workflow, version, queue)


async def receive(queue: DurableQueue, *, wanted: Wanted = WANTED, limit: int = 100) -> Sequence[Delivery]:
    async with asyncio.timeout(PATIENCE):
        return await queue.receive(wanted, limit=limit)


async def collect(
    queue: DurableQueue, number: int, *, wanted: Wanted = WANTED, limit: int = 100
) -> list[Delivery]:
    """Receive until there are so many."""
    collected: list[Delivery] = []
    while len(collected) < number:
        collected += await receive(queue, wanted=wanted, limit=limit)
    return collected


def rung(deliveries: Sequence[Delivery]) -> list[str]:
    return sorted(delivery.doorbell.id for delivery in deliveries)


class QueueContract:
    """Subclass it with the fixture `queue`: opened, empty, and closed afterwards.

        class TestMyQueue(QueueContract):
            @pytest.fixture
            async def queue(self) -> AsyncIterator[DurableQueue]:
                queue = MyQueue("my://localhost/fresh-namespace")
                await queue.open()
                yield queue
                await queue.close()

    A queue whose doorbells are the executions of a store overrides `announce`, to create them there.
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Override it with a wider scope when a fixture of yours needs one."""
        return "asyncio"

    async def announce(self, queue: DurableQueue, doorbells: Sequence[Doorbell]) -> None:
        """Make these executions ready, and say so."""
        queue.ring(doorbells)

    async def assert_nothing_else(self, queue: DurableQueue, wanted: Wanted = WANTED) -> None:
        """All that is left to receive is what is announced now."""
        last = bell()
        await self.announce(queue, [last])
        deliveries = await collect(queue, 1, wanted=wanted)
        assert rung(deliveries) == [last.id]
        queue.ack(deliveries[0])

    # -- who gets what

    async def test_what_is_announced_is_received(self, queue: DurableQueue) -> None:
        announced = bell()
        await self.announce(queue, [announced])
        [delivery] = await receive(queue)
        assert delivery.doorbell == announced
        queue.ack(delivery)

    async def test_who_waits_gets_what_is_announced_then(self, queue: DurableQueue) -> None:
        waiting = asyncio.create_task(receive(queue))
        await asyncio.sleep(0)
        announced = bell()
        await self.announce(queue, [announced])
        assert rung(await waiting) == [announced.id]

    async def test_many_doorbells_come_once_each(self, queue: DurableQueue) -> None:
        bells = [bell() for _ in range(25)]
        await self.announce(queue, bells)
        deliveries = await collect(queue, len(bells))
        assert rung(deliveries) == sorted(announced.id for announced in bells)
        for delivery in deliveries:
            queue.ack(delivery)
        await self.assert_nothing_else(queue)

    @pytest.mark.parametrize("limit", [1, 2, 3])
    async def test_nobody_gets_more_than_the_limit(self, queue: DurableQueue, limit: int) -> None:
        bells = [bell() for _ in range(5)]
        await self.announce(queue, bells)
        deliveries: list[Delivery] = []
        while len(deliveries) < len(bells):
            received = await receive(queue, limit=limit)
            assert 1 <= len(received) <= limit
            deliveries += received
        assert rung(deliveries) == sorted(announced.id for announced in bells)

    async def test_what_exceeds_the_limit_is_left_to_others(self, queue: DurableQueue) -> None:
        bells = [bell() for _ in range(3)]
        await self.announce(queue, bells)
        first = await receive(queue, limit=1)
        others = await collect(queue, 2)
        assert rung([*first, *others]) == sorted(announced.id for announced in bells)

    async def test_two_who_wait_share_what_is_announced(self, queue: DurableQueue) -> None:
        waiting = [asyncio.create_task(receive(queue, limit=1)) for _ in range(4)]
        await asyncio.sleep(0)
        bells = [bell() for _ in range(4)]
        await self.announce(queue, bells)
        received = await asyncio.gather(*waiting)
        assert rung([delivery for deliveries in received for delivery in deliveries]) == sorted(
            announced.id for announced in bells
        )

    @pytest.mark.parametrize(
        "unwanted",
        [bell(queue="mail"), bell(workflow="invoice"), bell(version="2")],
        ids=["other queue", "other workflow", "other version"],
    )
    async def test_what_is_not_wanted_is_left_to_others(
        self, queue: DurableQueue, unwanted: Doorbell
    ) -> None:
        wanted = bell()
        await self.announce(queue, [unwanted, wanted])
        deliveries = await receive(queue)
        assert rung(deliveries) == [wanted.id]
        theirs = Wanted((unwanted.queue,), frozenset({f"{unwanted.workflow}@{unwanted.version}"}))
        assert rung(await receive(queue, wanted=theirs)) == [unwanted.id]

    async def test_a_worker_gets_all_that_it_wants(self, queue: DurableQueue) -> None:
        bells = [bell(), bell(queue="mail"), bell(workflow="invoice", version="2")]
        await self.announce(queue, [*bells, bell(queue="media")])
        wanted = Wanted(("default", "mail"), frozenset({"order@1", "invoice@2"}))
        deliveries = await collect(queue, 3, wanted=wanted)
        assert rung(deliveries) == sorted(announced.id for announced in bells)

    # -- settling

    async def test_what_is_held_is_not_given_to_others(self, queue: DurableQueue) -> None:
        await self.announce(queue, [bell()])
        await receive(queue)
        await self.assert_nothing_else(queue)

    async def test_what_was_acked_does_not_come_again(self, queue: DurableQueue) -> None:
        await self.announce(queue, [bell()])
        [delivery] = await receive(queue)
        queue.ack(delivery)
        queue.ack(delivery)
        await self.assert_nothing_else(queue)

    async def test_what_was_released_comes_again_once(self, queue: DurableQueue) -> None:
        announced = bell()
        await self.announce(queue, [announced])
        [delivery] = await receive(queue)
        queue.release(delivery)
        queue.release(delivery)
        [again] = await receive(queue)
        assert again.doorbell == announced
        queue.ack(again)
        queue.release(delivery)
        await self.assert_nothing_else(queue)

    async def test_who_waits_gets_what_another_releases(self, queue: DurableQueue) -> None:
        await self.announce(queue, [bell()])
        [delivery] = await receive(queue)
        waiting = asyncio.create_task(receive(queue))
        await asyncio.sleep(0)
        queue.release(delivery)
        assert rung(await waiting) == [delivery.doorbell.id]

    async def test_what_was_released_can_be_released_again(self, queue: DurableQueue) -> None:
        announced = bell()
        await self.announce(queue, [announced])
        for _ in range(5):
            [delivery] = await receive(queue)
            assert delivery.doorbell == announced
            queue.release(delivery)

    async def test_settling_one_leaves_the_others(self, queue: DurableQueue) -> None:
        await self.announce(queue, [bell(), bell()])
        first, second = await collect(queue, 2)
        queue.ack(first)
        queue.release(second)
        assert rung(await receive(queue)) == [second.doorbell.id]

    # -- what goes wrong

    async def test_a_cancelled_receive_takes_nothing_with_it(self, queue: DurableQueue) -> None:
        for _ in range(3):
            waiting = asyncio.create_task(queue.receive(WANTED, limit=1))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        announced = bell()
        await self.announce(queue, [announced])
        assert rung(await receive(queue)) == [announced.id]

    async def test_a_receive_that_ran_out_of_time_takes_nothing_with_it(self, queue: DurableQueue) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await queue.receive(WANTED, limit=1)
        await self.assert_nothing_else(queue)

    async def test_a_doorbell_that_nobody_answers_is_no_error(self, queue: DurableQueue) -> None:
        queue.ring([])
        queue.ring([bell(workflow="unknown") for _ in range(1000)])
        await self.assert_nothing_else(queue)

    async def test_closing_gives_back_what_was_held(self, queue: DurableQueue) -> None:
        announced = bell()
        await self.announce(queue, [announced])
        [delivery] = await receive(queue)
        await queue.close()
        await queue.open()
        assert rung(await receive(queue)) == [announced.id]
        queue.ack(delivery)
        queue.release(delivery)

    async def test_a_closed_queue_takes_everything_in_silence_and_opens_again(
        self, queue: DurableQueue
    ) -> None:
        await self.announce(queue, [bell()])
        [delivery] = await receive(queue)
        queue.ack(delivery)
        await queue.close()
        await queue.close()
        queue.ring([bell(workflow="unknown")])
        queue.ack(delivery)
        queue.release(delivery)
        await queue.open()
        announced = bell()
        await self.announce(queue, [announced])
        assert rung(await receive(queue)) == [announced.id]
