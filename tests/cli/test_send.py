"""`durable send`: an event by its name, from nothing but the store's URL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable import Context, Durable, Event, On, workflow
from tests.cli.conftest import Shell
from tests.support import reaches

Paid = Event("payment.received", dict[str, Any])
Refunded = Event("payment.refunded", dict[str, Any])

APP = """
from pydantic import BaseModel
from durable import Context, Durable, Event, On, workflow

class Refund(BaseModel):
    amount: float

Refunded = Event("payment.refunded", Refund)

@workflow(on=[On(Refunded, when=lambda refund: refund.amount > 100)])
async def regret(ctx: Context, refund: Refund) -> float:
    return refund.amount

durable = Durable([regret], store="sqlite:///shop.db")
"""


@workflow(on=[On(Paid, when={"amount": 30})])
async def thank(ctx: Context, payment: dict[str, Any]) -> None: ...


@workflow(on=[On(Refunded, when=lambda refund: refund["amount"] > 100)])
async def regret(ctx: Context, refund: dict[str, Any]) -> None: ...


@workflow
async def awaits(ctx: Context) -> object:
    return (await ctx.wait_for_event(Paid, match={"order_id": "42"}))["amount"]


@pytest.fixture
def subscribed(shell: Shell) -> tuple[Shell, str]:
    """A store that knows whom events start, and the id of an execution that waits for one."""
    ids: list[str] = []

    async def run() -> None:
        async with Durable([thank, regret, awaits], store=shell.url, sweep="100ms") as durable:
            handle = await durable.start(awaits)
            await reaches(handle, "waiting")
            ids.append(handle.id)

    asyncio.run(run())
    return shell, ids[0]


def test_an_event_starts_and_resumes_whoever_asked_for_it(subscribed: tuple[Shell, str]) -> None:
    shell, waiting = subscribed
    payload = '{"order_id": "42", "amount": 30}'
    sent = shell.run_apart("send", "payment.received", payload, "--id", "p9").out
    [started] = shell.run("list", "--workflow", "thank", "-o", "ids").lines
    assert sent == f"sent payment.received as p9: {started}, {waiting}\n"
    again = shell.run("send", "payment.received", "-", "--id", "p9", stdin=payload)
    assert again.out == f"had sent payment.received as p9: {started}, {waiting}\n"
    receipt = shell.json("send", "payment.received", payload, "--id", "p9")
    assert receipt == {"id": "p9", "execution_ids": [started, waiting], "duplicate": True}
    assert shell.run("send", "payment.received", payload, "--id", "p9", "-o", "ids").lines == [
        started,
        waiting,
    ]
    assert shell.json("show", started)["execution"]["input"] == {"order_id": "42", "amount": 30}


def test_an_event_that_concerns_nobody_is_stored_all_the_same(subscribed: tuple[Shell, str]) -> None:
    shell, _ = subscribed
    assert shell.run("send", "ping", "--id", "1").out == "sent ping as 1, which concerned nobody yet\n"
    assert shell.json("send", "ping", "--id", "1")["duplicate"]


def test_events_are_deleted_when_they_are_old(subscribed: tuple[Shell, str]) -> None:
    shell, _ = subscribed
    shell.run("send", "ping", "--id", "1")
    assert shell.run("prune", "--events", "--yes").out == "deleted 0 events\n"
    asked = shell.run("prune", "--events", "--older-than", "0s", stdin="y\n").out
    assert asked.startswith("Delete events that were sent over 0s ago?")
    assert asked.endswith("deleted 1 event\n")
    assert not shell.json("send", "ping", "--id", "1")["duplicate"]
    shell.refused("prune", "--events", "--status", "completed", "--yes")


def test_what_a_function_decides_needs_the_application(subscribed: tuple[Shell, str]) -> None:
    shell, _ = subscribed
    (shell.directory / "app.py").write_text(APP)
    payload = '{"amount": 101}'
    refused = shell.refused("send", "payment.refunded", payload)
    assert "regret" in refused
    assert "--app" in refused
    assert len(shell.run("send", "payment.refunded", payload, "--app", "app:durable", "-o", "ids").lines) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["payment.received", "{"],
        ["payment.received", "1", "2"],
        ["two words"],
        ["__ours"],
        ["x", "--id", "} {"],
        [],
    ],
)
def test_what_is_no_event_is_refused(subscribed: tuple[Shell, str], arguments: list[str]) -> None:
    subscribed[0].refused("send", *arguments)
