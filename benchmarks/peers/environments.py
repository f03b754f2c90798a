"""The peers' packages: pinned, and installed into a folder of the checkout that git ignores."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.worlds import ROOT

FOLDER = ROOT / ".peers"
_CONSTRAINTS = Path(__file__).with_name("constraints.txt")
_TIMEOUT = 600


class Absent(Exception):
    """A peer cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Environment:
    """Packages of one peer."""

    name: str
    packages: Sequence[str]
    """Each with its exact version."""
    is_node: bool = False

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self) -> None:
        """Make sure that it is there. Raises: `Absent`."""
        stamp = self.folder / "installed"
        wanted = "\n".join(self.packages) + ("" if self.is_node else "\n" + _CONSTRAINTS.read_text())
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if self.is_node:
            for program in ("node", "npm"):
                if shutil.which(program) is None:
                    raise Absent(f"there is no {program} here")
            (self.folder / "package.json").write_text("{}\n")
            _run(["npm", "install", "--no-audit", "--no-fund", "--save-exact", *self.packages], self.folder)
        else:
            _run([sys.executable, "-m", "venv", str(self.folder)], self.folder)
            pip = [str(self.python), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
            _run([*pip, "--constraint", str(_CONSTRAINTS), *self.packages], self.folder)
        stamp.write_text(wanted)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["nothing was said"]
        raise Absent(f"its packages cannot be installed: {said[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"its packages cannot be installed: {error}") from error
