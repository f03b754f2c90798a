"""Who may do what from where, and that nothing that comes out of a store is ever markup."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import httpx2
import pytest

from durable import ConfigurationError, Durable
from durable.dashboard import dashboard
from durable.dashboard.access import Access
from durable.dashboard.application import STATIC
from durable.dashboard.guard import MOST_BYTES
from tests.dashboard.conftest import HOST, TOKEN, Visit, Visitor
from tests.dashboard.hostile import HOSTILE, unescaped
from tests.dashboard.shop import broken, hostile, pinged
from tests.support import ends, reaches

PAGES = ("/", "/waiting", "/workflows", "/schedules", "/queues", "/workers", "/health")


# ---- who


async def test_without_a_token_only_this_machine_is_served(durable: Durable, visit: Visit) -> None:
    app = dashboard(durable)
    assert (await visit(app, client="127.0.0.1").get("/")).status_code == 200
    assert (await visit(app, client="::1").get("/")).status_code == 200
    for client in ("192.168.1.7", "10.0.0.1", "testclient"):
        assert (await visit(app, client=client).get("/")).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0"]
)
async def test_a_name_that_is_made_to_lead_here_is_refused(durable: Durable, visit: Visit, host: str) -> None:
    visitor = visit(dashboard(durable), base=f"http://{host}:8700")
    assert (await visitor.get("/")).status_code == 421
    assert (await visitor.get("/api/executions")).status_code == 421


async def test_names_that_it_answers_to_can_be_given(durable: Durable, visit: Visit) -> None:
    app = dashboard(durable, auth=TOKEN, hosts=["ops.example"])
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert (await visit(app, base="https://ops.example", headers=bearer).get("/")).status_code == 200
    assert (await visit(app, base="https://evil.example", headers=bearer).get("/")).status_code == 421


async def test_nothing_but_the_login_and_its_looks_is_shown_without_the_token(
    durable: Durable, visit: Visit
) -> None:
    handle = await durable.start(pinged)
    visitor = visit(dashboard(durable, auth=TOKEN))
    for path in (*PAGES, f"/runs/{handle.id}", "/bulk?verb=cancel"):
        answer = await visitor.client.get(path, follow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=")
    for path in ("/api/executions", "/api/openapi.json", "/live/", f"/live/runs/{handle.id}", "/nope"):
        answer = await visitor.client.get(path, follow_redirects=False)
        assert answer.status_code in (401, 303), path
    for path in ("/act/execution/cancel", "/bulk", "/logout", f"/api/executions/{handle.id}/cancel"):
        assert (await visitor.client.post(path)).status_code == 401, path
    assert (await visitor.get("/login")).status_code == 200
    assert (await visitor.get("/static/dashboard.css")).status_code == 200


async def test_the_token_opens_a_session_that_knows_the_name(durable: Durable, visit: Visit) -> None:
    handle = await durable.start(pinged)
    await reaches(handle, "waiting")
    visitor = visit(dashboard(durable, auth=TOKEN))
    await visitor.get("/login")
    wrong = await visitor.submit("/login", {"token": "wrong-wrong-wrong-wrong", "next": "/waiting"})
    assert wrong.status_code == 401
    assert "not the token" in wrong.text
    answer = await visitor.submit("/login", {"token": TOKEN, "name": "ada", "next": "/waiting"})
    assert answer.status_code == 200
    assert answer.url.path == "/waiting"
    await visitor.submit("/act/execution/force-fail", {"target": handle.id, "reason": "enough"})
    await ends(handle)
    audit = (await durable.operator.get_execution_detail(handle.id)).audit
    assert "ada" in [entry.details.get("by") for entry in audit]
    await visitor.submit("/logout", {})
    assert (await visitor.client.get("/", follow_redirects=False)).status_code == 303


async def test_a_session_cannot_be_made_up_or_prolonged(durable: Durable, visit: Visit) -> None:
    app = dashboard(durable, auth=TOKEN)
    session = Access(TOKEN).new_session("ada")
    ends_at, name, signature = session.split(".")
    assert int(ends_at) - time.time() <= 12 * 3600
    assert TOKEN not in session
    for forged in (
        f"{int(ends_at) + 1}.{name}.{signature}",
        f"{ends_at}..{signature}",
        f"{ends_at}.{name}.",
        f"{ends_at}.{name}",
        Access("another-token-of-16").new_session("ada"),
        "",
        "..",
        "é",
    ):
        cookie = {"cookie": f"durable_session={forged}".encode()}
        assert (await visit(app, headers=cookie).get("/api/counts")).status_code == 401, forged
    good = {"cookie": f"durable_session={session}"}
    assert (await visit(app, headers=good).get("/api/counts")).status_code == 200


async def test_a_session_ends(monkeypatch: pytest.MonkeyPatch, durable: Durable, visit: Visit) -> None:
    session = Access(TOKEN).new_session("ada")
    late = time.time() + 13 * 3600
    monkeypatch.setattr("durable.dashboard.access.time.time", lambda: late)
    visitor = visit(dashboard(durable, auth=TOKEN), headers={"cookie": f"durable_session={session}"})
    assert (await visitor.get("/api/counts")).status_code == 401


async def test_programs_show_the_token_as_a_bearer(durable: Durable, visit: Visit) -> None:
    app = dashboard(durable, auth=TOKEN)
    for header, status in (
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer", 401),
        ("Bearer \xff", 401),
    ):
        answer = await visit(app, headers={"authorization": header.encode("latin-1")}).get("/api/counts")
        assert answer.status_code == status, header
    assert (await visit(app).get(f"/api/counts?token={TOKEN}")).status_code == 401


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("durable.dashboard.access.hmac.compare_digest", compare)
    assert not Access(TOKEN).is_token("x")
    assert Access(TOKEN).is_token(TOKEN)
    assert [len(each) for pair in compared for each in pair] == [32, 32, 32, 32]


async def test_a_token_that_is_too_short_is_refused(durable: Durable) -> None:
    with pytest.raises(ConfigurationError, match="16"):
        dashboard(durable, auth="secret")
    with pytest.raises(ConfigurationError):
        dashboard(durable, auth="")


async def test_a_function_may_decide_who_it_is(durable: Durable, visit: Visit) -> None:
    handle = await durable.start(pinged)
    await reaches(handle, "waiting")

    async def auth(request: object) -> str | None:
        headers = request.headers
        return headers.get("x-user")

    app = dashboard(durable, auth=auth)
    assert (await visit(app, client="9.9.9.9", base="http://ops.example").get("/")).status_code == 401
    known = visit(app, client="9.9.9.9", base="http://ops.example", headers={"x-user": "grace"})
    await known.submit("/act/execution/force-fail", {"target": handle.id, "reason": "x"})
    await ends(handle)
    audit = (await durable.operator.get_execution_detail(handle.id)).audit
    assert "grace" in [entry.details.get("by") for entry in audit]


async def test_the_token_is_in_no_log_address_or_answer(
    durable: Durable, visit: Visit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    visitor = visit(dashboard(durable, auth=TOKEN))
    await visitor.get("/login")
    await visitor.submit("/login", {"token": TOKEN + "x"})
    answer = await visitor.submit("/login", {"token": TOKEN})
    said = [record.getMessage() for record in caplog.records]
    for response in [answer, *answer.history]:
        said += [str(response.url), response.text, str(response.headers)]
    assert not [each for each in said if TOKEN in each]


# ---- writes


async def test_a_write_of_another_site_is_refused(durable: Durable, visit: Visit) -> None:
    handle = await durable.start(pinged)
    await reaches(handle, "waiting")
    visitor = visit(dashboard(durable))
    form = {"target": handle.id}
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        answer = await visitor.submit("/act/execution/cancel", form, headers=headers)
        assert answer.status_code == 403, headers
        await visitor.call(f"/executions/{handle.id}/cancel", {}, status=403, **headers)
    allowed = {"origin": HOST, "sec-fetch-site": "same-origin"}
    assert (await visitor.submit("/act/execution/cancel", form, headers=allowed)).status_code == 200
    assert (await ends(handle)).status == "cancelled"


async def test_a_form_without_this_browsers_token_is_refused(durable: Durable, visitor: Visitor) -> None:
    handle = await durable.start(pinged)
    await reaches(handle, "waiting")
    for csrf in ("", "x", None):
        answer = await visitor.submit("/act/execution/cancel", {"target": handle.id, "csrf": csrf})
        assert answer.status_code == 403
    visitor.client.cookies.clear()
    answer = await visitor.client.post("/act/execution/cancel", data={"target": handle.id, "csrf": ""})
    assert answer.status_code == 403
    answer = await visitor.client.post("/bulk", data={"verb": "cancel", "ids": handle.id, "csrf": "x"})
    assert answer.status_code == 403
    assert (await reaches(handle, "waiting")).status == "waiting"


async def test_the_api_writes_only_with_a_header_that_no_form_can_send(
    durable: Durable, visitor: Visitor
) -> None:
    handle = await durable.start(pinged)
    answer = await visitor.client.post(f"/api/executions/{handle.id}/cancel", json={})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "missing_header"


async def test_reading_changes_nothing(durable: Durable, visitor: Visitor) -> None:
    handle = await durable.start(pinged)
    await reaches(handle, "waiting")
    for path in (
        "/act/execution/cancel",
        "/logout",
        f"/api/executions/{handle.id}/cancel",
        "/api/executions/bulk",
    ):
        answer = await visitor.get(f"{path}?id={handle.id}")
        assert answer.status_code in (404, 405), path
    assert (await handle.status()).status == "waiting"


async def test_read_only_shows_all_and_changes_nothing(durable: Durable, visit: Visit) -> None:
    handle = await durable.start(pinged)
    await reaches(handle, "waiting")
    visitor = visit(dashboard(durable, readonly=True))
    for path in (*PAGES, f"/runs/{handle.id}", f"/runs/{handle.id}?tab=journal"):
        html = await visitor.page(path)
        assert 'method="post"' not in html, path
    assert (await visitor.submit("/act/execution/cancel", {"target": handle.id})).status_code == 403
    assert (await visitor.submit("/bulk", {"verb": "cancel", "ids": [handle.id]})).status_code == 403
    await visitor.call(f"/executions/{handle.id}/cancel", {}, status=403)
    assert (await handle.status()).status == "waiting"


async def test_in_production_what_hurts_is_confirmed_by_a_name(durable: Durable, visit: Visit) -> None:
    handle = await durable.start(pinged)
    await reaches(handle, "waiting")
    visitor = visit(dashboard(durable, environment="prod"))
    assert "Type <b>pinged</b> to confirm" in await visitor.page(f"/runs/{handle.id}")
    for confirm in ("", "Pinged", "x"):
        answer = await visitor.submit("/act/execution/cancel", {"target": handle.id, "confirm": confirm})
        assert "must be confirmed" in answer.text
    await visitor.submit("/bulk", {"verb": "cancel", "ids": [handle.id]})
    await visitor.call(f"/executions/{handle.id}/cancel", {}, status=422)
    await visitor.call("/executions/bulk", {"verb": "cancel", "ids": [handle.id]}, status=422)
    assert (await handle.status()).status == "waiting"
    await visitor.submit("/act/execution/signal", {"target": handle.id, "name": "ping"})
    answer = await visitor.submit("/act/execution/cancel", {"target": handle.id, "confirm": "pinged"})
    assert (await ends(handle)).status == "cancelled"


async def test_where_a_form_leads_afterwards_is_within_the_site(durable: Durable, visitor: Visitor) -> None:
    handle = await durable.start(pinged)
    for back in (
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/\r\nx: y",
        "javascript:alert(1)",
        "",
    ):
        await visitor.get("/")
        fields = {"csrf": visitor.client.cookies["durable_csrf"], "target": handle.id, "back": back}
        answer = await visitor.client.post("/act/execution/cancel", data=fields, follow_redirects=False)
        assert answer.headers["location"] == "/", back


# ---- markup


async def test_every_answer_carries_the_policy(durable: Durable, visitor: Visitor) -> None:
    handle = await durable.start(pinged)
    for path in (*PAGES, f"/runs/{handle.id}", "/nope", "/api/counts", "/static/dashboard.js", "/runs/nope"):
        headers = (await visitor.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"


async def test_no_page_has_anything_inline_or_from_elsewhere(durable: Durable, visitor: Visitor) -> None:
    handle = await durable.start(pinged)
    await reaches(handle, "waiting")
    tabs = ("", "?tab=graph", "?tab=journal", "?tab=data")
    for path in (*PAGES, "/workflows?name=pinged", *(f"/runs/{handle.id}{tab}" for tab in tabs)):
        html = await visitor.page(path)
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:", html), path
        assert not re.search(r"<script(?![^>]*\ssrc=)", html), path
        assert not re.search(r"""(?:src|href|action)=["']?(?:https?:)?//""", html), path


async def test_cookies_are_kept_from_scripts_and_other_sites(durable: Durable, visit: Visit) -> None:
    visitor = visit(dashboard(durable, auth=TOKEN), base="https://ops.example")
    await visitor.get("/login")
    answer = await visitor.submit("/login", {"token": TOKEN})
    set_cookies = [value for response in answer.history for value in response.headers.get_list("set-cookie")]
    set_cookies += (await visit(dashboard(durable), base=HOST).get("/")).headers.get_list("set-cookie")
    assert len(set_cookies) >= 2
    for cookie in set_cookies:
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
    assert any("Secure" in cookie for cookie in set_cookies)


async def test_whatever_a_body_says_is_text(durable: Durable, visitor: Visitor) -> None:
    text = " ".join(HOSTILE)
    printable = "".join(char for char in text if char.isprintable())
    going = await durable.start(hostile, list(HOSTILE), tags={"said": printable[:200]}, key=printable[:500])
    failed = await durable.start(broken, text)
    await ends(failed)
    await reaches(going, "waiting")
    paths = [*PAGES, "/bulk?verb=cancel", f"/?q={'%22%3E%3Cimg src=x onerror=alert(1)%3E'}"]
    for id in (going.id, failed.id):
        paths += [f"/runs/{id}{tab}" for tab in ("", "?tab=graph", "?tab=journal", "?tab=data")]
    for path in paths:
        html = await visitor.page(path)
        assert unescaped(html) == [], path
    answer = await visitor.get(f"/api/executions/{failed.id}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["execution"]["error"]["message"] == text


# ---- files, sizes, secrets


@pytest.mark.parametrize(
    "path",
    [
        "/static/../application.py",
        "/static/..%2fapplication.py",
        "/static/%2e%2e/application.py",
        "/static/..%5capplication.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/vendor/../../application.py",
        "/static/%00",
        "/static/",
        "/static/vendor",
    ],
)
async def test_only_files_of_the_dashboard_are_served(visitor: Visitor, path: str) -> None:
    request = httpx2.Request("GET", HOST, extensions={"target": path.encode()})
    answer = await visitor.client.send(request)
    direct = await visitor.get(path)
    for each in (answer, direct):
        assert each.status_code in (400, 404) or "import" not in each.text[:200]
    assert direct.status_code in (400, 404)


async def test_a_link_out_of_the_static_files_is_not_followed(visitor: Visitor, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    link = STATIC / f"link-{tmp_path.name}.txt"
    link.symlink_to(secret)
    try:
        assert (await visitor.get(f"/static/{link.name}")).status_code == 404
    finally:
        link.unlink()


async def test_a_body_that_is_too_large_is_not_read(durable: Durable, visitor: Visitor) -> None:
    handle = await durable.start(pinged)
    large = b"x" * (MOST_BYTES + 1)
    headers = {"x-durable-request": "1"}
    path = f"/api/executions/{handle.id}/cancel"
    assert (await visitor.client.post(path, content=large, headers=headers)).status_code == 413

    async def drip():  # type: ignore[no-untyped-def]  # no content-length
        for _ in range(40):
            yield b"x" * 65_536

    assert (await visitor.client.post(path, content=drip(), headers=headers)).status_code == 413
    for length in ("-1", "x", "9" * 30, "1e3"):
        answer = await visitor.client.post(path, content=b"", headers={**headers, "content-length": length})
        assert answer.status_code == 413


async def test_a_hook_hides_what_nobody_is_to_see(durable: Durable, visit: Visit) -> None:
    def redact(what: str, value: object) -> object:
        return "(hidden)"

    text = "4111-1111-1111-1111"
    going = await durable.start(hostile, [text])
    failed = await durable.start(broken, text)
    await ends(failed)
    await reaches(going, "waiting")
    visitor = visit(dashboard(durable, redact=redact))
    paths = ["/", "/waiting", "/health", "/bulk?verb=cancel"]
    for id in (going.id, failed.id):
        paths += [f"/runs/{id}{tab}" for tab in ("", "?tab=graph", "?tab=journal", "?tab=data")]
        paths += [f"/api/executions/{id}"]
    for path in [*paths, "/api/executions", "/api/stuck"]:
        answer = await visitor.get(path)
        assert answer.status_code == 200
        assert text not in answer.text, path


async def test_a_hook_that_fails_hides_all(durable: Durable, visit: Visit) -> None:
    def redact(what: str, value: object) -> object:
        raise ValueError("no")

    handle = await durable.start(broken, "secret-text")
    await ends(handle)
    visitor = visit(dashboard(durable, redact=redact))
    for tab in ("", "?tab=data", "?tab=journal"):
        html = await visitor.page(f"/runs/{handle.id}{tab}")
        assert "secret-text" not in html
