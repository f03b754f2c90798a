"""Workers that are killed and stopped at random while they work: nothing is lost, changed or done twice needlessly.

DURABLE_TEST_SEED=7       the same plan again
DURABLE_TEST_LONG=1       5,000 faults; or as many as DURABLE_TEST_KILLS says
"""

from __future__ import annotations

import os
import random

import pytest

from tests.crash.chaos import Monkey, survives, worth_showing
from tests.crash.fleet import Fleet, seed

_IS_LONG = os.environ.get("DURABLE_TEST_LONG") == "1"
WORKERS = 8 if _IS_LONG else 3
FAULTS = int(os.environ.get("DURABLE_TEST_KILLS", "5000" if _IS_LONG else "45"))


@pytest.mark.timeout(110 + 2 * FAULTS)
async def test_nothing_is_lost_changed_or_repeated_without_need_while_workers_are_killed_and_stopped(
    fleet: Fleet,
) -> None:
    plan = seed()
    workers = Monkey(fleet, random.Random(plan + 1), FAULTS, workers=WORKERS)
    await survives(fleet, plan, [workers], worth_showing(FAULTS))
