"""Webhooks: who may send what, and what comes of a delivery that comes again."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import Generator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from durable import ConfigurationError, Context, Durable, Event, Signal, workflow
from durable.clock import VirtualClock
from durable_fastapi import StandardWebhooks, Webhooks, add_problems, lifespan

NOW = 1_800_000_000
SECRET = "whsec_" + b64encode(b"0123456789abcdef0123456789abcdef").decode()
OTHER = "whsec_" + b64encode(b"another secret of another sender").decode()


@dataclass
class Payment:
    order_id: str
    cents: int


@dataclass
class Approval:
    execution_id: str
    by: str


Paid = Event("payment.received", Payment)
Approved = Signal("approved", Approval)
Ping = Event("ping")


@workflow(on=[Paid])
async def book(ctx: Context, payment: Payment) -> int:
    return payment.cents


@workflow
async def review(ctx: Context) -> list[str]:
    first = await ctx.wait_for_signal(Approved)
    second = await ctx.wait_for_signal(Approved, timeout="10ms")
    return [first.by, second.kind]


def read_payment(body: Any) -> Payment | None:
    return Payment(body["object"]["order"], body["object"]["amount"]) if body["type"] == "paid" else None


class Sender:
    """A service that sends deliveries, as somebody who has its secret sees it."""

    def __init__(self, client: TestClient, durable: Durable) -> None:
        self.client, self.durable = client, durable

    def deliver(
        self,
        path: str,
        body: object,
        *,
        id: str = "msg_1",
        secret: str = SECRET,
        at: float = NOW,
        **changed: str | None,
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers: dict[str, str | None] = {**StandardWebhooks(secret).sign(id, content, at)}
        headers.update({name.replace("_", "-"): value for name, value in changed.items()})
        given = {name: value for name, value in headers.items() if value is not None}
        return self.client.post(path, content=content, headers=given)

    def call(self, function: Any, *args: Any) -> Any:
        """Something of `durable`, on the application's event loop."""
        assert self.client.portal is not None
        return self.client.portal.call(function, *args)


@pytest.fixture
def sender() -> Generator[Sender]:
    durable = Durable([book, review], store="memory://")
    app = FastAPI(lifespan=lifespan(durable))
    add_problems(app)
    hooks = Webhooks("psp", StandardWebhooks(SECRET), max_body=1000, clock=VirtualClock(NOW * 1000))
    hooks.send("/payments", Paid)
    hooks.send("/objects", Paid, read=read_payment)
    hooks.send("/pings", Ping)
    hooks.signal("/approvals", Approved, to=lambda approval: approval.execution_id)
    app.include_router(hooks.router, prefix="/hooks")
    with TestClient(app) as client:
        yield Sender(client, durable)


PAYMENT = {"order_id": "7", "cents": 30}


# ---- what a delivery does


def test_a_delivery_is_an_event_and_counts_once(sender: Sender) -> None:
    for outcome in ("accepted", "duplicate", "duplicate"):
        answer = sender.deliver("/hooks/payments", PAYMENT)
        assert (answer.status_code, answer.json()) == (200, {"outcome": outcome})
    assert sender.deliver("/hooks/payments", PAYMENT, id="msg_2").json() == {"outcome": "accepted"}
    found = sender.call(sender.durable.operator.list_executions)
    assert [sender.call(sender.durable.wait, execution.id) for execution in found.items] == [30, 30]


def test_a_delivery_is_a_signal_for_the_execution_that_it_names_and_counts_once(sender: Sender) -> None:
    handle = sender.call(sender.durable.start, review)
    approval = {"execution_id": handle.id, "by": "ada"}
    assert sender.deliver("/hooks/approvals", approval).json() == {"outcome": "accepted"}
    assert sender.deliver("/hooks/approvals", approval).status_code == 200
    assert sender.call(handle.result, "10s") == ["ada", "timeout"]
    late = sender.deliver("/hooks/approvals", approval, id="msg_2")
    assert (late.status_code, late.json()) == (200, {"outcome": "closed", "status": "completed"})


def test_a_delivery_of_another_form_is_read_or_ignored(sender: Sender) -> None:
    body = {"type": "paid", "object": {"order": "7", "amount": 30}}
    assert sender.deliver("/hooks/objects", body).json() == {"outcome": "accepted"}
    assert sender.deliver("/hooks/objects", {"type": "opened"}, id="msg_2").json() == {"outcome": "ignored"}
    assert len(sender.call(sender.durable.operator.list_executions).items) == 1


def test_an_event_without_a_payload_takes_null(sender: Sender) -> None:
    assert sender.deliver("/hooks/pings", None).json() == {"outcome": "accepted"}
    assert sender.deliver("/hooks/pings", 1, id="msg_2").status_code == 422


def test_two_services_may_have_one_id() -> None:
    durable = Durable([book], store="memory://")
    app = FastAPI(lifespan=lifespan(durable))
    for source in ("psp", "bank"):
        hooks = Webhooks(source, StandardWebhooks(SECRET), clock=VirtualClock(NOW * 1000))
        hooks.send(f"/{source}", Paid)
        app.include_router(hooks.router)
    with TestClient(app) as client:
        sender = Sender(client, durable)
        assert [sender.deliver(path, PAYMENT).json()["outcome"] for path in ("/psp", "/bank", "/psp")] == [
            "accepted",
            "accepted",
            "duplicate",
        ]


# ---- what is refused


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook_signature": None},
        {"webhook_id": None},
        {"webhook_timestamp": None},
        {"webhook_signature": ""},
        {"webhook_signature": "v1,"},
        {"webhook_signature": "v1a,AAAA"},
        {"webhook_signature": "v1,bm90IGl0"},
        {"webhook_id": "msg_2"},
        {"webhook_timestamp": str(NOW + 1)},
        {"webhook_timestamp": "-1"},
        {"webhook_timestamp": "1e9"},
        {"webhook_timestamp": "9" * 400},
        {"secret": OTHER},
        {"at": NOW - 301},
        {"at": NOW + 301},
    ],
    ids=str,
)
def test_a_delivery_that_is_not_signed_as_it_must_be_does_nothing(
    sender: Sender, changed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    answer = sender.deliver("/hooks/payments", PAYMENT, **changed)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "The delivery is not signed as it must be."  # and nothing of why
    assert sender.call(sender.durable.operator.list_executions).items == []
    assert "webhooks of psp was refused" in caplog.text
    assert SECRET.removeprefix("whsec_") not in caplog.text


def test_a_body_that_was_changed_on_the_way_is_not_what_was_signed(sender: Sender) -> None:
    signed = StandardWebhooks(SECRET).sign("msg_1", json.dumps(PAYMENT).encode(), NOW)
    spaced = json.dumps(PAYMENT, separators=(",", ":"))  # the same JSON
    assert sender.client.post("/hooks/payments", content=spaced, headers=signed).status_code == 401


def test_the_tolerance_is_as_wide_as_it_is_set(sender: Sender) -> None:
    assert sender.deliver("/hooks/payments", PAYMENT, at=NOW - 300).status_code == 200
    assert sender.deliver("/hooks/payments", PAYMENT, at=NOW + 299, id="msg_2").status_code == 200


def test_what_is_too_large_is_refused_before_it_is_read(sender: Sender) -> None:
    chunks = (b" " * 400 for _ in range(100))
    assert sender.client.post("/hooks/payments", content=chunks).status_code == 413
    assert sender.deliver("/hooks/payments", b" " * 1001).status_code == 413
    assert sender.deliver("/hooks/payments", b" " * 1000).status_code == 422


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", {"order_id": "swordfish"}, {"order_id": 7, "cents": "swordfish"}],
    ids=str,
)
@pytest.mark.parametrize("path", ["/hooks/payments", "/hooks/approvals"])
def test_a_signed_body_that_is_no_payload_is_refused_and_not_repeated(
    sender: Sender, path: str, body: object
) -> None:
    answer = sender.deliver(path, body)
    assert answer.status_code == 422
    assert answer.json()["errors"]
    assert "swordfish" not in answer.text


@pytest.mark.parametrize("id", ["nobody", "a b", "__x", "x" * 300])
def test_an_execution_that_is_not_there_is_said_so(sender: Sender, id: str) -> None:
    answer = sender.deliver("/hooks/approvals", {"execution_id": id, "by": "eve"})
    assert answer.status_code in {404, 422}


def test_an_id_that_no_event_can_have_is_refused(sender: Sender) -> None:
    assert sender.deliver("/hooks/payments", PAYMENT, id="a b").json()["code"] == "invalid_input"


# ---- secrets


def test_a_secret_is_replaced_while_both_are_in_use() -> None:
    both, body = StandardWebhooks(OTHER, SECRET), b"{}"
    for secret in (SECRET, OTHER):
        assert both.check(StandardWebhooks(secret).sign("m", body, NOW), body, NOW) == "m"
    several = StandardWebhooks(SECRET).sign("m", body, NOW)
    several["webhook-signature"] = "v1,AAAA " + several["webhook-signature"]
    assert StandardWebhooks(SECRET).check(several, body, NOW) == "m"


def test_a_signature_is_the_one_of_the_specification() -> None:
    key = b"0123456789abcdef0123456789abcdef"
    wanted = b64encode(hmac.new(key, b'msg_1.1800000000.{"a":1}', sha256).digest()).decode()
    assert StandardWebhooks(SECRET).sign("msg_1", b'{"a":1}', NOW) == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1800000000",
        "webhook-signature": f"v1,{wanted}",
    }
    # The example of the specification itself.
    example = StandardWebhooks("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", tolerance_s=1)
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert example.check(headers, b'{"test": 2432232314}', 1614265330) == headers["webhook-id"]


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "not base64 at all"])
def test_a_secret_that_protects_nothing_is_refused(secret: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        StandardWebhooks(secret)
    assert secret == "" or secret not in str(raised.value)
    with pytest.raises(ConfigurationError):
        StandardWebhooks()


def test_a_secret_is_not_shown() -> None:
    assert repr(StandardWebhooks(SECRET, OTHER)) == "<StandardWebhooks with 2 secrets>"
