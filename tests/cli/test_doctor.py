"""`durable doctor`: what is well, what is not, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import Shell, Sold


def findings(shell: Shell, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
    found = json.loads(shell.run("doctor", *arguments, "-o", "json", code=code).out)
    return {finding["check"]: finding for finding in found}


def test_a_store_that_is_well_is_said_to_be(shell: Shell) -> None:
    shell.make_store()
    lines = shell.run("doctor").lines
    assert all(line.startswith(("✓", "·")) for line in lines)
    for check in ("python", "store", "schema", "contents", "clock", "workers", "timers", "backlog"):
        assert any(line.split()[1] == check for line in lines)


def test_ready_work_that_nobody_takes_is_wrong(shell: Shell) -> None:
    shell.start("send_email")
    shell.start("declined", "--delay", "1h")
    with shell.worker():
        lines = shell.run("doctor", code=1).lines
    (wrong,) = [line for line in lines if line.startswith("✗")]
    assert "queue 'email' has 1 ready of send_email@1, and no worker takes them" in wrong
    assert wrong.endswith("durable worker -q email")
    assert any("1 live, 100 slots" in line for line in lines)


def test_a_store_that_cannot_be_opened_is_wrong(shell: Shell) -> None:
    found = findings(shell, "--store", "sqlite:///typo.db", code=1)
    assert found["store"]["ok"] is False
    assert "no such file: typo.db" in found["store"]["text"]
    assert found["store"]["remedy"]
    assert found["python"]["ok"] is True
    assert not Path(shell.directory, "typo.db").exists()


def test_a_queue_that_does_not_exist_is_wrong(shell: Shell) -> None:
    found = findings(shell, "--queue", "amqp://guest:secret@localhost", code=1)
    assert found["queue"]["ok"] is False
    assert "secret" not in str(found)


def test_what_needs_a_person_is_pointed_out(sold: Sold) -> None:
    found = findings(sold.shell, "--deep")
    assert found["contents"]["text"] == "7 executions, no contradiction"
    assert found["executions"]["text"].startswith("2 are parked")
    assert found["executions"]["remedy"] == "durable list --status parked"
    assert found["mismatches"]["text"].startswith("1 of those that are parked")


def test_doctor_needs_a_store(shell: Shell) -> None:
    assert "no store is named" in shell.refused("doctor", DURABLE_STORE_URL=None)
