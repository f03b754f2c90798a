"""A fleet within this process, on a store that processes cannot share.

A worker that is killed is cut off from the store for good, while its bodies go on: as one is that nobody can reach any
more. Its lease runs out, and what it writes arrives, if ever, when all is over.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, final

from durable import Durable
from durable.backends import backend_for
from durable.clock import Clock, SystemClock
from durable.protocols import DurableStore
from tests.crash import workflows
from tests.crash.evidence import Fault, Stored
from tests.crash.fleet import read_all
from tests.crash.ledger import Entry, read_ledger
from tests.crash.node import NodeSettings, store_of, worker
from tests.support import CutOffStore


@final
class Lodger:
    """One worker."""

    def __init__(self, settings: NodeSettings) -> None:
        self.store = CutOffStore(store_of(settings))
        self.durable = worker(settings, self.store)
        self.alive = True

    async def ready(self) -> Lodger:
        return self


@final
class Indoors:
    """Workers on one `memory://` store."""

    def __init__(self, directory: Path, name: str) -> None:
        self.ledger_path = directory / "ledger"
        self.faults: list[Fault] = []
        self._url = f"memory://{name}"
        self._lodgers: list[Lodger] = []

    async def node(self, **settings: Any) -> Lodger:
        told = NodeSettings(self._url, ledger=str(self.ledger_path), trace="", log="", ready="", **settings)
        lodger = Lodger(told)
        await lodger.durable.__aenter__()
        self._lodgers.append(lodger)
        return lodger

    async def kill(self, lodger: Lodger) -> None:
        lodger.store.cut_off()
        lodger.alive = False
        self.faults.append(Fault("kill", 0, time.monotonic(), time.monotonic()))

    def end(self) -> None:
        """Cut all off."""
        for lodger in self._lodgers:
            lodger.store.cut_off()

    async def leave(self) -> None:
        """Let all that is still under way come to its end."""
        for lodger in self._lodgers:
            lodger.store.heal()
        for lodger in self._lodgers:
            await lodger.durable.stop()
            await lodger.durable.__aexit__(None, None, None)

    def client(self, clock: Clock | None = None) -> Durable:
        return Durable([workflows], store=self._url, worker=False, clock=clock)

    # ---- what there is to know

    def ledger(self) -> list[Entry]:
        return read_ledger(self.ledger_path)

    def killed(self) -> list[tuple[int, float]]:
        """None: the bodies of who was cut off go on to their ends."""
        return []

    async def stored(self) -> tuple[dict[str, Stored], list[str]]:
        """All executions, and what the store finds wrong with itself."""
        opener = backend_for(self._url).open_store
        assert opener is not None
        store: DurableStore = opener(self._url, namespace="default", clock=SystemClock())
        await store.open()
        try:
            return await read_all(store), list(await store.check())
        finally:
            await store.close()
