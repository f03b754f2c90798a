"""`Topology`: which server is in charge of a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

from typing_extensions import override

from durable.backends.redis.node import Node
from durable.backends.redis.replies import ReplyError


class Topology(Protocol):
    """Servers of which each has some of the keys."""

    def node_of(self, key: str) -> Node:
        """Raises: `StoreUnavailable` when nobody is in charge at the moment."""
        ...

    def masters(self) -> Sequence[Node]: ...

    def redirect(self, error: ReplyError, key: str) -> Node | None:
        """The node that is to be asked, once, instead of the one that answered `error`.

        None: `node_of` knows better by now, or will shortly.
        """
        ...

    async def open(self) -> None:
        """Raises: `StoreUnavailable` within seconds, and nothing is left connected then."""
        ...

    async def close(self) -> None:
        """Come back when what is under way has been answered. Called twice: nothing happens."""
        ...


@final
class Server(Topology):
    """One server that has every key."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @override
    def node_of(self, key: str) -> Node:
        return self._node

    @override
    def masters(self) -> Sequence[Node]:
        return (self._node,)

    @override
    def redirect(self, error: ReplyError, key: str) -> Node | None:
        return None

    @override
    async def open(self) -> None:
        await self._node.open()

    @override
    async def close(self) -> None:
        await self._node.close()
