"""`durable queues ...`, `durable limits ...`, and what `list` and `show` say of what flow control holds back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from durable import Concurrency, Context, Durable, Signal, Throttle, step, workflow
from tests.cli.conftest import Shell
from tests.support import reaches

Go = Signal("go")


@workflow(queue="email", concurrency=Concurrency(1, key="to", hold="run"))
async def mail(ctx: Context, letter: dict[str, str]) -> None:
    await ctx.wait_for_signal(Go)


@workflow(throttle=Throttle(1, per="1h"))
async def paced(ctx: Context) -> None: ...


@step(limit="scarce")
async def ask() -> None:
    await asyncio.sleep(3600)


@workflow
async def asks(ctx: Context) -> None:
    await ctx.step(ask)


def run_in(shell: Shell, act: Callable[[Durable], Awaitable[None]]) -> None:
    """Do it with a worker, which has left when this returns."""

    async def run() -> None:
        async with Durable(
            [mail, paced, asks],
            store=shell.url,
            queues=["default", "email"],
            limits={"scarce": Concurrency(1)},
            sweep="100ms",
            drain=0,
        ) as durable:
            await act(durable)

    asyncio.run(run())


@pytest.fixture
def held(shell: Shell) -> tuple[Shell, list[str]]:
    """A store in which one holds a slot that two wait for, and the ids of the three."""
    ids: list[str] = []

    async def fill(durable: Durable) -> None:
        for _ in range(3):
            handle = await durable.start(mail, {"to": "ada"})
            ids.append(handle.id)
        await reaches(durable.handle(ids[0]), "waiting")

    run_in(shell, fill)
    return shell, ids


# ---- limits


def test_limits_are_listed_with_who_holds_them_and_who_waits(held: tuple[Shell, list[str]]) -> None:
    shell, ids = held
    header, row = shell.run_apart("limits", "list").lines
    assert header.split() == ["RULE", "KEY", "LIMIT", "HELD", "WAITING", "OLDEST", "WHO"]
    assert re.fullmatch(rf'mail/concurrency +"ada" +1 +1 +2 +\S+(?: \S+)? +{ids[0]}', row)
    [limit] = shell.json("limits", "list")["limits"]
    assert (limit["rule"], limit["limit"], limit["held"], limit["waiting"]) == ("mail/concurrency", 1, 1, 2)
    assert limit["slots"][0]["execution_id"] == ids[0]


def test_a_limit_is_set_and_unset(held: tuple[Shell, list[str]]) -> None:
    shell, ids = held
    assert shell.run("limits", "set", "mail/concurrency", "2").out == "mail/concurrency has limit 2\n"
    shell.run("limits", "set", "limit/idle", "7")
    rows = shell.run("limits", "list").lines[1:]
    assert re.match(r'mail/concurrency +"ada" +2! ', rows[0])
    assert re.match(r"limit/idle +7! +0 +0$", rows[1])
    assert shell.json("limits", "list")["set"] == {"mail/concurrency": 2, "limit/idle": 7}
    assert shell.run("limits", "list", "-o", "ids").lines == ["limit/idle", "mail/concurrency"]

    async def second_goes_on(durable: Durable) -> None:
        await reaches(durable.handle(ids[1]), "waiting")

    run_in(shell, second_goes_on)
    assert shell.run("limits", "unset", "limit/idle", "-o", "json").out == '{\n  "id": "limit/idle"\n}\n'
    assert shell.json("limits", "list")["set"] == {"mail/concurrency": 2}


@pytest.mark.parametrize("arguments", [["x/y", "0"], ["x/y", "many"], ["two words", "1"], ["x/y"]])
def test_a_limit_that_is_none_is_refused(held: tuple[Shell, list[str]], arguments: list[str]) -> None:
    held[0].refused("limits", "set", *arguments)
    assert held[0].json("limits", "list")["set"] == {}


def test_a_step_that_waits_for_a_limit_says_so(shell: Shell) -> None:
    ids: list[str] = []

    async def crowd(durable: Durable) -> None:
        for _ in range(2):
            handle = await durable.start(asks)
            ids.append(handle.id)
        await reaches(durable.handle(ids[1]), "waiting")
        listed = await asyncio.to_thread(shell.run_apart, "limits", "list")
        assert re.search(rf"limit/scarce +1 +1 +1 .*{ids[0]} step ask$", listed.lines[1])
        shown = await asyncio.to_thread(shell.run_apart, "show", ids[1])
        assert re.search(r"◷ ask .* waits for its limit$", shown.lines[1])
        assert "the limit 'scarce' of step 'ask'" in shown.lines[-1]

    run_in(shell, crowd)


# ---- what is held


def test_list_and_show_say_what_holds_an_execution_back(held: tuple[Shell, list[str]]) -> None:
    shell, ids = held
    why = f'it waits for a slot of mail/concurrency of "ada", held by {ids[0]} since '
    rows = {row.split()[0]: row for row in shell.run("list").lines[1:]}
    assert "· pending" in rows[ids[1]]
    assert why in rows[ids[1]]
    assert why not in rows[ids[0]]
    assert why in shell.run("show", ids[1]).lines[-1]
    listed = {each["id"]: each["held_by"] for each in shell.json("list")}
    assert listed == {ids[0]: None, ids[1]: 'mail/concurrency|"ada"', ids[2]: 'mail/concurrency|"ada"'}


def test_what_is_throttled_says_until_when(shell: Shell) -> None:
    async def fill(durable: Durable) -> None:
        for _ in range(2):
            last = await durable.start(paced)
        assert (await last.status()).held_by == "paced/throttle|"

    run_in(shell, fill)
    assert re.search(r"it is throttled by paced/throttle until \S+, with 1 in line", shell.run("list").out)
    assert re.search(
        r"paced/throttle +1 +1 .*the next in (1h|59m \d+s)$", shell.run("limits", "list").lines[1]
    )


# ---- queues


def test_queues_are_listed_paused_and_resumed(held: tuple[Shell, list[str]]) -> None:
    shell, _ = held
    assert shell.run("queues", "pause", "email", "idle").lines == ["paused email", "paused idle"]
    header, email, idle = shell.run_apart("queues", "list").lines
    assert header.split() == ["QUEUE", "READY", "HELD", "OLDEST", "STATE"]
    assert re.fullmatch(r"email +0 +2 +paused", email)
    assert re.fullmatch(r"idle +0 +0 +paused", idle)
    assert shell.run("queues", "resume", "email", "idle", "-o", "ids").lines == ["email", "idle"]
    assert [each["paused"] for each in shell.json("queues", "list")] == [False]


def test_what_is_ready_is_counted_with_how_long_the_first_has_waited(shell: Shell) -> None:
    shell.start("send_email")
    shell.start("send_email")
    [email] = shell.json("queues", "list")
    assert (email["queue"], email["ready"], email["held"]) == ("email", 2, 0)
    assert email["oldest_at"] is not None
    assert re.fullmatch(r"email +2 +0 +\S+", shell.run("queues", "list").lines[1])
    assert shell.run("queues", "list", "-o", "ids").out == "email\n"


def test_a_queue_by_a_name_that_none_can_have_is_refused(held: tuple[Shell, list[str]]) -> None:
    for name in ("two words", "__mine", ""):
        held[0].refused("queues", "pause", "fine", name)
    assert held[0].json("queues", "list")[0]["paused"] is False
