"""What shells are offered for values: as Typer's scripts for Bash, Zsh and fish ask for it, and as Bash shows it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest

from durable import Durable
from durable.cli import completion
from tests.cli import shop
from tests.cli.conftest import Shell, Sold


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests is no store that does not answer."""
    monkeypatch.setattr(completion, "PATIENCE_S", 30.0)


def bash(shell: Shell, line: str, **environment: str | None) -> list[str]:
    """What is offered at the end of the line, whose words Bash splits at `:` and `=`, too."""
    words = line.replace(":", "\n:\n").replace("=", "\n=\n").replace(" ", "\n")
    environment |= {"COMP_WORDS": words, "COMP_CWORD": str(words.count("\n"))}
    ran = shell.run(_DURABLE_COMPLETE="complete_bash", **environment)
    assert ran.err == ""
    return ran.lines


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("durable show ", "{parent}/child {parent} {unstorable} {diverged} {declined} {completed} {waiting}"),
        ("durable show {waiting_6}", "{waiting}"),
        ("durable show zzz", ""),
        ("durable cancel ", "{unstorable} {diverged} {waiting}"),
        ("durable cancel {diverged} {unstorable} ", "{waiting}"),
        ("durable retry ", "{unstorable} {diverged} {declined}"),
        ("durable resume ", ""),
        ("durable signal ", "{unstorable} {diverged} {waiting}"),
        ("durable signal {waiting_6} ", "approved"),
        ("durable edit-step {waiting} ", "charge"),
        ("durable skip-step {waiting} ", "approved"),
        ("durable rerun {waiting} --from-step c", "charge"),
        ("durable list --workflow f", "fixable flaky fulfil"),
        ("durable list --workflow=fu", "fulfil"),
        ("durable list --status pa", "paused parked"),
        ("durable schedules pause ", "a:hourly nightly"),
        ("durable schedules pause nightly ", "a:hourly"),
        ("durable schedules show a:h", "hourly"),
        ("durable schedules next nightly --tz Europe/Lond", "Europe/London"),
        ("durable queues pause e", "email"),
        ("durable limits unset r", "report/concurrency"),
        ("durable workers drain ", "host:1:abc"),
        ("durable start fl", "flaky"),
        ("durable start app:durable fl", "flaky"),
        ("durable start --app app:durable fl", "flaky"),
        ("durable start flaky ", ""),
        ("durable describe fl", "flaky"),
        ("durable check --workflow fl", "flaky"),
        ("durable worker -q ", "default email"),
        ("durable start flaky --queue e", "email"),
        ("durable show --namespace other ", ""),
    ],
)
def test_a_value_is_completed_by_what_there_is(planned: Sold, line: str, offered: str) -> None:
    names = {name: id for name, id in vars(planned).items() if isinstance(id, str)}
    names["waiting_6"] = planned.waiting[:6]
    assert bash(planned.shell, line.format(**names)) == offered.format(**names).split()


def test_no_more_is_offered_than_somebody_reads(shell: Shell) -> None:
    async def start() -> None:
        async with Durable([shop.slow], store=shell.url, worker=False) as durable:
            for _ in range(25):
                await durable.start(shop.slow, 1.0, delay="1h")

    asyncio.run(start())
    offered = bash(shell, "durable show ")
    assert offered == shell.run("list", "-o", "ids").lines[:20]


def test_zsh_and_fish_show_what_an_execution_is(planned: Sold) -> None:
    line = {"_TYPER_COMPLETE_ARGS": f"durable show {planned.completed[:6]}"}
    zsh = planned.shell.run(_DURABLE_COMPLETE="complete_zsh", **line).out
    assert f'"{planned.completed}":"echo, completed"' in zsh
    fish = planned.shell.run(
        _DURABLE_COMPLETE="complete_fish", _TYPER_COMPLETE_FISH_ACTION="get-args", **line
    )
    assert fish.out == f"{planned.completed}\techo, completed\n"
    asked = {"_TYPER_COMPLETE_FISH_ACTION": "is-args", "_DURABLE_COMPLETE": "complete_fish"}
    planned.shell.run(**line, **asked)
    planned.shell.run(**{**asked, "_TYPER_COMPLETE_ARGS": "durable show zzz"}, code=1)


@pytest.mark.parametrize("url", [None, "sqlite:///typo.db", "oracle://host/db", "memory://", "nonsense"])
def test_a_store_that_cannot_be_used_is_no_message(shell: Shell, url: str | None) -> None:
    assert bash(shell, "durable show ", DURABLE_STORE_URL=url) == []
    assert not (shell.directory / "typo.db").exists()


def test_a_store_that_does_not_answer_is_given_up(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "PATIENCE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert bash(shell, "durable show ", DURABLE_STORE_URL=url) == []


@pytest.mark.parametrize(
    "code", ["print('hello'); raise SystemExit(3)", "import nothing_like_it", "durable = 1"]
)
def test_an_application_that_is_broken_is_no_message(tmp_path: Path, code: str) -> None:
    (tmp_path / "app.py").write_text(code)
    assert bash(Shell(tmp_path), "durable start --app app:durable f") == []


def test_bash_itself_completes_commands_options_and_values(shell: Shell, tmp_path: Path) -> None:
    command = tmp_path / "durable"
    command.write_text(f'#!/bin/sh\nexec {" ".join(shell.command)} "$@"\n')
    command.chmod(0o755)
    script = """
        eval "$(durable --show-completion bash)"
        offered() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _durable_completion durable; echo "${COMPREPLY[@]}"
        }
        offered durable sch
        offered durable workers --wa
        offered durable start app : durable fl
        offered durable list --store redis : //host --tag a = b --status fail
    """
    ran = subprocess.run(
        ["bash", "-c", script],
        env={**shell.environment, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SHELL": "/bin/bash"},
        cwd=shell.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.splitlines() == ["schedules", "--watch", "flaky", "failed"], ran.stderr
