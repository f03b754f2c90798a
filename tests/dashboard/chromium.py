"""Where a Chromium is: Playwright's own, installed, or fetched into the checkout; else the one command that helps."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.brokers import fetch
from tests.brokers.binaries import FETCH_VARIABLE

VARIABLE: Final = "DURABLE_TEST_CHROMIUM"
"""Set to a path: that program, and no other."""

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MAC: Final = "/Applications/{0}.app/Contents/MacOS/{0}"
_BUNDLE: Final = fetch.Bundle(
    "chromium", ("chromium", "fonts-dejavu-core"), re.compile(r"^Package: chromium", re.MULTILINE)
)


@dataclass(frozen=True, slots=True)
class Chromium:
    """The program, and what its environment needs besides ours."""

    program: Path
    env: dict[str, str]


def chromium(playwrights_own: Path) -> Chromium:
    """Raises: `RuntimeError` with the one command to run, when it is not there and cannot be fetched."""
    found = _installed(playwrights_own)
    if found is not None:
        return Chromium(found, {})
    if not fetch.can_fetch():
        raise RuntimeError(f"the tests of the dashboard need Chromium: run {_remedy()!r} and try again")
    try:
        root = fetch.fetched(_BUNDLE)
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", "") or error)
        raise RuntimeError(f"Chromium cannot be fetched: run {_remedy()!r} and try again\n{said}") from error
    libraries = fetch.env(root)["LD_LIBRARY_PATH"]
    within = [str(path) for path in (*root.glob("usr/lib/*-linux-*/pulseaudio"), root / "usr/lib/chromium")]
    env = {"LD_LIBRARY_PATH": ":".join([libraries, *within]), "XDG_DATA_HOME": str(root / "usr/share")}
    if not Path("/etc/fonts/fonts.conf").exists():
        env["FONTCONFIG_PATH"] = str(root / "etc/fonts")
    return Chromium(root / "usr/lib/chromium/chromium", env)


def _installed(playwrights_own: Path) -> Path | None:
    if given := os.environ.get(VARIABLE):
        return Path(given)
    if os.environ.get(FETCH_VARIABLE) == "fetch":
        return None
    if playwrights_own.exists():
        return playwrights_own
    for found in map(shutil.which, _NAMES):
        if found:
            return Path(found)
    applications = (Path(_MAC.format(name)) for name in ("Chromium", "Google Chrome"))
    return next((each for each in applications if each.exists()), None)


def _remedy() -> str:
    return f"{sys.executable} -m playwright install --with-deps chromium"
