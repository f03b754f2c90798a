"""How many workers a supervisor wants."""

from __future__ import annotations

import pytest

from durable.cli.fleet import Load, Scale

SCALE = Scale(least=1, most=4, slots=10, patience_s=5)


@pytest.mark.parametrize(
    ("load", "running", "wanted"),
    [
        (Load(0, 0, 0), 3, 1),
        (Load(1, 0, 0), 0, 1),
        (Load(10, 0, 1), 1, 1),
        (Load(11, 0, 1), 1, 2),
        (Load(5, 10, 1), 1, 2),
        (Load(1000, 40, 1), 4, 4),
        (Load(1, 1, 6), 2, 3),  # it waits for too long, though there are slots enough
        (Load(1, 1, 6), 4, 4),
        (Load(0, 1, 600), 2, 1),  # nothing waits
    ],
)
def test_there_is_a_slot_for_each_and_one_more_worker_where_something_waits_for_too_long(
    load: Load, running: int, wanted: int
) -> None:
    assert SCALE.wanted(load, running) == wanted


def test_without_work_there_may_be_none() -> None:
    scale = Scale(least=0, most=4, slots=10, patience_s=5)
    assert (scale.wanted(Load(0, 0, 0), 2), scale.wanted(Load(1, 0, 0), 0)) == (0, 1)
