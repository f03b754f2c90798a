"""Runs the servers of one directory, and ends them, and the directory, with the test run or when told to.

    python guard.py ALIVE DIRECTORY

ALIVE is a file that the test run keeps locked: the kernel unlocks it however the run ends. Standard input has one
server a line, as JSON: `argv`, `env` (all of it) and `log`; the answer is its process id. The guard goes on when its
input ends, for the process that wrote to it need not be the one that owns the run.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None)


class Guard:
    """The parent of the servers."""

    def __init__(self, alive: Path, directory: Path) -> None:
        self._alive = alive
        self._directory = directory
        self._children: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if sys.platform == "linux":
            LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a server started is ours when the server is gone
        threading.Thread(target=self._until_unlocked, daemon=True).start()
        try:
            for line in sys.stdin:
                print(self._start(**json.loads(line)), flush=True)
            threading.Event().wait()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._end()

    def _start(self, argv: list[str], env: dict[str, str], log: str) -> int:
        with Path(log).open("ab") as output:
            child = subprocess.Popen(
                argv,
                env=env,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  (it takes no lock that a thread of ours may hold)
            )
        self._children.append(child)
        threading.Thread(target=child.wait, daemon=True).start()  # who was killed is gone, and no zombie
        return child.pid

    def _until_unlocked(self) -> None:
        with self._alive.open("rb") as alive:
            fcntl.flock(alive, fcntl.LOCK_SH)
            os.kill(os.getpid(), signal.SIGTERM)

    def _end(self) -> None:
        for child in self._children:
            child.kill()
        _reap(within=5)
        shutil.rmtree(self._directory, ignore_errors=True)
        run = self._alive.parent
        with contextlib.suppress(FileNotFoundError):  # the guard beside this one was quicker
            if not any(path.is_dir() for path in run.iterdir()) and _is_unlocked(self._alive):
                shutil.rmtree(run, ignore_errors=True)

    @staticmethod
    def _on_term(signum: int, frame: FrameType | None) -> None:
        sys.exit()


def _reap(*, within: float) -> None:
    """Come back when no process is left of those that were started here, or by one of these."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            time.sleep(0.005)


def _is_unlocked(alive: Path) -> bool:
    try:
        with alive.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _die_with_parent() -> None:
    """For the case that the guard itself is killed: the kernel then kills the server."""
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    Guard(Path(sys.argv[1]), Path(sys.argv[2])).run()
