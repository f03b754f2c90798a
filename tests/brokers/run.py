"""One test run's brokers: a directory in the checkout whose servers end with the run, however that ends.

    .brokers/run-x7/  alive     locked by the process that owns the run (with xdist, the controller)
                      <name>/   a guard's directory: the data and logs of its servers
                      <name>.json  what the first who needed `name` found out, for the other workers

What several workers need is started by the first of them, under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar, final

CHECKOUT: Final = Path(__file__).parents[2]
BROKERS: Final = CHECKOUT / ".brokers"
RUN_VARIABLE: Final = "DURABLE_TEST_RUN"

T = TypeVar("T")


@final
class Servers:
    """The servers of one directory, and the guard that is their parent."""

    def __init__(self, directory: Path, guard: subprocess.Popen[str]) -> None:
        self.directory = directory
        self._guard = guard

    @property
    def guard(self) -> int:
        return self._guard.pid

    def start(self, *argv: str | Path, env: Mapping[str, str], log: Path) -> int:
        """Start a server in the directory, and give its process id. What it prints is appended to `log`."""
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        spec = {"argv": [str(each) for each in argv], "env": dict(env), "log": str(log)}
        print(json.dumps(spec), file=self._guard.stdin, flush=True)
        answer = self._guard.stdout.readline()
        assert answer, f"{argv[0]} could not be started"
        return int(answer)

    def end(self) -> None:
        """Kill the servers and remove the directory."""
        self._guard.terminate()
        self._guard.wait()
        self._hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the servers to their guard and the end of the run, unless they could not be started."""
        if error is not None:
            self.end()
            return
        self._guard.returncode = 0  # nobody here waits for it
        self._hang_up()

    def _hang_up(self) -> None:
        for pipe in (self._guard.stdin, self._guard.stdout):
            assert pipe is not None
            pipe.close()


@final
class Run:
    """A test run, as one of its processes sees it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._alive: int | None = None

    @classmethod
    def open(cls) -> Self:
        """A run that this process owns: `close` ends its servers, and so does this process' death."""
        BROKERS.mkdir(exist_ok=True)
        run = cls(BROKERS / f"run-{os.getpid()}-{secrets.token_hex(2)}")
        with locked(BROKERS / "lock"):
            _sweep()
            run.directory.mkdir()
            run._alive = os.open(run.directory / "alive", os.O_CREAT | os.O_RDWR)
            fcntl.flock(run._alive, fcntl.LOCK_EX)
        os.environ[RUN_VARIABLE] = str(run.directory)  # xdist's workers inherit it
        return run

    @classmethod
    def joined(cls) -> Self | None:
        """The run that a parent process owns."""
        directory = os.environ.get(RUN_VARIABLE)
        return cls(Path(directory)) if directory and Path(directory, "alive").exists() else None

    def close(self, *, within: float = 20) -> None:
        """Does nothing in a process that does not own the run."""
        if self._alive is None:
            return
        os.close(self._alive)
        self._alive = None
        os.environ.pop(RUN_VARIABLE, None)
        deadline = time.monotonic() + within
        with contextlib.suppress(
            FileNotFoundError
        ):  # another run has swept it away, now that nobody holds it
            while any(path.is_dir() for path in self.directory.iterdir()):
                assert time.monotonic() < deadline, f"the servers in {self.directory} do not end"
                time.sleep(0.01)
        shutil.rmtree(self.directory, ignore_errors=True)

    def servers(self, name: str) -> Servers:
        """A fresh directory for servers, with its guard."""
        directory = self.directory / f"{name}-{secrets.token_hex(3)}"
        directory.mkdir()
        guard = subprocess.Popen(
            [
                sys.executable,
                "-I",
                str(Path(__file__).with_name("guard.py")),
                str(self.directory / "alive"),
                str(directory),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C at the terminal is for pytest alone
        )
        return Servers(directory, guard)

    def once(self, name: str, found: Callable[[], T]) -> T:
        """What `found()` gave the first process of the run that asked for `name`. It must be JSON."""
        kept = self.directory / f"{name}.json"
        with self._locked(name):
            if not kept.exists():
                kept.write_text(json.dumps(found()))
            answer: T = json.loads(kept.read_text())
            return answer

    def knows(self, name: str) -> bool:
        """Whether any process of the run has asked `once` for it."""
        return (self.directory / f"{name}.json").exists()

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with locked(self.directory / f"{name}.lock"):
            yield


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among the processes that lock this file."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def tail(path: Path, lines: int = 20) -> str:
    """The end of a log, for an error."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def ready(is_ready: Callable[[], bool], *, pids: Sequence[int], log: Path, within: float) -> None:
    """Come back when a server answers. Raises: `RuntimeError` with the end of its log when it does not."""
    deadline = time.monotonic() + within
    while not is_ready():
        if not all(map(runs, pids)) or time.monotonic() > deadline:
            raise RuntimeError(f"a test broker does not answer; the end of {log.name}:\n{tail(log)}")
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether there is such a process, of this user, and not just what is left of it for its parent to read."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")
    except (ProcessLookupError, FileNotFoundError):
        return False


def _sweep() -> None:
    """Remove what runs left whose guards were killed too."""
    for left in BROKERS.glob("run-*"):
        try:
            with (left / "alive").open("rb") as alive:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue
