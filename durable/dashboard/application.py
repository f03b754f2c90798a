"""The dashboard as an ASGI application: its routes, and what becomes of errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from durable.app import Durable
from durable.dashboard import api, writes
from durable.dashboard.access import Access, Auth
from durable.dashboard.failures import error_record, status_of
from durable.dashboard.guard import Guard, set_cookie
from durable.dashboard.links import path_of
from durable.dashboard.live import Feeds
from durable.dashboard.pages import PAGES
from durable.dashboard.site import CSRF_PLACE, NOTICE, PROBLEM, Ask, Page, Site
from durable.dashboard.veil import Redact, Veil
from durable.errors import DurableError

STATIC: Final = Path(__file__).with_name("static")
_PING_S: Final = 15
_SEND_TIMEOUT_S: Final = 30

Endpoint = Callable[[Request], Awaitable[Response]]


def dashboard(
    durable: Durable,
    *,
    auth: Auth | None = None,
    readonly: bool = False,
    environment: str = "dev",
    redact: Redact | None = None,
    hosts: Collection[str] | None = None,
) -> ASGIApp:
    """The dashboard of a `Durable`, which must be entered while it is used: `app.mount("/durable", dashboard(...))`.

    `auth` is a token of at least 16 characters, which people type into a form and programs send as
    `Authorization: Bearer`; or a function of the Starlette request, async or not, that gives the name of who asks,
    `True`, or nothing. Without it only people at this machine may use it, under the machine's own names. `hosts` are
    the names that it answers to, where they are to be fewer. With `readonly` nothing can be changed. In the environment
    "prod", what hurts is confirmed by typing a name. `redact` hides what nobody is to see: it takes what a value is
    ("input", "result", "error", "signal", "audit" or "text") and the value, and gives what is shown instead.

    Raises:
        ConfigurationError: the token is too short.
    """
    access = Access(auth, hosts)
    site = Site(durable, access, Veil(redact), readonly=readonly, environment_name=environment)
    feeds = Feeds()
    routes: list[BaseRoute] = [
        Mount("/static", StaticFiles(directory=STATIC), name="static"),
        Route("/login", writes.login(site), methods=["GET", "POST"]),
        Route("/logout", writes.logout(site), methods=["POST"]),
        Route("/act/{target}/{verb}", writes.act(site), methods=["POST"]),
        Route("/bulk", writes.preview(site), methods=["GET"]),
        Route("/bulk", writes.bulk(site), methods=["POST"]),
        Mount("/api", routes=api.routes(site)),
    ]
    for page in PAGES:
        routes.append(Route(page.path, _whole(site, page), methods=["GET"]))
        routes.append(Route(f"/live{page.path}", _stream(site, feeds, page), methods=["GET"]))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        yield
        await site.samples.stop()

    app = Starlette(
        routes=routes,
        exception_handlers={
            DurableError: _failed(site),
            HTTPException: _refused(site),
            Exception: _broken(site),
        },
        lifespan=lifespan,
    )
    return Guard(app, access, readonly=readonly)


def _whole(site: Site, page: Page) -> Endpoint:
    async def answer(request: Request) -> Response:
        ask = Ask.of(request, path_of(request))
        response = HTMLResponse(site.page(page, ask, await page.load(site, ask), request))
        for told in {NOTICE, PROBLEM} & request.cookies.keys():
            set_cookie(response, request, told, "", ends_in=0)
        return response

    return answer


def _stream(site: Site, feeds: Feeds, page: Page) -> Endpoint:
    async def answer(request: Request) -> Response:
        if feeds.full:
            return JSONResponse({"error": {"code": "too_many", "message": "too many people look"}}, 503)
        ask = Ask.of(request, path_of(request).removeprefix("/live"))
        csrf: str = request.scope["durable.csrf"]

        async def render() -> str:
            return site.fragment(page, ask, await page.load(site, ask))

        async def events() -> AsyncIterator[ServerSentEvent]:
            key = f"{ask.base} {ask.address}"
            async for update in feeds.follow(key, render, request.headers.get("last-event-id")):
                yield ServerSentEvent(data=update.html.replace(CSRF_PLACE, csrf), id=update.id, sep="\n")

        await page.load(site, ask)  # what is not there is told now, and not by a stream that stays silent
        return EventSourceResponse(
            events(), ping=_PING_S, send_timeout=_SEND_TIMEOUT_S, headers={"X-Accel-Buffering": "no"}
        )

    return answer


def _failed(site: Site) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, DurableError)
        return _told(site, request, status_of(error), error_record(error))

    return answer


def _refused(site: Site) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(
            error.status_code, "bad_request"
        )
        record = {"code": code, "message": str(error.detail), "hint": ""}
        return _told(site, request, error.status_code, record)

    return answer


def _broken(site: Site) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        record = {"code": "internal", "message": "the dashboard failed; its log says why", "hint": ""}
        return _told(site, request, 500, record)

    return answer


def _told(site: Site, request: Request, status: int, record: dict[str, str]) -> Response:
    if path_of(request).startswith(("/api/", "/live/")):
        return JSONResponse({"error": record}, status)
    return HTMLResponse(site.plain_page("error.html", request, status=status, error=record), status)
