"""A backend without a broker keeps the queue's contract, whichever way the news comes."""

from collections.abc import AsyncIterator, Sequence

import pytest
from typing_extensions import override

from durable.backends.memory import MemoryBus, MemoryStore
from durable.backends.ready_queue import ReadyQueue
from durable.clock import SystemClock
from durable.ids import Ids
from durable.protocols import Doorbell, DurableQueue, NewExecution
from durable.testing import QueueContract

ids = Ids()


class QueueOfAStore(QueueContract):
    poll_ms = 5_000

    @pytest.fixture
    async def queue(self) -> AsyncIterator[DurableQueue]:
        self.name = ids.nonce()
        clock = SystemClock()
        self.store = MemoryStore(clock)
        # What is acked here is not claimed, so it must not be due again for as long as a test may take.
        queue = ReadyQueue(
            self.store, MemoryBus(name=self.name), clock, poll_ms=self.poll_ms, again_ms=600_000
        )
        await queue.open()
        yield queue
        await queue.close()

    async def make_ready(self, doorbells: Sequence[Doorbell]) -> None:
        for bell in doorbells:
            spec = NewExecution(bell.id, bell.workflow, bell.version, b"{}", bell.queue, bell.priority)
            await self.store.create(spec, op_id=ids.nonce())


class TestReadyQueueThatIsTold(QueueOfAStore):
    """What is ready was made ready in this process."""

    @override
    async def announce(self, queue: DurableQueue, doorbells: Sequence[Doorbell]) -> None:
        await self.make_ready(doorbells)
        queue.ring(doorbells)


class TestReadyQueueThatIsHinted(QueueOfAStore):
    """What is ready was made ready in another process, which hints it on the bus."""

    @override
    async def announce(self, queue: DurableQueue, doorbells: Sequence[Doorbell]) -> None:
        await self.make_ready(doorbells)
        ReadyQueue(self.store, MemoryBus(name=self.name), SystemClock()).ring(doorbells)


class TestReadyQueueThatHearsNothing(QueueOfAStore):
    """Every hint got lost."""

    poll_ms = 10

    @override
    async def announce(self, queue: DurableQueue, doorbells: Sequence[Doorbell]) -> None:
        await self.make_ready(doorbells)
