"""The ports of a node in a simulation, and the network between them and what is shared.

node ──request──▶ network ──▶ MemoryStore      the request goes on when its sender has died
     ◀──answer───         ◀──
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context, copy_context
from functools import partial
from random import Random
from typing import Any, Literal, Protocol, TypeVar, cast, final

from typing_extensions import override

from durable.backends.wrapped import WrappedStore
from durable.errors import OutcomeUnknown, StoreUnavailable
from durable.protocols import (
    ALL_TOPICS,
    Batch,
    Capabilities,
    Claimed,
    Committed,
    Delivery,
    Diverged,
    Doorbell,
    DurableQueue,
    DurableStore,
    EventBus,
    Fenced,
    Full,
    NotClaimed,
    Subscription,
    Wanted,
)
from durable.testing.simulation.faults import Faults
from durable.testing.simulation.loop import Process, SimulationLoop
from durable.testing.simulation.witness import Witness, shown

T = TypeVar("T")
Call = Callable[[], Awaitable[T]]


class Line(Protocol):
    """How a node's calls reach the store."""

    async def call(self, verb: str, call: Call[T], about: object) -> T:
        """The store's answer. `about` says what the call carries, for people."""
        ...

    def beat(self, call: Callable[[], None]) -> None: ...


@final
class SimulatedStore(WrappedStore):
    """The one store as one node reaches it."""

    def __init__(self, store: DurableStore, line: Line, witness: Witness, node: str) -> None:
        super().__init__(store)
        self._node = node
        self._line = line
        self._witness = witness

    @override
    async def through(self, verb: str, call: Call[T]) -> T:
        return await self._line.call(verb, call, "")

    @override
    async def capabilities(self) -> Capabilities:
        return await self.within.capabilities()

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        async def claim() -> Claimed | NotClaimed:
            answer = await self.within.claim(execution_id, nonce=nonce, worker=worker, have_op=have_op)
            if isinstance(answer, Claimed):
                self._witness.claimed(self._node, execution_id, nonce, answer)
            return answer

        return await self._line.call("claim", claim, execution_id)

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        async def commit() -> Committed | Fenced | Diverged | Full:
            answer = await self.within.commit(execution_id, nonce=nonce, ver=ver, op_id=op_id, batch=batch)
            if isinstance(answer, Committed):
                self._witness.committed(execution_id, nonce, op_id, batch, answer)
            return answer

        return await self._line.call("commit", commit, _About(execution_id, batch))

    @override
    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        self._line.beat(lambda: self.within.beat(worker, ttl_ms=ttl_ms, info=info))


@final
class _About:
    """What a commit carries, put into words only when somebody reads them."""

    def __init__(self, execution_id: str, batch: Batch) -> None:
        self._execution_id = execution_id
        self._batch = batch

    @override
    def __str__(self) -> str:
        return f"{self._execution_id}: {shown(self._batch)}"

    @override
    def __repr__(self) -> str:
        return str(self)


@final
class Network:
    """Carries requests, answers, doorbells and hints: each takes a time of its own, and they overtake each other."""

    def __init__(self, loop: SimulationLoop, random: Random, faults: Faults, witness: Witness) -> None:
        self._loop = loop
        self._random = random
        self._witness = witness
        self.faults = faults
        self._mean_s = random.choice((0.0, 0.001, 0.02))
        self._process = loop.add(Process("network", unordered=True))
        self._stalled_until = 0.0
        self.answers: Counter[str] = Counter()
        """How often each verb was answered in each way, as `commit Fenced`."""
        self.is_cut = False
        """Nothing comes through any more: the simulation is over."""

    def carry(self, deliver: Callable[[], object], extra_s: float = 0.0) -> None:
        """Call `deliver` when the message has arrived, whatever its sender does until then."""
        delay = extra_s
        if self._mean_s and self._random.random() < 0.7:
            delay += self._random.expovariate(1 / self._mean_s)
        if delay:
            self._loop.call_later(delay, deliver, context=self._process.context)
        else:
            self._loop.call_soon(deliver, context=self._process.context)

    def hint(self, port: Literal["bus", "queue"], deliver: Callable[[], object]) -> None:
        """Carry a doorbell or a hint, if chance has it."""
        fault = self.faults.of_message(port)
        if fault == "drop":
            return
        self.carry(deliver, self._random.uniform(0.1, 10) if fault == "delay" else 0.0)
        if fault == "duplicate":
            self.carry(deliver)

    def wait_s(self) -> float:
        """How long what arrives now has to wait, because nothing is answered."""
        return max(0.0, self._stalled_until - self._loop.time())

    def stall(self) -> None:
        self._stalled_until = self._loop.time() + self._random.uniform(0.1, 20)

    def calm(self) -> None:
        """Something went wrong just now: whether all goes well is to be seen from here on."""
        self._loop.restless = 0.0

    def seconds(self, most: float) -> float:
        return self._random.uniform(0.01, most)

    def note(self, *what: object) -> None:
        self._witness.note(round(self._loop.time(), 6), *what)


@final
class NetworkLine(Line):
    """A node's calls, each of which may fail in each way."""

    def __init__(self, network: Network, process: Process, *, patient: bool) -> None:
        self._network = network
        self._process = process
        self._patient = patient
        """Its owner gives up after some seconds: faults of it are short."""

    @override
    async def call(self, verb: str, call: Call[T], about: object) -> T:
        network = self._network
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if network.is_cut:
            return await reply
        fault = None
        if not self._patient or verb in ("create", "post", "get"):
            fault = network.faults.of_store(verb, self._process.name)
        longest = 2.0 if self._patient else 20.0
        name = self._process.name

        def answer(outcome: object) -> None:
            if not reply.done():
                if isinstance(outcome, Exception):
                    reply.set_exception(outcome)
                else:
                    reply.set_result(cast("T", outcome))

        def apply(*, reported: bool = True) -> None:
            if network.is_cut:
                return
            if wait := network.wait_s():
                network.carry(lambda: apply(reported=reported), wait)
                return
            if fault is not None:
                network.calm()
            outcome = at_once(call)
            network.note(name, verb, about, fault, type(outcome).__name__)
            network.answers[f"{verb} {type(outcome).__name__}"] += 1
            if fault == "unknown" and not isinstance(outcome, Exception):
                outcome = OutcomeUnknown("", "injected")
            if reported:
                network.carry(lambda: answer(outcome))

        match fault:
            case "error":
                network.note(name, verb, about, fault)
                network.carry(lambda: answer(StoreUnavailable("injected")))
            case "late":
                network.carry(lambda: apply(reported=False), network.seconds(longest))
                network.carry(lambda: answer(OutcomeUnknown("", "injected")))
            case "delay":
                network.carry(apply, network.seconds(longest))
            case "stall" if not self._patient:
                network.stall()
                network.carry(apply)
            case _:
                network.carry(apply)
        return await reply

    @override
    def beat(self, call: Callable[[], None]) -> None:
        if self._network.is_cut:
            return
        if self._network.wait_s() or self._network.faults.of_store("beat", self._process.name) is not None:
            raise StoreUnavailable("injected")
        call()


def at_once(call: Call[Any]) -> object:
    """What a call of the memory store, which never suspends, gives or raises."""
    coroutine = cast("Any", call())
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    except Exception as error:  # noqa: BLE001 it is the answer
        return error
    raise AssertionError("the store has suspended")


Topics = dict[str, dict["_Subscription", None]]


@final
class SimulatedBus(EventBus):
    """One node's end of the bus that `topics` are shared over."""

    def __init__(self, network: Network, topics: Topics) -> None:
        self._network = network
        self._topics = topics

    @override
    async def open(self) -> None: ...

    @override
    async def close(self) -> None: ...

    @override
    def publish(self, topics: Iterable[str]) -> None:
        if self._network.is_cut:
            return
        for topic in topics:
            heard = self._topics.values() if topic == ALL_TOPICS else [self._topics.get(topic, {})]
            for subscription in [each for subscriptions in heard for each in subscriptions]:
                self._network.hint("bus", subscription.hint)

    @override
    async def subscribe(self, topic: str, handler: Callable[[], object]) -> Subscription:
        subscription = _Subscription(self._topics, topic, handler)
        self._topics.setdefault(topic, {})[subscription] = None
        return subscription


@final
class _Subscription(Subscription):
    def __init__(self, topics: Topics, topic: str, handler: Callable[[], object]) -> None:
        self._topics = topics
        self._topic = topic
        self._handler = handler
        self._context: Context = copy_context()
        self._is_open = True

    def hint(self) -> None:
        if self._is_open:
            asyncio.get_running_loop().call_soon(self._call, context=self._context)

    def _call(self) -> None:
        if self._is_open:
            self._handler()

    @override
    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            subscriptions = self._topics[self._topic]
            del subscriptions[self]
            if not subscriptions:
                del self._topics[self._topic]


@final
class Broker:
    """What a queue's messages are kept in, as RabbitMQ keeps them: each goes to one who wants it, until it is acked."""

    def __init__(self) -> None:
        self.waiting: list[Doorbell] = []
        self.receivers: dict[asyncio.Future[list[Delivery]], tuple[SimulatedQueue, Wanted, int]] = {}

    def put(self, bell: Doorbell) -> None:
        self.waiting.append(bell)
        self.serve()

    def serve(self) -> None:
        for future, (queue, wanted, limit) in list(self.receivers.items()):
            bells = [bell for bell in self.waiting if wanted.wants(bell)][:limit]
            if not bells or future.done():
                continue
            for bell in bells:
                self.waiting.remove(bell)
            del self.receivers[future]
            future.set_result(queue.deliver(bells))


@final
class SimulatedQueue(DurableQueue):
    """One node's channel to the broker."""

    def __init__(self, network: Network, broker: Broker) -> None:
        self._network = network
        self._broker = broker
        self._unsettled: dict[object, Doorbell] = {}

    def deliver(self, bells: Sequence[Doorbell]) -> list[Delivery]:
        deliveries = [Delivery(bell, object()) for bell in bells]
        self._unsettled |= {delivery.token: delivery.doorbell for delivery in deliveries}
        return deliveries

    def lose(self) -> None:
        """The connection is gone: what was delivered over it and not settled is delivered again."""
        self._broker.receivers = {
            future: receiver for future, receiver in self._broker.receivers.items() if receiver[0] is not self
        }
        unsettled, self._unsettled = self._unsettled, {}
        for bell in unsettled.values():
            self._network.carry(partial(self._broker.put, bell))

    @override
    async def open(self) -> None: ...

    @override
    async def close(self) -> None:
        self.lose()

    @override
    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        if not self._network.is_cut:
            for bell in doorbells:
                self._network.hint("queue", partial(self._broker.put, bell))

    @override
    async def receive(self, wanted: Wanted, *, limit: int) -> Sequence[Delivery]:
        future: asyncio.Future[list[Delivery]] = asyncio.get_running_loop().create_future()
        self._broker.receivers[future] = (self, wanted, limit)
        self._network.carry(self._broker.serve)
        try:
            return await future
        finally:
            self._broker.receivers.pop(future, None)

    @override
    def ack(self, delivery: Delivery) -> None:
        self._unsettled.pop(delivery.token, None)

    @override
    def release(self, delivery: Delivery) -> None:
        bell = self._unsettled.pop(delivery.token, None)
        if bell is not None:
            self._network.carry(lambda: self._broker.put(bell), 0.05)

    @override
    async def dead_letters(self) -> int | None:
        return None
