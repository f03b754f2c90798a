"""The network that tests of faults go through breaks as it is told to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.proxy import HOST, Proxy
from tests.support import until


@pytest.fixture
async def heard() -> list[bytes]:
    """What the server heard."""
    return []


@pytest.fixture
async def proxy(heard: list[bytes]) -> AsyncIterator[Proxy]:
    """In front of a server that answers each thing with its capitals."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(65536):
                heard.append(data)
                writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        async with Proxy.to(f"test://me:secret@{HOST}:{server.sockets[0].getsockname()[1]}/0?a=b") as proxy:
            yield proxy


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def ends(proxy: Proxy) -> AsyncIterator[Ends]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    yield reader, writer
    writer.close()


async def test_what_is_said_passes_both_ways(proxy: Proxy, ends: Ends) -> None:
    reader, writer = ends
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"HELLO"
    writer.write_eof()
    assert await reader.read() == b""
    await until(lambda: proxy.connections == 0)


async def test_its_url_is_the_servers_but_for_the_port(proxy: Proxy) -> None:
    assert proxy.url == f"test://me:secret@{HOST}:{proxy.port}/0?a=b"


async def test_latency_delays_and_keeps_the_order(proxy: Proxy, ends: Ends) -> None:
    reader, writer = ends
    proxy.request_latency, proxy.reply_latency = 0.02, 0.03
    asked_at = asyncio.get_running_loop().time()
    for letter in (b"a", b"b", b"c"):
        writer.write(letter)
        await asyncio.sleep(0)
    assert await reader.readexactly(3) == b"ABC"
    assert 0.05 <= asyncio.get_running_loop().time() - asked_at < 0.12


async def test_a_lost_reply_is_that_of_a_request_the_server_has_heard(
    proxy: Proxy, ends: Ends, heard: list[bytes]
) -> None:
    reader, writer = ends
    answered = proxy.lose_reply(b"two")
    writer.write(b"one")
    assert await reader.readexactly(3) == b"ONE"
    writer.write(b"two")
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    assert answered.is_set()
    assert heard == [b"one", b"two"]


async def test_half_open_connections_are_silent_for_ever_and_new_ones_work(
    proxy: Proxy, ends: Ends, heard: list[bytes]
) -> None:
    reader, writer = ends
    writer.write(b"one")
    assert await reader.readexactly(3) == b"ONE"
    proxy.half_open()
    writer.write(b"two")
    other_reader, other_writer = await asyncio.open_connection(HOST, proxy.port)
    other_writer.write(b"three")
    assert await other_reader.readexactly(5) == b"THREE"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.02)
    assert heard == [b"one", b"three"]
    other_writer.close()


async def test_a_paused_network_loses_nothing(proxy: Proxy, ends: Ends) -> None:
    reader, writer = ends
    proxy.pause()
    writer.write(b"hello")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.02)
    proxy.resume()
    assert await reader.readexactly(5) == b"HELLO"


async def test_a_reset_reaches_the_client(proxy: Proxy, ends: Ends) -> None:
    reader, writer = ends
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"HELLO"
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    await until(lambda: proxy.connections == 0)


async def test_a_proxy_that_refuses_resets_who_comes(proxy: Proxy) -> None:
    proxy.refuses = True
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    writer.close()
    assert proxy.accepted == 1


async def test_sliced_writes_arrive_whole(proxy: Proxy, ends: Ends) -> None:
    reader, writer = ends
    proxy.at_once = 1
    writer.write(b"hello" * 100)
    assert await reader.readexactly(500) == b"HELLO" * 100


async def test_a_server_that_is_not_there_resets_who_comes() -> None:
    async with Proxy(HOST, 1) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
