"""`durable show`: one execution, for people and for programs."""

from __future__ import annotations

import re

from tests.cli.conftest import Sold


def test_show_draws_the_steps_of_what_waits(sold: Sold) -> None:
    header, charge, wait, why = sold.shell.run_apart("show", sold.waiting).lines
    assert header.startswith(f"fulfil v1 · {sold.waiting} · ◷ waiting · ")
    assert header.endswith(" · key order:7 · tenant=acme")
    assert re.fullmatch(r"├─ ✓ charge .* ▏█+", charge)
    assert re.fullmatch(r"└─ ◷ approved ⟵ signal .* ▏ *[░╱]+", wait)
    assert why == "   it waits for signal 'approved'"


def test_show_says_what_to_do_about_a_failure(sold: Sold) -> None:
    lines = sold.shell.run("show", sold.declined).lines
    assert lines[-2] == "   error: Fail: card �[31mdeclined"
    assert lines[-1].endswith(f"with `durable retry {sold.declined}`")


def test_show_says_why_something_is_parked(sold: Sold) -> None:
    lines = sold.shell.run("show", sold.diverged).lines
    assert "recorded step 'one', the code now asks for step 'two'" in lines[-2]
    assert "durable retry" in lines[-1]


def test_show_shows_children_below_their_parent(sold: Sold) -> None:
    header, child, sleep, greet, result = sold.shell.run("show", sold.parent).lines
    assert "✓ completed" in header
    assert child.startswith(f"└─ ✓ child · {sold.parent}/child")
    assert sleep.startswith("   ├─ ✓ sleep")
    assert greet.startswith("   └─ ✓ greet")
    assert result == '   result: "Hello A"'


def test_show_as_json_has_the_detail_and_the_children(sold: Sold) -> None:
    shown = sold.shell.json("show", sold.parent)
    parts = {"execution", "steps", "waits", "signals", "audit", "timings", "explanation", "children"}
    assert set(shown) == parts
    assert shown["execution"]["id"] == sold.parent
    assert [step["kind"] for step in shown["steps"]] == ["child"]
    (child,) = shown["children"]
    assert child["execution"]["parent_id"] == sold.parent
    assert [step["id"] for step in child["steps"]] == ["sleep", "greet"]
    assert sold.shell.json("show", sold.waiting)["waits"][0]["name"] == "approved"


def test_show_cuts_waits_short_unless_asked_not_to(sold: Sold) -> None:
    def charge_bar(*arguments: str) -> int:
        return sold.shell.run("show", sold.waiting, *arguments).lines[1].count("█")

    assert charge_bar() > 10
    assert charge_bar("--linear") == 1
