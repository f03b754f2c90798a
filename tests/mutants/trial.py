"""A trial: one mutant in a copy of the package, and which of its tests notices it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.gallery import Mutant

CHECKOUT: Final = Path(__file__).parents[2]

_SOURCES: Final = ("durable", "tests")
_TEMPORARY: Final = CHECKOUT / ".tmp"
_LONGEST_TEST_S: Final = 30
_LONGEST_TRIAL_S: Final = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run of tests."""

    failed: str | None
    """The first test that failed."""
    ran: int
    seconds: float
    output: str


def places(mutant: Mutant) -> int:
    """How often the text that the mutant replaces occurs."""
    return (CHECKOUT / mutant.file).read_text().count(mutant.old)


def try_out(mutant: Mutant) -> Outcome:
    """Run the tests of a mutant against it, up to the first that fails.

    Raises: `RuntimeError` when no test ran, so that nothing is said about the mutant.
    """
    return _run(mutant.tests, mutant)


def try_unchanged(tests: Sequence[str]) -> Outcome:
    """Run tests against a copy that is as it was: what fails there too says nothing about a mutant.

    Raises: as `try_out`.
    """
    return _run(tests, None)


def _run(tests: Sequence[str], mutant: Mutant | None) -> Outcome:
    _TEMPORARY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutant-", dir=_TEMPORARY) as directory:
        copy = Path(directory)
        _copy_to(copy)
        if mutant is not None:
            _mutate(copy, mutant)
        report = copy / "report.xml"
        began = time.monotonic()
        run = subprocess.run(
            [
                sys.executable,
                *("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
                *(f"--timeout={_LONGEST_TEST_S}", f"--junitxml={report}"),
                *dict.fromkeys(tests),
            ],
            cwd=copy,
            env=_environment(copy),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_LONGEST_TRIAL_S,
        )
        seconds = time.monotonic() - began
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
    failed = [
        case.get("name", "")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    # 0: all passed; 1: some failed. Anything else is pytest's own trouble: a test that is not there, for one.
    if run.returncode not in (0, 1) or not cases or bool(failed) != (run.returncode == 1):
        raise RuntimeError(f"the tests could not be run ({run.returncode}):\n{run.stdout}")
    return Outcome(failed[0] if failed else None, len(cases), seconds, run.stdout)


def _copy_to(copy: Path) -> None:
    for source in _SOURCES:
        shutil.copytree(CHECKOUT / source, copy / source)
    shutil.copy2(CHECKOUT / "pyproject.toml", copy)
    if (fetched := CHECKOUT / ".brokers").exists():
        (copy / ".brokers").symlink_to(fetched)


def _mutate(copy: Path, mutant: Mutant) -> None:
    file = copy / mutant.file
    text = file.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name!r} does not fit {mutant.file} any more"
    file.write_text(text.replace(mutant.old, mutant.new))
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
        compiled.unlink()  # it is told from the source by second and size only


def _environment(copy: Path) -> dict[str, str]:
    """The copy before the package that is installed, and nothing of a test run that this one may be a part of."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTEST_") and name not in ("DURABLE_TEST_LONG", "DURABLE_TEST_RUN", "TMPDIR")
    }
    return kept | {"PYTHONPATH": str(copy)}
