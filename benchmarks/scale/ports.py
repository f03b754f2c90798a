"""The store of a world beneath its `Durable`, and what the servers say of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, final

import redis.asyncio
from typing_extensions import override

from benchmarks.servers import broker_run, messages_received
from benchmarks.worlds import World
from durable.backends import backend_for
from durable.backends.wrapped import WrappedStore
from durable.clock import SystemClock
from durable.protocols import DurableStore

T = TypeVar("T")


def bare_store(world: World) -> DurableStore:
    """Of one's own, on the world's data; not open."""
    opener = backend_for(world.place.store).open_store
    assert opener is not None
    return opener(world.place.store, namespace=world.place.namespace, clock=SystemClock())


@asynccontextmanager
async def open_store(world: World) -> AsyncIterator[DurableStore]:
    store = bare_store(world)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@final
class CountingStore(WrappedStore):
    """Counts the calls of each verb."""

    def __init__(self, store: DurableStore) -> None:
        super().__init__(store)
        self.calls: Counter[str] = Counter()

    @override
    async def through(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        self.calls[verb] += 1
        return await call()


async def stored_bytes(world: World) -> float:
    """How much the store has: in its file and the log beside it, or in its server's memory."""
    if world.has_redis:
        return (await redis_says(world))["used_memory_dataset"]
    return float(sum(path.stat().st_size for path in world.directory.glob("bench.db*")))


async def redis_says(world: World) -> dict[str, float]:
    """The numbers of INFO; `scripts` is how many ran."""
    async with redis.asyncio.Redis.from_url(world.place.store.partition("?")[0]) as connection:
        said = await connection.info("everything")
    numbers = {name: float(value) for name, value in said.items() if isinstance(value, int | float)}
    stats = [
        said.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval", "fcall", "evalsha_ro")
    ]
    return {**numbers, "scripts": float(sum(stats))}


def broker_messages() -> float:
    """How many messages the run's RabbitMQ has taken since it began."""
    with broker_run() as run:
        return messages_received(run)
