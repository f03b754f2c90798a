"""`durable worker`, as a supervisor or a person stops it."""

from __future__ import annotations

import json
import signal
import sys
import time
from http.client import HTTPConnection

import pytest

from tests.cli.conftest import Shell


def test_a_worker_says_what_it_serves_and_stops_when_asked(shell: Shell) -> None:
    with shell.process("worker", "-q", "email", "-q", "default", "--concurrency", "20") as worker:
        worker.says("\n")
        assert worker.stop(signal.SIGTERM) == 0
    assert " · sqlite:///shop.db · 15 workflows · queues email, default (20)\n" in worker.said
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


def get(said: str, path: str) -> tuple[int, str]:
    port = int(said.partition("at http://127.0.0.1:")[2].split()[0])
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def test_a_worker_serves_its_metrics_and_its_health_also_while_it_drains(shell: Shell) -> None:
    done, running = shell.start("send_email"), shell.start("slow", "1.5")
    with shell.process("worker", "-q", "default", "-q", "email", "--metrics", "0") as worker:
        worker.says("queues")
        shell.until(done)
        shell.until(running, "running")
        assert get(worker.said, "/health/ready")[0] == 200
        text = get(worker.said, "/metrics")[1]
        assert 'durable_executions_total{status="completed",workflow="send_email"} 1.0' in text
        assert 'durable_worker_slots{state="busy"} 1.0' in text
        assert "durable_store_up 1.0" in text
        worker.send(signal.SIGTERM)
        worker.says("stopping")
        while (health := get(worker.said, "/health/ready"))[0] == 200:  # it says so first, and then does it
            time.sleep(0.01)
        assert (health[0], json.loads(health[1])["worker"]) == (503, "draining")
        assert worker.ends() == 0
    assert shell.json("show", running)["execution"]["status"] == "completed"


def test_logs_as_json_are_an_object_on_each_line_with_the_execution(shell: Shell) -> None:
    id = shell.start("declined")
    with shell.process("worker", "--log-format", "json") as worker:
        worker.says("ended as failed")
        assert worker.stop(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in worker.said.splitlines()]
    assert all({"at", "level", "logger", "message"} <= set(line) for line in lines)
    [ended] = [line for line in lines if "ended as" in line["message"]]
    assert (ended["execution"], ended["workflow"], ended["attempt"]) == (id, "declined", 1)
    others = [line for line in lines if line["logger"] != "durable.engine"]
    assert others
    assert all("execution" not in line for line in others)


def test_logs_as_text_are_those_of_the_application_too(shell: Shell) -> None:
    id = shell.start("logging_one")
    with shell.process("worker", "--log-format", "text") as worker:
        worker.says("ended as completed")
        worker.stop(signal.SIGTERM)
    assert f"charging the card  (logging_one {id} charge)\n" in worker.said


@pytest.mark.parametrize(
    ("address", "says"),
    [("localhost", "host:port"), ("127.0.0.1:99999", "host:port"), ("256.0.0.1:80", "cannot listen at")],
)
def test_an_address_that_cannot_be_served_is_refused(shell: Shell, address: str, says: str) -> None:
    assert says in shell.refused("worker", "--metrics", address)


def test_without_the_extra_metrics_say_what_to_install(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert "pip install 'durable[metrics]'" in shell.refused("worker", "--metrics", "0")
