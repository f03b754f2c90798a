"""What crash tests share: processes that are gone when the test is, however it ended."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.fixtures import StartRedis
from tests.brokers.password import with_password
from tests.brokers.rabbit_node import RabbitNode
from tests.crash.fleet import Fleet, Nursery, Site, sqlite_site


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    try:
        yield nursery
    finally:
        nursery.end()


@pytest.fixture
def fleet(nursery: Nursery, tmp_path: Path) -> Fleet:
    return Fleet(nursery, tmp_path, sqlite_site(tmp_path))


@pytest.fixture
def fleet_on_servers(
    nursery: Nursery, tmp_path: Path, private_redis: StartRedis, private_rabbit: RabbitNode, namespace: str
) -> Fleet:
    """On a Redis of its own that keeps what it has answered, whatever happens to it, and on a RabbitMQ of its own."""
    redis = private_redis(appendfsync="always")
    return Fleet(
        nursery, tmp_path, Site(with_password(redis.url), queue=private_rabbit.url, namespace=namespace)
    )
