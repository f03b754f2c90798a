"""How a process runs that does nothing but run executions."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from durable.cli.process import run_process


async def loop_and_thresholds() -> tuple[str, tuple[int, int, int], int]:
    return type(asyncio.get_running_loop()).__module__, gc.get_threshold(), gc.get_freeze_count()


def test_it_collects_more_seldom_while_it_runs_and_leaves_the_collector_as_it_was() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    _, within, frozen_within = run_process(loop_and_thresholds())
    assert within > before
    assert frozen_within > 10_000
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, frozen)


def test_it_runs_on_uvloop_where_that_is_installed() -> None:
    pytest.importorskip("uvloop")
    module, _, _ = run_process(loop_and_thresholds())
    assert module.startswith("uvloop")


def test_it_runs_on_the_loop_of_asyncio_where_uvloop_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    module, _, _ = run_process(loop_and_thresholds())
    assert module.startswith("asyncio")
