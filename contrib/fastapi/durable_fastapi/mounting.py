"""Another ASGI application, such as the dashboard, behind the sign-in of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

_WHO: Final = "durable_fastapi.signed_in"
_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def mount_behind(
    app: FastAPI, path: str, mounted: ASGIApp, *, user: Callable[..., Any], name: Callable[[Any], str] = str
) -> None:
    """Serve `mounted` below `path` to those whom `user` lets pass, and to nobody else.

    `user` is a dependency, the one that your own routes have: it gives the user, or raises an `HTTPException`, which is
    answered as in any route. The mounted application finds the user's `name` with `signed_in`:

        mount_behind(app, "/durable", dashboard(durable, auth=signed_in), user=current_user)

    `app.mount` alone would ask no dependency. Web sockets are not served.
    """
    below = path.rstrip("/")

    async def serve(who: Any = Depends(user)) -> Response:  # noqa: B008 how FastAPI is told of a dependency
        return _Served(mounted, below, name(who))

    app.add_api_route(
        f"{below}/{{rest:path}}", serve, methods=_METHODS, include_in_schema=False, response_model=None
    )


def signed_in(connection: HTTPConnection) -> str | None:
    """The name of the user who has passed `mount_behind`; None on any other way."""
    who: object = connection.scope.get(_WHO)
    return who if isinstance(who, str) else None


@final
class _Served(Response):
    """Whatever the mounted application answers."""

    def __init__(self, mounted: ASGIApp, below: str, who: str) -> None:
        super().__init__()
        self._mounted, self._below, self._who = mounted, below, who

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root_path = scope.get("root_path", "") + self._below
        # It is an application by itself: the links that it makes are to its own routes.
        own: Scope = {name: value for name, value in scope.items() if name != "router"}
        own.update({"root_path": root_path, "app_root_path": root_path, _WHO: self._who})
        await self._mounted(own, receive, send)
