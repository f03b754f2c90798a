"""What stands in front of every route: hosts, sizes, who may, where writes come from, and the headers of answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from durable.dashboard.access import CSRF, Access, is_same_origin, new_csrf
from durable.dashboard.links import base_of, locate, path_of

API_HEADER: Final = "x-durable-request"
"""Every write of the API carries it: no form and no image of another site can."""
MOST_BYTES: Final = 2 * 2**20
"""Of a request's body: a payload may have 1 MiB, and forms encode."""

_READS: Final = ("GET", "HEAD", "OPTIONS")
_POLICY: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@final
class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, access: Access, *, readonly: bool) -> None:
        self._app = app
        self._access = access
        self._readonly = readonly

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        locate(scope)
        request = Request(scope)
        path = path_of(request)
        is_new = not request.cookies.get(CSRF)
        csrf = scope["durable.csrf"] = request.cookies.get(CSRF) or new_csrf()

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if not path.startswith("/static/"):
                    headers["Cache-Control"] = "no-store"
                    if is_new and not path.startswith("/api/"):
                        response = Response()
                        set_cookie(response, request, CSRF, csrf)
                        headers.append("Set-Cookie", response.headers["set-cookie"])
            await send(message)

        refusal = await self._refusal(request, path)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        await self._app(scope, _capped(receive), send_guarded)

    async def _refusal(self, request: Request, path: str) -> Response | None:
        if not self._access.knows_host(request):
            return _refused(
                request,
                path,
                421,
                "wrong_host",
                "this dashboard answers to this machine's own names only; give it auth=, and hosts= if need be",
            )
        length = request.headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:12]) > MOST_BYTES or len(length) > 12:
            return _refused(request, path, 413, "too_large", f"a request may have {MOST_BYTES:,} bytes")
        is_write = request.method not in _READS
        if is_write and not is_same_origin(request):
            return _refused(
                request, path, 403, "cross_origin", "only pages of this dashboard may change anything"
            )
        if path.startswith("/static/") or (path == "/login" and self._access.has_login):
            return None
        who = await self._access.who(request)
        if who is None:
            return self._stranger(request, path)
        request.scope["durable.actor"] = who
        if is_write and self._readonly:
            return _refused(request, path, 403, "read_only", "this dashboard only shows")
        if is_write and path.startswith("/api/") and API_HEADER not in request.headers:
            return _refused(
                request, path, 403, "missing_header", f"every write carries a header {API_HEADER}: 1"
            )
        return None

    def _stranger(self, request: Request, path: str) -> Response:
        if self._access.has_login and request.method == "GET" and not path.startswith(("/api/", "/live/")):
            after = f"{path}?{request.url.query}" if request.url.query else path
            return RedirectResponse(f"{base_of(request)}/login?next={quote(after, safe='')}", 303)
        refusal = _refused(
            request, path, 401, "unauthorized", "show a token, or ask whoever runs this dashboard"
        )
        if self._access.has_login:
            refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal


def set_cookie(
    response: Response, request: Request, name: str, value: str, *, ends_in: int | None = None
) -> None:
    """A cookie that no script and no other site gets."""
    response.set_cookie(
        name,
        value,
        max_age=ends_in,
        path=base_of(request) or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def _capped(receive: Receive) -> Receive:
    seen = 0

    async def receive_some() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BYTES:
            raise HTTPException(413, f"a request may have {MOST_BYTES:,} bytes")
        return message

    return receive_some


def _refused(request: Request, path: str, status: int, code: str, why: str) -> Response:
    if path.startswith("/api/") or "text/html" not in Headers(scope=request.scope).get("accept", ""):
        return JSONResponse({"error": {"code": code, "message": why}}, status)
    return Response(f"{status}: {why}\n", status, media_type="text/plain")
