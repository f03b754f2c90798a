"""A Redis that cannot be used is named at once, with a remedy and without a secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from durable.backends.redis import link
from durable.backends.redis.connect import open_wire
from durable.backends.redis.location import Location
from durable.errors import ConfigurationError, DurableError, StoreUnavailable
from tests.brokers.fixtures import StartRedis
from tests.brokers.redis_server import RedisServer, free_port

pytestmark = pytest.mark.anyio


async def refusal(url: str) -> DurableError:
    """What opening this raises, in time."""
    async with asyncio.timeout(5):
        with pytest.raises((StoreUnavailable, ConfigurationError)) as refused:
            await open_wire(Location.parse(url))
    error = refused.value
    assert "canary" not in f"{error!r} {error} {error.hint} {error.__cause__!r}"
    assert error.hint
    return error


@pytest.fixture
async def deaf_port() -> AsyncIterator[int]:
    """Somebody who accepts connections and never says a word."""

    async def listen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in writers:
        writer.transport.abort()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """The port of somebody who says the same to everyone."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


# ---- nobody there


async def test_a_port_where_nobody_listens() -> None:
    error = await refusal(f"redis://:canary@127.0.0.1:{free_port()}")
    assert "cannot be reached" in str(error)
    assert "redis://:***@127.0.0.1" in str(error)


async def test_a_host_that_does_not_exist() -> None:
    error = await refusal("redis://no-such-host.invalid")
    assert "no-such-host.invalid:6379" in str(error)


async def test_a_server_that_never_answers(deaf_port: int) -> None:
    assert "does not answer" in str(await refusal(f"redis://:canary@127.0.0.1:{deaf_port}"))


async def test_a_server_of_another_kind() -> None:
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        error = await refusal(f"redis://:canary@127.0.0.1:{port}")
    assert "not the protocol of Redis" in str(error)


async def test_a_server_that_is_too_old_and_repeats_what_it_was_told() -> None:
    old = b"-ERR unknown command 'HELLO', with args beginning with: '2' 'AUTH' 'default' 'canary'\r\n"
    async with answering(old) as port:
        error = await refusal(f"redis://:canary@127.0.0.1:{port}")
    assert "too old" in str(error)


async def test_a_server_with_too_many_clients() -> None:
    async with answering(b"-ERR max number of clients reached\r\n") as port:
        assert "max number of clients" in str(await refusal(f"redis://127.0.0.1:{port}"))


async def test_none_of_several_servers(deaf_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CONNECT_S", 0.2)
    for url in (
        f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{deaf_port}",
        f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{deaf_port}/orders",
    ):
        error = await refusal(url)
        assert "cannot be reached" in str(error)
        assert "does not answer" in str(error)


# ---- not let in


async def test_a_password_that_is_missing_or_wrong(private_redis: StartRedis) -> None:
    server = private_redis(requirepass="canary-1")
    missing = await refusal(f"redis://127.0.0.1:{server.port}")
    assert "NOAUTH" in str(missing)
    assert "password" in missing.hint
    wrong = await refusal(f"redis://:canary-2@127.0.0.1:{server.port}")
    assert "WRONGPASS" in str(wrong)
    await (await open_wire(Location.parse(server.url))).close()


async def test_a_user_who_may_not_do_what_is_needed_opens_but_is_told(private_redis: StartRedis) -> None:
    server = private_redis()
    server.ask("ACL SETUSER guest on >canary ~* &* +@all -info -config -eval -evalsha")
    wire = await open_wire(Location.parse(f"redis://guest:canary@127.0.0.1:{server.port}"))
    assert any("may not use INFO" in note for note in wire.grade.notes)
    with pytest.raises(StoreUnavailable, match="NOPERM") as refused:
        await wire.call("EVAL", "return 1", 0, key="x")
    assert "ACL SETUSER" in refused.value.hint
    await wire.close()


# ---- TLS


@pytest.fixture
def tls_server(private_redis: StartRedis) -> RedisServer:
    return private_redis(tls=True, requirepass="canary-1")


async def test_tls_with_the_right_authority(tls_server: RedisServer) -> None:
    wire = await open_wire(Location.parse(tls_server.url))
    assert await wire.call("PING", key="") == b"PONG"
    await wire.close()


async def test_a_certificate_that_nobody_vouches_for(tls_server: RedisServer) -> None:
    error = await refusal(f"rediss://:canary-1@127.0.0.1:{tls_server.port}")
    assert "self-signed certificate" in str(error)
    assert "ssl_ca_certs" in error.hint
    unchecked = Location.parse(f"rediss://:canary-1@127.0.0.1:{tls_server.port}?ssl_cert_reqs=none")
    await (await open_wire(unchecked)).close()


async def test_a_certificate_of_another_host(private_redis: StartRedis) -> None:
    server = private_redis(tls=True, bind="127.0.0.1 127.0.0.2")
    url = server.url.replace("//127.0.0.1", "//127.0.0.2")
    error = await refusal(url)
    assert "IP address mismatch" in str(error)
    assert "the host as the certificate does" in error.hint
    await (await open_wire(Location.parse(f"{url}&ssl_check_hostname=0"))).close()


async def test_tls_to_a_server_that_does_not_speak_it(
    private_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "CONNECT_S", 0.2)  # it waits for the rest of what it takes for a command
    error = await refusal(f"rediss://127.0.0.1:{private_redis().port}")
    assert "write redis://" in error.hint


async def test_no_tls_to_a_server_that_expects_it(tls_server: RedisServer) -> None:
    error = await refusal(f"redis://:canary-1@127.0.0.1:{tls_server.port}")
    assert "write rediss://" in error.hint


# ---- not fit


async def test_a_server_that_keeps_nothing_or_evicts(private_redis: StartRedis) -> None:
    server = private_redis(appendonly="no")
    error = await refusal(f"redis://127.0.0.1:{server.port}")
    assert "appendonly is no" in str(error)
    assert "allow_ephemeral=1" in error.hint
    wire = await open_wire(Location.parse(f"{server.url}?allow_ephemeral=1"))
    assert wire.grade.grade == "D0"
    await wire.close()
    evicting = private_redis(maxmemory_policy="allkeys-lru")
    assert "allkeys-lru" in str(await refusal(f"redis://127.0.0.1:{evicting.port}"))


async def test_a_replica(private_redis: StartRedis) -> None:
    master = private_redis()
    replica = private_redis(replicaof=f"127.0.0.1 {master.port}")
    error = await refusal(replica.url)
    assert "is a replica" in str(error) or "MASTERDOWN" in str(error)


async def test_several_servers_that_are_no_cluster(private_redis: StartRedis) -> None:
    one, other = private_redis(), private_redis()
    error = await refusal(f"redis://127.0.0.1:{one.port},127.0.0.1:{other.port}")
    assert "they are no cluster" in str(error)
    assert "no node of a cluster" in str(await refusal(f"redis+cluster://127.0.0.1:{one.port}"))


async def test_a_server_taken_for_a_sentinel(private_redis: StartRedis) -> None:
    server = private_redis()
    assert "is no Sentinel" in str(await refusal(f"redis://127.0.0.1:{server.port}/orders"))
