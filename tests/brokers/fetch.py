"""Programs from the distribution's own archive into a directory of the checkout, without root.

For Debian and those that descend from it. apt checks the signatures as ever; its state is private, so that no package
is installed, no service is started and nothing outside the directory changes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.brokers.run import BROKERS, locked

_DEPENDS: Final = re.compile(r"^(Pre-)?Depends: .*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Packages that are fetched together into a tree of their own."""

    name: str
    packages: Sequence[str]
    ours: re.Pattern[str]
    """The packages that are taken for absent although they may be there, in part or for root alone."""

    @property
    def root(self) -> Path:
        return BROKERS / self.name


BROKER_BUNDLE: Final = Bundle(
    "fetched",
    ("redis-server", "rabbitmq-server"),
    re.compile(r"^Package: (erlang-|redis|rabbitmq-|libjemalloc|liblzf|libsctp|socat)", re.MULTILINE),
)


def can_fetch() -> bool:
    return all(map(shutil.which, ("apt-get", "dpkg", "dpkg-deb")))


def fetched(bundle: Bundle = BROKER_BUNDLE) -> Path:
    """The root of a tree with the programs in it, which is fetched if it is not there yet: in a few seconds.

    Raises: `subprocess.CalledProcessError` or `TimeoutExpired` when apt cannot.
    """
    BROKERS.mkdir(exist_ok=True)
    with locked(BROKERS / "fetch.lock"):
        if not bundle.root.exists():
            _fetch(bundle, BROKERS / "fetching")
    return bundle.root


def env(root: Path) -> dict[str, str]:
    """What the programs under `root` need to find each other and their libraries."""
    libraries = [
        str(path) for path in (root / "usr/lib", root / "lib") for path in (path, *path.glob("*-linux-*"))
    ]
    return {"PATH": f"{root / 'usr/bin'}:/usr/bin:/bin", "LD_LIBRARY_PATH": ":".join(libraries)}


def _fetch(bundle: Bundle, directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    for each in ("lists/partial", "archives/partial", "root"):
        (directory / each).mkdir(parents=True)
    status = directory / "status"
    status.write_text(_without(bundle, Path("/var/lib/dpkg/status")))
    apt: dict[str, str | Path] = {
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
        "Dir::Cache": directory,
        "Dir::Cache::archives": directory / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Log": directory,
        "Dir::State": directory,
        "Dir::State::lists": directory / "lists",
        "Dir::State::status": status,
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
    }
    _run("apt-get", "update", options=apt)
    _run(
        "apt-get",
        "install",
        "--yes",
        "--download-only",
        "--no-install-recommends",
        *bundle.packages,
        options=apt,
    )
    root = directory / "root"
    for package in sorted((directory / "archives").glob("*.deb")):
        _run("dpkg-deb", "--extract", package, root)
    for script in root.glob("usr/lib/erlang/**/bin/erl"):
        if script.is_file() and not script.is_symlink():
            script.write_text(
                script.read_text().replace("/usr/lib/erlang", str(bundle.root / "usr/lib/erlang"))
            )
    root.rename(bundle.root)
    shutil.rmtree(directory)


def _without(bundle: Bundle, status: Path) -> str:
    """What is installed but the bundle's own, by a list in which nothing that is installed could miss them."""
    packages = status.read_text().split("\n\n") if status.exists() else []
    return "\n\n".join(_DEPENDS.sub("", each) for each in packages if not bundle.ours.search(each))


def _run(*command: str | Path, options: Mapping[str, str | Path] | None = None) -> None:
    given: Sequence[str] = [
        part for key, value in (options or {}).items() for part in ("-o", f"{key}={value}")
    ]
    subprocess.run(
        [*map(str, command), *given],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
    )
