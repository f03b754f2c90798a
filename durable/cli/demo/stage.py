"""The stage of the demo: its store and its ledger, and the worker processes that come and go."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from durable.app import Durable
from durable.cli.demo.ledger import PATH_VARIABLE
from durable.cli.demo.order import fulfil_order

NAMESPACE: Final = "demo"
_APPLICATION: Final = "durable.cli.demo.application:durable"
_PATIENCE: Final = 30.0
_POLL: Final = 0.02
_STOPPING: Final = 10.0
_LINES_SHOWN: Final = 20


class Failed(Exception):
    """The demo did not go as it must. `details` are the last lines of a worker's log, if they may tell why."""

    def __init__(self, text: str, details: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.details = details


@final
class Stage:
    """A client of the store, and the workers that were begun. None outlives the stage."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.ledger = directory / "ledger.jsonl"
        self.durable = Durable([fulfil_order], store=url, namespace=NAMESPACE, worker=False)
        self._directory = directory
        self._workers: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        await self.durable.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for worker in self._workers:
                await self._end(worker)
        finally:
            await self.durable.__aexit__(kind, error, trace)

    async def start_worker(self) -> asyncio.subprocess.Process:
        """A worker in a process of its own: `durable worker`, as anybody would start it."""
        log = self._log(len(self._workers)).open("wb")
        environment = {**os.environ, "DURABLE_STORE_URL": self.url, "DURABLE_NAMESPACE": NAMESPACE}
        environment |= {PATH_VARIABLE: str(self.ledger)}
        with log:
            worker = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "durable.cli", "worker", _APPLICATION),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends its workers itself
            )
        self._workers.append(worker)
        return worker

    async def kill(self, worker: asyncio.subprocess.Process) -> int:
        """Kill a worker with SIGKILL, and see it dead: its return code."""
        if worker.returncode is None:
            worker.kill()
        return await worker.wait()

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        """Come back when something holds.

        Raises:
            Failed: it does not within half a minute, or the last worker has died.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        while not await holds():
            if loop.time() > deadline:
                raise Failed(f"within {_PATIENCE:g}s it did not come about that {what}", self._last_words())
            if self._workers and self._workers[-1].returncode is not None:
                raise Failed(f"the worker ended before {what}", self._last_words())
            await asyncio.sleep(_POLL)

    def _log(self, number: int) -> Path:
        return self._directory / f"worker-{number + 1}.log"

    def _last_words(self) -> Sequence[str]:
        return self._log(len(self._workers) - 1).read_text(errors="replace").splitlines()[-_LINES_SHOWN:]

    async def _end(self, worker: asyncio.subprocess.Process) -> None:
        try:
            if worker.returncode is None:
                worker.terminate()
                async with asyncio.timeout(_STOPPING):
                    await worker.wait()
        except TimeoutError:
            pass
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
