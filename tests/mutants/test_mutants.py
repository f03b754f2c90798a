"""The tests notice it when a rule of the engine or of a store is broken.

every day                 each mutant of the gallery still fits the code, and a few of them are killed
DURABLE_TEST_LONG=1       all of them
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

import pytest

from tests.mutants.__main__ import try_all
from tests.mutants.gallery import GALLERY, Mutant
from tests.mutants.trial import places, try_out

IS_LONG: Final = os.environ.get("DURABLE_TEST_LONG") == "1"
EVERYDAY: Final = ("no fence, memory", "blind park, sqlite", "compensations oldest first")


def name_of(mutant: Mutant) -> str:
    return mutant.name


each_mutant = pytest.mark.parametrize("mutant", GALLERY, ids=name_of)


@each_mutant
def test_a_mutant_fits_the_code_in_one_place(mutant: Mutant) -> None:
    assert places(mutant) == 1
    assert mutant.old != mutant.new


def test_no_two_mutants_have_one_name() -> None:
    assert len({mutant.name for mutant in GALLERY}) == len(GALLERY)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "mutant", [mutant for mutant in GALLERY if IS_LONG or mutant.name in EVERYDAY], ids=name_of
)
def test_a_mutant_is_killed(mutant: Mutant) -> None:
    outcome = try_out(mutant)
    assert outcome.failed is not None, f"nothing noticed that {mutant.breaks}:\n{outcome.output}"


HARMLESS: Final = Mutant(
    "harmless",
    "nothing",
    "durable/duration.py",
    "from __future__ import annotations\n",
    "from __future__ import annotations\n\n",
    ("tests/unit/test_redact.py",),
)


@pytest.mark.timeout(300)
def test_a_mutant_that_nothing_notices_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert try_all([HARMLESS]) == 1
    assert "| harmless | **nothing** |" in capsys.readouterr().out


def test_a_mutant_whose_tests_do_not_run_is_not_taken_for_killed() -> None:
    with pytest.raises(RuntimeError, match="not found"):
        try_out(replace(HARMLESS, tests=("tests/unit/test_nothing.py",)))
