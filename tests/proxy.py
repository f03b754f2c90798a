"""A network between a client and its server that a test can make slow, deaf or broken."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Final, Self, final
from urllib.parse import urlsplit, urlunsplit

HOST: Final = "127.0.0.1"
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing sends RST and not FIN


@final
class Proxy:
    """Forwards TCP connections to a server, well or badly.

        async with Proxy.to(redis_url) as proxy:
            store = RedisStore(proxy.url, ...)
            proxy.reset()

    It is deaf to protocols: what it cuts, it cuts anywhere in a message.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._wires: dict[_Wire, asyncio.Task[None]] = {}
        self._flows = asyncio.Event()
        self._flows.set()
        self._lost: list[tuple[bytes, asyncio.Event]] = []
        self.url = ""
        self.port = 0
        self.accepted = 0
        """How many connections there were."""
        self.request_latency = 0.0
        """Seconds from the client to the server."""
        self.reply_latency = 0.0
        """Seconds from the server to the client."""
        self.at_once: int | None = None
        """The most bytes that are written at once; None: as they come."""
        self.refuses = False
        """Whether new connections are reset at once."""

    @classmethod
    def to(cls, url: str) -> Self:
        """In front of the server of a URL; `url` leads through it when it is open."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        proxy = cls(parts.hostname, parts.port)
        proxy.url = url
        return proxy

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        parts = urlsplit(self.url)
        login, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{login}{at}{HOST}:{self.port}")) if self.url else ""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._wires.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        return len(self._wires)

    def reset(self) -> None:
        """Every connection is reset, in both directions; what is on its way is lost."""
        for wire in list(self._wires):
            wire.reset()

    def half_open(self) -> None:
        """Nothing passes through the connections there are, ever, and nobody is told. New ones work."""
        for wire in self._wires:
            wire.is_dead = True

    def pause(self) -> None:
        """Nothing passes until `resume`, and nothing is lost."""
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    def lose_reply(self, to: bytes = b"") -> asyncio.Event:
        """The next request with these bytes reaches the server, and its connection is reset instead of the reply.

        The event says that the server has answered.
        """
        answered = asyncio.Event()
        self._lost.append((to, answered))
        return answered

    # ---- connections

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        wire = _Wire(writer)
        task = asyncio.current_task()
        assert task is not None
        self._wires[wire] = task
        try:
            if self.refuses:
                return
            server_reader, wire.server = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._pump(wire, reader, wire.server, is_request=True))
                directions.create_task(self._pump(wire, server_reader, writer, is_request=False))
        except* (OSError, asyncio.CancelledError):
            pass  # the other side learns it by the reset
        finally:
            wire.reset()
            del self._wires[wire]

    async def _pump(
        self, wire: _Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        """One direction. Latency delays what passes and does not thin it out."""
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def forward() -> None:
            while True:
                due_at, data = await late.get()
                await asyncio.sleep(due_at - loop.time())
                await self._flows.wait()
                if not wire.is_dead:
                    await self._write(writer, data)
                if not data:
                    return

        forwarding = loop.create_task(forward())
        try:
            data = b"?"
            while data:
                data = await reader.read(65536)
                if is_request:
                    self._look_at(wire, data)
                elif wire.answered is not None:
                    wire.answered.set()
                    wire.reset()
                    return
                late.put_nowait(
                    (loop.time() + (self.request_latency if is_request else self.reply_latency), data)
                )
            await forwarding
        finally:
            forwarding.cancel()

    def _look_at(self, wire: _Wire, data: bytes) -> None:
        for lost in self._lost:
            if data and lost[0] in data:
                self._lost.remove(lost)
                wire.answered = lost[1]
                return

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not data:
            with contextlib.suppress(OSError):
                writer.write_eof()
            return
        size = self.at_once or len(data)
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            if self.at_once:
                await asyncio.sleep(0)


class _Wire:
    """A client's connection and the one to the server."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.is_dead = False
        self.answered: asyncio.Event | None = None
        """Set when the server answers the request whose reply is to be lost."""

    def reset(self) -> None:
        for writer in (self.client, self.server):
            if writer is None:
                continue
            connection = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
