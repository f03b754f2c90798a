"""The brokers that tests ask for: one of each for the whole run, or one that the test may ill-treat.

A URL in the environment is used as it is; otherwise a private server is started on loopback. Nothing is skipped.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

import pytest
import redis

from tests.brokers.binaries import binaries
from tests.brokers.password import PASSWORD, with_password
from tests.brokers.postgres_server import PostgresServer, database, programs, server_url
from tests.brokers.rabbit_node import LOG, RabbitNode, rabbitmqctl, wait_for_amqp
from tests.brokers.redis_server import HOST, RedisServer, cluster_url, redis_cluster, wait_for_cluster
from tests.brokers.run import CHECKOUT, Run

_VARIABLES: Final = {
    "redis_url": "DURABLE_TEST_REDIS_URL",
    "redis_cluster_url": "DURABLE_TEST_REDIS_CLUSTER_URL",
    "amqp_url": "DURABLE_TEST_AMQP_URL",
    "postgres_url": "DURABLE_TEST_POSTGRES_URL",
}
_PRIVATE: Final = ("private_redis", "private_redis_cluster", "private_rabbit", "private_postgres")
_POSTGRES: Final = frozenset(["postgres_url", "private_postgres"])
_EXPIRY: Final = ("set_policy", "expiry", "^t[0-9a-f]{12}-", '{"expires":10000}', "--apply-to", "queues")
"""The queues of a behaviour test's namespaces go when it has gone, for hundreds of them would slow the node."""
_TEMPORARY: Final = CHECKOUT / ".tmp"
_RUN: Final = pytest.StashKey[Run]()


class StartRedis(Protocol):
    """Starts a server; its options are those of `RedisServer`."""

    def __call__(self, *, tls: bool = False, **options: str) -> RedisServer: ...


# ---- the run


def pytest_configure(config: pytest.Config) -> None:
    if _RUN in config.stash:  # two conftest.py have this hook
        return
    _TEMPORARY.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(_TEMPORARY)  # no file of a test is outside the checkout
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # in the background of a shell; children would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "needs(*fixtures): brokers that the test asks for only when it runs")
    joined = Run.joined() if hasattr(config, "workerinput") else None
    config.stash[_RUN] = joined or Run.open()


def pytest_unconfigure(config: pytest.Config) -> None:
    if _RUN in config.stash:
        config.stash[_RUN].close()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Find the brokers, outside the time limit of any test, and let the slow ones boot while the first tests run."""
    if session.config.option.collectonly:
        return
    run = session.config.stash[_RUN]
    needed = {name for item in session.items for name in _needs(item)}
    with contextlib.suppress(RuntimeError):  # the fixtures raise it again, in the tests that need them
        if needed - _POSTGRES:
            binaries()
        if needed & _POSTGRES:
            programs()
        if "postgres_url" in needed:
            _shared_postgres(run)
        if "amqp_url" in needed:
            _shared_rabbit(run)
        if "redis_cluster_url" in needed:
            _shared_cluster(run)


def _needs(item: pytest.Item) -> set[str]:
    asked = {name for mark in item.iter_markers("needs") for name in mark.args}
    asked |= set(getattr(item, "fixturenames", ()))
    return {name for name in asked if name in _PRIVATE or (name in _VARIABLES and _given(name) is None)}


def _given(name: str) -> str | None:
    return os.environ.get(_VARIABLES[name]) or None


def _shared_rabbit(run: Run) -> tuple[int, int, str, dict[str, str]]:
    """Its port, process id, directory and environment."""

    def start() -> tuple[int, int, str, dict[str, str]]:
        with run.servers("rabbitmq") as servers:
            node = RabbitNode(servers)
        return node.port, node.pid, str(servers.directory), node.env

    port, pid, directory, env = run.once("rabbitmq", start)
    return port, pid, directory, env


def _shared_cluster(run: Run) -> list[int]:
    def start() -> list[int]:
        with run.servers("cluster") as servers:
            return [node.port for node in redis_cluster(servers)]

    return run.once("cluster", start)


def _shared_postgres(run: Run) -> str:
    def start() -> int:
        with run.servers("postgres") as servers:
            return PostgresServer(servers, fsync="off").port

    return server_url(run.once("postgres", start))


def _shared_redis(run: Run) -> str:
    def start() -> str:
        with run.servers("redis") as servers:
            return RedisServer(servers).url

    return with_password(run.once("redis", start))


def _forget(url: str, namespace: str) -> None:
    """A Redis full of what tests have left is slow for each that looks at all of its keys."""
    connection = _connection(url)
    keys = list(connection.scan_iter(match=f"{{{namespace}*", count=1000))
    for first in range(0, len(keys), 1000):
        connection.unlink(*keys[first : first + 1000])


@functools.cache
def _connection(url: str) -> redis.Redis:
    """One for the whole of this process: thousands of tests forget what they have left."""
    return redis.Redis.from_url(url)


# ---- what tests ask for


@pytest.fixture(scope="session")
def broker_run(pytestconfig: pytest.Config) -> Run:
    return pytestconfig.stash[_RUN]


@pytest.fixture(scope="session")
def redis_url(broker_run: Run) -> str:
    """A Redis that keeps what it is given, for all tests: keep to your `namespace`."""

    return _given("redis_url") or _shared_redis(broker_run)


@pytest.fixture(scope="session")
def redis_cluster_url(broker_run: Run) -> str:
    """A cluster of three masters, for all tests: keep to your `namespace`."""
    given = _given("redis_cluster_url")
    if given:
        return given
    ports = _shared_cluster(broker_run)
    wait_for_cluster(ports)
    return with_password(cluster_url(ports))


@pytest.fixture(scope="session")
def amqp_url(broker_run: Run) -> str:
    """A RabbitMQ for all tests: keep to your `namespace`."""
    given = _given("amqp_url")
    if given:
        return given
    port, pid, directory, env = _shared_rabbit(broker_run)
    wait_for_amqp(port, pid=pid, log=Path(directory, LOG))
    broker_run.once("rabbitmq-expiry", lambda: rabbitmqctl(env, *_EXPIRY))
    return f"amqp://guest:{PASSWORD}@{HOST}:{port}/"


@pytest.fixture(scope="session")
def postgres_url(broker_run: Run) -> Iterator[str]:
    """A database of PostgreSQL for the tests of this process: keep to your `namespace`."""
    with database(_given("postgres_url") or _shared_postgres(broker_run)) as url:
        yield url


@pytest.fixture
def namespace(broker_run: Run) -> Iterator[str]:
    """One that no other test has; the shared Redis forgets it when the test is over."""
    with fresh_namespace(broker_run) as name:
        yield name


@contextlib.contextmanager
def fresh_namespace(broker_run: Run) -> Iterator[str]:
    """As the fixture `namespace`, for those of a wider scope."""
    name = f"t{secrets.token_hex(6)}"
    yield name
    if url := _given("redis_url"):
        _forget(url, name)
    elif broker_run.knows("redis"):
        _forget(_shared_redis(broker_run), name)


@pytest.fixture
def private_redis(broker_run: Run) -> Iterator[StartRedis]:
    """Starts servers that are the test's own: `server = private_redis(maxmemory="3mb")`."""
    ends: list[Callable[[], None]] = []

    def start(*, tls: bool = False, **options: str) -> RedisServer:
        servers = broker_run.servers("private-redis")
        ends.append(servers.end)
        return RedisServer(servers, tls=tls, **options)

    yield start
    for end in ends:
        end()


@pytest.fixture
def private_postgres(broker_run: Run) -> Iterator[PostgresServer]:
    """A PostgreSQL that is the test's own."""
    servers = broker_run.servers("private-postgres")
    try:
        yield PostgresServer(servers)
    finally:
        servers.end()


@pytest.fixture
def private_redis_cluster(broker_run: Run) -> Iterator[list[RedisServer]]:
    """A cluster of three masters that is the test's own."""
    servers = broker_run.servers("private-cluster")
    try:
        nodes = redis_cluster(servers)
        wait_for_cluster([node.port for node in nodes])
        yield nodes
    finally:
        servers.end()


@pytest.fixture(scope="module")
def private_rabbit(broker_run: Run) -> Iterator[RabbitNode]:
    """A RabbitMQ that is the module's own. Its tests leave it as they found it."""
    servers = broker_run.servers("private-rabbitmq")
    try:
        node = RabbitNode(servers)
        node.wait()
        yield node
    finally:
        servers.end()
