"""What behaviour tests share: a world of nodes on one store, ports that misbehave, and waiting without sleeping."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from types import ModuleType, TracebackType
from typing import Any, Final, Self, TypeVar, final

from typing_extensions import override

from durable import Durable, Execution, ExecutionStatus, Handle
from durable.backends import backend_for
from durable.backends.ready_queue import ReadyQueue
from durable.backends.wrapped import WrappedStore
from durable.clock import Clock, SystemClock, VirtualClock
from durable.duration import Duration, to_ms
from durable.errors import StoreUnavailable
from durable.models import StepRecord
from durable.protocols import (
    Delivery,
    Doorbell,
    DurableQueue,
    DurableStore,
    EventBus,
    Subscription,
    Wanted,
)
from durable.workflow import AnyWorkflow

T = TypeVar("T")

SOON = 5.0
"""Seconds after which what should have happened by now is a failure."""
_TURN = 0.002
_QUIET_TURNS = 5


async def until(condition: Callable[[], object], *, within: float = SOON) -> None:
    """Come back when `condition()`, which may be async, holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        holds = condition()
        if await holds if inspect.isawaitable(holds) else holds:
            return
        assert loop.time() < deadline, f"it did not come true within {within} s"
        await asyncio.sleep(_TURN)


async def reaches(handle: Handle[Any], *statuses: str, within: float = SOON) -> Execution:
    """The execution, when it has one of these statuses."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while (execution := await handle.status()).status not in statuses:
        assert loop.time() < deadline, f"it is {execution.status} after {within} s, not {statuses}"
        assert not execution.status.final, f"it ended as {execution.status}: {execution.error}"
        await asyncio.sleep(_TURN)
    return execution


async def ends(handle: Handle[Any], *, within: float = SOON) -> Execution:
    """The execution, when it has ended."""
    return await reaches(handle, *(status for status in ExecutionStatus if status.final), within=within)


# ---- nodes and their store


@final
class World:
    """Nodes on one store, and the time they live in.

    Its time is real, unless it was made with a `VirtualClock`: then only `advance` moves it.
    A `forgetful` world's workers put an execution aside whenever it waits and before each step that follows on
    another record, so that each wait and each step is followed by a replay.
    In a `rough` world nodes hear no hints, and their queue loses, repeats and reorders doorbells.
    On servers that other tests use too, its own namespace sets it apart; the nodes' namespaces are within it.
    """

    def __init__(
        self,
        url: str,
        *,
        queue: str | None = None,
        namespace: str = "",
        clock: Clock | None = None,
        forgetful: bool = False,
        rough: bool = False,
    ) -> None:
        self.url = url
        self.queue_url = queue
        self.clock = clock or SystemClock()
        self.forgetful = forgetful
        self.rough = rough
        self._namespace = namespace
        self._nodes: dict[Durable, tuple[tuple[AnyWorkflow | ModuleType, ...], dict[str, Any]]] = {}
        self.workflows: list[AnyWorkflow | ModuleType] = []
        """All that any node has known."""
        self.namespaces: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as stack:
            for node in list(self._nodes):
                stack.push_async_callback(self.stop, node)

    async def node(self, *workflows: AnyWorkflow | ModuleType, **settings: Any) -> Durable:
        """Another process on this store, so to speak: by default a worker that knows `workflows`."""
        given = {"store": self.url, "sweep": 0.2, "lease": 2, "clock": self.clock} | settings
        name = settings.get("namespace", "default")
        given["namespace"] = self.namespace(name)
        if self.rough and given["store"] == self.url:
            del given["store"]
            given = rough_ports(self, ROUGHEST, namespace=name) | given
        if not isinstance(given["store"], str):
            given.setdefault("bus", self.url)
        if self.queue_url is not None:
            given.setdefault("queue", self.queue_url)
        node = Durable(workflows, **given)
        if self.forgetful:
            node._settings = replace(node._settings, forgetful=True)  # no user needs to set it
        await node.__aenter__()
        self._nodes[node] = (workflows, settings)
        self.workflows += workflows
        self.namespaces.add(given["namespace"])
        return node

    async def stop(self, node: Durable) -> None:
        """End a node as a deployment does: at once, giving back what it runs."""
        del self._nodes[node]
        await node.stop()
        await node.__aexit__(None, None, None)

    async def restart(self, *workflows: AnyWorkflow | ModuleType) -> Durable:
        """Stop every node, and give a fresh one, with these workflows or those of the first node."""
        known, settings = next(iter(self._nodes.values()))
        for node in list(self._nodes):
            await self.stop(node)
        return await self.node(*(workflows or known), **settings)

    def namespace(self, name: str = "default") -> str:
        """What a node's namespace is called on the servers."""
        return f"{self._namespace}-{name}" if self._namespace else name

    def store(self, namespace: str = "default") -> DurableStore:
        """Another connection to the store, to be wrapped and given to a node."""
        opener = backend_for(self.url).open_store
        assert opener is not None
        return opener(self.url, namespace=self.namespace(namespace), clock=self.clock)

    def bus(self, namespace: str = "default") -> EventBus:
        opener = backend_for(self.url).open_bus
        assert opener is not None
        return opener(self.url, namespace=self.namespace(namespace), clock=self.clock)

    def queue(self, store: DurableStore, bus: EventBus, namespace: str = "default") -> DurableQueue:
        """The queue that nodes have here: a broker's, or the ready index of `store`, asked often."""
        if self.queue_url is None:
            return ReadyQueue(store, bus, self.clock, poll_ms=100, again_ms=100)
        opener = backend_for(self.queue_url).open_queue
        assert opener is not None
        return opener(self.queue_url, namespace=self.namespace(namespace), clock=self.clock)

    # ---- time

    async def advance(self, duration: Duration) -> None:
        """Move the virtual clock on; what falls due on the way happens at its own instant, before this returns."""
        clock = self.clock
        assert isinstance(clock, VirtualClock)
        target = clock.now_ms() + to_ms(duration)
        await self.until_idle()
        while (due := clock.next_at()) is not None and due <= target:
            clock.advance_to(due)
            await self.until_idle()
        clock.advance_to(target)
        await self.until_idle()

    async def until_idle(self) -> None:
        """Come back when no node has anything to do before time moves or the test does something.

        A step that waits for the test counts as nothing to do.
        """
        workers = [node.worker for node in self._nodes if node._worker is not None]
        while True:
            quiet, before = 0, [worker.progress for worker in workers]
            for _ in range(100):
                await asyncio.sleep(_TURN)
                quiet = quiet + 1 if all(worker.idle for worker in workers) else 0
                if quiet == _QUIET_TURNS:
                    break
            for worker in workers:
                await worker.sweeper.turn()
            has_work = [await worker.has_work() for worker in workers]
            if not any(has_work) and before == [worker.progress for worker in workers]:
                return


async def steps(node: Durable, handle: Handle[Any]) -> dict[str, StepRecord]:
    """What is recorded of an execution, by id."""
    detail = await node.operator.get_execution_detail(handle.id)
    return {record.id: record for record in detail.steps}


async def records(node: Durable, handle: Handle[Any], step_id: str, status: str = "") -> None:
    """Come back when something is recorded under `step_id`, with that status if one is given."""

    async def is_there() -> bool:
        record = (await steps(node, handle)).get(step_id)
        return record is not None and status in ("", record.status)

    await until(is_there)


async def of(node: Durable, workflow: str, number: int = 1) -> list[Execution]:
    """The executions of a workflow, the newest first, when there are this many."""
    found: list[Execution] = []

    async def are_there() -> bool:
        found[:] = (await node.operator.list_executions(workflow=workflow)).items
        return len(found) >= number

    await until(are_there)
    return found


# ---- stores that look on, or get in the way


@final
class CountingStore(WrappedStore):
    """Counts the calls of each verb, since the last `reset`."""

    def __init__(self, store: DurableStore) -> None:
        super().__init__(store)
        self.calls: Counter[str] = Counter()

    @override
    async def through(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        self.calls[verb] += 1
        return await call()

    def reset(self) -> None:
        self.calls.clear()


@final
class CutOffStore(WrappedStore):
    """A store whose process can be cut off from it, for ever or for a while, as a partition or a SIGSTOP does.

    Calls made while it is cut off wait; the lease is not renewed. `after=n` cuts it off by itself right before, or with
    `applied=True` right after, commit number n has been stored.
    """

    def __init__(self, store: DurableStore, *, after: int | None = None, applied: bool = True) -> None:
        super().__init__(store)
        self.commits = 0
        self._after = after
        self._applied = applied
        self._connected = asyncio.Event()
        self._connected.set()

    @property
    def is_cut_off(self) -> bool:
        return not self._connected.is_set()

    def cut_off(self) -> None:
        self._connected.clear()

    def heal(self) -> None:
        self._after = None
        self._connected.set()

    @override
    async def through(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        counts = verb == "commit" and not self.is_cut_off
        self.commits += counts
        here = counts and self.commits == self._after
        if here and not self._applied:
            self.cut_off()
        await self._connected.wait()
        answer = await call()
        if here and self._applied:
            self.cut_off()
            await self._connected.wait()
        return answer

    @override
    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        if self.is_cut_off and ttl_ms > 0:
            raise StoreUnavailable("it is cut off")
        self.within.beat(worker, ttl_ms=ttl_ms, info=info)


# ---- a bus and queues that keep their promises barely


@final
class SilentBus(EventBus):
    """Loses every hint."""

    @override
    async def open(self) -> None: ...

    @override
    async def close(self) -> None: ...

    @override
    def publish(self, topics: Iterable[str]) -> None: ...

    @override
    async def subscribe(self, topic: str, handler: Callable[[], object]) -> Subscription:
        return _Nothing()


class _Nothing(Subscription):
    @override
    def close(self) -> None: ...


@final
class RoughQueue(DurableQueue):
    """Loses, repeats and reorders the doorbells of another queue, as chance has it."""

    def __init__(self, queue: DurableQueue, *, lose: float = 0, repeat: float = 0, seed: int = 0) -> None:
        self._queue = queue
        self._lose = lose
        self._repeat = repeat
        self._random = random.Random(seed)

    @override
    async def open(self) -> None:
        await self._queue.open()

    @override
    async def close(self) -> None:
        await self._queue.close()

    @override
    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        bells = [bell for bell in doorbells if self._random.random() >= self._lose]
        bells += [bell for bell in bells if self._random.random() < self._repeat]
        self._random.shuffle(bells)
        self._queue.ring(bells)

    @override
    async def receive(self, wanted: Wanted, *, limit: int) -> Sequence[Delivery]:
        received = list(await self._queue.receive(wanted, limit=limit))
        spare = limit - len(received)
        received += [each for each in received if self._random.random() < self._repeat][:spare]
        self._random.shuffle(received)
        return received

    @override
    def ack(self, delivery: Delivery) -> None:
        self._queue.ack(delivery)

    @override
    def release(self, delivery: Delivery) -> None:
        self._queue.release(delivery)

    @override
    async def dead_letters(self) -> int | None:
        return await self._queue.dead_letters()


ROUGHEST: Final = "silent, lossy, repeating"


def rough_ports(world: World, how: str, *, namespace: str = "default") -> dict[str, Any]:
    """Settings of a node whose bus or queue is as bad as it may be."""
    store = world.store(namespace)
    bus = SilentBus() if "silent" in how else world.bus(namespace)
    if how == "silent bus":
        return {"store": store, "bus": bus}
    queue = world.queue(store, bus, namespace)
    queues = {
        "lossy queue": RoughQueue(queue, lose=0.5),
        "repeating queue": RoughQueue(queue, repeat=0.9),
        ROUGHEST: RoughQueue(queue, lose=0.4, repeat=0.5),
    }
    return {"store": store, "bus": bus, "queue": queues[how]}
