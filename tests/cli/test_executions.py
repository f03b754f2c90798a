"""`durable list`, `signal`, `cancel`, `retry` and `prune`, as they are called by people and by scripts."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import Shell, Sold


def test_list_is_a_table_with_the_newest_first(sold: Sold) -> None:
    header, *rows = sold.shell.run_apart("list").lines
    assert header.split() == ["ID", "WORKFLOW", "STATUS", "AGE", "DURATION", "WHY"]
    listed = {row.split()[0]: row for row in rows}
    assert len(listed) == 7
    assert "✓ completed" in listed[sold.completed]
    assert "◷ waiting" in listed[sold.waiting]
    assert "! parked" in listed[sold.diverged]
    assert re.search(r"✗ failed .* Fail: card �\[31mdeclined$", listed[sold.declined])
    assert rows[-1].startswith(sold.waiting)


def test_list_as_json_has_every_field_of_the_record(sold: Sold) -> None:
    listed = {execution["id"]: execution for execution in sold.shell.json("list")}
    waiting = listed[sold.waiting]
    assert waiting["workflow"] == "fulfil"
    assert waiting["status"] == "waiting"
    assert waiting["input"] == {"id": "7", "cents": 700}
    assert waiting["tags"] == {"tenant": "acme"}
    assert waiting["key"] == "order:7"
    assert datetime.fromisoformat(waiting["created_at"]).tzinfo is not None
    assert listed[sold.declined]["error"]["code"] == "declined"
    assert listed[sold.completed]["result"] == {"id": "é", "cents": 1}


def test_ids_are_printed_one_a_line_for_a_pipe(sold: Sold) -> None:
    assert sold.shell.run_apart("list", "--status", "failed", "-o", "ids").out == f"{sold.declined}\n"


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["--workflow", "fulfil"], {"waiting"}),
        (["--status", "parked", "--status", "failed"], {"diverged", "unstorable", "declined"}),
        (["--tag", "tenant=acme"], {"waiting", "declined"}),
        (["--tag", "tenant=acme", "--status", "failed"], {"declined"}),
        (["--since", "1h", "--workflow", "echo"], {"completed"}),
        (["--until", "1h"], set[str]()),
        (["--workflow", "nobody"], set[str]()),
    ],
)
def test_list_shows_what_its_filters_ask_for(sold: Sold, filters: list[str], names: set[str]) -> None:
    ids = sold.shell.run("list", *filters, "-o", "ids").lines
    assert set(ids) == {getattr(sold, name) for name in names}


def test_an_empty_list_is_an_empty_array(sold: Sold) -> None:
    assert sold.shell.json("list", "--workflow", "nobody") == []


def test_pages_follow_each_other_by_their_cursor(sold: Sold) -> None:
    seen: list[str] = []
    cursor: list[str] = []
    while True:
        page = sold.shell.run("list", "--limit", "3", "-o", "ids", *cursor)
        seen += page.lines
        more = re.search(r"--cursor (\S+)", page.err)
        if more is None:
            break
        cursor = ["--cursor", more[1]]
    assert len(seen) == 7
    assert seen == sold.shell.run("list", "-o", "ids").lines


@pytest.mark.parametrize(
    "arguments",
    [
        ["--status", "done"],
        ["--since", "yesterday"],
        ["--since", "2026-01-01"],
        ["--tag", "tenant"],
        ["--limit", "0"],
        ["--limit", "many"],
        ["--cursor", "hostile'; --"],
        ["--output", "yaml"],
        ["--namespace", "../other"],
        ["surplus"],
    ],
)
def test_list_refuses_what_it_does_not_understand(sold: Sold, arguments: list[str]) -> None:
    sold.shell.refused("list", *arguments)


def test_a_signal_is_sent_by_the_start_of_an_id(shell: Shell) -> None:
    id = shell.start("fulfil", '{"id": "7", "cents": 700}')
    with shell.worker():
        shell.until(id, "waiting")
        assert shell.run_apart("signal", id[:6], "approved", '"ada"').out == f"sent approved to {id}\n"
        shell.until(id)
    assert shell.json("show", id)["execution"]["result"] == "parcel-7 by ada"


def test_a_signal_that_is_sent_again_with_its_key_counts_once(shell: Shell) -> None:
    id = shell.start("fulfil", '{"id": "7", "cents": 700}')
    for _ in range(2):
        shell.run("signal", id, "approved", "-", "--key", "ada", stdin='"ada"')
    shell.run("signal", id, "noticed")
    signals = [(signal["name"], signal["payload"]) for signal in shell.json("show", id)["signals"]]
    assert signals == [("approved", "ada"), ("noticed", None)]


def test_a_payload_is_stored_as_it_was_sent(shell: Shell) -> None:
    id = shell.start("fulfil", '{"id": "7", "cents": 700}')
    payload = {"$type": "builtins.object", "value": [1, None, "é\u2028\U0001f600", {"$type": "x"}]}
    shell.run("signal", id, "approved", json.dumps(payload))
    assert shell.json("show", id)["signals"][0]["payload"] == payload


@pytest.mark.parametrize("payload", ["{", "ada", "NaN", "'x'", '"\\ud800"', "[" * 5000])
def test_a_payload_that_is_no_json_is_refused_and_not_stored(sold: Sold, payload: str) -> None:
    sold.shell.refused("signal", sold.waiting, "approved", payload)
    assert sold.shell.json("show", sold.waiting)["signals"] == []


def test_a_payload_of_bytes_that_are_no_text_is_refused(sold: Sold) -> None:
    sold.shell.refused("signal", sold.waiting, "approved", "-", stdin=b'"\xff"')


def test_a_signal_to_what_has_ended_is_refused(sold: Sold) -> None:
    assert "has ended (completed)" in sold.shell.refused("signal", sold.completed, "approved")


@pytest.mark.parametrize("name", ["__done", "rollback:x", "two words", "\x1b[2J", "", "a" * 201])
def test_a_signal_by_a_name_that_no_signal_can_have_is_refused(sold: Sold, name: str) -> None:
    sold.shell.refused("signal", sold.waiting, name)


def test_cancel_ends_executions_with_the_reason(shell: Shell) -> None:
    ids = [shell.start("fulfil", '{"id": "7", "cents": 700}') for _ in range(2)]
    with shell.worker():
        for id in ids:
            shell.until(id, "waiting")
        assert shell.run_apart("cancel", *ids, "--reason", "ordered twice", "-o", "ids").lines == ids
        for id in ids:
            shell.until(id)
    execution = shell.json("show", ids[0])["execution"]
    assert (execution["status"], execution["error"]["message"]) == ("cancelled", "ordered twice")
    assert shell.run("cancel", ids[0]).out == f"{ids[0]} had ended: cancelled\n"


def test_one_unknown_id_among_several_changes_nothing(sold: Sold) -> None:
    sold.shell.refused("cancel", sold.waiting, "nobody", code=3)
    assert sold.shell.json("show", sold.waiting)["execution"]["status"] == "waiting"


def test_what_failed_is_retried_from_a_pipe(shell: Shell) -> None:
    id = shell.start("fixable")
    with shell.worker():
        shell.until(id)
        failed = shell.run("list", "--status", "failed", "-o", "ids").lines
        assert failed == [id]
        (shell.directory / "fixed").touch()
        assert shell.run_apart("retry", *failed).out == f"retrying {id}\n"
        shell.until(id, "completed")


def test_retry_of_what_did_not_fail_is_refused(sold: Sold) -> None:
    assert "which is completed" in sold.shell.refused("retry", sold.completed)


def test_prune_asks_and_deletes_what_has_ended(shell: Shell) -> None:
    id = shell.start("declined")
    with shell.worker():
        shell.until(id)
    assert shell.run("prune", "--older-than", "0s", stdin="n\n", code=130).out.startswith("Delete executions")
    assert shell.run("prune", "--yes").out == "deleted 0 executions\n"
    assert (
        shell.run("prune", "--older-than", "0s", "--status", "completed", "-y").out
        == "deleted 0 executions\n"
    )
    assert shell.run("prune", "--older-than", "0s", "--yes").out == "deleted 1 execution\n"
    shell.refused("show", id, code=3)
    shell.refused("prune", "--older-than", "soon", "--yes")
    shell.refused("prune", "--status", "waiting", "--yes")


@pytest.mark.parametrize("verb", [["show"], ["cancel"], ["retry"], ["signal", "approved"]])
def test_an_id_that_nothing_has_is_not_found(sold: Sold, verb: list[str]) -> None:
    command, *rest = verb
    assert "there is no execution 'zzz'" in sold.shell.refused(command, "zzz", *rest, code=3)


def test_an_id_is_not_a_pattern(sold: Sold) -> None:
    for unknown in ("_", "../x", "[a-z]"):
        sold.shell.refused("show", unknown, code=3)
    for hostile in ("%", "*", "\x1b[2J", "' or 1=1 --", "", "a" * 201):
        assert "\x1b" not in sold.shell.refused("show", hostile)


def test_an_ambiguous_id_lists_what_it_may_mean(shell: Shell) -> None:
    ids: list[str] = []
    firsts: dict[str, str] = {}
    while True:
        id = shell.start("declined", "--delay", "1h")
        ids.append(id)
        if id[0] in firsts:
            break
        firsts[id[0]] = id
    refused = shell.refused("show", id[0])
    assert id in refused
    assert firsts[id[0]] in refused


def test_the_start_of_a_parents_id_does_not_mean_its_children(sold: Sold) -> None:
    assert sold.shell.run("show", sold.parent[:10], "-o", "ids").out == f"{sold.parent}\n"
    assert sold.shell.run("show", f"{sold.parent}/c", "-o", "ids").out == f"{sold.parent}/child\n"


def test_instants_may_be_given_with_their_zone(sold: Sold) -> None:
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert len(sold.shell.json("list", "--since", since)) == 7
