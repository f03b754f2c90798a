"""A test that shows a secret fails, wherever it shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.canary import PAYLOAD

CHECKOUT = Path(__file__).parents[2]

TESTS = f"""
import logging
import subprocess
import sys

from durable import DurableError

SECRET = "{PAYLOAD}"
log = logging.getLogger("durable.shop")


def test_logs_it():
    log.debug("paid with %s", SECRET)


def test_logs_an_error_that_has_it():
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.warning("not paid", exc_info=True)


def test_logs_a_record_that_has_it_and_does_not_say_so():
    log.warning("paid", extra=dict(card=SECRET))


def test_raises_it():
    try:
        raise DurableError(SECRET)
    except DurableError:
        pass


def test_hints_at_it():
    DurableError("not paid", f"pay with {{SECRET}}")


def test_prints_it():
    print(SECRET)


def test_has_a_process_that_prints_it():
    subprocess.run([sys.executable, "-c", f"print({{SECRET!r}})"], check=True)


def test_keeps_it():
    log.warning("paid")
    assert len(SECRET) > 9
"""


def test_a_test_that_shows_a_secret_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    options = [
        "-q",
        "-c",
        os.devnull,
        f"--rootdir={tmp_path}",
        "-p",
        "tests.canary",
        "-p",
        "no:cacheprovider",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_it.py")],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    failed = {line.split("::")[1].split()[0] for line in run.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == {line[4:-3] for line in TESTS.splitlines() if line.startswith("def ")} - {
        "test_keeps_it"
    }
    assert "1 passed" in run.stdout
