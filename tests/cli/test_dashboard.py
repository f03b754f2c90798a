"""`durable dashboard` as it is called: where it listens, and what it refuses."""

from __future__ import annotations

import re
import signal
import urllib.error
import urllib.request

import pytest

from tests.cli.conftest import Shell

TOKEN = "a-token-of-more-than-16"


def address(said: str) -> str:
    found = re.search(r"on (http://127\.0\.0\.1:\d+)", said)
    assert found, said
    return found[1]


def read(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def test_it_shows_a_store_and_its_application_on_loopback(shell: Shell) -> None:
    shell.make_store()
    started = shell.start("echo", '{"id": "7", "cents": 1}')
    with shell.process("dashboard", "--port", "0", "--app", "app:durable") as process:
        url = address(process.says("Ctrl-C"))
        assert started in read(url)
        assert "fulfil" in read(f"{url}/workflows")
        assert process.stop(signal.SIGTERM) == 0
        assert "stopped" in process.said


def test_it_stops_while_somebody_looks(shell: Shell) -> None:
    shell.make_store()
    with shell.process("dashboard", "--port", "0") as process:
        url = address(process.says("Ctrl-C"))
        with urllib.request.urlopen(f"{url}/live/", timeout=10) as stream:
            assert stream.readline()
            assert process.stop(signal.SIGINT) == 0


def test_it_asks_for_the_token_of_the_environment_and_does_not_say_it(shell: Shell) -> None:
    shell.make_store()
    with shell.process("dashboard", "--port", "0", "--readonly", DURABLE_DASHBOARD_TOKEN=TOKEN) as process:
        url = address(process.says("Ctrl-C"))
        assert "Log in" in read(url)
        with pytest.raises(urllib.error.HTTPError, match="401") as refusal:
            read(f"{url}/api/counts")
        refusal.value.close()
        assert read(f"{url}/api/counts", authorization=f"Bearer {TOKEN}")
        process.stop(signal.SIGTERM)
        assert TOKEN not in process.said


def test_no_address_that_others_reach_is_served_without_a_token(shell: Shell) -> None:
    shell.make_store()
    for host in ("0.0.0.0", "::", "192.168.1.7", "example.org"):
        said = shell.refused("dashboard", "--host", host)
        assert "DURABLE_DASHBOARD_TOKEN" in said
    assert "16" in shell.refused("dashboard", "--host", "0.0.0.0", "--token", "short")


def test_a_port_that_is_taken_is_told(shell: Shell) -> None:
    shell.make_store()
    with shell.process("dashboard", "--port", "0") as process:
        port = address(process.says("Ctrl-C")).rpartition(":")[2]
        assert "choose another --port" in shell.refused("dashboard", "--port", port)
        process.stop(signal.SIGTERM)
