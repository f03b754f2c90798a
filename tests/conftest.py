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

settings.register_profile("durable", deadline=None, derandomize=os.environ.get("DURABLE_TEST_LONG") != "1")
settings.load_profile("durable")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
