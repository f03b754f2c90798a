"""What holds for every command: help, the store's URL, output that cannot hurt, pipes that close."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from durable import __version__
from tests.cli.conftest import ROOT, Shell, Sold, commands


def test_help_lists_every_command_and_each_has_examples(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    overview = shell.run("--help").out
    assert shell.run().out == overview
    for name, _ in commands():
        *groups, word = name.split()
        listed = shell.run(*groups, "--help").out if groups else overview
        assert f"\n  {word} " in listed
        examples = shell.run(*name.split(), "--help").out.partition("Examples:")[2]
        assert re.search(rf"^    (\w+=\S+ )?durable {name}\b", examples, re.MULTILINE), name


def test_the_version_is_told(tmp_path: Path) -> None:
    assert Shell(tmp_path).run("--version").out == f"durable {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lst"], "Did you mean 'list'?"),
        (["list", "--nope"], "No such option"),
        (["show"], "Missing argument"),
        (["--nope"], "No such option"),
        (["supervize"], "Did you mean 'supervise'?"),
    ],
)
def test_a_call_that_is_none_says_how_it_is_done(tmp_path: Path, arguments: list[str], says: str) -> None:
    refused = Shell(tmp_path).refused(*arguments)
    assert says in refused
    assert "--help" in refused


def test_without_the_extra_it_says_which_to_install(tmp_path: Path) -> None:
    program = "import sys; sys.modules['rich'] = None; from durable.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", program, "list"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == "error: the command line needs rich\nhint: pip install 'durable[cli]'\n"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (None, "no store is named"),
        ("", "no store is named"),
        ("shop.db", "is not the URL of a backend"),
        ("oracle://scott:tiger@host/db", "no backend is installed"),
        ("memory://", "one process only"),
        ("sqlite://host/x.db", "names a host"),
        ("sqlite:///", "has no path"),
        ("sqlite:////nowhere/at/all/x.db", "no such file: /nowhere/at/all/x.db"),
        ("sqlite:///notes.txt", "not a database"),
        ("sqlite:///x.db?synchronous=never", "normal or full"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused(tmp_path: Path, url: str | None, says: str) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but my notes\n" * 100)
    refused = Shell(tmp_path).refused("list", DURABLE_STORE_URL=url)
    assert says in refused
    assert "tiger" not in refused


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["show", "x"],
        ["signal", "x", "approved"],
        ["cancel", "x"],
        ["retry", "x"],
        ["prune", "--yes"],
        ["send", "ping"],
        ["schedules", "list"],
        ["queues", "pause", "email"],
        ["limits", "unset", "limit/x"],
        ["workers", "drain", "x"],
    ],
    ids=lambda command: command[0],
)
def test_a_mistyped_file_is_said_to_be_missing_and_not_made(tmp_path: Path, command: list[str]) -> None:
    shell = Shell(tmp_path)
    assert "no such file: typo.db" in shell.refused(*command, "--store", "sqlite:///typo.db")
    assert list(tmp_path.iterdir()) == []


def test_namespaces_do_not_see_each_other(sold: Sold) -> None:
    assert sold.shell.json("list", "--namespace", "other") == []
    assert sold.shell.run("list", "-o", "ids", DURABLE_NAMESPACE="other").out == ""
    sold.shell.refused("show", sold.waiting, "-n", "other", code=3)


def test_nothing_that_is_stored_reaches_the_terminal_as_a_command(sold: Sold) -> None:
    for command in (
        ["list"],
        ["list", "-o", "json"],
        ["show", sold.declined],
        ["show", sold.declined, "-o", "json"],
    ):
        out = sold.shell.run(*command).out
        assert "31mdeclined" in out
        assert "\x1b" not in out


def test_output_survives_an_encoding_that_lacks_its_marks(sold: Sold) -> None:
    assert "? completed" in sold.shell.run_apart("list", PYTHONIOENCODING="ascii").out


def test_a_reader_that_goes_away_is_no_error(sold: Sold) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [*sold.shell.command, "list"],
        cwd=sold.shell.directory,
        env=sold.shell.environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["list", "--status", "faild"], "'failed'"),
        (["start", "flaki"], "'flaky'"),
        (["start", "--app", "app:durabel", "flaky"], "'durable'"),
        (["describe", "flaki"], "'flaky'"),
        (["skip-step", "{waiting}", "chrage"], "'charge'"),
        (["schedules", "show", "nigthly"], "'nightly'? `durable schedules list` names"),
        (["schedules", "remove", "nigthly"], "'nightly'"),
        (["workers", "drain", "hots:1:abc"], "'host:1:abc'? `durable workers` names"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_that_nothing_has_is_answered_with_the_closest(
    planned: Sold, arguments: list[str], meant: str
) -> None:
    words = [argument.format(waiting=planned.waiting) for argument in arguments]
    refused = planned.shell.refused(*words, code=3 if words[0] in ("schedules", "workers") else 2)
    assert f"did you mean {meant}" in refused


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["list", "--workflow", "fulfl"], "no workflow 'fulfl' is known here; did you mean 'fulfil'?"),
        (["cancel", "--workflow", "fulfl", "--yes"], "did you mean 'fulfil'?"),
        (["check", "--workflow", "fulfl"], "did you mean 'fulfil'?"),
        (["queues", "resume", "emial"], "no queue 'emial' is known here; did you mean 'email'?"),
        (["limits", "unset", "reprot/concurrency"], "did you mean 'report/concurrency'?"),
        (["signal", "{waiting}", "aproved"], "did you mean 'approved'?"),
        (["start", "slow", "1", "--delay", "1d", "--queue", "emial"], "did you mean 'email'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_new_name_that_is_like_one_in_use_is_allowed_and_doubted(
    planned: Sold, arguments: list[str], meant: str
) -> None:
    words = [argument.format(waiting=planned.waiting) for argument in arguments]
    assert meant in planned.shell.run(*words).err


@pytest.mark.parametrize("name", ["fulfil", "zzz"])
def test_a_name_that_is_in_use_or_like_none_is_not_doubted(planned: Sold, name: str) -> None:
    assert planned.shell.run("list", "--workflow", name, "--status", "running").err == ""
