"""`python -m tests.histories.record`: keep the histories of the scenarios that have none yet for this version.

What is kept is never written again: it is what an earlier version has recorded. `--into DIRECTORY` writes elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

from durable import Durable, __version__
from durable.history import History, dump_histories
from durable.testing import DurableEnv
from tests.histories.scenarios import SCENARIOS, Scenario

KEPT = Path(__file__).parent
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def histories_of(scenario: Scenario, *, replay: bool = False) -> list[list[History]]:
    """The executions of a scenario wherever it yields, and at its end; parents before their children."""
    kept: list[list[History]] = []
    workflows = [scenario.workflow, *scenario.others]
    seed = crc32(scenario.name.encode())  # so that all of them fit into one store
    async with DurableEnv(workflows, start=START, seed=seed, replay=replay) as env:
        handle = await env.durable.start(scenario.workflow, scenario.input)
        await env.until_idle()
        if scenario.drive is not None:
            async for _ in scenario.drive(env, handle):
                await env.until_idle()
                kept.append(await _all(env.durable))
        await env.until_idle()
        kept.append(await _all(env.durable))
    assert [histories[0].row.status.final for histories in kept].index(True) == len(kept) - 1
    return kept


async def _all(durable: Durable) -> list[History]:
    page = await durable.operator.list_executions(limit=1000)
    ids = sorted(page.items, key=lambda execution: (execution.parent_id is not None, execution.id))
    return [await durable.operator.get_history(execution.id) for execution in ids]


def path_of(directory: Path, name: str, number: int) -> Path:
    return directory / f"{name}-{number}.json"


async def record(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, scenario in SCENARIOS.items():
        if path_of(directory, name, 1).exists():
            continue
        for number, histories in enumerate(await histories_of(scenario), 1):
            path_of(directory, name, number).write_text(dump_histories(histories))
            print(path_of(directory, name, number))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=KEPT / __version__)
    asyncio.run(record(parser.parse_args().into))
