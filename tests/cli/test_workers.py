"""`durable workers` and `durable workers drain`."""

from __future__ import annotations

import re
import signal

import pytest

from durable import __version__
from tests.cli.conftest import Shell


def test_workers_are_listed_with_what_they_run(shell: Shell) -> None:
    id = shell.start("slow", "60")
    with shell.process("worker", "-q", "default", "-q", "email", "--concurrency", "20") as worker:
        shell.until(id, "running")
        with shell.process("workers", "--watch") as pipe:
            pipe.says(f"{id} step wait\n")
            assert pipe.stop(signal.SIGINT) == 0
        header, row = shell.run_apart("workers").lines
        assert header.split() == ["ID", "VERSION", "QUEUES", "SLOTS", "UP", "BEAT", "STATE", "WORK"]
        assert re.fullmatch(
            rf"\S+:{worker.pid}:\w+  +{re.escape(__version__)}  +default, email  +1/20  +.* {id} step wait",
            row,
        )
        [record] = shell.json("workers")
        assert (record["pid"], record["busy"], record["slots"]) == (worker.pid, 1, 20)
        assert record["work"][0]["execution_id"] == id
        assert shell.run("workers", "-o", "ids").lines == [record["id"]]


def test_a_worker_that_is_drained_ends_as_after_a_sigterm(shell: Shell) -> None:
    with shell.process("worker") as worker:
        worker.says("queues")
        [id] = shell.run("workers", "-o", "ids").lines
        assert shell.run("workers", "drain", id[:-1]).out == f"{id} was told to drain\n"
        assert worker.ends() == 0
        assert worker.said.endswith("stopped\n")
    assert shell.json("workers") == []
    assert shell.json("queues", "list") == []


def test_a_watched_table_stays_in_its_place_on_a_terminal(shell: Shell) -> None:
    shell.make_store()
    with shell.terminal("workers", "--watch") as terminal:
        terminal.says("WORK")
        with shell.worker() as worker:
            terminal.says(f":{worker.pid}:")
        assert terminal.stop(signal.SIGINT) == 0
    assert "\x1b[" in terminal.said


@pytest.mark.parametrize(
    ("id", "code", "says"),
    [("nobody", 3, "there is no live worker 'nobody'"), ("two words", 2, "must match")],
)
def test_a_worker_that_is_none_cannot_be_drained(shell: Shell, id: str, code: int, says: str) -> None:
    shell.make_store()
    assert says in shell.refused("workers", "drain", id, code=code)


def test_a_status_that_is_none_is_named_with_what_it_may_have_been(shell: Shell) -> None:
    shell.make_store()
    assert "did you mean 'failed'?" in shell.refused("list", "--status", "faild")


@pytest.mark.parametrize(
    ("command", "shows"),
    [(["queues", "list"], "email"), (["limits", "list"], "RULE"), (["schedules", "list"], "ID")],
)
def test_a_table_is_watched_in_a_pipe_and_on_a_terminal(shell: Shell, command: list[str], shows: str) -> None:
    shell.make_store()
    shell.start("send_email")
    with shell.process(*command, "--watch") as pipe:
        pipe.says(shows)
        assert pipe.stop(signal.SIGINT) == 0
    with shell.terminal(*command, "--watch", NO_COLOR="1") as terminal:
        terminal.says(shows)
        assert terminal.stop(signal.SIGINT) == 0
    assert "\x1b[3" not in terminal.said  # no colour


def test_what_is_watched_as_json_is_a_line_for_each_change(shell: Shell) -> None:
    shell.make_store()
    with shell.process("queues", "list", "--watch", "-o", "json") as pipe:
        pipe.says("[]\n")
        shell.start("send_email")
        pipe.says('"ready": 1')
        pipe.stop(signal.SIGINT)
    assert [line[:1] for line in pipe.said.splitlines()] == ["[", "["]


@pytest.mark.needs("redis_url")
def test_workers_are_seen_and_drained_on_redis(shell: Shell, redis_url: str, namespace: str) -> None:
    shell = Shell(shell.directory, redis_url, namespace)
    with shell.process("worker") as worker:
        worker.says("queues")
        [id] = shell.run("workers", "-o", "ids").lines
        assert f":{worker.pid}:" in id
        shell.run("workers", "drain", id)
        assert worker.ends() == 0
    assert shell.run("workers", "-o", "ids").lines == []


def test_memory_is_refused_because_nobody_else_sees_it(shell: Shell) -> None:
    assert "one process only" in shell.refused("workers", "--store", "memory://")
