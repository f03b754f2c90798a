"""The ledger: what the steps did to the world, a line each. It knows nothing of `durable`, and so can prove things."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

PATH_VARIABLE: Final = "DURABLE_DEMO_LEDGER"


@dataclass(frozen=True, slots=True)
class Entry:
    """One side effect."""

    step: str
    key: str
    """The step's idempotency key."""
    pid: int
    """The process that did it."""


def write_down(step: str, key: str) -> None:
    """Append an entry to the ledger of this process's environment. It is on disk when this returns."""
    line = json.dumps(asdict(Entry(step, key, os.getpid()))) + "\n"
    ledger = os.open(os.environ[PATH_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(ledger, line.encode())
        os.fsync(ledger)
    finally:
        os.close(ledger)


def read_ledger(path: Path) -> Sequence[Entry]:
    """All entries, in the order in which they were written."""
    return [Entry(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
