"""`durable describe`: the shape of a workflow, and what has changed of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Shell


def test_a_workflow_is_described_as_mermaid_unless_told_otherwise(shell: Shell) -> None:
    lines = shell.run("describe", "fulfil").lines
    assert lines[0] == "flowchart TD"
    assert '  n2{{"approved"}}' in lines
    assert shell.run("describe", "app:durable", "fulfil").lines == lines
    assert shell.run("describe", "--app", "app:durable", "fulfil", "--version", "1").lines == lines


def test_describing_asks_no_store(shell: Shell) -> None:
    shell.run("describe", "fulfil", DURABLE_STORE_URL=None)
    assert not list(shell.directory.glob("*.db"))


def test_each_format_is_what_its_name_says(shell: Shell) -> None:
    assert shell.run("describe", "fulfil", "-f", "dot").out.startswith('digraph "fulfil" {')
    shape = json.loads(shell.run("describe", "fulfil", "--format", "json").out)
    assert [node["id"] for node in shape["nodes"]] == ["start", "charge", "approved", "ship", "end"]
    assert shell.run("describe", "fulfil", "-f", "svg").out.startswith("<svg")
    art = shell.run("describe", "fulfil", "-f", "ascii").out
    assert "│ " in art
    assert "approved" in art


def test_nothing_that_a_source_says_is_obeyed_by_a_terminal(shell: Shell) -> None:
    for format in ("mermaid", "dot", "ascii", "json"):
        assert "\x1b" not in shell.run("describe", "declined", "-f", format).out


def test_what_cannot_be_described_is_refused(shell: Shell) -> None:
    assert "fulfil" in shell.refused("describe", "fulfill")
    assert "one workflow" in shell.refused("describe", "app:durable", "fulfil", "echo")
    assert "--format" in shell.refused("describe", "fulfil", "--format", "png")


@pytest.fixture
def committed(shell: Shell) -> Path:
    """The application, in a git repository."""

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", shell.directory, *identity, *arguments], check=True, capture_output=True)

    git("init", "--quiet")
    git("add", "app.py")
    git("commit", "--quiet", "--message", "a state")
    return shell.directory / "app.py"


def test_what_has_changed_since_a_revision_is_told(shell: Shell, committed: Path) -> None:
    assert (
        shell.run("describe", "fulfil", "--diff", "HEAD").out == "fulfil has the steps that it had at HEAD\n"
    )
    text = committed.read_text()
    committed.write_text(text.replace("wait_for_signal(Approved)", 'wait_for_signal(Approved, timeout="1d")'))
    assert shell.run("describe", "fulfil", "--diff", "HEAD").lines == [
        "! wait_for_signal approved: timeout was None, is 1d"
    ]
    (told,) = json.loads(shell.run("describe", "fulfil", "--diff", "HEAD", "-f", "json").out)
    assert (told["change"], told["after"]["id"]) == ("changed", "approved")
    assert "git says" in shell.refused("describe", "fulfil", "--diff", "nowhere")


def test_a_workflow_that_is_new_since_then_is_told(shell: Shell, committed: Path) -> None:
    new = "\n\n@workflow\nasync def fresh(ctx: Context) -> None:\n    await ctx.sleep(1)\n\n\ndurable = "
    committed.write_text(
        committed.read_text().replace("\ndurable = ", new, 1).replace("    [\n", "    [\n        fresh,\n", 1)
    )
    told = shell.run("describe", "fresh", "--diff", "HEAD").out
    assert told == "fresh is not there at HEAD: all of it is new\n"
