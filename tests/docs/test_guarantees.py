"""Each promise names tests that hold it, and those exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guarantees.md").read_text()

PROMISE = re.compile(r"^\*\*(?P<name>P\d+), .*?(?=^\*\*P\d+, |^Each store|^## )", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^- `(?P<path>[\w./]+\.py)`\n(?P<tests>(?:  - `\w+`\n)+)", re.MULTILINE)
PROMISES = {found["name"]: found[0] for found in PROMISE.finditer(PAGE)}


@cache
def names_in(path: str) -> set[str]:
    """What pytest collects there, or from a suite that is collected elsewhere."""
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_the_page_has_promises() -> None:
    assert len(PROMISES) >= 10


@pytest.mark.parametrize("promise", PROMISES)
def test_the_tests_that_hold_a_promise_exist(promise: str) -> None:
    named = {found["path"]: re.findall(r"\w+", found["tests"]) for found in FILE.finditer(PROMISES[promise])}
    assert named
    assert re.findall(r"^ *- `(.*)`$", PROMISES[promise], re.MULTILINE) == [
        line for path, tests in named.items() for line in (path, *tests)
    ]
    missing = {path: set(tests) - names_in(path) for path, tests in named.items()}
    assert {path: tests for path, tests in missing.items() if tests} == {}
