"""The example's shop, as those meet it who use it: with its page, in a server that is killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from html import unescape
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient

EXAMPLES = Path(__file__).parents[1] / "examples"
ADA = ("ada", "lovelace")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    spec = spec_from_file_location("shop", EXAMPLES / "shop.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "shop", module)
    spec.loader.exec_module(module)
    return module


def pay(client: Any, shop: ModuleType, order: str) -> None:
    body = json.dumps({"order_id": order}).encode()
    headers = shop.provider.sign(f"msg_{order}", body, time.time())
    assert client.post("/hooks/payments", content=body, headers=headers).json() == {"outcome": "accepted"}


def page_with(client: TestClient, text: str) -> str:
    """The page, once there is something of `text` on it."""
    return next(page for _ in range(2000) if text in (page := client.get("/approvals", auth=ADA).text))


def test_the_page_shows_what_waits_as_text_whatever_it_is(shop: ModuleType) -> None:
    with TestClient(shop.app) as client:
        hostile = "<script>alert(1)</script>'\"&"
        client.post("/orders", json={"id": "1", "customer": hostile, "cents": 100_000})
        client.post("/orders", json={"id": "2", "customer": "small", "cents": 99_999})
        for order in ("1", "2"):
            pay(client, shop, order)
        page = page_with(client, "order 1")
        assert "1000.00 for &lt;script&gt;alert(1)&lt;/script&gt;&#x27;&quot;&amp;" in page
        assert "<script" not in page
        assert "small" not in page


def test_only_an_employee_decides_and_only_from_the_shops_own_page(shop: ModuleType) -> None:
    with TestClient(shop.app) as client:
        id = client.post("/orders", json={"id": "1", "customer": "grace", "cents": 100_000}).json()
        pay(client, shop, "1")
        assert client.get("/approvals").status_code == 401
        assert client.get("/approvals", auth=("ada", "")).status_code == 401
        assert client.get("/approvals", auth=("eve", "")).status_code == 401
        assert client.post(f"/approvals/{id}/approve").status_code == 401
        elsewhere = {"sec-fetch-site": "cross-site"}
        assert client.post(f"/approvals/{id}/approve", auth=ADA, headers=elsewhere).status_code == 403
        assert client.post(f"/approvals/{id}/burn", auth=ADA).status_code == 404
        assert client.post("/approvals/nobody/approve", auth=ADA).status_code == 404
        here = {"sec-fetch-site": "same-origin"}
        form = re.search(r"formaction='([^']*/reject)'", page_with(client, "order 1"))
        assert form is not None
        rejected = client.post(f"/{form[1]}", auth=ADA, headers=here)
        assert "order 1" not in rejected.text
        failed = client.get(f"/orders/{id}/parcel").json()
        assert (failed["code"], failed["detail"]) == ("not_approved", "ada did not approve order 1")


def test_the_dashboard_is_for_employees_and_knows_who_acts(shop: ModuleType) -> None:
    with TestClient(shop.app) as client:
        id = client.post("/orders", json={"id": "1", "customer": "grace", "cents": 100_000}).json()
        for path in (
            "/durable/",
            f"/durable/runs/{id}",
            "/durable/api/executions",
            "/durable/static/app.css",
        ):
            assert client.get(path).status_code == 401, path
        assert client.post("/durable/act/x/cancel").status_code == 401
        page = client.get("/durable/", auth=ADA)
        assert page.status_code == 200
        assert id in page.text
        links = set(re.findall(r"(?:href|src)=[\"'](/[^\"'?#]*)", page.text))
        assert links
        assert {link.split("/")[1] for link in links} == {"durable"}
        assert {client.get(link, auth=ADA).status_code for link in links} == {200}
        token = re.search(r'name="csrf" value="([^"]+)"', client.get(f"/durable/runs/{id}", auth=ADA).text)
        assert token is not None
        act = {"csrf": token[1], "target": id, "back": f"/runs/{id}"}
        assert client.post("/durable/act/execution/cancel", data=act).status_code == 401
        done = client.post("/durable/act/execution/cancel", data=act, auth=ADA, follow_redirects=False)
        assert (done.status_code, done.headers["location"]) == (303, f"/durable/runs/{id}")
        assert client.get(f"/orders/{id}/parcel").json()["code"] == "cancelled"
        assert '"by": "ada"' in unescape(client.get(f"/durable/runs/{id}", auth=ADA).text)


@contextmanager
def server(directory: Path) -> Generator[tuple[subprocess.Popen[str], str]]:
    """The shop in a process of its own, and its address."""
    command = [sys.executable, "-m", "uvicorn", "shop:app", "--app-dir", str(EXAMPLES), "--port", "0"]
    with subprocess.Popen(command, cwd=directory, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            address = next(
                found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line))
            )
            yield process, address
        finally:
            process.kill()


@pytest.mark.timeout(90)
def test_an_order_goes_on_in_a_server_that_was_killed_and_one_that_is_told_to_stop_leaves_in_order(
    tmp_path: Path, shop: ModuleType
) -> None:
    with server(tmp_path) as (process, address), httpx.Client(base_url=address) as client:
        order = {"id": "7", "customer": "grace", "cents": 200_000}
        id = client.post("/orders", json=order).json()
        # Of what a process was running when it died, others know when its lease is over, after 30 seconds.
        assert any(client.get(f"/orders/{id}").json() == "waiting" for _ in range(2000))
        process.send_signal(signal.SIGKILL)
    with server(tmp_path) as (process, address), httpx.Client(base_url=address) as client:
        assert client.post("/orders", json=order).json() == id
        pay(client, shop, "7")
        decided = client.post(
            f"/approvals/{id}/approve", auth=ADA
        )  # it may come before the order waits for it
        assert decided.status_code == 303
        assert client.get(f"/orders/{id}/parcel", timeout=60).json() == "parcel-7"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in {0, -signal.SIGTERM}
