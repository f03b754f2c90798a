"""Behind a pooler: one that lends whole sessions is as good as the server, and any other is refused at the start."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.postgres_pooler import pooler

from durable import ConfigurationError, Context, Durable, Signal, workflow
from durable.backends import backend_for
from durable.clock import SystemClock
from tests.brokers.run import Run
from tests.support import World, reaches

Go = Signal("go", str)


async def isolation(connection: Any) -> list[str]:
    names = "transaction_isolation", "idle_in_transaction_session_timeout"
    return [await connection.fetchval("SELECT current_setting($1)", name) for name in names]


@workflow
async def patient(ctx: Context) -> list[str]:
    for number in range(5):  # on a connection that was reset before
        settings = await ctx.transaction(f"settings{number}", isolation)
        assert settings == ["read committed", "1min"], settings
    await ctx.sleep("10ms")
    return [await ctx.wait_for_signal(Go)]


async def test_behind_a_pooler_of_sessions_all_is_as_ever(
    broker_run: Run, postgres_url: str, namespace: str
) -> None:
    seldom = {"sweep": "1h", "lease": "1h"}
    with pooler(broker_run, postgres_url, "session") as url:
        async with World(url, namespace=namespace) as world:
            await world.node(patient, **cast("Any", seldom))
            client = await world.node(patient, worker=False, **cast("Any", seldom))
            handle = await client.start(patient)
            await reaches(handle, "waiting", within=20)
            await handle.signal(Go, "heard")
            assert await handle.result(20) == ["heard"]


async def test_a_pooler_that_lends_sessions_for_a_transaction_is_refused(
    broker_run: Run, postgres_url: str
) -> None:
    with pooler(broker_run, postgres_url, "transaction") as url:
        with pytest.raises(ConfigurationError, match="shares its sessions") as refused:
            await Durable([patient], store=url).__aenter__()
        assert "pool_mode=session" in (refused.value.hint or "")
        backend = backend_for(url)
        for opener in (backend.open_store, backend.open_queue, backend.open_bus):
            assert opener is not None
            port = opener(url, namespace="default", clock=SystemClock())
            with pytest.raises(ConfigurationError, match="shares its sessions"):
                await port.open()
            await port.close()
