"""`durable check` and `durable export`: what would differ on a replay, before anything is deployed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Shell, Sold


def changed(sold: Sold, tmp_path: Path, *changes: tuple[str, str]) -> Shell:
    """A shell with other code, at the store in which something of everything has happened."""
    source = (sold.shell.directory / "app.py").read_text()
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    source = source.replace("sqlite:///shop.db", f"sqlite:///{sold.shell.directory / 'shop.db'}")
    (tmp_path / "app.py").write_text(source)
    return Shell(tmp_path)


def verdicts(shell: Shell, *arguments: str, code: int = 0) -> dict[str, Any]:
    out = json.loads(shell.run("check", *arguments, "-o", "json", code=code).out)
    return {verdict["execution_id"]: verdict for verdict in out["verdicts"]}


def test_executions_that_are_alive_fit_the_code_that_runs_them(sold: Sold) -> None:
    ran = sold.shell.run("check", "app:durable", "--status", "waiting,sleeping")
    assert ran.out == "✓ fulfil 1  1 fit\n"
    assert "1 execution replayed" in ran.err
    found = verdicts(sold.shell, "--status", "waiting")
    assert found[sold.waiting]["fit"] == "fits"
    assert "waiting for wait_for_signal 'approved'" in found[sold.waiting]["text"]


def test_one_that_was_parked_for_a_mismatch_diverges_until_the_code_is_mended(
    sold: Sold, tmp_path: Path
) -> None:
    ran = sold.shell.run("check", "--workflow", "diverging", code=5)
    assert "✗ diverging 1  1 diverge" in ran.out
    assert f"{sold.diverged}: recorded step 'one' as 'count' at 1" in ran.out
    assert "app.py:" in ran.out
    assert sold.shell.run("check", "-o", "ids", code=5).out == f"{sold.diverged}\n"
    mended = changed(sold, tmp_path, ("one if ctx.attempt == 1 else two", "one"))
    assert verdicts(mended, "--workflow", "diverging")[sold.diverged]["fit"] == "fits"


@pytest.mark.parametrize(
    ("old", "new", "fit", "says"),
    [
        ("await ctx.step(charge, order)", 'await ctx.step("bill", charge, order)', "diverges", "as 'bill'"),
        (
            "    await ctx.step(charge, order)",
            '    await ctx.step("one", one); await ctx.step(charge, order)',
            "needs_patched",
            "the code now asks for step 'one'",
        ),
        ("await ctx.step(charge, order)", "pass", "diverges", "recorded step 'charge' as 'charge' at 1"),
        (
            "    await ctx.step(charge, order)",
            '    if ctx.patched("one"):\n        await ctx.step("one", one)\n    await ctx.step(charge, order)',
            "fits",
            "",
        ),
    ],
    ids=["renamed", "added", "removed", "guarded"],
)
def test_a_change_is_told_with_what_to_do(
    sold: Sold, tmp_path: Path, old: str, new: str, fit: str, says: str
) -> None:
    shell = changed(sold, tmp_path, (old, new))
    found = verdicts(shell, "--status", "waiting", code=0 if fit == "fits" else 5)[sold.waiting]
    assert found["fit"] == fit
    assert says in found["text"]
    assert bool(found["hint"]) == (fit != "fits")


def test_a_version_that_is_gone_is_told_and_left_to_another_worker(sold: Sold, tmp_path: Path) -> None:
    shell = changed(
        sold, tmp_path, ("@workflow\nasync def fulfil", '@workflow(version="2")\nasync def fulfil')
    )
    found = verdicts(shell, "--status", "waiting")[sold.waiting]
    assert found["fit"] == "unknown_workflow"
    assert "version 1 of fulfil is not registered (only 2)" in found["text"]


def test_nothing_is_written_by_a_check(sold: Sold) -> None:
    before = sold.shell.json("list")
    sold.shell.run("check", code=5)
    assert sold.shell.json("list") == before


@pytest.mark.parametrize("options", [[], ["--redact"]], ids=["plain", "redacted"])
def test_exported_histories_are_replayed_without_a_store(
    sold: Sold, tmp_path: Path, options: list[str]
) -> None:
    ids = (sold.waiting, sold.completed, sold.declined, sold.parent)
    exported = sold.shell.run("export", *ids, "--children", *options).out
    assert ("order:7" in exported) == (not options)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "shop.json").write_text(exported)
    shell = changed(sold, tmp_path, (f"sqlite:///{'shop.db'}", "sqlite:////nowhere/shop.db"))
    found = verdicts(shell, "--histories", "kept")
    assert len(found) == 5
    assert found[sold.waiting]["fit"] == "fits"
    if not options:
        assert {verdict["fit"] for verdict in found.values()} == {"fits"}


def test_an_export_shows_nothing_that_a_terminal_would_obey(sold: Sold) -> None:
    out = sold.shell.run("export", sold.declined).out
    assert "31mdeclined" in out
    assert "\x1b" not in out


def test_an_export_is_readable(sold: Sold) -> None:
    whole = json.loads(sold.shell.run("export", sold.waiting).out)
    (execution,) = whole["executions"]
    assert (whole["format"], whole["format_version"]) == ("durable-history", 1)
    assert execution["input"] == {"json": {"id": "7", "cents": 700}}
    assert [c["data"] for c in execution["checkpoints"] if c["step_id"] == "charge"] == [{"json": "charge-7"}]


def lint_only(shell: Shell, body: str, code: int) -> str:
    source = f"import time\nfrom durable import Context, Durable, workflow\n\n\n@workflow\n{body}\n\n\n"
    (shell.directory / "app.py").write_text(source + 'durable = Durable([order], store="memory://")\n')
    return shell.run("check", "--lint", code=code).out


def test_the_linter_needs_no_store_and_fails_for_errors_only(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    bad = "async def order(ctx: Context) -> float:\n    return time.time()"
    assert lint_only(shell, bad, 1).startswith("app.py:7:12: D101 time.time() is called")
    excused = "async def order(ctx: Context) -> float:\n    return time.time()  # noqa: D101"
    assert lint_only(shell, excused, 0) == ""
    warned = "async def order(ctx: Context) -> None:\n    print(1)"
    assert "app.py:7:5: D111" in lint_only(shell, warned, 0)


@pytest.mark.parametrize(
    ("prepare", "arguments", "says"),
    [
        (None, ["check", "--status", "nope"], "nope"),
        (None, ["check", "--histories", "nowhere"], "no histories"),
        (lambda d: (d / "x.json").write_text("{"), ["check", "--histories", "x.json"], "no JSON"),
        (
            lambda d: (d / "x.json").write_text("{}"),
            ["check", "--histories", "x.json"],
            "no file of histories",
        ),
        (
            lambda d: (d / "x.json").write_text('{"format": "durable-history", "format_version": 99}'),
            ["check", "--histories", "x.json"],
            "format 99",
        ),
        (
            lambda d: (d / "x.json").write_text(
                '{"format": "durable-history", "format_version": 1, "executions": [{}]}'
            ),
            ["check", "--histories", "x.json"],
            "damaged",
        ),
    ],
)
def test_what_cannot_be_checked_is_refused(
    shell: Shell, prepare: Callable[[Path], object] | None, arguments: list[str], says: str
) -> None:
    if prepare is not None:
        prepare(shell.directory)
    assert says in shell.refused(*arguments)


def test_an_execution_that_is_not_there_cannot_be_exported(sold: Sold) -> None:
    assert "nothere" in sold.shell.refused("export", "nothere", code=3)


def test_a_store_in_memory_has_nothing_to_replay(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    (tmp_path / "app.py").write_text(
        'from durable import Durable\n\ndurable = Durable([], store="memory://")\n'
    )
    assert "--histories" in shell.refused("check")
