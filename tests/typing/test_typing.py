"""Authors' code under the two type checkers, both strict: what is right passes, and each mistake is found."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CORRECT = Path(__file__).with_name("correct.py")
MISTAKES = Path(__file__).with_name("mistakes.py")
MARK = "# error"

Found = dict[tuple[str, int], str]


def pyright(*files: Path) -> Found:
    """Each file says for itself that it is strict."""
    program = Path(sys.executable).with_name("pyright")
    report = json.loads(output_of(program, "--outputjson", "--pythonpath", sys.executable, *files))
    return {
        (Path(error["file"]).name, error["range"]["start"]["line"] + 1): error["message"]
        for error in report["generalDiagnostics"]
        if error["severity"] == "error"
    }


def mypy(*files: Path) -> Found:
    """Strict and with no settings of ours, which know more checks than a user's may."""
    options = ("--strict", "--config-file=", "--follow-imports=silent", "--cache-dir=.mypy_cache/authors")
    lines = output_of(sys.executable, "-m", "mypy", *options, "--output=json", *files).splitlines()
    errors: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return {
        (Path(error["file"]).name, error["line"]): error["message"]
        for error in errors
        if error["severity"] == "error"
    }


def output_of(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("checker", [pyright, mypy])
def test_each_mistake_is_found_and_nothing_else(checker: Callable[..., Found]) -> None:
    found = checker(CORRECT, MISTAKES)
    lines = MISTAKES.read_text().splitlines()
    marked = {(MISTAKES.name, number) for number, line in enumerate(lines, 1) if line.endswith(MARK)}
    missed = [f"{number}: {lines[number - 1].strip()}" for _, number in sorted(marked - found.keys())]
    assert missed == []
    assert {place: message for place, message in found.items() if place not in marked} == {}
    assert len(marked) > 90
