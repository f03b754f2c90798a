"""A PgBouncer of the tests' own, between them and a server."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from tests.brokers import fetch
from tests.brokers.redis_server import HOST, free_port
from tests.brokers.run import Run, ready

_BUNDLE: Final = fetch.Bundle(
    "fetched-pgbouncer", ("pgbouncer",), re.compile(r"^Package: (pgbouncer|libevent|libc-ares)", re.MULTILINE)
)
_NOT_ROOT: Final = Path(fetch.__file__).with_name("not_root.py")


@contextmanager
def pooler(run: Run, url: str, mode: str) -> Iterator[str]:
    """The URL of the same database behind a pooler that has its settings as they come, but for `mode`.

    Raises: `RuntimeError` when there is none and it cannot be fetched.
    """
    program, env = _program()
    server, port = urlsplit(url), free_port()
    servers = run.servers("pgbouncer")
    try:
        settings = servers.directory / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n"
            f"* = host={server.hostname} port={server.port} user={server.username} password={server.password}\n"
            f"[pgbouncer]\n"
            f"listen_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n"
        )
        command = [sys.executable, "-I", str(_NOT_ROOT), str(servers.directory), program, str(settings)]
        log = servers.directory / "pgbouncer.log"
        pid = servers.start(*command, env=env, log=log)
        behind = f"postgresql://{HOST}:{port}{server.path}?user={server.username}"
        ready(lambda: _answers(behind), pids=[pid], log=log, within=20)
        yield behind
    finally:
        servers.end()


def _program() -> tuple[str, dict[str, str]]:
    if found := shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"):
        return found, {"PATH": "/usr/bin:/bin"}
    if not fetch.can_fetch():
        raise RuntimeError("the tests of poolers need PgBouncer: install it and try again")
    root = fetch.fetched(_BUNDLE)
    return str(root / "usr/sbin/pgbouncer"), fetch.env(root)


def _answers(url: str) -> bool:
    async def ask() -> None:
        await (await asyncpg.connect(url, timeout=5)).close()

    try:
        with ThreadPoolExecutor(1) as thread:  # the caller's may have a loop that runs
            thread.submit(asyncio.run, ask()).result()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True
