"""What the tests of all contributed packages share with those of durable."""

from tests.conftest import (  # noqa: F401  (pytest finds fixtures and hooks here)
    amqp_url,
    anyio_backend,
    broker_run,
    namespace,
    postgres_url,
    private_postgres,
    private_rabbit,
    private_redis,
    private_redis_cluster,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_makereport,
    pytest_sessionstart,
    pytest_unconfigure,
    redis_cluster_url,
    redis_url,
)

collect_ignore = ["skeleton"]
"""It is tested as a copy."""
