"""`durable skip-step`, `edit-step`, `rerun`, `pause`, `resume`, `force-fail`, `events`, and acts on what matches."""

from __future__ import annotations

import getpass
import json
import re

import pytest

from tests.cli.conftest import Shell, Sold

ORDER = '{"id": "7", "cents": 700}'


def test_a_failed_step_is_skipped_by_whom_and_with_what_the_events_say(shell: Shell) -> None:
    id = shell.start("fixable")
    with shell.worker():
        shell.until(id)
        said = shell.run("skip-step", id[:8], "read", '"by hand"', "--by", "ada").out
        assert said == f"skipping read of {id}\n"
        shell.until(id, "completed")
    assert shell.json("show", id)["execution"]["result"] == "by hand"
    (act,) = [entry for entry in shell.json("events", id) if entry["kind"] == "operator"]
    assert (act["name"], act["details"]["by"], act["details"]["value"]) == ("skip_step", "ada", "by hand")
    lines = shell.run_apart("events", id).lines
    assert lines[0].split() == ["AT", "WHAT", "NAME", "DETAILS"]
    assert any(re.search(r"operator +skip_step +.*by=ada", line) for line in lines)
    assert re.search(r"completed +fixable$", lines[-1])


def test_acts_on_a_waiting_execution_from_pause_to_rerun(shell: Shell) -> None:
    id = shell.start("fulfil", ORDER, "--tag", "tenant=acme")
    with shell.worker():
        shell.until(id, "waiting")
        assert shell.run("pause", "--tag", "tenant=acme", "--dry-run", "-o", "ids").lines == [id]
        assert shell.run("pause", id).out == f"pausing {id}\n"
        shell.until(id, "paused")
        assert shell.run("edit-step", id, "charge", "-", stdin='"charge-8"', code=0).out.startswith("edited")
        shell.run("signal", id, "approved", '"ada"')
        assert shell.run("resume", "--status", "paused", "--yes").out == "resuming 1 execution\n"
        shell.until(id, "completed")
        second = shell.run("rerun", id, "--from-step", "ship", "-o", "ids").out.strip()
        shell.until(second, "completed")
        third = shell.run("rerun", id, "--input", '{"id": "9", "cents": 1}', "-o", "ids").out.strip()
        shell.until(third, "waiting")
        said = shell.run("force-fail", third, "--reason", "enough").out
        assert said == f"failing {third}\n"
        shell.until(third)
    steps = {step["id"]: step["result"] for step in shell.json("show", second)["steps"]}
    assert steps["charge"] == "charge-8"
    execution = shell.json("show", second)["execution"]
    assert (execution["rerun_of"], execution["rerun_from"]) == (id, "ship")
    failed = shell.json("show", third)["execution"]
    assert (failed["input"]["id"], failed["error"]["message"]) == ("9", "enough")
    by = {entry["details"]["by"] for entry in shell.json("events", id) if entry["kind"] == "operator"}
    assert by == {getpass.getuser()}


def test_what_was_done_is_rolled_back_with_the_reason_and_by_whom(shell: Shell) -> None:
    id = shell.start("booking")
    with shell.worker():
        shell.until(id, "waiting")
        assert shell.run("rollback", id, "--dry-run").out == f"would be rolling back {id}\n"
        assert shell.run("rollback", id, "--reason", "too far", "--by", "ada").out == f"rolling back {id}\n"
        shell.until(id, "cancelled")
    detail = shell.json("show", id)
    assert [step["id"] for step in detail["steps"] if step["kind"] == "rollback"] == ["rollback:book"]
    assert detail["execution"]["error"]["message"] == "too far"
    assert "was rolled back" in shell.refused("rollback", id)


def test_an_act_on_all_that_match_asks_first(shell: Shell) -> None:
    ids = {shell.start("fulfil", ORDER, "--delay", "1h") for _ in range(3)}
    refused = shell.run("cancel", "--workflow", "fulfil", stdin="n\n", code=130)
    assert "cancel 3 executions?" in refused.err
    assert all(id in refused.err for id in ids)
    assert {e["status"] for e in shell.json("list")} == {"pending"}
    report = json.loads(shell.run("cancel", "--workflow", "fulfil", "--yes", "-o", "json").out)
    assert (set(report["done"]), report["refused"], report["dry_run"]) == (ids, {}, False)
    assert {e["status"] for e in shell.json("list")} == {"cancelled"}
    assert shell.run("cancel", "--workflow", "fulfil", "--yes").out == "cancelling 0 executions\n"


def test_events_follow_an_execution_until_it_ends(shell: Shell) -> None:
    id = shell.start("fulfil", ORDER)
    with shell.process("events", id, "--watch") as watching:
        watching.says("created")
        with shell.worker():
            watching.says("charge")
            shell.run("signal", id, "approved", '"ada"')
            watching.says("completed")
            assert watching.ends() == 0
    assert watching.said.count("created") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cancel"], "nothing says which"),
        (["pause"], "nothing says which"),
        (["cancel", "{waiting}", "--status", "waiting"], "either ids or filters"),
        (["resume", "{waiting}"], "resume does not apply"),
        (["pause", "{completed}"], "pause does not apply"),
        (["pause", "{completed}", "--dry-run"], "pause does not apply"),
        (["force-fail", "{completed}"], "force_fail does not apply"),
        (["skip-step", "{waiting}", "chrage", "1"], "no step 'chrage'"),
        (["skip-step", "{waiting}", "charge", "1"], "completed"),
        (["skip-step", "{waiting}", "charge", "{{"], "Invalid JSON"),
        (["edit-step", "{waiting}", "approved", "1"], "wait_for_signal"),
        (["rerun", "{waiting}", "--from-step", "nowhere"], "no step 'nowhere'"),
        (["rerun", "--status", "failed", "--from-step", "x"], "are named"),
        (["rerun", "{waiting}", "--input", "{{"], "Invalid JSON"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_refused_with_a_hint(sold: Sold, arguments: list[str], message: str) -> None:
    names = {"waiting": sold.waiting, "completed": sold.completed}
    assert message in sold.shell.refused(*[argument.format(**names) for argument in arguments])


@pytest.mark.parametrize(
    "verb", ["rerun", "pause", "resume", "force-fail", "events", "skip-step", "edit-step"]
)
def test_an_act_on_an_unknown_id_is_not_found(sold: Sold, verb: str) -> None:
    rest = {"skip-step": ["a", "1"], "edit-step": ["a", "1"]}.get(verb, [])
    assert "there is no execution 'zzz'" in sold.shell.refused(verb, "zzz", *rest, code=3)


def test_prune_can_show_what_it_would_delete(sold: Sold) -> None:
    said = sold.shell.run("prune", "--older-than", "0s", "--dry-run").out
    assert re.fullmatch(r"would delete \d executions\n", said)
    assert said != "would delete 0 executions\n"


def test_show_has_the_tries_of_a_step_and_splits_the_time(shell: Shell) -> None:
    id = shell.start("flaky")
    with shell.worker():
        shell.until(id, "completed")
    header, *lines = shell.run_apart("show", id).lines
    assert re.search(r"\(your code [\d.a-z ]+, durable [\d.a-z ]+\)", header)
    assert re.search(r"✓ knock +×3", lines[0])
    assert re.search(r"├─ ✗ try 1 .*ConnectionError: nobody home 1$", lines[1])
    assert re.search(r"└─ ✗ try 2 .*ConnectionError: nobody home 2$", lines[2])
