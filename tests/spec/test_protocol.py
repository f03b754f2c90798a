"""The protocol, checked in every order of events on a small scope; and each of its rules taken away, to see it missed.

DURABLE_TEST_LONG=1       more of the faults, up to a million states each

pytest -rP shows how many states each scope has.
"""

from __future__ import annotations

import os

import pytest

from tests.spec import execution, relay
from tests.spec.execution import Execution
from tests.spec.explorer import Step, Violation, explore
from tests.spec.relay import Relay

LONG = os.environ.get("DURABLE_TEST_LONG") == "1"

pytestmark = pytest.mark.timeout(0 if LONG else 300)

TWO = 2 if LONG else 1
SCOPES = {
    "a signal": (execution.Faults(TWO, TWO, lost_answers=1), False),
    "a timeout": (execution.Faults(TWO, 1, lost_answers=1), True),
    "bells": (execution.Faults(1, lost_bells=1, doubled_bells=1), False),
    "a rollback": (execution.Faults(LONG, 1, rollbacks=1), True),
    "a rollback, unanswered": (execution.Faults(LONG, LONG, lost_answers=1, rollbacks=1), True),
}
PAUSED = execution.Faults(pauses=1)
KILLED = execution.Faults(kills=1)
UNANSWERED = execution.Faults(lost_answers=1)
BACK = execution.Faults(rollbacks=1)
WITHOUT = {
    "nonce": (PAUSED, False, "a stale write is accepted", 5),
    "random nonce": (BACK, True, "a stale write is accepted", 6),
    "version": (BACK, True, "a record has a hole before it", 6),
    "operation": (UNANSWERED, False, "the only owner there was is refused", 4),
    "first answer": (
        execution.Faults(lost_answers=1, rollbacks=1),
        True,
        "a wait takes what is not first",
        7,
    ),
    "park compares": (execution.Faults(), False, "states never end", 4),
    "ready index": (execution.Faults(), False, "states never end", 5),
    "reaper": (KILLED, True, "states never end", 3),
    "one write": (KILLED, False, "states never end", 5),
    "timer stops": (execution.Faults(), True, "a timer outlives its wait", 5),
    "message id": (UNANSWERED, False, "a signal counts twice", 2),
}
"""What is needed to miss a rule: the faults, whether the wait has a timeout, what goes wrong, and how soon."""
WITHOUT_IN_THE_RELAY = {
    "outbox": ("states never end", 2),
    "delivered first": ("the parent is told that its child is missing", 4),
    "relay": ("states never end", 3),
    "start once": ("the child is started twice", 5),
    "start first": ("the parent is told that its child is missing", 3),
    "look back": ("states never end", 0),
    "told once": ("the parent reads of waits", 10),
    "told again": ("states never end", 0),
    "park compares": ("states never end", 8),
}


@pytest.mark.parametrize("scope", SCOPES)
def test_nothing_goes_wrong_with_one_execution_in_any_order(scope: str) -> None:
    faults, times_out = SCOPES[scope]
    report = Execution(faults=faults, times_out=times_out).explore()
    print(f"{scope}: {report}")
    assert report.trouble is None, str(report)
    assert report.states > 1_000


@pytest.mark.parametrize("rule", execution.RULES)
def test_each_rule_of_an_execution_is_needed(rule: str) -> None:
    faults, times_out, trouble, depth = WITHOUT[rule]
    report = Execution(execution.ALL - {rule}, faults, times_out=times_out).explore()
    print(f"without {rule}: {report}")
    assert trouble in (report.trouble or ""), str(report)
    assert report.depth == depth
    assert Execution(faults=faults, times_out=times_out).explore().trouble is None


@pytest.mark.parametrize("deaths", [0, 1, 3] if LONG else [0, 1])
def test_nothing_goes_wrong_between_two_partitions_in_any_order(deaths: int) -> None:
    report = Relay(faults=relay.Faults(deaths)).explore()
    print(f"{deaths} deaths: {report}")
    assert report.trouble is None, str(report)
    assert report.states > 500


@pytest.mark.parametrize("rule", relay.RULES)
def test_each_rule_of_the_relay_is_needed(rule: str) -> None:
    trouble, depth = WITHOUT_IN_THE_RELAY[rule]
    report = Relay(relay.ALL - {rule}, relay.Faults(1)).explore()
    print(f"without {rule}: {report}")
    assert trouble in (report.trouble or ""), str(report)
    assert report.depth == depth


# ---- the explorer


def test_the_shortest_way_to_a_violation_is_found() -> None:
    def steps(state: int) -> list[Step[int]]:
        if state == 3:
            raise Violation("three")
        return [Step("one more", state + 1), Step("two more", state + 2)]

    report = explore(0, steps, is_end=lambda state: False)
    assert (report.trouble, report.depth, report.trace) == ("three", 3, ("one more", "two more", "?"))


def test_an_end_that_only_a_fault_leads_to_is_none() -> None:
    def steps(state: int) -> list[Step[int]]:
        return [Step("luck", 1, True), Step("wait", 2)] if state == 0 else []

    report = explore(0, steps, is_end=lambda state: state == 1)
    assert (report.trouble, report.depth) == ("2 states never end", 0)
