"""A dashboard on an application that works, and those who look at it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from html import unescape
from pathlib import Path
from typing import Any, final

import httpx2
import pytest
import uvicorn
from playwright.async_api import Browser, async_playwright
from playwright.sync_api import sync_playwright
from starlette.types import ASGIApp
from typing_extensions import override

from durable import Durable
from durable.dashboard import dashboard
from durable.ids import Ids
from tests.dashboard.chromium import Chromium, chromium
from tests.dashboard.shop import WORKFLOWS
from tests.support import until

TOKEN = "a-token-of-more-than-16"
HOST = "http://127.0.0.1:8700"


@pytest.fixture
async def durable() -> AsyncIterator[Durable]:
    async with Durable(WORKFLOWS, store=f"memory://{Ids().nonce()}", sweep="200ms") as durable:
        yield durable


@final
class Visitor:
    """Somebody with a browser that has no JavaScript, or a program."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        return await self.client.get(path, **options)

    async def page(self, path: str, status: int = 200) -> str:
        """The page's HTML, which must be complete."""
        answer = await self.client.get(path)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.text.rstrip().endswith("</html>")
        return answer.text

    async def text(self, path: str) -> str:
        """What the page says, without its tags."""
        return words(await self.page(path))

    async def submit(self, path: str, fields: dict[str, Any], **options: Any) -> httpx2.Response:
        """Send a form as the page would have sent it; the page that is shown then."""
        if "durable_csrf" not in self.client.cookies:
            await self.client.get("/")
        data = {"csrf": self.client.cookies.get("durable_csrf"), "back": "/", **fields}
        return await self.client.post(path, data=data, **options)

    async def json(self, path: str, **options: Any) -> Any:
        answer = await self.client.get(f"/api{path}", **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def call(self, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        """Write through the API."""
        headers = {"x-durable-request": "1", **headers}
        answer = await self.client.post(f"/api{path}", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()


def words(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html))).strip()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Find the browser, outside the time limit of any test."""
    needed = any("browser" in getattr(item, "fixturenames", ()) for item in session.items)
    if needed and not session.config.option.collectonly:
        with suppress(RuntimeError):  # the fixture raises it again, in the tests that need it
            _chromium()


def _chromium() -> Chromium:
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    return chromium(own)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A real Chromium, without a window. Its sandbox wants rights that a container does not have."""
    found = await asyncio.to_thread(_chromium)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=found.program, env={**os.environ, **found.env}, chromium_sandbox=False
        )
        yield browser
        await browser.close()


Visit = Callable[..., Visitor]


@pytest.fixture
async def visit() -> AsyncIterator[Visit]:
    """Makes visitors of an application, who come from this machine unless told otherwise."""
    async with AsyncExitStack() as stack:
        visitors: list[httpx2.AsyncClient] = []

        def make(app: ASGIApp, *, base: str = HOST, client: str = "127.0.0.1", **options: Any) -> Visitor:
            transport = httpx2.ASGITransport(app=app, client=(client, 50_000))
            visitors.append(
                httpx2.AsyncClient(transport=transport, base_url=base, follow_redirects=True, **options)
            )
            return Visitor(visitors[-1])

        yield make
        for visitor in visitors:
            stack.push_async_callback(visitor.aclose)


@pytest.fixture
def visitor(durable: Durable, visit: Visit) -> Visitor:
    """Somebody at this machine, on a dashboard without a token."""
    return visit(dashboard(durable))


class Server(uvicorn.Server):
    """A real server on a free port of this machine, in this loop."""

    def __init__(self, app: ASGIApp, port: int = 0) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, lifespan="off"))
        self.listening = socket.create_server(("127.0.0.1", port))
        self.port = self.listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @override
    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve([self.listening])

    async def __aenter__(self) -> Server:
        self._task = asyncio.create_task(self.serve())
        await until(lambda: self.started)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.should_exit = self.force_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # as if the machine were gone
        await self._task
