"""One measurement of one peer: its servers, its drivers, what they answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import count
from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.servers import broker_run
from benchmarks.worlds import Process, program


@dataclass(frozen=True)
class Driver:
    """A peer's driver, and what each of its processes is told."""

    peer: Peer
    scale: float
    urls: Mapping[str, str]
    directory: Path

    @asynccontextmanager
    async def __call__(self, role: str, argument: str = "") -> AsyncIterator[Process]:
        settings = {"role": role, "scale": self.scale, "urls": dict(self.urls), "argument": argument}
        folder = self.peer.environments[0].folder if self.peer.environments[0].is_node else self.directory
        async with program(*self.peer.command, json.dumps(settings), cwd=folder) as process:
            yield process


async def measured(name: str, workload: str, scale: float) -> dict[str, float]:
    """Raises: `Absent`, or `ProcessFailed` when a driver does not answer."""
    peer = PEERS[name]
    with (
        TemporaryDirectory(prefix="durable-bench-") as directory,
        broker_run() as run,
        peer.state(run, peer.environments[0], Path(directory)) as urls,
    ):
        driver = Driver(peer, scale, urls, Path(directory))
        if workload == "w5":
            return await _long(driver)
        if workload == "w7":
            return await _takeover(driver)
        async with driver(workload) as process:
            return dict(await process.says())


async def _long(driver: Driver) -> dict[str, float]:
    async with driver("w5-run") as first:
        found = await first.says()
        await first.kill()
    async with driver("w5-replay", found["id"]) as second:
        return {**found["figures"], **(await second.says())}


async def _takeover(driver: Driver) -> dict[str, float]:
    alone = driver.peer.after_kill == "standby"
    mine = count(count(2000, driver.scale, least=20), 0.3 if alone else 0.15)
    async with (
        driver("w7-accept") as client,
        driver("w7-worker", f"victim:{mine}") as victim,
        driver("w7-worker", "other:0") as other,
    ):
        if not alone:
            assert await client.says() == "accepted"
        assert [await victim.says(), await other.says()] == ["ready", "ready"]
        victim.go()
        if alone:
            assert await victim.says() == "registered"
            client.go()
        assert await victim.says() == "begun"
        if not alone:
            other.go()
        killed = await victim.says()
        await victim.ended()
        if alone:
            other.go()
            assert await client.says() == "accepted"
        client.go(str(killed))
        if driver.peer.after_kill != "restart":
            return dict(await client.says())
        async with driver("w7-worker", "victim:0") as again:
            assert await again.says() == "ready"
            again.go()
            return dict(await client.says())
