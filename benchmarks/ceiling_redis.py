"""The ceiling on Redis: a bare connection, all of whose commands of one turn of the loop leave as one write."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast, final
from urllib.parse import unquote, urlsplit

import aio_pika
import hiredis
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractExchange
from pamqp.common import FieldTable
from pydantic_core import from_json
from typing_extensions import override

from benchmarks.ceiling_writes import ACCEPT, COMMIT, FENCE, FIRE, PARK, POST, Store, Write
from benchmarks.worlds import Place

_ACCEPT = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'input', ARGV[2])
return 1
"""
_ADVANCE = """
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
if KEYS[3] and redis.call('ZREM', KEYS[3], ARGV[3]) == 0 then return 0 end
if #ARGV > 3 then redis.call('HSET', KEYS[2], unpack(ARGV, 4)) end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'result', ARGV[2]) end
return 1
"""
"""Any number of commits, the completion when there is a result, and the end of a timer when its key is given."""
_PARK = """
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
return 1
"""
_POST = """
redis.call('RPUSH', KEYS[1], ARGV[1])
return 1
"""

_SHAS = {source: hashlib.sha1(source.encode()).hexdigest() for source in (_ACCEPT, _ADVANCE, _PARK, _POST)}


def _pack(*command: str | bytes | int) -> bytes:
    return cast("bytes", hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub takes one word


@final
class Pipe(asyncio.Protocol):
    """One connection; replies are matched in order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[object]] = deque()

    def send(self, packed: bytes) -> asyncio.Future[object]:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        reply: asyncio.Future[object] = self._loop.create_future()
        self._waiting.append(reply)
        return reply

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting.popleft().set_result(reply)

    def close(self) -> None:
        self._transport.close()


@final
class Doorbells:
    """One message with all ids of a turn of the loop, which the broker confirms."""

    def __init__(self, exchange: AbstractExchange, queue: str) -> None:
        self._exchange, self._queue = exchange, queue
        self._ids: list[str] = []
        self._next: asyncio.Task[None] | None = None

    async def ring(self, id: str) -> None:
        self._ids.append(id)
        if self._next is None:
            self._next = asyncio.create_task(self._publish())
        await self._next

    async def _publish(self) -> None:
        ids, self._ids, self._next = self._ids, [], None
        body = "\n".join(ids).encode()
        await self._exchange.publish(Message(body, delivery_mode=DeliveryMode.PERSISTENT), self._queue)


@final
class RedisStore(Store):
    """A small script for each write; all that one execution writes together is one."""

    def __init__(self, pipe: Pipe, namespace: str, doorbells: Doorbells | None) -> None:
        self._pipe, self._prefix, self._doorbells = pipe, f"{{{namespace}}}", doorbells

    @override
    async def write(self, *writes: Write) -> None:
        statement, about = writes[0]
        if statement is ACCEPT:
            id, fence, input = cast("tuple[str, str, bytes]", about)
            assert await self._run(_ACCEPT, self._key("x", id), fence, input) == 1
            if self._doorbells is not None:
                await self._doorbells.ring(id)
        elif statement is POST:
            id, payload = cast("tuple[str, bytes]", about)
            assert await self._run(_POST, self._key("s", id), payload) == 1
        elif statement is PARK:
            wake_at, id, fence = cast("tuple[float, str, str]", about)
            keys = (self._key("x", id), f"{self._prefix}timers")
            assert await self._run(_PARK, *keys, fence, id, str(wake_at), keys=2) == 1
        else:
            await self._advance(writes)

    async def _advance(self, writes: Sequence[Write]) -> None:
        """What one execution writes together: the end of its timer, commits, the completion."""
        result, steps, timers = b"", list[str | bytes](), list[str]()
        for statement, about in writes:
            if statement is COMMIT:
                step_id, value, id, _ = cast("tuple[str, bytes, str, str]", about)
                steps += (step_id, value)
            elif statement is FIRE:
                (id,) = cast("tuple[str]", about)
                timers = [f"{self._prefix}timers"]
            else:
                result, id, _ = cast("tuple[bytes, str, str]", about)
        keys = (self._key("x", id), self._key("h", id), *timers)
        assert await self._run(_ADVANCE, *keys, FENCE, result, id, *steps, keys=len(keys)) == 1

    @override
    async def result(self, id: str) -> object:
        return from_json(cast("bytes", await self._pipe.send(_pack("HGET", self._key("x", id), "result"))))

    @override
    async def history(self, id: str) -> Sequence[object]:
        found = cast("list[bytes]", await self._pipe.send(_pack("HGETALL", self._key("h", id))))
        return [from_json(value) for value in found[1::2]]

    def _key(self, letter: str, id: str) -> str:
        return f"{self._prefix}{letter}:{id}"

    def _run(self, script: str, *words: str | bytes, keys: int = 1) -> asyncio.Future[object]:
        return self._pipe.send(_pack("EVALSHA", _SHAS[script], keys, *words))


@asynccontextmanager
async def open_redis(place: Place) -> AsyncIterator[RedisStore]:
    """Of the URL only the host, the port and the password are looked at."""
    url = urlsplit(place.store)
    loop = asyncio.get_running_loop()
    _, pipe = await loop.create_connection(Pipe, url.hostname or "localhost", url.port or 6379)
    try:
        if url.password:
            await pipe.send(_pack("AUTH", unquote(url.username or "default"), unquote(url.password)))
        for script in _SHAS:
            await pipe.send(_pack("SCRIPT", "LOAD", script))
        if place.queue is None:
            yield RedisStore(pipe, place.namespace, None)
            return
        async with await aio_pika.connect(place.queue) as connection:
            channel = await connection.channel()
            options: FieldTable = {"x-queue-type": "quorum"}
            queue = await channel.declare_queue(f"{place.namespace}.ceiling", durable=True, arguments=options)
            try:
                yield RedisStore(pipe, place.namespace, Doorbells(channel.default_exchange, queue.name))
            finally:
                await queue.delete(if_unused=False, if_empty=False)
    finally:
        pipe.close()
