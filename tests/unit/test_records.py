"""The records of the ports: equal by value, hashable where their fields are, with the defaults that they declare."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from durable.models import ExecutionStatus
from durable.protocols import Batch, Checkpoint, CheckpointStatus, Close, Doorbell, NewExecution, Run, Ticked


def test_a_record_that_is_made_quickly_is_like_any_other() -> None:
    bell = Doorbell("x", "order", "1", queue="default")
    assert bell == Doorbell("x", "order", "1", "default", priority=0)
    assert len({bell, Doorbell("x", "order", "1", "default")}) == 1
    assert replace(bell, priority=3).priority == 3
    assert repr(bell).startswith("Doorbell(id='x', workflow='order'")
    assert copy.copy(bell) == pickle.loads(pickle.dumps(bell)) == bell
    with pytest.raises(TypeError, match="queue"):
        Doorbell("x", "order", "1")  # type: ignore[call-arg]


def test_its_defaults_are_those_that_it_declares() -> None:
    assert Batch(seen=3) == Batch(3, Run(), (), (), (), (), {})
    assert Close(ExecutionStatus.COMPLETED).result is None
    checkpoint = Checkpoint("a", "step", "charge", CheckpointStatus.OPEN)
    assert (checkpoint.data, checkpoint.attempts, checkpoint.seq) == (b"", 1, 0)
    first, second = NewExecution("a", "order", "1", b""), NewExecution("b", "order", "1", b"")
    assert first.tags == {}
    assert first.tags is not second.tags
    assert [each.name for each in fields(first)][:2] == ["id", "workflow"]


def test_a_record_that_is_seldom_made_refuses_assignments() -> None:
    ticked = Ticked((), (), more=False, next_at=None, now=0)
    with pytest.raises(FrozenInstanceError):
        ticked.more = True  # type: ignore[misc]
