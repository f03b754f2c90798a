"""From a `Location` to what is connected to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

from durable.backends.redis.cluster import Cluster, ask_slots
from durable.backends.redis.link import Greeting, Link, Manners, Sent, dial
from durable.backends.redis.location import Endpoint, Location
from durable.backends.redis.node import Node
from durable.backends.redis.race import first_of
from durable.backends.redis.sentinel import find_master
from durable.backends.redis.topology import Server, Topology
from durable.backends.redis.wire import PATIENCE_S, RedisWire
from durable.errors import ConfigurationError, StoreUnavailable


async def open_wire(location: Location) -> RedisWire:
    """A `Wire` that has been connected and found fit.

    Raises:
        StoreUnavailable: it cannot be reached or used, within seconds.
        ConfigurationError: the URL does not fit what is there, or TLS files cannot be used.
    """
    wire = await connect(location)
    try:
        await wire.preflight()
    except BaseException:
        await wire.close()
        raise
    return wire


async def connect(location: Location, *, patience_s: float = PATIENCE_S) -> RedisWire:
    """A `Wire` to servers that have been found fit before: for one more connection. Raises as `open_wire`."""
    dialler = Dialler(location)
    wire = RedisWire(location, dialler.sent, patience_s=patience_s)
    await wire.open(await dialler.topology(on_up=wire.look_again))
    return wire


@final
class Dialler:
    """Connects to the servers of a location."""

    def __init__(self, location: Location, manners: Manners | None = None) -> None:
        """`manners` without login, TLS and database: these are the location's."""
        tls = location.tls.context() if location.tls else None
        self._location = location
        self._manners = replace(
            manners or Manners(), login=location.login, tls=tls, database=location.database
        )
        self._to_ask = Manners(location.login, tls)
        self._to_sentinels = Manners(location.sentinel_login, tls)
        self._known: Sequence[Endpoint] = location.endpoints
        self.sent = Sent()

    async def topology(self, on_up: Callable[[], object]) -> Topology:
        """What is there: a cluster, or one server."""
        if self._location.master is not None or not await self._is_cluster():
            return Server(Node(self.master, name=self._location.shown, on_up=on_up))
        return Cluster(self._location.endpoints, self.node, shown=self._location.shown, on_up=on_up)

    async def master(self) -> Link:
        """A connection to the one server, or to the master that the Sentinels name now.

        Raises: `StoreUnavailable` also when it is a replica.
        """
        endpoint = self._location.endpoints[0]
        if self._location.master is not None:
            endpoint = await find_master(self._location, self._to_sentinels)
        link, greeting = await self._dial(endpoint)
        if greeting.role not in ("master", ""):
            link.abort("it is a replica")
            raise StoreUnavailable(
                f"the Redis at {endpoint} ({self._location.shown}) is a replica",
                "name the master in the URL, or the Sentinels that know it",
            )
        return link

    async def node(self, endpoint: Endpoint) -> Link:
        """A connection to a node of a cluster."""
        return (await self._dial(endpoint))[0]

    async def anyone(self) -> Link:
        """A connection to the one server, or to any node of a cluster."""
        if self._location.master is not None:
            return await self.master()
        return await self.node(await first_of(self._answering(each) for each in self._known))

    async def _is_cluster(self) -> bool:
        mode = await first_of(self._mode(each) for each in self._known)
        if mode == "sentinel":
            raise ConfigurationError(
                f"{self._location.shown!r} names Sentinels and no master",
                "end it with the master's name: redis+sentinel://sentinel1:26379,sentinel2:26379/mymaster",
            )
        if mode != "cluster" and self._location.is_cluster:
            raise ConfigurationError(
                f"{self._location.shown!r} names a server that is no node of a cluster",
                "write redis://host:6379 for one server, or set cluster-enabled yes on all nodes",
            )
        if mode != "cluster" and len(self._known) > 1:
            raise ConfigurationError(
                f"{self._location.shown!r} names several servers, and they are no cluster",
                "name one of them; for a master with replicas name its Sentinels, and then the master's name",
            )
        return mode == "cluster"

    async def _mode(self, endpoint: Endpoint) -> str:
        link, greeting = await dial(endpoint, self._to_ask, shown=self._location.shown)
        link.abort("it has answered")
        return greeting.mode

    async def _answering(self, endpoint: Endpoint) -> Endpoint:
        """`endpoint`, which answers. If it is a node of a cluster, the other nodes are known from now on."""
        link, greeting = await dial(endpoint, self._to_ask, shown=self._location.shown)
        try:
            if greeting.mode == "cluster":
                ranges = await ask_slots(link, endpoint) or []
                self._known = list(dict.fromkeys((*self._known, *(each for _, _, each in ranges))))
        finally:
            link.abort("it has answered")
        return endpoint

    async def _dial(self, endpoint: Endpoint) -> tuple[Link, Greeting]:
        return await dial(endpoint, self._manners, shown=self._location.shown, sent=self.sent)
