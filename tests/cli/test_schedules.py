"""`durable schedules ...`: what people see of schedules and do to them, from nothing but the store's URL."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from durable import Concurrency, Context, Durable, Schedule, workflow
from tests.cli.conftest import Shell

APP = """
from durable import Concurrency, Context, Durable, workflow

@workflow(concurrency=Concurrency(1, key=lambda what: what.upper()))
async def by_code(ctx: Context, what: str) -> str:
    return what

durable = Durable([by_code], store="sqlite:///shop.db")
"""


@workflow
async def report(ctx: Context, what: str) -> str:
    return what


@workflow(concurrency=Concurrency(1, key=lambda what: what.upper()))
async def by_code(ctx: Context, what: str) -> str:
    return what


def with_store(shell: Shell, act: Callable[[Durable], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Durable([report, by_code], store=shell.url, worker=False) as durable:
            await act(durable)

    asyncio.run(run())


@pytest.fixture
def scheduled(shell: Shell) -> Shell:
    """A store with two schedules, nobody being there to fire them."""

    async def ensure(durable: Durable) -> None:
        await durable.ensure_schedule(
            report, "é", id="nightly", cron="30 3 * * *", tz="Europe/London", overlap="skip", jitter="10m"
        )
        await durable.ensure_schedule(by_code, "x", id="often", interval="90m", catchup="none")

    with_store(shell, ensure)
    return shell


def schedule(shell: Shell, id: str) -> Schedule:
    found: list[Schedule] = []

    async def get(durable: Durable) -> None:
        found.append(await durable.get_schedule(id))

    with_store(shell, get)
    return found[0]


def test_schedules_are_listed_by_id(scheduled: Shell) -> None:
    scheduled.run("schedules", "pause", "nightly")
    header, nightly, often = scheduled.run_apart("schedules", "list").lines
    assert header.split() == ["ID", "WORKFLOW", "WHEN", "NEXT", "LAST"]
    assert re.fullmatch(r"nightly +report +30 3 \* \* \* Europe/London +paused", nightly)
    assert re.fullmatch(r"often +by_code +every 1h 30m +in 1h (29m|30m)", often) or "in 1h 30m" in often
    assert scheduled.run("schedules", "list", "-o", "ids").lines == ["nightly", "often"]


def test_schedules_as_json_have_every_field_of_the_record(scheduled: Shell) -> None:
    nightly, often = scheduled.json("schedules", "list")
    assert (nightly["workflow"], nightly["cron"], nightly["input"]) == ("report", "30 3 * * *", "é")
    assert datetime.fromisoformat(nightly["next_fire_at"]).tzinfo is not None
    assert (often["interval"], often["last_fire_at"], often["paused"]) == (5400, None, False)
    assert scheduled.json("schedules", "show", "often") == often


def test_show_says_what_a_schedule_does(scheduled: Shell) -> None:
    lines = scheduled.run("schedules", "show", "nightly").lines
    facts = dict(re.split(r" {2,}", line, maxsplit=1) for line in lines[1:])
    assert lines[0] == "nightly"
    assert (facts["workflow"], facts["input"], facts["last"]) == ("report", '"é"', "never")
    assert (facts["when"], facts["catchup"]) == ("30 3 * * * Europe/London", "latest")
    assert (facts["overlap"], facts["jitter"]) == ("skip", "10m")
    assert re.fullmatch(r"\S+ 03:30:00\+0[01]:00, in .+", facts["next"])


def test_next_says_when_it_fires_in_its_zone_or_in_another_one(scheduled: Shell) -> None:
    header, *rows = scheduled.run("schedules", "next", "nightly").lines
    assert header.startswith("NEXT, Europe/London")
    assert len(rows) == 5
    assert all(re.match(r"\w{3} \S+ 03:30:00\+0[01]:00 +in ", row) for row in rows)
    there = scheduled.json("schedules", "next", "nightly", "-n", "2", "--tz", "Asia/Kolkata")
    assert [datetime.fromisoformat(at).utcoffset() for at in there] == [timedelta(hours=5, minutes=30)] * 2
    assert (
        scheduled.run("schedules", "next", "nightly", "-n", "1", "-o", "ids").lines[0][10:].startswith("T03")
    )


def test_schedules_are_paused_and_resumed(scheduled: Shell) -> None:
    before = schedule(scheduled, "nightly").next_fire_at
    assert scheduled.run("schedules", "pause", "nightly", "often").lines == ["paused nightly", "paused often"]
    paused = schedule(scheduled, "nightly")
    assert (paused.paused, paused.next_fire_at) == (True, None)
    assert "next      paused" in scheduled.run("schedules", "show", "nightly").lines
    assert scheduled.run("schedules", "resume", "nightly", "-o", "ids").out == "nightly\n"
    assert schedule(scheduled, "nightly").next_fire_at == before
    assert schedule(scheduled, "often").paused


def test_a_schedule_is_triggered_by_a_process_that_does_not_have_its_workflow(scheduled: Shell) -> None:
    id = scheduled.run_apart("schedules", "trigger", "nightly").out.strip()
    execution = scheduled.json("show", id)["execution"]
    assert (execution["workflow"], execution["input"], execution["status"]) == ("report", "é", "pending")


def test_what_a_function_decides_needs_the_application(scheduled: Shell) -> None:
    (scheduled.directory / "app.py").write_text(APP)
    for call in (["trigger", "often"], ["backfill", "often", "--since", "3h", "--until", "0s"]):
        refused = scheduled.refused("schedules", *call)
        assert "by_code" in refused
        assert "--app" in refused
    id = scheduled.run("schedules", "trigger", "often", "--app", "app:durable", "-o", "ids").out.strip()
    assert scheduled.json("show", id)["execution"]["workflow"] == "by_code"


def test_a_past_range_is_backfilled_once(scheduled: Shell) -> None:
    call = ["backfill", "nightly", "--since", "2026-03-01T00:00:00Z", "--until", "2026-03-04T00:00:00Z"]
    started = scheduled.json("schedules", *call)
    assert [each["created"] for each in started] == [True] * 3
    assert started[0]["id"].endswith(":20260301T033000Z")
    assert scheduled.run("schedules", *call).lines == [f"{each['id']} was there" for each in started]
    assert len(scheduled.json("list", "--workflow", "report")) == 3


def test_what_is_removed_is_gone(scheduled: Shell) -> None:
    assert scheduled.run("schedules", "remove", "nightly").out == "removed nightly\n"
    assert scheduled.run("schedules", "list", "-o", "ids").lines == ["often"]


@pytest.mark.parametrize("verb", ["show", "next", "pause", "resume", "trigger", "remove"])
def test_a_schedule_that_is_not_there_is_not_found(scheduled: Shell, verb: str) -> None:
    assert "there is no schedule 'none'" in scheduled.refused("schedules", verb, "none", code=3)


def test_one_unknown_schedule_among_several_changes_nothing(scheduled: Shell) -> None:
    scheduled.refused("schedules", "remove", "nightly", "none", code=3)
    assert scheduled.run("schedules", "list", "-o", "ids").lines == ["nightly", "often"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["next", "nightly", "--tz", "Mars/Olympus"],
        ["next", "nightly", "-n", "0"],
        ["backfill", "nightly", "--since", "yesterday", "--until", "0s"],
        ["backfill", "nightly", "--since", "2026-03-01", "--until", "0s"],
        ["backfill", "nightly", "--since", "20000d", "--until", "0s"],
        ["backfill", "nightly"],
        ["show", "\x1b[2J"],
        ["trigger", "often", "--app", "app:nothing"],
        ["freeze"],
    ],
)
def test_what_cannot_be_meant_is_refused(scheduled: Shell, arguments: list[str]) -> None:
    assert "\x1b" not in scheduled.refused("schedules", *arguments)
