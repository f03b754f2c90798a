"""`BusContract`: what an `EventBus` must do."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import pytest

from durable.protocols import ALL_TOPICS, EventBus, execution_topic, work_topic

PATIENCE = 10.0
"""Seconds until a hint that does not come fails the test."""
IMPATIENCE = 0.2
"""Seconds until a hint, which may get lost, is published again."""


class Ear:
    """A handler that counts what it hears."""

    def __init__(self) -> None:
        self.heard = 0
        self.then: Callable[[], object] | None = None
        self._something = asyncio.Event()

    def __call__(self) -> None:
        self.heard += 1
        self._something.set()
        if self.then is not None:
            self.then()

    async def listen(self, seconds: float = PATIENCE) -> None:
        """Wait until it was called since the last time."""
        async with asyncio.timeout(seconds):
            await self._something.wait()
        self._something.clear()

    async def hears(self, publish: Callable[[], object]) -> None:
        """Publish, again if need be, until it is called."""
        self._something.clear()
        async with asyncio.timeout(PATIENCE):
            while True:
                publish()
                with suppress(TimeoutError):
                    return await self.listen(IMPATIENCE)


class BusContract:
    """Subclass it with the fixture `bus`: opened, and closed afterwards.

        class TestMyBus(BusContract):
            @pytest.fixture
            async def bus(self) -> AsyncIterator[EventBus]:
                bus = MyBus("my://localhost/fresh-namespace")
                await bus.open()
                yield bus
                await bus.close()

    Override the fixture `peers` as well when the bus reaches other processes.
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Override it with a wider scope when a fixture of yours needs one."""
        return "asyncio"

    @pytest.fixture
    def peers(self, bus: EventBus) -> Sequence[EventBus]:
        """Override it with buses that reach each other, as several processes would have; `bus` first."""
        return [bus]

    async def assert_quiet(self, bus: EventBus, ears: Sequence[Ear]) -> None:
        """Nothing that was published before comes to these any more."""
        before = [ear.heard for ear in ears]
        last = Ear()
        subscription = await bus.subscribe("the-end", last)
        await last.hears(lambda: bus.publish(["the-end"]))
        subscription.close()
        assert [ear.heard for ear in ears] == before

    # -- who is called

    async def test_a_hint_reaches_every_process(self, peers: Sequence[EventBus]) -> None:
        ears = [Ear() for _ in peers]
        topic = execution_topic("a")
        for peer, ear in zip(peers, ears, strict=True):
            await peer.subscribe(topic, ear)
        for publisher in peers:
            for ear in ears:
                await ear.hears(partial(publisher.publish, [topic]))

    async def test_a_hint_after_the_subscription_is_not_too_early(self, peers: Sequence[EventBus]) -> None:
        for index in range(10):
            ear = Ear()
            await peers[0].subscribe(execution_topic(str(index)), ear)
            peers[-1].publish([execution_topic(str(index))])
            await ear.listen()

    async def test_what_is_published_right_before_closing_is_heard(self, peers: Sequence[EventBus]) -> None:
        ear = Ear()
        await peers[0].subscribe("t", ear)
        for publisher in peers[1:]:
            await ear.hears(partial(publisher.publish, ["t"]))  # it is connected
            publisher.publish(["t"])
            await publisher.close()
            await ear.listen()
            await publisher.open()

    async def test_every_handler_of_a_topic_is_called(self, bus: EventBus) -> None:
        ears = [Ear() for _ in range(5)]
        for ear in ears:
            await bus.subscribe("t", ear)
        for ear in ears:
            await ear.hears(lambda: bus.publish(["t"]))

    @pytest.mark.parametrize(
        ("topic", "other"),
        [
            (execution_topic("a"), execution_topic("ab")),
            (execution_topic("ab"), execution_topic("a")),
            (execution_topic("a"), execution_topic("A")),
            (execution_topic("a"), work_topic("a")),
            (execution_topic("a.b"), execution_topic("a.*")),
            (execution_topic("a"), execution_topic("?")),
            (execution_topic("a"), execution_topic("[a]")),
            (execution_topic("a/b"), execution_topic("a/#")),
        ],
        ids="-".join,
    )
    async def test_a_hint_of_another_topic_reaches_nobody(
        self, bus: EventBus, topic: str, other: str
    ) -> None:
        ear, fence = Ear(), Ear()
        await bus.subscribe(topic, ear)
        await bus.subscribe(other, fence)
        await fence.hears(lambda: bus.publish([other]))
        await self.assert_quiet(bus, [ear])
        assert ear.heard == 0

    async def test_a_hint_of_all_topics_reaches_everybody(self, peers: Sequence[EventBus]) -> None:
        ears = [Ear() for _ in range(4)]
        topics = [execution_topic("a"), execution_topic("b"), work_topic("default"), "t"]
        for index, (ear, topic) in enumerate(zip(ears, topics, strict=True)):
            await peers[index % len(peers)].subscribe(topic, ear)
        for ear in ears:
            await ear.hears(lambda: peers[-1].publish([ALL_TOPICS]))

    async def test_several_topics_are_published_at_once(self, bus: EventBus) -> None:
        ears = [Ear() for _ in range(20)]
        for index, ear in enumerate(ears):
            await bus.subscribe(f"t{index}", ear)
        for ear in ears:
            await ear.hears(lambda: bus.publish(f"t{index}" for index in range(len(ears))))

    async def test_a_handler_is_called_on_the_loop_that_subscribed(self, bus: EventBus) -> None:
        threads: list[int] = []
        ear = Ear()
        ear.then = lambda: threads.append(threading.get_ident())
        await bus.subscribe("t", ear)
        await ear.hears(lambda: bus.publish(["t"]))
        assert set(threads) == {threading.get_ident()}

    # -- subscriptions

    async def test_a_closed_subscription_is_not_called(self, bus: EventBus) -> None:
        ear = Ear()
        subscription = await bus.subscribe("t", ear)
        await ear.hears(lambda: bus.publish(["t"]))
        subscription.close()
        subscription.close()
        before = ear.heard
        bus.publish(["t"])
        bus.publish([ALL_TOPICS])
        await self.assert_quiet(bus, [ear])
        assert ear.heard == before

    async def test_closing_one_of_two_subscriptions_keeps_the_other(self, bus: EventBus) -> None:
        closed, kept = Ear(), Ear()
        subscription = await bus.subscribe("t", closed)
        await bus.subscribe("t", kept)
        subscription.close()
        await kept.hears(lambda: bus.publish(["t"]))
        assert closed.heard == 0

    async def test_one_handler_may_subscribe_twice(self, bus: EventBus) -> None:
        ear = Ear()
        first, second = await bus.subscribe("t", ear), await bus.subscribe("t", ear)
        first.close()
        await ear.hears(lambda: bus.publish(["t"]))
        second.close()
        await self.assert_quiet(bus, [ear])

    async def test_a_topic_can_be_subscribed_anew(self, bus: EventBus) -> None:
        for _ in range(3):
            ear = Ear()
            subscription = await bus.subscribe("t", ear)
            await ear.hears(lambda: bus.publish(["t"]))
            subscription.close()

    async def test_a_handler_may_close_its_own_subscription(self, bus: EventBus) -> None:
        ear = Ear()
        ear.then = (await bus.subscribe("t", ear)).close
        await ear.hears(lambda: bus.publish(["t"]))
        await self.assert_quiet(bus, [ear])
        bus.publish(["t"])
        await self.assert_quiet(bus, [ear])
        assert ear.heard == 1

    async def test_a_handler_may_close_its_neighbour(self, bus: EventBus) -> None:
        one, two, bystander = Ear(), Ear(), Ear()
        two.then = (await bus.subscribe("t", one)).close
        one.then = (await bus.subscribe("t", two)).close
        await bus.subscribe("t", bystander)
        await bystander.hears(lambda: bus.publish(["t"]))
        await bystander.hears(lambda: bus.publish(["t"]))
        assert (one.heard == 0) != (two.heard == 0)

    async def test_a_handler_may_publish(self, bus: EventBus) -> None:
        ear, echo = Ear(), Ear()
        ear.then = lambda: bus.publish(["echo"])
        await bus.subscribe("t", ear)
        await bus.subscribe("echo", echo)
        await echo.hears(lambda: bus.publish(["t"]))

    # -- what goes wrong

    async def test_a_handler_that_raises_disturbs_nobody_and_is_logged(
        self, bus: EventBus, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> None:
            raise RuntimeError("handler")

        broken, ears = Ear(), [Ear(), Ear()]
        broken.then = fail
        await bus.subscribe("t", ears[0])
        await bus.subscribe("t", broken)
        await bus.subscribe("t", ears[1])
        for ear in (*ears, broken, *ears):
            await ear.hears(lambda: bus.publish(["t"]))
        assert any(logged.levelno >= logging.WARNING for logged in caplog.records)

    async def test_a_hint_that_nobody_waits_for_is_no_error(self, bus: EventBus) -> None:
        bus.publish([])
        bus.publish(["nobody"])
        bus.publish([ALL_TOPICS])
        bus.publish(execution_topic(str(index)) for index in range(1000))
        ear = Ear()
        await bus.subscribe("t", ear)
        await ear.hears(lambda: bus.publish(["t"]))

    async def test_a_closed_bus_forgets_its_subscriptions_and_takes_hints_in_silence(
        self, bus: EventBus
    ) -> None:
        old = Ear()
        subscription = await bus.subscribe("t", old)
        await bus.close()
        await bus.close()
        bus.publish(["t"])
        subscription.close()
        await bus.open()
        new = Ear()
        await bus.subscribe("t", new)
        await new.hears(lambda: bus.publish(["t"]))
        assert old.heard == 0

    async def test_a_peer_that_closes_leaves_the_others_alone(self, peers: Sequence[EventBus]) -> None:
        ear = Ear()
        await peers[0].subscribe("t", ear)
        for peer in peers[1:]:
            await peer.subscribe("t", Ear())
            await peer.close()
        await ear.hears(lambda: peers[0].publish(["t"]))
