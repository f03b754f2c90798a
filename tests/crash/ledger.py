"""The ledger: what step bodies really did, written outside of every backend.

One line for each body that begins or ends, appended and synced before the body goes on, so that a `kill -9` can take
back neither the line nor the deed. It is what the store's own account is held against.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from durable import current_step
from durable.steps import StepInfo


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `key` is the same for each try of a step in each process; clocks are those of the host."""

    event: str
    """`start` or `end` of a step's body, or `saw`: the workflow's code was handed a value."""
    execution: str
    step: str
    attempt: int
    """Which try of the step, as the body was told."""
    key: str
    pid: int
    mono: float
    wall: float
    outcome: str = ""
    """Of an `end`: `ok`, `failed` or `cancelled`; of a `saw`: a digest of the value."""

    @property
    def generation(self) -> int:
        return int(self.key.removeprefix(f"{self.execution}:").partition(":")[0])


@final
class Ledger:
    """Any number of processes and threads append to one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def close(self) -> None:
        os.close(self._fd)

    @contextmanager
    def body(self) -> Iterator[StepInfo]:
        """Around the body of a step: its begin and its end."""
        step = current_step()
        self._step(step, "start")
        outcome = "failed"
        try:
            yield step
            outcome = "ok"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            self._step(step, "end", outcome)

    def saw(self, execution: str, step: str, value: object, *, generation: int = 0) -> None:
        """The code of a workflow, first run or replay, was handed `value` as what came of `step`."""
        key = f"{execution}:{generation}:{step}"
        entry = Entry(
            "saw", execution, step, 0, key, os.getpid(), time.monotonic(), time.time(), digest(value)
        )
        append(self._fd, asdict(entry))

    def _step(self, step: StepInfo, event: str, outcome: str = "") -> None:
        entry = Entry(
            event,
            step.execution_id,
            step.step_id,
            step.attempt,
            step.idempotency_key,
            os.getpid(),
            time.monotonic(),
            time.time(),
            outcome,
        )
        append(self._fd, asdict(entry))
        os.fsync(self._fd)


def read_ledger(path: Path) -> list[Entry]:
    """In the order of the lines."""
    return [Entry(**line) for line in read_lines(path)]


@dataclass(frozen=True, slots=True)
class Body:
    """One run of a step's body, on the monotonic clock."""

    execution: str
    step: str
    began: float
    ended: float


def bodies(ledger: Iterable[Entry], killed: Sequence[tuple[int, float]]) -> Iterator[Body]:
    """Every body; that of a process which was killed ended with it, or, where nobody saw it die, with its last word.
    `killed`: process ids, and when it was."""
    open_ones: dict[tuple[int, str], Entry] = {}
    last_word: dict[int, float] = {}
    for entry in ledger:
        last_word[entry.pid] = entry.mono
        if entry.event == "start":
            open_ones[entry.pid, entry.key] = entry
        elif entry.event == "end":
            start = open_ones.pop((entry.pid, entry.key))
            yield Body(entry.execution, entry.step, start.mono, entry.mono)
    for (pid, _), start in open_ones.items():
        # In a long run process ids come again.
        yield Body(
            start.execution,
            start.step,
            start.mono,
            min((at for id, at in killed if id == pid and at > start.mono), default=last_word[pid]),
        )


def most_at_once(those: Iterable[Body]) -> int:
    changes = sorted(change for body in those for change in ((body.began, 1), (body.ended, -1)))
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def append(fd: int, line: Mapping[str, Any]) -> None:
    # A newline on either side: what a kill in the middle of a write leaves behind spoils no other line.
    os.write(fd, b"\n" + json.dumps(line, separators=(",", ":")).encode() + b"\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of a file that `append` wrote."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            if line:
                yield json.loads(line)
        except ValueError:
            continue  # torn by a kill


def digest(value: object) -> str:
    """The same for equal values, as bytes or as what JSON makes of them."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.sha256(data).hexdigest()[:16]
