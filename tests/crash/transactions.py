"""The rig of transactions: any store that takes part in them is put to the same test."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast, final

from durable import Durable, ExecutionStatus
from tests.crash.fleet import ROOT, seed, until_all_ended
from tests.crash.transacting import STEPS, UserSide, node

KILLS: Final = int(
    os.environ.get("DURABLE_TEST_KILLS", "1000" if os.environ.get("DURABLE_TEST_LONG") == "1" else "8")
)
_WORKERS: Final = 3
_DEADLY: Final = 0.02
"""The chance to die at each of the five places of a transaction."""


@final
class Processes:
    """Those of one rig, forked by `transacting`, and reaped only here."""

    def __init__(self) -> None:
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.transacting"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.living: list[int] = []
        self.killed = 0

    def boot(self, **settings: object) -> None:
        self.living.append(self._ask(boot=settings))

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)  # nobody has reaped it, so it is still this one

    def bury(self) -> int:
        """How many have died since the last time."""
        dead = [pid for pid in self.living if self._is_dead(pid)]
        self.living = [pid for pid in self.living if pid not in dead]
        return len(dead)

    def _is_dead(self, pid: int) -> bool:
        status = self._ask(reap=pid)
        assert status in (None, -signal.SIGKILL), f"a process ended by itself: {status}"
        self.killed += status is not None
        return status is not None

    def _ask(self, **question: object) -> Any:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(question).encode() + b"\n")
        self._nursery.stdin.flush()
        return json.loads(self._nursery.stdout.readline())

    def end(self) -> None:
        for pid in self.living:
            self.kill(pid)
        self._nursery.kill()  # and with it go its children
        self._nursery.communicate()


@contextmanager
def processes() -> Iterator[Processes]:
    all_of_them = Processes()
    try:
        yield all_of_them
    finally:
        all_of_them.end()


async def rows_and_checkpoints_agree(url: str, module: str, namespace: str = "default") -> None:
    """Let workers and callers work and be killed, `KILLS` times, and compare. `module` has a `user_side`."""
    plan = seed()
    print(f"DURABLE_TEST_SEED={plan}")
    chance, began = random.Random(plan), time.monotonic()
    side = cast("UserSide", importlib.import_module(module).user_side(url))
    async with node(url, namespace, worker=False) as client:
        await side.create()
        with processes() as those:

            def boot(deadly: float = _DEADLY, *, starts: bool = True) -> None:
                those.boot(
                    url=url,
                    namespace=namespace,
                    side=module,
                    seed=chance.randrange(2**32),
                    deadly=deadly,
                    starts=starts,
                )

            for _ in range(_WORKERS):
                boot()
            while those.killed < KILLS:
                await asyncio.sleep(chance.uniform(0, 0.1))
                if chance.random() < 0.1:
                    those.kill(chance.choice(those.living))  # wherever it is
                for _ in range(those.bury()):
                    boot()
            for pid in those.living:
                those.kill(pid)
            boot(0, starts=False)
            await until_all_ended(client, within=60)
        number = await _compare(client, side)
        print(f"{those.killed} kills, {number} executions, {time.monotonic() - began:.1f} s")


async def _compare(client: Durable, side: UserSide) -> int:
    """Compare all that there is; how many executions."""
    rows = await side.rows()
    given = {(execution, step): token for execution, step, token in rows}
    assert len(given) == len(rows), [row for row, n in Counter(row[:2] for row in rows).items() if n > 1]
    found: set[str] = set()
    cursor: str | None = None
    while True:
        page = await client.operator.list_executions(limit=100, cursor=cursor)
        for execution in page.items:
            assert execution.status is ExecutionStatus.COMPLETED, execution
            found.add(execution.id)
            stored = {
                each.id: each.result
                for each in (await client.operator.get_execution_detail(execution.id)).steps
                if each.kind == "step"
            }
            assert stored == {f"put{n}": given.get((execution.id, f"put{n}")) for n in range(STEPS)}
            assert execution.result == [stored[f"put{n}"] for n in range(STEPS)]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == {execution for execution, step, _ in rows if not step}
    assert found == {execution for execution, _, _ in rows}
    assert found
    return len(found)
