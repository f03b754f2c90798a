"""`pytest --durable-coverage`, as somebody uses it in a project of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKFLOWS = """\
from durable import Context, Signal, workflow

Go = Signal("go", str)

async def work(): ...

@workflow
async def order(ctx: Context, total: int) -> None:
    if total > 10:
        await ctx.step("review", work)
    outcome = await ctx.wait_for_signal(Go, timeout="1d")
    await ctx.switch("route", total, {1: lambda: ctx.step("fast", work)}, default=lambda: None)
    if outcome.kind == "timeout":
        await ctx.step("remind", work)
    await ctx.step("ship", work)
"""

TESTS = """\
import pytest
from durable.testing import DurableEnv
from shop import Go, order

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def test_a_small_order():
    async with DurableEnv([order]) as env:
        handle = await env.durable.start(order, 1)
        await handle.signal(Go, "now")
        await handle.result("10s")

async def test_another_small_order():
    async with DurableEnv([order]) as env:
        handle = await env.durable.start(order, 2)
        await env.advance("2h")
        await handle.signal(Go, "now")
        await handle.result("10s")
"""

REPORT = """\
shop.py:7 order: 8 of 10 nodes
  never reached: review (line 10)
  never reached: remind (line 14)
  never taken: total > 10 (line 9) --true-->
  never taken: go (line 11) --timeout-->
  never taken: outcome.kind == 'timeout' (line 13) --true-->
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_report_names_what_no_test_has_reached_also_of_several_processes(
    tmp_path: Path, workers: str
) -> None:
    (tmp_path / "shop.py").write_text(WORKFLOWS)
    (tmp_path / "test_shop.py").write_text(TESTS)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", workers),
            *("-c", os.devnull, "--rootdir", str(tmp_path), "--durable-coverage", "test_shop.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert REPORT in run.stdout, run.stdout


def test_where_no_workflow_ran_the_report_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    run = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "--durable-coverage", "test_nothing.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no workflow ran in a DurableEnv" in run.stdout
