"""A Redis or a database of each measurement's own, and a RabbitMQ for all of a run; or those that are given."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from tests.brokers.postgres_server import PostgresServer, database
from tests.brokers.rabbit_node import RabbitNode, rabbitmqctl
from tests.brokers.redis_server import RedisServer
from tests.brokers.run import Run

REDIS_VARIABLE = "DURABLE_TEST_REDIS_URL"
AMQP_VARIABLE = "DURABLE_TEST_AMQP_URL"
POSTGRES_VARIABLE = "DURABLE_TEST_POSTGRES_URL"


@contextmanager
def broker_run() -> Iterator[Run]:
    """What our servers end with: the run that a parent process owns, or else one of this block."""
    joined = Run.joined()
    run = joined or Run.open()
    try:
        yield run
    finally:
        if joined is None:
            run.close()


@contextmanager
def redis_url(run: Run) -> Iterator[str]:
    """One with nothing in it, whose append-only file is synced each second; or the one that is given."""
    given = os.environ.get(REDIS_VARIABLE)
    if given:
        yield given
        return
    servers = run.servers("bench-redis")
    try:
        yield RedisServer(servers).url
    finally:
        servers.end()


@contextmanager
def postgres_url(run: Run) -> Iterator[str]:
    """A database with nothing in it, on a server that flushes each commit; or on the one that is given."""
    given = os.environ.get(POSTGRES_VARIABLE)
    if given:
        with database(given) as url:
            yield url
        return
    servers = run.servers("bench-postgres")
    try:
        yield PostgresServer(servers).url
    finally:
        servers.end()


def amqp_url(run: Run) -> str:
    """The run's RabbitMQ, started for the first who asks; or the one that is given."""
    return os.environ.get(AMQP_VARIABLE) or _rabbit(run)[0]


@contextmanager
def virtual_host(run: Run) -> Iterator[str]:
    """One of the run's RabbitMQ, with nothing in it; or the one that is given, as it is."""
    given = os.environ.get(AMQP_VARIABLE)
    if given:
        yield given
        return
    url, env = _rabbit(run)
    name = f"bench-{uuid4().hex[:12]}"
    rabbitmqctl(env, "add_vhost", name)
    try:
        rabbitmqctl(env, "set_permissions", "--vhost", name, "guest", ".*", ".*", ".*")
        yield url + name
    finally:
        rabbitmqctl(env, "delete_vhost", name)


def messages_received(run: Run) -> float:
    """How many messages the run's RabbitMQ has been given since it began; nan of one that is not the run's."""
    if os.environ.get(AMQP_VARIABLE):
        return float("nan")
    counters = rabbitmqctl(_rabbit(run)[1], "eval", "rabbit_global_counters:overview().")
    return float(sum(map(int, re.findall(r"\bmessages_received_total\s*=>\s*(\d+)", counters))))


def _rabbit(run: Run) -> tuple[str, dict[str, str]]:
    """The URL of the run's own, and the environment that its control program needs."""

    def start() -> tuple[str, dict[str, str]]:
        with run.servers("bench-rabbitmq") as servers:
            node = RabbitNode(servers)
            node.wait()
        return node.url, node.env

    url, env = run.once("bench-rabbitmq", start)
    return url, env
