"""A test run's brokers end with it, however it ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.brokers.run import CHECKOUT, RUN_VARIABLE, Run, runs

TEST = """
import os, time
from pathlib import Path

def test_waits(redis_url, private_redis, broker_run):
    own = private_redis()
    where = Path({where!r})
    said = where / str(os.getpid())
    said.write_text(f"{{redis_url}} {{own.pid}} {{broker_run.directory}}")
    said.rename(where / f"{{said.name}}.whole")
    time.sleep(60)

test_waits_too = test_waits
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_neither_ctrl_c_nor_a_killed_pytest_leaves_a_process_or_a_file(
    end: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "said").mkdir()
    (tmp_path / "test_it.py").write_text(TEST.format(where=str(tmp_path / "said")))
    options = ["-p", "tests.brokers.fixtures", "-n", "2", "-c", os.devnull, f"--rootdir={tmp_path}"]
    pytest_run = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytest",
            *options,
            f"--basetemp={tmp_path / 'temp'}",
            str(tmp_path / "test_it.py"),
        ],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(lambda: len(list((tmp_path / "said").glob("*.whole"))) == 2)
        said = [path.read_text().split() for path in (tmp_path / "said").iterdir()]
        if end == signal.SIGINT:
            os.killpg(pytest_run.pid, signal.SIGINT)  # a terminal tells every process in the foreground
            pytest_run.wait(timeout=30)
    finally:
        pytest_run.kill()
        pytest_run.wait()
    assert len({url for url, _, _ in said}) == 1, "the workers share one server"
    eventually(lambda: not any(runs(int(pid)) or Path(run).exists() for _, pid, run in said))


def test_what_was_found_once_is_not_looked_for_again(broker_run: Run) -> None:
    name = "test-" + os.urandom(4).hex()
    assert broker_run.once(name, lambda: [1, "a"]) == [1, "a"]
    assert broker_run.once(name, lambda: pytest.fail("it is known")) == [1, "a"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of the dead")
def test_a_server_dies_with_a_guard_that_is_killed_and_the_next_run_removes_the_rest() -> None:
    pid, directory = program("""
        run = Run.open()
        servers = run.servers("sleep")
        pid = servers.start(sys.executable, "-c", "import time; time.sleep(60)", env={}, log=servers.directory / "log")
        os.kill(servers.guard, signal.SIGKILL)
        print(pid, run.directory, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    eventually(lambda: not runs(int(pid)))
    assert Path(directory).exists()
    program("Run.open().close()")
    assert not Path(directory).exists()


def program(source: str) -> list[str]:
    """What another process prints, which is in no run yet."""
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os, signal, sys\nfrom tests.brokers.run import Run\n{textwrap.dedent(source)}",
        ],
        cwd=CHECKOUT,
        env={key: value for key, value in os.environ.items() if key != RUN_VARIABLE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode in (0, -signal.SIGKILL), process.stderr
    return process.stdout.split()


def eventually(condition: Callable[[], bool], *, within: float = 30) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not true within {within} s"
        time.sleep(0.02)
