"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final
from urllib.parse import urlsplit

import asyncpg

from tests.brokers import fetch
from tests.brokers.binaries import FETCH_VARIABLE
from tests.brokers.password import PASSWORD
from tests.brokers.redis_server import HOST, free_port
from tests.brokers.run import Servers, ready, runs

_BIN: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/usr/local/pgsql/bin",
)
_BUNDLE: Final = fetch.Bundle(
    "fetched-postgresql",
    ("postgresql",),
    re.compile(r"^Package: (postgresql|libpq|libllvm)", re.MULTILINE),
)
_SETTINGS: Final = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "150",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "log_min_messages": "fatal",
    "deadlock_timeout": "100ms",
}


@final
class PostgresServer:
    """One server with its data, which a test may kill, stop and start again on the same port.

    `settings` are those of postgresql.conf (`max_connections="5"`). Its superuser asks for a password.
    """

    def __init__(self, servers: Servers, **settings: str) -> None:
        self.servers = servers
        self.directory = servers.directory / "postgres"
        self.directory.mkdir(mode=0o700)
        self.port = free_port()
        self.pid = 0
        self._settings = _SETTINGS | {"port": str(self.port)} | settings
        self._log = servers.directory / "postgres.log"
        self._bin, self._env = programs()
        self._initialize()
        self.start()

    @property
    def url(self) -> str:
        return server_url(self.port)

    def start(self) -> None:
        """Come back when it answers."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        server = [str(self._bin / "postgres"), "-D", str(self.directory), *options]
        self.pid = self.servers.start(*self._not_root(server), env=self._env, log=self._log)
        ready(self._answers, pids=[self.pid], log=self._log, within=60)

    def kill(self) -> None:
        """It and the processes that serve its connections end at once; what the kernel was given is kept."""
        self._end(signal.SIGKILL)
        (self.directory / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """It ends its sessions and goes."""
        self._end(signal.SIGINT)

    def restart(self) -> None:
        """Kill it, and start it again with its data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Its connections live, and nothing answers."""
        for pid in (self.pid, *_children(self.pid)):
            with contextlib.suppress(ProcessLookupError):  # the session ended meanwhile
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in (*_children(self.pid), self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _end(self, signum: signal.Signals) -> None:
        self.resume()
        children = _children(self.pid)
        os.kill(self.pid, signum)
        while runs(self.pid) or any(map(runs, children)):
            if signum is signal.SIGKILL:
                for child in filter(runs, children):
                    os.kill(child, signum)
            time.sleep(0.005)

    def _initialize(self) -> None:
        password = self.servers.directory / "password"
        password.write_text(PASSWORD)
        options = ["--username=postgres", "--auth=password", f"--pwfile={password}", "--no-sync"]
        init = [
            str(self._bin / "initdb"),
            f"--pgdata={self.directory}",
            "--encoding=UTF8",
            "--locale=C",
            *options,
        ]
        subprocess.run(self._not_root(init), env=self._env, check=True, capture_output=True, timeout=120)
        password.unlink()

    def _not_root(self, command: list[str]) -> list[str]:
        script = str(Path(__file__).with_name("not_root.py"))
        return [sys.executable, "-I", script, str(self.servers.directory), *command]

    def _answers(self) -> bool:
        async def ask() -> None:
            await (await asyncpg.connect(self.url, timeout=5)).close()

        try:
            _run(ask())
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True


def server_url(port: int) -> str:
    return f"postgresql://postgres:{PASSWORD}@{HOST}:{port}/postgres"


def programs() -> tuple[Path, dict[str, str]]:
    """The directory of the server's programs, and the environment that they need.

    Raises: `RuntimeError` with the one command to run, when they are not there and cannot be fetched.
    """
    if os.environ.get(FETCH_VARIABLE) != "fetch" and (found := _installed()):
        return found, {"PATH": f"{found}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    if not fetch.can_fetch():
        raise RuntimeError(f"the tests need PostgreSQL: run {_remedy()!r} and try again")
    try:
        root = fetch.fetched(_BUNDLE)
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", "") or error)
        raise RuntimeError(
            f"PostgreSQL cannot be fetched: run {_remedy()!r} and try again\n{said}"
        ) from error
    [*_, found] = sorted(root.glob("usr/lib/postgresql/*/bin"))
    return found, {"LC_ALL": "C.UTF-8"} | fetch.env(root)


@contextmanager
def database(url: str) -> Iterator[str]:
    """The URL of a fresh database on the server of another one, which is dropped afterwards."""
    name = f"durable_test_{secrets.token_hex(6)}"
    _execute(url, f'CREATE DATABASE "{name}"')
    try:
        yield urlsplit(url)._replace(path=f"/{name}").geturl()
    finally:
        _execute(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _execute(url: str, statement: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(url, timeout=30)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    _run(execute())


def _run(work: Coroutine[object, object, None]) -> None:
    """On a thread of its own: the caller's may have a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def _installed() -> Path | None:
    known = [path for pattern in _BIN for path in sorted(Path("/").glob(pattern[1:]), reverse=True)]
    on_path = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    return next(
        (path for path in (*on_path, *known) if (path / "initdb").exists() and (path / "postgres").exists()),
        None,
    )


def _remedy() -> str:
    if sys.platform == "darwin":
        return "brew install postgresql"
    for manager, command in (
        ("apt-get", "sudo apt-get install postgresql"),
        ("dnf", "sudo dnf install postgresql-server"),
        ("pacman", "sudo pacman -S postgresql"),
        ("apk", "sudo apk add postgresql"),
    ):
        if shutil.which(manager):
            return command
    return "export DURABLE_TEST_POSTGRES_URL=postgresql://..."


def _children(pid: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = (tuple(map(int, line.split())) for line in found.splitlines())
    return [child for child, parent in pairs if parent == pid]
