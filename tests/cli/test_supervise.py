"""`durable supervise`: workers come with the work and go without it, and are replaced when they die."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Process, Shell
from tests.support import until

GONE = "worker {} has ended"


def started(supervisor: Process, number: int = 1) -> int:
    """The process of the worker that was started so many times ago."""
    supervisor.says("started worker ", times=number)
    supervisor.says(": ", times=number)
    return int(re.findall(r"started worker (\d+),", supervisor.said)[number - 1])


def test_a_worker_comes_with_the_work_and_goes_without_it(shell: Shell) -> None:
    with shell.process("supervise", "app:durable", "--min", "0", "--max", "2", "--idle", "1s") as supervisor:
        supervisor.says("supervising 0 to 2 workers")
        id = shell.start("parent")
        shell.until(id, "completed")
        pid = started(supervisor)
        supervisor.says(GONE.format(pid))
        assert [worker["queues"] for worker in shell.json("workers")] == [[]]  # its own, which only sweeps
        assert supervisor.stop(signal.SIGTERM) == 0
    assert supervisor.said.endswith("stopped\n")
    assert shell.json("workers") == []


def test_what_wakes_up_gets_a_worker_where_there_was_none(shell: Shell) -> None:
    with shell.process("supervise", "--min", "0", "--idle", "100ms") as supervisor:
        id = shell.start("napping")
        shell.until(id, "completed")
        assert len(set(re.findall(r"started worker (\d+)", supervisor.said))) <= 2
        supervisor.says("has ended")
        supervisor.stop(signal.SIGTERM)


def test_a_worker_that_dies_is_replaced_and_its_work_goes_on(shell: Shell) -> None:
    id = shell.start("slow", "2")
    with shell.process("supervise", "--max", "1") as supervisor:
        first = started(supervisor)
        shell.until(id, "running")
        os.kill(first, signal.SIGKILL)
        supervisor.says(f"worker {first} was ended by SIGKILL; the next one in 1 s")
        second = started(supervisor, 2)
        assert second != first
        shell.until(id, "completed")
        assert supervisor.stop(signal.SIGTERM) == 0
    assert shell.json("show", id)["execution"]["attempt"] == 1


def test_a_drain_lets_the_workers_end_what_they_run_and_a_second_one_does_not(shell: Shell) -> None:
    id = shell.start("slow", "1")
    with shell.process("supervise", "--max", "1") as supervisor:
        shell.until(id, "running")
        assert supervisor.stop(signal.SIGTERM) == 0
    assert shell.json("show", id)["execution"]["status"] == "completed"
    id = shell.start("slow", "60")
    with shell.process("supervise", "--max", "1") as supervisor:
        shell.until(id, "running")
        supervisor.send(signal.SIGINT)
        supervisor.says("Ctrl-C again stops at once")
        assert supervisor.stop(signal.SIGINT) == 130
    assert shell.json("show", id)["execution"]["status"] == "pending"


async def test_workers_end_by_themselves_when_their_supervisor_is_killed(shell: Shell) -> None:
    with shell.process("supervise", "--max", "1") as supervisor:
        pid = started(supervisor)
        supervisor.says("queues default")
        supervisor.send(signal.SIGKILL)
        supervisor.ends()
        await until(lambda: not Path(f"/proc/{pid}").exists() or is_dead(pid), within=20)
    assert "stopped" in supervisor.said


def is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_an_application_that_cannot_work_is_refused_at_once(shell: Shell) -> None:
    assert "there is no module" in shell.refused("supervise", "nowhere:durable")
    assert "--min 3 is more than --max 2" in shell.refused("supervise", "--min", "3", "--max", "2")
    assert "queue must match" in shell.refused("supervise", "-q", "two words")
    (shell.directory / "app.py").write_text(
        "from durable import Durable\ndurable = Durable(store='memory://')\n"
    )
    assert "memory:// is seen by one process only" in shell.refused("supervise")


@pytest.mark.needs("redis_url")
def test_workers_come_with_the_work_on_redis(shell: Shell, redis_url: str, namespace: str) -> None:
    shell = Shell(shell.directory, redis_url, namespace)
    with shell.process("supervise", "--min", "0", "--idle", "500ms") as supervisor:
        supervisor.says("supervising")
        id = shell.run("start", "slow", "60").out.strip()
        pid = started(supervisor)
        supervisor.says("queues default")
        assert str(pid) in shell.run("workers").out
        shell.run("cancel", id)
        supervisor.says(f"{id} of slow ended as cancelled")
        supervisor.says(GONE.format(pid))
        assert supervisor.stop(signal.SIGTERM) == 0
    assert shell.run("workers", "-o", "ids").out == ""
