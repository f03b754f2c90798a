"""What a worker's process answers over HTTP, also while its event loop does not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from durable import Context, Durable, Fail, metrics, probes, workflow
from durable.errors import ConfigurationError, InvalidInput
from durable.ids import Ids
from durable.metrics import CONTENT_TYPE, Metrics
from durable.probes import Health, Probes, parse_address
from tests.support import CutOffStore, ends, until

ids = Ids()


@workflow
async def order(ctx: Context, cents: int) -> str:
    await ctx.step("charge", charge)
    await ctx.sleep("1ms")
    if cents < 0:
        raise Fail("nothing to charge")
    return "shipped"


async def charge() -> None: ...


@workflow(queue="nobody")
async def waits_for_a_worker(ctx: Context) -> None: ...


class Process:
    """A process with a worker, probed from another thread."""

    def __init__(self, durable: Durable, store: CutOffStore, server: Probes) -> None:
        self.durable = durable
        self.store = store
        self.server = server

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = HTTPConnection(self.server.host, self.server.port, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    async def asked(self, path: str, method: str = "GET") -> tuple[int, str]:
        return await asyncio.to_thread(self.get, path, method)

    async def health(self, path: str = "/health") -> tuple[int, dict[str, str]]:
        code, body = await self.asked(path)
        return code, json.loads(body)

    async def metrics(self) -> dict[tuple[str, ...], float]:
        code, body = await self.asked("/metrics")
        assert code == 200
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenths of what users wait."""
    monkeypatch.setattr(probes, "_PING_S", 0.02)
    monkeypatch.setattr(probes, "BLOCKED_S", 0.2)
    monkeypatch.setattr(metrics, "_PATIENCE_S", 0.2)


@pytest.fixture
async def process(impatient: None) -> AsyncIterator[Process]:
    url = f"memory://{ids.nonce()}"
    app = Durable(store=url)
    store = CutOffStore(app._store)
    counted, health = Metrics(), Health()
    durable = Durable(
        [order, waits_for_a_worker],
        store=store,
        bus=url,
        lease=1,
        sweep=0.1,
        drain=5,
        telemetry=[counted, health],
    )
    async with durable:
        server = Probes("127.0.0.1:0", health, counted.text, CONTENT_TYPE)
        counted.watch(durable)
        health.watch(durable)
        yield Process(durable, store, server)
        store.heal()
    health.stop()
    await asyncio.to_thread(server.close)


async def test_what_happens_here_is_counted_and_what_is_stored_is_read(process: Process) -> None:
    durable = process.durable
    await (await durable.start(order, 5)).result(5)
    await ends(await durable.start(order, -5))
    await durable.start(waits_for_a_worker)
    await until(lambda: durable.worker.dispatcher.active == 0)
    found = await process.metrics()
    assert found["durable_executions_total", "completed", "order"] == 1
    assert found["durable_executions_total", "failed", "order"] == 1
    assert found["durable_executions_started_total", "order"] == 2
    assert found["durable_step_duration_seconds_count", "completed", "charge", "order"] == 2
    assert found["durable_timers_lag_seconds_count",] == 2
    assert found["durable_executions_stored", "completed"] == 1
    assert found["durable_executions_stored", "pending"] == 1
    assert found["durable_queue_backlog", "nobody"] == 1
    assert 0 <= found["durable_queue_oldest_age_seconds", "nobody"] < 30
    assert (found["durable_worker_slots", "busy"], found["durable_worker_slots", "free"]) == (0, 100)
    assert found["durable_store_up",] == 1
    assert 0 <= found["durable_timer_overdue_seconds",] < 30
    assert ("durable_queue_dead_letters",) not in found  # there is no broker
    assert found["durable_commit_duration_seconds_count",] >= 4
    assert ("durable_replay_mismatches_total",) not in found  # a label for each workflow, once there is one


async def test_a_scrape_asks_the_store_once_and_no_more_often_than_once_a_second(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    counts = process.durable._store.counts

    async def counting() -> Any:
        asked.append("counts")
        return await counts()

    monkeypatch.setattr(process.durable._store, "counts", counting)
    await asyncio.gather(*(process.metrics() for _ in range(5)))
    assert asked == ["counts"]


async def test_all_is_well_with_a_worker_that_works(process: Process) -> None:
    fine = {"status": "ok", "worker": "working", "loop": "ok", "store": "ok", "lease": "ok"}
    for path in ("/health", "/health/live", "/health/ready"):
        assert await process.health(path) == (200, fine)


async def test_a_blocked_loop_is_told_while_it_is_blocked(process: Process) -> None:
    """The very thread that is blocked could not answer."""
    asked = asyncio.get_running_loop().run_in_executor(None, _when_it_is_blocked, process)
    time.sleep(1)  # as a step does that should be a plain def
    answers, scrape, took = await asked
    assert answers == {"/health": 503, "/health/live": 503, "/health/ready": 503}
    assert "durable_store_up 0.0" in scrape
    assert took < 3
    await until(lambda: process.server._health.findings()["loop"] == "ok")
    assert (await process.health("/health/live"))[0] == 200


def _when_it_is_blocked(process: Process) -> tuple[dict[str, int], str, float]:
    time.sleep(0.4)
    began = time.monotonic()
    answers = {path: process.get(path)[0] for path in ("/health", "/health/live", "/health/ready")}
    assert time.monotonic() - began < 0.5, "it answered only when the loop did"
    text = process.get("/metrics")[1]
    return answers, text, time.monotonic() - began


async def test_a_store_that_is_away_is_told_and_then_that_the_lease_is_lost(process: Process) -> None:
    process.store.cut_off()
    await until(lambda: process.server._health.findings()["store"] != "ok")
    code, found = await process.health()
    assert (code, found["store"], found["loop"]) == (503, "away: StoreUnavailable", "ok")
    assert (await process.health("/health/live"))[0] == 200  # no restart would mend that
    await until(lambda: process.server._health.findings()["lease"] == "lost")
    assert (await process.health())[1]["lease"] == "lost"
    process.store.heal()
    await until(lambda: process.server._health.findings()["lease"] == "ok")
    assert (await process.health())[0] == 200


async def test_a_worker_that_drains_is_well_and_not_ready(process: Process) -> None:
    await process.durable.operator.drain_worker(process.durable.worker.id)
    await until(process.durable.worker.told_to_drain.is_set)
    code, found = await process.health("/health/ready")
    assert (code, found["worker"]) == (503, "draining")
    assert (await process.health("/health"))[0] == 200


async def test_after_the_end_it_is_not_ready_and_a_scrape_has_what_was_counted(impatient: None) -> None:
    counted, health = Metrics(), Health()
    durable = Durable([order], store=f"memory://{ids.nonce()}", telemetry=[counted, health])
    async with durable:
        counted.watch(durable)
        health.watch(durable)
        await (await durable.start(order, 5)).result(5)
        await until(lambda: durable.worker.dispatcher.active == 0)
    assert health.is_draining
    text = (await asyncio.to_thread(counted.text)).decode()
    health.stop()
    assert 'durable_executions_total{status="completed",workflow="order"} 1.0' in text


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/../health", 404),
        ("GET", "/health/../../etc/passwd", 404),
        ("POST", "/health", 405),
        ("DELETE", "/metrics", 405),
        ("HEAD", "/health", 200),
    ],
)
async def test_nothing_else_is_served(process: Process, method: str, path: str, code: int) -> None:
    assert (await process.asked(path, method))[0] == code
    if method == "HEAD":
        assert (await process.asked(path, method))[1] == ""


async def test_a_client_that_sends_nothing_keeps_nobody_waiting(process: Process) -> None:
    _, writer = await asyncio.open_connection(process.server.host, process.server.port)
    assert (await process.health())[0] == 200
    writer.close()
    await writer.wait_closed()
    assert (await process.health())[0] == 200


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9000", ("127.0.0.1", 9000)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:9000", ("::1", 9000)),
        ("0.0.0.0:9000", ("0.0.0.0", 9000)),
    ],
)
def test_an_address_without_a_host_is_on_loopback(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", "host", "host:", ":9000", "host:port", "host:65536", "host:-1", "9٣"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="host:port"):
        parse_address(text)


@pytest.fixture
def taken() -> Iterator[int]:
    server = Probes("127.0.0.1:0", Health(), lambda: b"", CONTENT_TYPE)
    yield server.port
    server.close()


def test_an_address_that_is_taken_is_a_typed_error(taken: int) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen"):
        Probes(f"127.0.0.1:{taken}", Health(), lambda: b"", CONTENT_TYPE)
