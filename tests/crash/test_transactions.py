"""Processes are killed around the commits of their transactions: a user's rows and the checkpoints always agree.

DURABLE_TEST_SEED=7        the same chances again
DURABLE_TEST_LONG=1        1,000 kills; or as many as DURABLE_TEST_KILLS says
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.transactions import KILLS, rows_and_checkpoints_agree


@pytest.mark.timeout(90 + KILLS)
async def test_a_users_rows_and_the_checkpoints_agree_though_processes_are_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'durable.db'}?synchronous=normal"
    await rows_and_checkpoints_agree(url, "tests.crash.transacting")
