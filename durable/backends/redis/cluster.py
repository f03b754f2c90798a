"""`Cluster`: which of many masters has a slot, also while slots move and masters fail."""

from __future__ import annotations

import asyncio
import binascii
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from random import Random
from typing import Final, final

from typing_extensions import override

from durable.backends.redis.link import Answer, Link, pack
from durable.backends.redis.location import Endpoint
from durable.backends.redis.node import Node
from durable.backends.redis.race import first_of
from durable.backends.redis.replies import ReplyError
from durable.backends.redis.topology import Topology
from durable.errors import DurableError, StoreUnavailable

logger = logging.getLogger("durable.redis")

SLOTS: Final = 16384
_ANSWER_S: Final = 1.0
"""A node that does not tell the slots within this time is passed over for another one."""
_BETWEEN_S: Final = 0.1
"""The shortest time between two looks at the slots."""
_CLUSTER_SLOTS: Final = pack(("CLUSTER", "SLOTS"))

Ranges = list[tuple[int, int, Endpoint]]
Dial = Callable[[Endpoint], Awaitable[Link]]


def slot_of(key: str) -> int:
    """The slot of a key: of what stands between its first braces, if anything does."""
    start = key.find("{") + 1
    end = key.find("}", start) if start else -1
    return _slot(key[start:end] if end > start else key)


@lru_cache(maxsize=4096)
def _slot(tag: str) -> int:
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


@final
class Cluster(Topology):
    """One connection to each master. Replicas are never asked.

    The slots are looked at again whenever a node answers MOVED or CLUSTERDOWN, is lost, or cannot be reached.
    """

    def __init__(
        self, seeds: Sequence[Endpoint], dial: Dial, *, shown: str, on_up: Callable[[], object] | None = None
    ) -> None:
        self._seeds = seeds
        self._dial = dial
        self._shown = shown
        self._on_up = on_up
        self._random = Random()
        self._nodes: dict[Endpoint, Node] = {}
        self._slots: list[Node | None] = [None] * SLOTS
        self._looking: asyncio.Task[None] | None = None
        self._is_outdated = False
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_open = False

    @override
    def node_of(self, key: str) -> Node:
        node = self._slots[slot_of(key)]
        if node is None:
            self._look_again()
            raise StoreUnavailable(
                f"slot {slot_of(key)} of the cluster at {self._shown} has no master",
                "look at CLUSTER INFO and CLUSTER SLOTS",
            )
        return node

    @override
    def masters(self) -> Sequence[Node]:
        return list({node: None for node in self._slots if node is not None})

    @override
    def redirect(self, error: ReplyError, key: str) -> Node | None:
        if error.code in ("MOVED", "CLUSTERDOWN"):
            self._look_again()
        if error.code not in ("MOVED", "ASK"):
            return None
        slot, _, place = error.text.partition(" ")
        host, _, port = place.rpartition(":")
        node = self._node(Endpoint(host or self._host_of(key), int(port)))
        if error.code == "ASK":
            return node
        self._slots[int(slot)] = node
        return None

    @override
    async def open(self) -> None:
        self._arrange(await self._first_slots())
        try:
            async with asyncio.TaskGroup() as opening:
                for node in self.masters():
                    opening.create_task(node.open(), name="durable.redis.open")
        except BaseExceptionGroup as failures:
            await self.close()
            first = failures.exceptions[0]
            raise first from first.__cause__
        except BaseException:
            await self.close()
            raise
        self._is_open = True

    @override
    async def close(self) -> None:
        self._is_open = False
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))
        await asyncio.gather(*(node.close() for node in self._nodes.values()), *self._leaving)
        self._nodes.clear()
        self._slots = [None] * SLOTS

    def _node(self, endpoint: Endpoint) -> Node:
        node = self._nodes.get(endpoint)
        if node is None:
            node = self._nodes[endpoint] = Node(
                lambda: self._dial(endpoint),
                name=f"{endpoint} ({self._shown})",
                on_up=self._on_up,
                on_trouble=self._look_again,
            )
        return node

    def _host_of(self, key: str) -> str:
        """The host of the node that has the key: another one that does not name its host listens there as well."""
        in_charge = self._slots[slot_of(key)]
        return next((each.host for each, node in self._nodes.items() if node is in_charge), "localhost")

    # -- looking at the slots

    def _arrange(self, ranges: Ranges) -> None:
        slots: list[Node | None] = [None] * SLOTS
        for first, last, endpoint in ranges:
            slots[first : last + 1] = [self._node(endpoint)] * (last + 1 - first)
        self._slots = slots
        masters = {endpoint for _, _, endpoint in ranges}
        for endpoint in [each for each in self._nodes if each not in masters]:
            leaving = asyncio.create_task(self._nodes.pop(endpoint).close(), name=f"durable.redis.{endpoint}")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def _look_again(self) -> None:
        self._is_outdated = True
        if self._is_open and self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="durable.redis.slots")
            self._looking.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled() and self._is_outdated:
            self._look_again()

    async def _look(self) -> None:
        while self._is_outdated:
            self._is_outdated = False
            ranges = await self._slots_of_any_node()
            if ranges is not None:
                self._arrange(ranges)
            await asyncio.sleep(_BETWEEN_S * self._random.uniform(1, 2))

    async def _slots_of_any_node(self) -> Ranges | None:
        """As the first node tells them that answers; None when none does."""
        connected = [(endpoint, node.link) for endpoint, node in self._nodes.items()]
        self._random.shuffle(connected)
        for endpoint, link in connected:
            if link is not None and (ranges := await ask_slots(link, endpoint)) is not None:
                return ranges
        try:
            return await self._first_slots()
        except DurableError as error:
            logger.warning("the slots of the cluster at %s are not known: %s", self._shown, error)
            return None

    async def _first_slots(self) -> Ranges:
        """As the first seed, or node of before, tells them that answers. Raises: `StoreUnavailable` when none does."""
        known = dict.fromkeys((*self._seeds, *self._nodes))
        return await first_of(self._seed_slots(each) for each in known)

    async def _seed_slots(self, seed: Endpoint) -> Ranges:
        link = await self._dial(seed)
        try:
            ranges = await ask_slots(link, seed)
        finally:
            link.abort("it has answered")
        if ranges is None:
            raise StoreUnavailable(
                f"{seed} ({self._shown}) does not tell the slots of its cluster",
                "look at CLUSTER SLOTS there, and at what its user may do",
            )
        return ranges


async def ask_slots(link: Link, endpoint: Endpoint) -> Ranges | None:
    """The slots as the node at the other end knows them; None when it does not tell, in time."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            answer = await link.send(_CLUSTER_SLOTS, counts=0)
    except TimeoutError:
        return None
    return _ranges(answer, endpoint)


def _ranges(answer: Answer, endpoint: Endpoint) -> Ranges | None:
    """Read from the reply to CLUSTER SLOTS; None when that is not what it is."""
    if not isinstance(answer, list):
        return None
    ranges: Ranges = []
    for each in answer:
        match each:
            # A node that does not know its own name is at the address at which it was asked.
            case [int(first), int(last), [(bytes() | None) as host, int(port), *_], *_]:
                ranges.append((first, last, Endpoint(host.decode() if host else endpoint.host, port)))
            case _:
                return None
    return ranges or None
