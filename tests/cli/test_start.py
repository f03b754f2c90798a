"""`durable start`, and how it finds the application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Shell, Sold

ORDER = '{"id": "7", "cents": 700}'


def test_start_prints_the_id_alone(shell: Shell) -> None:
    id = shell.start("fulfil", ORDER)
    execution = shell.json("show", id)["execution"]
    assert (execution["status"], execution["input"]) == ("pending", {"id": "7", "cents": 700})


def test_start_takes_its_input_from_stdin(shell: Shell) -> None:
    id = shell.run("start", "fulfil", "-", stdin=ORDER).out.strip()
    assert shell.json("show", id)["execution"]["input"]["cents"] == 700


def test_options_of_a_start_are_stored_with_it(shell: Shell) -> None:
    options = [
        "--tag",
        "tenant=acme",
        "--tag",
        "a=b=c",
        "--priority",
        "7",
        "--queue",
        "slow",
        "--delay",
        "1h",
    ]
    execution = shell.json("show", shell.start("fulfil", ORDER, *options))["execution"]
    assert execution["tags"] == {"tenant": "acme", "a": "b=c"}
    assert (execution["priority"], execution["queue"]) == (7, "slow")


def test_the_same_key_is_the_same_execution(shell: Shell) -> None:
    first = shell.json("start", "fulfil", ORDER, "--key", "order:7")
    assert first["created"] is True
    again = shell.run("start", "fulfil", ORDER, "--key", "order:7")
    assert again.out == f"{first['id']}\n"
    assert "had been started" in again.err
    assert first["id"] in shell.refused("start", "fulfil", '{"id": "8", "cents": 1}', "--key", "order:7")


def test_start_waits_for_the_result(shell: Shell) -> None:
    with shell.worker():
        ran = shell.run_apart("start", "echo", '{"id": "é", "cents": 1}', "--wait", "--timeout", "20s")
        assert json.loads(ran.out) == {"id": "é", "cents": 1}
        assert "é" in ran.out
        answer = shell.json("start", "echo", ORDER, "--wait")
        assert answer == {"id": answer["id"], "created": True, "result": {"id": "7", "cents": 700}}


def test_each_end_of_a_wait_has_its_exit_code(sold: Sold) -> None:
    with sold.shell.worker():
        failed = sold.shell.refused("start", "declined", "--wait", code=1)
        assert "card �[31mdeclined" in failed
        assert "durable retry" in failed
        assert (
            "not ended after"
            in sold.shell.run("start", "fulfil", ORDER, "--wait", "--timeout", "10ms", code=4).err
        )
        mismatch = sold.shell.refused("start", "diverging", "--key", "diverging", "--wait", code=5)
        assert "recorded step 'one', the code now asks for step 'two'" in mismatch
        assert "cannot be stored" in sold.shell.refused(
            "start", "unstorable", "--key", "unstorable", "--wait", code=1
        )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fulfill", ORDER], "did you mean 'fulfil'?"),
        (["nobody"], "registered: booking, child, "),
        (["fulfil"], "does not validate"),
        (["fulfil", '{"id": "7", "cents": "many"}'], "cents: Input should be a valid integer"),
        (["fulfil", "{}"], "id: Field required"),
        (["fulfil", "{'id': 7}"], "Invalid JSON"),
        (["fulfil", ORDER, "--delay", "soon"], "delay"),
        (["fulfil", ORDER, "--at", "2026-01-01"], "time zone"),
        (["fulfil", ORDER, "--at", "noon"], "--at must be an instant"),
        (["fulfil", ORDER, "--at", "2026-01-01T00:00:00Z", "--delay", "1h"], "delay and at"),
        (["fulfil", ORDER, "--timeout", "1s"], "--timeout needs --wait"),
        (["fulfil", ORDER, "--wait", "--timeout", "x"], "--timeout must be a duration"),
        (["fulfil", ORDER, "--key", "a\nb"], "key"),
        (["fulfil", ORDER, "--tag", "x"], "--tag must be name=value"),
        (["fulfil", ORDER, "--queue", "two words"], "queue"),
        (["fulfil", ORDER, "--priority", "high"], "priority"),
        (["fulfil", ORDER, "--version", "9"], "version"),
        (["fulfil", ORDER, "and", "more"], "4 arguments"),
        (["app:durable", "fulfil", "x" * 100_000], "Invalid JSON"),
    ],
)
def test_what_cannot_be_started_is_refused_and_nothing_is_stored(
    shell: Shell, arguments: list[str], says: str
) -> None:
    shell.make_store()
    assert says in shell.refused("start", *arguments)
    assert shell.run("list", "-o", "ids").out == ""


def test_an_input_that_is_too_large_is_refused(shell: Shell) -> None:
    assert "bytes" in shell.refused("start", "child", "-", stdin=json.dumps("x" * 2**20))


# ---- the application


def test_the_application_is_named_in_either_place(shell: Shell) -> None:
    Path(shell.directory, "app.py").rename(shell.directory / "shop.py")
    shell.refused("start", "declined")
    shell.start("--app", "shop:durable", "declined")
    shell.start("shop:durable", "declined")
    shell.start("shop:durable", "fulfil", ORDER)
    shell.start("--app", "shop", "fulfil", ORDER)
    shell.run("start", "fulfil", ORDER, DURABLE_APP="shop:durable")
    shell.run("start", "shop:durable", "fulfil", ORDER, DURABLE_APP="elsewhere:durable")
    assert len(shell.json("list")) == 6


@pytest.mark.parametrize(
    ("source", "reference", "says"),
    [
        ("", "app:durable", "app has no durable"),
        ("durable = 3", "app:durable", "is a int and no Durable"),
        ("", "app", "there is no Durable in app"),
        ("", "nowhere:durable", "there is no module 'nowhere'"),
        ("", "a b:c", "there is no module 'a b'"),
        ("", ":durable", "cannot be imported"),
        ("import nowhere", "app:durable", "No module named 'nowhere'"),
        ("1 / 0", "app:durable", "ZeroDivisionError: division by zero ("),
        ("def", "app:durable", "SyntaxError"),
        ("raise SystemExit(3)", "app:durable", "SystemExit: 3"),
        (
            "from durable import Durable\na = Durable(store='sqlite:///a.db')\nb = Durable(store='sqlite:///b.db')",
            "app",
            "several Durables: app:a, app:b",
        ),
        (
            "from durable import Durable\ndurable = Durable(store='memory://')",
            "app:durable",
            "seen by one process only",
        ),
        (
            "from durable import Durable\ndurable = Durable(store='sqlite:///a.db', concurrency=0)",
            "app:durable",
            "concurrency must be",
        ),
    ],
)
def test_an_application_that_cannot_be_used_says_why(
    shell: Shell, source: str, reference: str, says: str
) -> None:
    Path(shell.directory, "app.py").write_text(source)
    assert says in shell.refused("start", "--app", reference, "fulfil", ORDER)
