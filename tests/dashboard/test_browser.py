"""The dashboard in a real Chromium: what people see, click and type."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Request, expect

from durable import Durable
from durable.dashboard import dashboard
from tests.dashboard.conftest import TOKEN, Server
from tests.dashboard.hostile import HOSTILE, MARK
from tests.dashboard.shop import Order, Ping, broken, fulfil, hostile, pinged, quick, steps, stuck
from tests.support import ends, reaches, until

AXE = Path(__file__).with_name("axe") / "axe-4.14.1.min.js"
PAGES = ("/", "/waiting", "/workflows?name=fulfil-order", "/schedules", "/queues", "/workers", "/health")
TABS = ("", "?tab=graph", "?tab=journal", "?tab=data", "?axis=linear")


@final
class Window:
    """A tab that watches what should not happen: errors, dialogs, and requests to elsewhere."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.url = server.url
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(f"error {error}"))
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("dialog", self._asked)
        page.on("request", self._requested)

    async def open(self, path: str) -> Page:
        await self.page.goto(self.url + path)
        if await self.page.locator("#live").count():
            await expect(self.page.locator("#stream[data-state=live]")).to_be_attached()
        return self.page

    def _said(self, kind: str, text: str) -> None:
        if kind == "error" and "net::ERR" not in text and "htmx:sse:error" not in text:
            self.wrong.append(f"console {text}")

    async def _asked(self, dialog: Any) -> None:
        self.wrong.append(f"dialog {dialog.message}")
        await dialog.dismiss()

    def _requested(self, request: Request) -> None:
        if not request.url.startswith((self.url + "/", "data:")) or MARK in request.url.partition("?")[0]:
            self.wrong.append(f"request {request.url}")


Open = Callable[..., Any]


@pytest.fixture
async def server(durable: Durable) -> AsyncIterator[Server]:
    async with Server(dashboard(durable)) as server:
        yield server


@asynccontextmanager
async def window(browser: Browser, server: Server, **options: Any) -> AsyncIterator[Window]:
    context: BrowserContext = await browser.new_context(viewport={"width": 1360, "height": 820}, **options)
    context.set_default_timeout(10_000)
    try:
        opened = Window(await context.new_page(), server)
        yield opened
        assert opened.wrong == []
    finally:
        await context.close()


async def waits(durable: Durable) -> Any:
    handle = await durable.start(fulfil, Order("7", 4200), tags={"tenant": "acme"})
    await reaches(handle, "waiting")
    return handle


# ---- live


async def test_what_runs_appears_and_changes_without_a_reload(
    durable: Durable, server: Server, browser: Browser, record_property: Callable[[str, object], None]
) -> None:
    delays: list[float] = []
    async with window(browser, server) as tab:
        page = await tab.open("/")
        await page.evaluate("window.untouched = true")
        for number in range(8):
            began = time.monotonic()
            handle = await durable.start(quick, str(number))
            await page.wait_for_selector(f'[id="r-{handle.id}"] .st-completed', timeout=10_000)
            delays.append(time.monotonic() - began)
        assert await page.evaluate("window.untouched")
    record_property("seconds from a start to its completion on the page", sorted(delays))


async def test_a_run_is_watched_as_it_goes_on(durable: Durable, server: Server, browser: Browser) -> None:
    handle = await durable.start(steps, 3)
    await reaches(handle, "waiting")
    async with window(browser, server) as tab:
        page = await tab.open(f"/runs/{handle.id}")
        for number in range(3):
            await expect(page.locator("details.wf .label", has_text="tick")).to_have_count(number + 1)
            await durable.signal(handle.id, Ping)
        await expect(page.locator("h1 .st-completed")).to_be_visible()
        assert await handle.result() == 3


async def test_a_stream_that_breaks_misses_nothing(
    durable: Durable, server: Server, browser: Browser
) -> None:
    handle = await durable.start(steps, 4)
    await reaches(handle, "waiting")
    async with window(browser, server) as tab:
        page = await tab.open(f"/runs/{handle.id}?tab=journal")
        await page.evaluate("window.untouched = true")
        sent: list[str | None] = []
        page.on("request", lambda request: sent.append(request.headers.get("last-event-id")))
        await server.__aexit__()
        await expect(page.locator("#stream")).not_to_have_attribute("data-state", "live")
        for _ in range(4):
            await durable.signal(handle.id, Ping)
        await ends(handle)
        async with Server(dashboard(durable), server.port):
            await expect(page.locator("h1 .st-completed")).to_be_visible(timeout=20_000)
            for name in ("tick", "tick#2", "tick#3", "tick#4"):
                await expect(page.get_by_role("cell", name=name, exact=True)).to_be_visible()
            await expect(page.locator("#stream")).to_have_attribute("data-state", "live")
        assert any(sent)
        assert await page.evaluate("window.untouched")


async def test_what_somebody_does_outlives_an_update(
    durable: Durable, server: Server, browser: Browser
) -> None:
    handle = await waits(durable)
    async with window(browser, server) as tab:
        page = await tab.open("/waiting")
        inbox = page.locator(f'[id="i-{handle.id}"]')
        await inbox.locator('[name="payload.by"]').fill("ada")
        await inbox.locator("summary").click()
        other = await waits(durable)
        await expect(page.locator(f'[id="i-{other.id}"]')).to_be_visible()
        await expect(inbox.locator('[name="payload.by"]')).to_have_value("ada")
        await expect(inbox.locator("pre.payload")).to_be_visible()
        await page.goto(server.url + "/")
        await page.locator("[data-search]").fill("half a wo")
        await page.get_by_label(f"Select {handle.id}").check()
        third = await durable.start(quick, "x")
        await expect(page.locator(f'[id="r-{third.id}"]')).to_be_visible()
        await expect(page.locator("[data-search]")).to_have_value("half a wo")
        await expect(page.get_by_label(f"Select {handle.id}")).to_be_checked()
        await expect(page.get_by_label(f"Select {third.id}")).not_to_be_checked()


# ---- acts


async def test_somebody_approves_in_the_inbox(durable: Durable, server: Server, browser: Browser) -> None:
    handle = await waits(durable)
    async with window(browser, server) as tab:
        page = await tab.open("/waiting")
        await page.get_by_label("by", exact=True).fill("ada")
        await page.get_by_role("button", name="Approve").click()
        await expect(page.get_by_text("Signal approved was sent.")).to_be_visible()
        await expect(page.get_by_text("Nobody waits for a person")).to_be_visible()
    assert await handle.result() == "Mail To 7"


async def test_somebody_rejects_on_the_page_of_the_run(
    durable: Durable, server: Server, browser: Browser
) -> None:
    handle = await waits(durable)
    async with window(browser, server) as tab:
        page = await tab.open(f"/runs/{handle.id}")
        await page.get_by_label("by", exact=True).fill("ada")
        await page.get_by_role("button", name="Reject").click()
        await expect(page.locator("h1 .st-failed")).to_be_visible()
        await expect(page.get_by_text("rollback:reserve", exact=True)).to_be_visible()
        await expect(page.get_by_role("group", name="Error")).to_contain_text("rejected by ada")


async def menu(page: Page, name: str, **fields: str) -> None:
    """Open an act's menu, fill it in, and do it."""
    box = page.locator("details.act", has=page.locator("summary", has_text=re.compile(rf"^{name}$"))).first
    await box.locator("summary").click()
    for label, value in fields.items():
        await box.get_by_label(re.compile(label, re.IGNORECASE)).fill(value)
    await box.get_by_role("button", name=name, exact=True).click()


async def test_a_run_is_cancelled_failed_and_retried(
    durable: Durable, server: Server, browser: Browser
) -> None:
    one, other, undone = [await waits(durable) for _ in range(3)]
    failed = await durable.start(broken, "no card")
    await ends(failed)
    async with window(browser, server) as tab:
        page = await tab.open(f"/runs/{one.id}")
        await menu(page, "Cancel", reason="fraud")
        await expect(page.locator("h1 .st-cancelled")).to_be_visible()
        await expect(page.get_by_role("group", name="Error")).to_contain_text("fraud")
        page = await tab.open(f"/runs/{undone.id}")
        await menu(page, "Roll back", reason="they stay at home")
        await expect(page.locator("h1 .st-cancelled")).to_be_visible()
        page = await tab.open(f"/runs/{other.id}")
        await menu(page, "Force fail", reason="enough")
        await expect(page.locator("h1 .st-failed")).to_be_visible()
        page = await tab.open(f"/runs/{failed.id}")
        await menu(page, "Retry")
        await expect(page.get_by_text("It runs again")).to_be_visible()
        await expect(page.locator(".facts", has_text="Attempt").first).to_contain_text("2")


async def test_a_run_is_paused_and_goes_on(durable: Durable, server: Server, browser: Browser) -> None:
    handle = await durable.start(pinged)
    await reaches(handle, "waiting")
    async with window(browser, server) as tab:
        page = await tab.open(f"/runs/{handle.id}")
        await menu(page, "Pause")
        await expect(page.locator("h1 .st-paused")).to_be_visible()
        await menu(page, "Resume")
        await expect(page.locator("h1 .st-waiting")).to_be_visible()


async def test_a_run_is_run_again_from_a_step_with_another_input(
    durable: Durable, server: Server, browser: Browser
) -> None:
    handle = await durable.start(quick, "a")
    await ends(handle)
    async with window(browser, server) as tab:
        page = await tab.open(f"/runs/{handle.id}")
        await menu(page, "Rerun", input='"another"')
        await expect(page.get_by_text("This is the new execution.")).to_be_visible()
        await expect(page.locator("h1 .st-completed")).to_be_visible()
        new = page.url.rpartition("/")[2]
        assert new != handle.id
        assert await durable.wait(new) == "ANOTHER"
        await page.locator("details.wf > summary").first.click()
        step = page.locator("details.wf").first
        await step.locator("summary", has_text="Rerun").click()
        await step.get_by_role("button", name="Rerun").click()
        await expect(page.get_by_text("This is the new execution.")).to_be_visible()


async def test_results_of_steps_are_edited(durable: Durable, server: Server, browser: Browser) -> None:
    handle = await waits(durable)
    async with window(browser, server) as tab:
        page = await tab.open(f"/runs/{handle.id}")
        step = page.locator("details.wf", has=page.locator(".label", has_text="charge"))
        await step.locator("summary").first.click()
        await step.locator("summary", has_text="Edit result").click()
        await step.get_by_label("Result (JSON)").fill('"charge-by-hand"')
        await step.get_by_role("button", name="Edit result").click()
        await expect(page.get_by_text("The step has this result now.")).to_be_visible()

    async def is_edited() -> bool:
        detail = await durable.operator.get_execution_detail(handle.id)
        return "charge-by-hand" in [step.result for step in detail.steps if step.id == "charge"]

    await until(is_edited)


async def test_a_step_that_fails_is_skipped(durable: Durable, server: Server, browser: Browser) -> None:
    handle = await durable.start(stuck)
    await ends(handle)
    async with window(browser, server) as tab:
        page = await tab.open(f"/runs/{handle.id}")
        step = page.locator("details.wf").first
        await step.locator("summary").first.click()
        await step.locator("summary", has_text="Skip step").click()
        await step.get_by_label("Result (JSON)").fill('"by hand"')
        await step.get_by_role("button", name="Skip step").click()
        await expect(page.locator("h1 .st-completed")).to_be_visible()
        assert await handle.result() == "by hand"


async def test_many_are_cancelled_from_the_list(durable: Durable, server: Server, browser: Browser) -> None:
    handles = [await durable.start(pinged) for _ in range(3)]
    for handle in handles:
        await reaches(handle, "waiting")
    async with window(browser, server) as tab:
        page = await tab.open("/?workflow=pinged")
        for handle in handles[:2]:
            await page.get_by_label(f"Select {handle.id}").check()
        await page.get_by_label("What to do").select_option("cancel")
        await page.get_by_role("button", name="Preview").click()
        await expect(page.get_by_role("heading", name="Cancel 2 executions")).to_be_visible()
        await page.get_by_role("button", name="Cancel 2").click()
        await expect(page.get_by_text("Cancel: done for 2 of 2.")).to_be_visible()
        await expect(page.locator("tr .st-cancelled")).to_have_count(2)
        await expect(page.locator("tr .st-waiting")).to_have_count(1)


async def test_schedules_queues_and_workers_are_steered(
    durable: Durable, server: Server, browser: Browser
) -> None:
    async with window(browser, server) as tab:
        page = await tab.open("/schedules")
        await menu(page, "Pause")
        await expect(page.get_by_text("starts nothing until it is resumed")).to_be_visible()
        await menu(page, "Resume")
        await expect(page.locator(".st-running", has_text="active")).to_be_visible()
        await menu(page, "Trigger")
        await expect(page.get_by_role("heading", name="nightly")).to_be_visible()
        await durable.operator.pause_queue("default")
        page = await tab.open("/queues")
        await expect(page.locator("canvas")).to_have_count(2)
        await menu(page, "Resume")
        await expect(page.get_by_text("Nothing waits in any queue")).to_be_visible()
        page = await tab.open("/workers")
        await menu(page, "Drain")
        await expect(page.get_by_text("The worker takes nothing new")).to_be_visible()
        async with asyncio.timeout(10):
            await durable.worker.told_to_drain.wait()


async def test_in_production_a_name_is_typed(durable: Durable, browser: Browser) -> None:
    handle = await waits(durable)
    async with Server(dashboard(durable, environment="prod")) as server:
        async with window(browser, server) as tab:
            page = await tab.open(f"/runs/{handle.id}")
            await menu(page, "Cancel", confirm="something else")
            await expect(page.get_by_role("alert")).to_contain_text(
                "must be confirmed by typing 'fulfil-order'"
            )
            await menu(page, "Cancel", confirm="fulfil-order")
            await expect(page.locator("h1 .st-cancelled")).to_be_visible()


async def test_people_log_in_with_the_token_and_out(durable: Durable, browser: Browser) -> None:
    async with Server(dashboard(durable, auth=TOKEN)) as server:
        async with window(browser, server) as tab:
            await tab.page.goto(f"{server.url}/waiting")
            await tab.page.get_by_label("Token").fill(TOKEN)
            await tab.page.get_by_label("Your name").fill("ada")
            await tab.page.get_by_role("button", name="Log in").click()
            await expect(tab.page).to_have_url(f"{server.url}/waiting")
            await expect(tab.page.locator("#stream[data-state=live]")).to_be_attached()
            await tab.page.get_by_role("button", name="Log out ada").click()
            await expect(tab.page.get_by_label("Token")).to_be_visible()


# ---- looks


async def test_the_theme_follows_the_system_until_somebody_chooses(server: Server, browser: Browser) -> None:
    async def background(page: Page) -> str:
        return str(await page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    async with window(browser, server, color_scheme="light") as tab:
        page = await tab.open("/queues")
        light = await background(page)
        await page.emulate_media(color_scheme="dark")
        dark = await background(page)
        assert light != dark
        theme = page.get_by_role("button", name="Theme")
        await theme.click()
        await expect(theme).to_have_text("Theme: dark")
        await theme.click()
        await expect(theme).to_have_text("Theme: light")
        assert await background(page) == light
        await page.reload()
        assert await background(page) == light
        await page.get_by_role("button", name="Theme").click()
        assert await background(page) == dark


async def test_the_keyboard_reaches_everything(durable: Durable, server: Server, browser: Browser) -> None:
    handles = [await durable.start(quick, str(number)) for number in range(3)]
    for handle in handles:
        await ends(handle)
    async with window(browser, server) as tab:
        page = await tab.open("/")
        order = await page.locator("tr[data-row] a.id").all_inner_texts()
        await page.keyboard.press("j")
        await page.keyboard.press("j")
        await page.keyboard.press("k")
        await page.keyboard.press("j")
        await page.keyboard.press("x")
        await expect(page.get_by_label(f"Select {order[1]}")).to_be_checked()
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{server.url}/runs/{order[1]}")
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await expect(page.locator("details.wf[open]")).to_have_count(1)
        await page.go_back()
        await page.keyboard.press("/")
        await page.keyboard.type("workflow:quick")
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(re.compile("q=workflow%3Aquick"))
        await expect(page.locator("tr[data-row]")).to_have_count(3)


async def test_without_javascript_everything_is_there(
    durable: Durable, server: Server, browser: Browser
) -> None:
    handle = await waits(durable)
    async with window(browser, server, java_script_enabled=False) as tab:
        page = tab.page
        await page.goto(f"{server.url}/")
        await page.get_by_role("link", name=handle.id).click()
        await expect(page.locator(".label", has_text="reserve")).to_be_visible()
        await expect(page.locator("svg.bar rect").first).to_be_attached()
        await page.get_by_role("link", name="Graph").click()
        await expect(page.get_by_role("img", name="The graph of fulfil-order")).to_be_visible()
        await page.get_by_role("link", name="Waiting").click()
        await page.get_by_label("by", exact=True).fill("ada")
        await page.get_by_role("button", name="Approve").click()
        await expect(page.get_by_text("Signal approved was sent.")).to_be_visible()
    assert await handle.result() == "Mail To 7"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_keeps_the_rules_of_accessibility(
    durable: Durable, server: Server, browser: Browser, scheme: str
) -> None:
    handle = await waits(durable)
    failed = await durable.start(broken, "no card")
    await ends(failed)
    found: dict[str, list[str]] = {}
    async with window(browser, server, color_scheme=scheme) as tab:
        runs = [f"/runs/{handle.id}{query}" for query in TABS] + [f"/runs/{failed.id}"]
        rules = "" if scheme == "light" else "runOnly: ['color-contrast'], "  # all that a theme can break
        for path in (*PAGES, *runs, "/bulk?verb=cancel"):
            page = await tab.open(path)
            await page.evaluate(AXE.read_text())
            result = await page.evaluate(f"axe.run({{{rules}resultTypes: ['violations']}})")
            for violation in result["violations"]:
                nodes = [node["html"][:160] for node in violation["nodes"][:3]]
                found[f"{path} {violation['id']}"] = nodes
    assert found == {}


async def test_a_narrow_window_needs_no_scrolling_aside(
    durable: Durable, server: Server, browser: Browser
) -> None:
    handle = await waits(durable)
    async with window(browser, server) as tab:
        await tab.page.set_viewport_size({"width": 390, "height": 800})
        for path in (*PAGES, f"/runs/{handle.id}"):
            page = await tab.open(path)
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= 390, path


# ---- markup


async def test_nothing_that_a_body_says_is_obeyed(durable: Durable, server: Server, browser: Browser) -> None:
    printable = "".join(char for char in " ".join(HOSTILE) if char.isprintable())
    going = await durable.start(hostile, list(HOSTILE), key=printable[:500], tags={"said": printable[:200]})
    failed = [await durable.start(broken, text) for text in HOSTILE]
    for handle in failed:
        await ends(handle)
    await reaches(going, "waiting")
    runs = [f"/runs/{going.id}{query}" for query in TABS] + [f"/runs/{handle.id}" for handle in failed]
    async with window(browser, server) as tab:
        for path in (*PAGES, *runs, "/bulk?verb=retry"):
            await tab.page.goto(server.url + path, wait_until="domcontentloaded")
        # And as it comes over a stream, into a page that is there already.
        page = await tab.open("/")
        for text in HOSTILE:
            fresh = await durable.start(broken, text)
        await page.wait_for_selector(f'[id="r-{fresh.id}"] .st-failed')
        assert await page.locator("main iframe, main img, main object, main style").count() == 0
