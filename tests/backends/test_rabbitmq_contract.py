"""The queue on RabbitMQ keeps the contract: within one process, and from one to another."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from typing_extensions import override

from durable.backends.rabbitmq import RabbitQueue
from durable.backends.rabbitmq.location import Location
from durable.protocols import Delivery, Doorbell, DurableQueue, Wanted
from durable.testing import QueueContract


class Apart(DurableQueue):
    """Two processes, one of which rings what the other receives."""

    def __init__(self, ringer: DurableQueue, receiver: DurableQueue) -> None:
        self._ringer = ringer
        self._receiver = receiver

    @override
    async def open(self) -> None:
        await self._ringer.open()
        await self._receiver.open()

    @override
    async def close(self) -> None:
        await self._receiver.close()
        await self._ringer.close()

    @override
    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        self._ringer.ring(doorbells)

    @override
    async def receive(self, wanted: Wanted, *, limit: int) -> Sequence[Delivery]:
        return await self._receiver.receive(wanted, limit=limit)

    @override
    def ack(self, delivery: Delivery) -> None:
        self._receiver.ack(delivery)

    @override
    def release(self, delivery: Delivery) -> None:
        self._receiver.release(delivery)

    @override
    async def dead_letters(self) -> int | None:
        return await self._receiver.dead_letters()


class TestRabbitQueue(QueueContract):
    @pytest.fixture
    async def queue(self, amqp_url: str, namespace: str) -> AsyncIterator[DurableQueue]:
        async with opened(RabbitQueue(Location.parse(amqp_url), namespace)) as queue:
            yield queue


class TestRabbitQueuesApart(QueueContract):
    @pytest.fixture
    async def queue(self, amqp_url: str, namespace: str) -> AsyncIterator[DurableQueue]:
        location = Location.parse(amqp_url)
        async with opened(Apart(RabbitQueue(location, namespace), RabbitQueue(location, namespace))) as queue:
            yield queue


@asynccontextmanager
async def opened(queue: DurableQueue) -> AsyncIterator[DurableQueue]:
    await queue.open()
    try:
        yield queue
    finally:
        await queue.close()
