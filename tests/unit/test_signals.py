"""Signals and events as definitions, and what a wait gives."""

from dataclasses import FrozenInstanceError, dataclass

import pytest

from durable import Completed, Event, InvalidInput, Received, Signal, TimedOut


@dataclass
class Approval:
    by: str


def test_a_signal_is_equal_to_another_of_its_name_and_to_no_event() -> None:
    assert Signal("approved", Approval) == Signal("approved", Approval)
    assert hash(Signal("approved", Approval)) == hash(Signal("approved", Approval))
    assert Signal("approved") != Signal("rejected")
    assert len({Signal("a"), Signal("a"), Event("a")}) == 2


def test_its_name_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Signal("approved").name = "other"


@pytest.mark.parametrize("name", ["", "a b", "__own", "rollback:x", "x" * 201])
def test_hostile_and_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="the name of a signal"):
        Signal(name)
    with pytest.raises(InvalidInput, match="the name of an event"):
        Event(name)


def test_its_schema_validates_the_payload_also_of_a_union() -> None:
    assert Signal("a", Approval).schema.validate({"by": "ada"}) == Approval("ada")
    assert Signal("a", Approval | None).schema.validate(None) is None
    assert Signal("a", list[int] | str).schema.validate("x") == "x"
    with pytest.raises(InvalidInput):
        Signal("a", Approval).schema.validate({"name": "ada"})


def test_a_signal_without_a_payload_takes_none_only() -> None:
    assert Signal("ping").schema.validate(None) is None
    with pytest.raises(InvalidInput):
        Signal("ping").schema.validate(3)


def test_outcomes_match_by_what_they_bring_and_tell_their_kind() -> None:
    match Received(Approval("ada"), "approved"):
        case Received(payload, name):
            assert (payload, name) == (Approval("ada"), "approved")
    match Completed(3):
        case Completed(value):
            assert value == 3
    assert [Received(1, "a").kind, Received(1, "a", "event").kind] == ["signal", "event"]
    assert [TimedOut().kind, Completed(1).kind] == ["timeout", "completed"]
    assert TimedOut() == TimedOut()


def test_outcomes_are_true_and_cannot_be_changed() -> None:
    assert TimedOut()
    assert Received(None, "ping")
    assert Completed(None)
    with pytest.raises(FrozenInstanceError):
        Received(1, "a").payload = 2
