"""What crash tests share: processes that are gone when the test is, however it ended."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.brokers.fixtures import StartRedis
from tests.brokers.password import with_password
from tests.brokers.rabbit_node import RabbitNode
from tests.crash.fleet import Fleet, Nursery, Site, sqlite_site
from tests.crash.indoors import Indoors
from tests.crash.workflows import LEDGER_PATH, ledger


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


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("redis", marks=pytest.mark.needs("redis_url")),
        pytest.param("redis + rabbitmq", marks=pytest.mark.needs("redis_url", "amqp_url")),
    ]
)
async def fleet_anywhere(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Fleet | Indoors]:
    """On each backend; on memory within this process."""
    if request.param == "memory":
        indoors = Indoors(tmp_path, f"crash-{tmp_path.name}")
        monkeypatch.setenv(LEDGER_PATH, str(indoors.ledger_path))
        ledger.cache_clear()
        yield indoors
        await indoors.leave()
        ledger.cache_clear()
        return
    nursery: Nursery = request.getfixturevalue("nursery")
    if request.param == "sqlite":
        yield Fleet(nursery, tmp_path, sqlite_site(tmp_path))
        return
    queue = request.getfixturevalue("amqp_url") if "rabbitmq" in request.param else None
    namespace: str = request.getfixturevalue("namespace")
    yield Fleet(
        nursery, tmp_path, Site(request.getfixturevalue("redis_url"), queue=queue, namespace=namespace)
    )
