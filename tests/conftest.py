"""What every test shares: asyncio as the event loop, brokers, a watch over secrets, and the same examples each day.

New examples, and new seeds for the rigs, are looked for in the long runs.
"""

import os

import pytest
from hypothesis import settings

from tests.brokers.fixtures import (  # noqa: F401  (pytest finds fixtures and hooks here)
    amqp_url,
    broker_run,
    namespace,
    postgres_url,
    private_postgres,
    private_rabbit,
    private_redis,
    private_redis_cluster,
    pytest_collection_finish,
    pytest_configure,
    pytest_unconfigure,
    redis_cluster_url,
    redis_url,
)
from tests.canary import (  # noqa: F401
    pytest_runtest_makereport,
    pytest_sessionstart,
)

_USUAL_S = 120  # `timeout` of pyproject.toml
_FLEETS = frozenset(["nursery", "fleet_anywhere"])

settings.register_profile("durable", deadline=None, derandomize=os.environ.get("DURABLE_TEST_LONG") != "1")
settings.load_profile("durable")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under xdist, begin with fleets of processes, and then with what is given the most time.

    The first process gets them all, as it is given the first part of the list and others take from its end. So no two
    fleets, whose leases are short, starve each other, and no long test that begins last is waited for by everybody.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (_has_fleet(item), _time_limit(item)), reverse=True)


def _has_fleet(item: pytest.Item) -> bool:
    return not _FLEETS.isdisjoint(getattr(item, "fixturenames", ()))


def _time_limit(item: pytest.Item) -> float:
    """In seconds; 0 for the usual one, so that most tests stay beside those that share their fixtures."""
    mark = item.get_closest_marker("timeout")
    seconds = float(mark.args[0]) if mark is not None else _USUAL_S
    return 0 if 0 < seconds <= _USUAL_S else seconds or float("inf")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
