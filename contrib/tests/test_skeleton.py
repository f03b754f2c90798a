"""The skeleton of a backend is a backend, once it is copied as its page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

CONTRIB = Path(__file__).parents[1]


@pytest.mark.timeout(180)
def test_a_copy_of_the_skeleton_is_found_by_its_url_and_passes_the_contract(tmp_path: Path) -> None:
    page = (CONTRIB / "skeleton" / "README.md").read_text()
    found = re.search(r"```sh\n(.*?)pip install[^\n]*\n(pytest)\n```", page, re.DOTALL)
    assert found is not None
    (tmp_path / "contrib").symlink_to(CONTRIB)
    installed = tmp_path / "installed"
    # As the page has it, but for the environment: that of these tests has all that is needed, and stays as it is.
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "."]
    pytest_ = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if not os.environ.get("DURABLE_TEST_LONG"):
        pytest_ += ["-k", "not Model"]  # half of the time, for what the memory store's own tests do as well
    script = "\n".join(
        (
            "set -eu",
            found[1],
            "find . -name __pycache__ -prune -exec rm -rf {} +",
            shlex.join([sys.executable, *pip, "--target", str(installed)]),
            "mv durable_acme source",  # what is tested is what was installed
            shlex.join([sys.executable, *pytest_, "tests"]),
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    run = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    assert re.search(r"\b[1-9]\d\d passed", run.stdout), run.stdout[-500:]
    text = "".join(path.read_text() for path in (tmp_path / "durable-acme").rglob("*.py"))
    assert "mystore" not in text.lower()
