"""TLS, as the `sslmode` of a URL asks for it: on every connection of the store, the bus and the queue."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres_table import session

from durable import Context, Durable, StoreUnavailable, workflow
from durable_postgres import PostgresStore
from tests.brokers.password import PASSWORD
from tests.brokers.postgres_server import PostgresServer
from tests.brokers.redis_server import HOST
from tests.brokers.run import Run

IN_PLAIN = """
    SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
    WHERE NOT ssl AND backend_type = 'client backend'
"""


@workflow
async def greet(ctx: Context, name: str) -> str:
    return await ctx.step("greet", lambda: f"hello, {name}")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`server.crt` and `other.crt`, each of which vouches for itself, and their keys."""
    directory = tmp_path_factory.mktemp("tls")
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    for name in ("server", "other"):
        files = ["-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.crt")]
        subprocess.run(
            ["openssl", *request.split(), "-addext", f"subjectAltName=IP:{HOST}", *files],
            check=True,
            capture_output=True,
        )
    return directory


@pytest.fixture(scope="module")
def server(broker_run: Run, certificates: Path) -> Iterator[PostgresServer]:
    servers = broker_run.servers("tls-postgres")
    files = {}
    for kind, ending in (("cert", "crt"), ("key", "key")):
        file = servers.directory / f"server.{ending}"
        file.touch(mode=0o600)
        file.write_bytes((certificates / f"server.{ending}").read_bytes())
        files[f"ssl_{kind}_file"] = str(file)
    try:
        yield PostgresServer(servers, ssl="on", **files)
    finally:
        servers.end()


@pytest.mark.parametrize("mode", ["require", "verify-full"])
async def test_nothing_is_sent_in_plain(server: PostgresServer, certificates: Path, mode: str) -> None:
    url = f"{server.url}?sslmode={mode}"
    if mode == "verify-full":
        url += f"&sslrootcert={certificates / 'server.crt'}"
    async with Durable([greet], store=url, queue=url, bus=url) as durable:
        assert await durable.start_and_wait(greet, "ada", timeout=20) == "hello, ada"
        async with session(url) as db:
            assert await db.fetchval(IN_PLAIN) == 0


@pytest.mark.parametrize(
    ("known", "match"), [("other.crt", "certificate verify failed"), ("missing.crt", "No such file")]
)
async def test_a_server_that_nobody_vouches_for_is_refused_and_gets_no_password(
    server: PostgresServer, certificates: Path, known: str, match: str
) -> None:
    url = f"{server.url}?sslmode=verify-full&sslrootcert={certificates / known}"
    with pytest.raises(StoreUnavailable, match=match) as refused:
        await PostgresStore(url).open()
    assert PASSWORD not in str(refused.value)


async def test_a_server_without_tls_is_refused_where_it_is_asked_for(postgres_url: str) -> None:
    with pytest.raises(StoreUnavailable, match="SSL"):
        await PostgresStore(f"{postgres_url}?sslmode=require").open()
