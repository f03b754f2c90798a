"""`durable worker`, as a supervisor or a person stops it."""

from __future__ import annotations

import signal

import pytest

from tests.cli.conftest import Shell


def test_a_worker_says_what_it_serves_and_stops_when_asked(shell: Shell) -> None:
    with shell.process("worker", "-q", "email", "-q", "default", "--concurrency", "20") as worker:
        worker.says("\n")
        assert worker.stop(signal.SIGTERM) == 0
    assert " · sqlite:///shop.db · 11 workflows · queues email, default (20)\n" in worker.said
    assert worker.said.endswith("stopped\n")


def test_a_worker_serves_the_queues_that_it_was_given(shell: Shell) -> None:
    email, other = shell.start("send_email"), shell.start("declined")
    with shell.worker("app:durable", "-q", "email"):
        shell.until(email, "completed")
    assert shell.json("show", other)["execution"]["status"] == "pending"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_may_end_when_a_worker_is_stopped(shell: Shell, number: signal.Signals) -> None:
    id = shell.start("slow", "0.5")
    with shell.process("worker") as worker:
        shell.until(id, "running")
        assert worker.stop(number) == 0
    execution = shell.json("show", id)["execution"]
    assert (execution["status"], execution["attempt"], execution["result"]) == ("completed", 1, "waited")


@pytest.mark.parametrize("workflow", [["slow", "60"], ["stubborn"]], ids=["async", "sync"])
def test_a_second_signal_stops_at_once_and_others_go_on(shell: Shell, workflow: list[str]) -> None:
    id = shell.start(*workflow)
    with shell.process("worker") as worker:
        shell.until(id, "running")
        worker.send(signal.SIGINT)
        worker.says("Ctrl-C again stops at once")
        assert worker.stop(signal.SIGINT) == 130
    execution = shell.json("show", id)["execution"]
    assert (execution["status"], execution["attempt"]) == ("pending", 1)


def test_a_failing_attempt_is_a_line_without_color(shell: Shell) -> None:
    id = shell.start("diverging")
    with shell.worker() as worker:
        shell.until(id, "parked")
        worker.says("parked")
        assert "\x1b" not in worker.said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--concurrency", "0"], "concurrency must be"),
        (["-q", "two words"], "queue must match"),
        (["nowhere:durable"], "there is no module 'nowhere'"),
        (["--store", "sqlite:///x.db"], "No such option"),
    ],
)
def test_a_worker_that_cannot_work_says_why(shell: Shell, arguments: list[str], says: str) -> None:
    assert says in shell.refused("worker", *arguments)


def test_a_worker_whose_store_cannot_be_opened_says_why(shell: Shell) -> None:
    (shell.directory / "shop.db").write_text("not a database, but my notes\n" * 100)
    assert "not a database" in shell.refused("worker")
