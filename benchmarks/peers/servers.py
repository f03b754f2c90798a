"""The servers that peers keep their state in: PostgreSQL, and Restate's own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from benchmarks.peers.environments import Absent, Environment
from tests.brokers.redis_server import HOST, free_port
from tests.brokers.run import Run, Servers, ready

POSTGRES_VARIABLE = "DURABLE_BENCH_POSTGRES_URL"
_POSTGRES = "postgresql://postgres@127.0.0.1:5432/test"
"""Where a machine's own PostgreSQL usually is."""
_SQL = (
    "import psycopg, sys\n"
    "with psycopg.connect(sys.argv[1], autocommit=True, connect_timeout=5) as connection:\n"
    "    print((connection.execute(sys.argv[2]).fetchone() or [''])[0] if sys.argv[2].startswith('SHOW') "
    "else connection.execute(sys.argv[2]).statusmessage)\n"
)


@contextmanager
def database(run: Run, environment: Environment) -> Iterator[str]:
    """A database with nothing in it, on the given PostgreSQL, or the machine's, or one of the run's own.

    Raises: `Absent`.
    """
    server = os.environ.get(POSTGRES_VARIABLE) or _machines() or _private(run)
    name = f"durable_bench_{uuid4().hex[:12]}"
    _ask(environment, server, f"CREATE DATABASE {name}")
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        _ask(environment, server, f"DROP DATABASE {name} WITH (FORCE)")


def _machines() -> str | None:
    url = urlsplit(_POSTGRES)
    with socket.socket() as probe:
        probe.settimeout(1)
        return _POSTGRES if probe.connect_ex((url.hostname or HOST, url.port or 5432)) == 0 else None


def _ask(environment: Environment, server: str, statement: str) -> str:
    asked = subprocess.run(
        [environment.python, "-c", _SQL, server, statement],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if asked.returncode:
        raise Absent(f"PostgreSQL does not answer: {asked.stderr.strip().splitlines()[-1]}")
    return asked.stdout.strip()


def _private(run: Run) -> str:
    """The run's own PostgreSQL, started for the first who asks."""
    binaries = _binaries()
    if binaries is None:
        raise Absent("there is no PostgreSQL: none answers, and its programs are not installed")
    # It refuses root. This becomes its process, so that who ends it ends PostgreSQL.
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
    user = as_postgres if os.geteuid() == 0 else []
    if user and not (_exists("postgres") and shutil.which("setpriv")):
        raise Absent("PostgreSQL does not run as root, and there is no user postgres")

    def start() -> str:
        port = free_port()
        with run.servers("bench-postgres") as servers:
            _start(servers, binaries, user, port)
        return f"postgresql://postgres@{HOST}:{port}/postgres"

    return run.once("bench-postgres", start)


def _start(servers: Servers, binaries: Path, user: list[str], port: int) -> None:
    data, log = servers.directory / "data", servers.directory / "postgres.log"
    data.mkdir()
    if user:
        shutil.chown(data, "postgres")
    initdb = [*user, str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    done = subprocess.run(initdb, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"a private PostgreSQL cannot be made: {done.stderr.strip().splitlines()[-1]}")
    options = ["-c", f"listen_addresses={HOST}", "-p", str(port), "-k", str(data)]
    argv = [*user, str(binaries / "postgres"), "-D", str(data), *options]
    pid = servers.start(*argv, env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}, log=log)
    ready(lambda: _listens(port), pids=[pid], log=log, within=30)


def _binaries() -> Path | None:
    known = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    folders = [*known, *([Path(found).resolve().parent] if found else [])]
    return next(
        (each for each in folders if (each / "initdb").exists() and (each / "postgres").exists()), None
    )


def _exists(user: str) -> bool:
    return any(each.pw_name == user for each in pwd.getpwall())


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@contextmanager
def restate(run: Run, environment: Environment) -> Iterator[dict[str, str]]:
    """A Restate server with nothing in it, with its defaults. Raises: `Absent`."""
    found = sorted(environment.folder.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        raise Absent("Restate has no server for this machine")
    ingress, admin, fabric, handlers = (free_port() for _ in range(4))
    servers = run.servers("bench-restate")
    try:
        log = servers.directory / "restate.log"
        env = {
            "TMPDIR": str(servers.directory),
            "RESTATE_BASE_DIR": str(servers.directory / "data"),
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_ADDRESS": f"{HOST}:{fabric}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://{HOST}:{fabric}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"{HOST}:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"{HOST}:{admin}",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FILTER": "warn",
            "DO_NOT_TRACK": "1",
        }
        pid = servers.start(found[0], "--no-logo", env=env, log=log)
        ready(lambda: _is_healthy(admin) and _is_healthy(ingress, "/restate"), pids=[pid], log=log, within=60)
        ports = {"ingress": ingress, "admin": admin, "handlers": handlers}
        yield {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    finally:
        servers.end()


def _is_healthy(port: int, path: str = "") -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(f"GET {path}/health HTTP/1.0\r\n\r\n".encode())
            return b" 200 " in connection.recv(64)
    except OSError:
        return False
