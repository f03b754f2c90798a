"""Real processes that are really killed, with a ledger of what was paid for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("shop_process.py")


def run_until(line: str, *arguments: object) -> None:
    """Run the process, and kill it when it says so; let it end when that is its last word."""
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            said = next((said for said in process.stdout if said == f"{line}\n"), None)
            assert said is not None, process.stderr.read()
        finally:
            process.kill()


@pytest.mark.timeout(60)
def test_no_model_request_is_paid_twice_when_the_process_is_killed_between_two_of_them(
    tmp_path: Path,
) -> None:
    run_until("looking up", tmp_path)
    ledger = tmp_path / "ledger"
    assert ledger.read_text().splitlines() == ["request 0", "look up"]
    run_until("waiting", tmp_path)
    assert ledger.read_text().splitlines() == ["request 0", "look up", "look up", "request 1"]
    run_until("bought", tmp_path, "approve")
    # The call that was cut off was made again; the requests before and after it were not.
    assert ledger.read_text().splitlines() == [
        "request 0",
        "look up",
        "look up",
        "request 1",
        "buy",
        "request 2",
    ]
