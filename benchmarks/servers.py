"""A Redis of each measurement's own, and a RabbitMQ for all of a run; or those that the environment names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.brokers.rabbit_node import RabbitNode
from tests.brokers.redis_server import RedisServer
from tests.brokers.run import Run

REDIS_VARIABLE = "DURABLE_TEST_REDIS_URL"
AMQP_VARIABLE = "DURABLE_TEST_AMQP_URL"


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


def amqp_url(run: Run) -> str:
    """The run's RabbitMQ, started for the first who asks; or the one that is given."""

    def start() -> str:
        with run.servers("bench-rabbitmq") as servers:
            node = RabbitNode(servers)
            node.wait()
        return node.url

    return os.environ.get(AMQP_VARIABLE) or run.once("bench-rabbitmq", start)
