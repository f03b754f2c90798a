"""Who may use the dashboard: a token, a function of the application's own, or people at this machine."""

from __future__ import annotations

import hmac
import inspect
import ipaddress
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from typing import Final, TypeAlias, final

from starlette.datastructures import URL
from starlette.requests import HTTPConnection

from durable.errors import ConfigurationError

Auth: TypeAlias = (
    str
    | Callable[[HTTPConnection], bool | str | None]
    | Callable[[HTTPConnection], Awaitable[bool | str | None]]
)
"""A token; or a function of the request that gives the name of who asks, or just whether they may."""

SESSION: Final = "durable_session"
CSRF: Final = "durable_csrf"
_ANYBODY: Final = "dashboard"
_SHORTEST_TOKEN: Final = 16
_SESSION_S: Final = 12 * 3600
_LONGEST_NAME: Final = 80
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@final
class Access:
    """Decides who may. Without `auth` only this machine's own people may, under one of its own names: a page of
    somebody else's whose name leads to this machine may not."""

    def __init__(self, auth: Auth | None, hosts: Collection[str] | None = None) -> None:
        if isinstance(auth, str) and len(auth) < _SHORTEST_TOKEN:
            raise ConfigurationError(
                f"the dashboard's token has {len(auth)} characters, and must have {_SHORTEST_TOKEN} or more",
                "make one: python -c 'import secrets; print(secrets.token_urlsafe())'",
            )
        self._auth = auth
        self._hosts = frozenset(host.lower() for host in hosts) if hosts is not None else None
        self._key = (
            sha256(b"durable dashboard session\0" + auth.encode()).digest() if isinstance(auth, str) else b""
        )

    @property
    def has_login(self) -> bool:
        """Whether people show a token, on a page of ours."""
        return isinstance(self._auth, str)

    def knows_host(self, request: HTTPConnection) -> bool:
        """Whether the request is for a name that this dashboard answers to."""
        host = host_of(request)
        if self._hosts is not None:
            return host in self._hosts or "*" in self._hosts
        return self._auth is not None or host in _LOOPBACK_NAMES

    async def who(self, request: HTTPConnection) -> str | None:
        """The name of who asks, for the audit; None: nobody who may."""
        if self._auth is None:
            return _ANYBODY if _is_local(request) else None
        if isinstance(self._auth, str):
            return self._bearer(request) or self._session(request)
        answer = self._auth(request)
        if inspect.isawaitable(answer):
            answer = await answer
        return (answer[:_LONGEST_NAME] if isinstance(answer, str) else _ANYBODY) if answer else None

    def is_token(self, given: str) -> bool:
        """Whether this is the token; in a time that does not depend on where they differ."""
        return isinstance(self._auth, str) and hmac.compare_digest(_digest(given), _digest(self._auth))

    def new_session(self, name: str) -> str:
        """What a cookie holds from now on of somebody who has shown the token; it ends after 12 hours."""
        name = "".join(char for char in name if char.isprintable())[:_LONGEST_NAME]
        body = f"{int(time.time()) + _SESSION_S}.{urlsafe_b64encode(name.encode()).decode()}"
        return f"{body}.{self._signature(body)}"

    def _bearer(self, request: HTTPConnection) -> str | None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return _ANYBODY if scheme.lower() == "bearer" and self.is_token(given.strip()) else None

    def _session(self, request: HTTPConnection) -> str | None:
        body, _, signature = request.cookies.get(SESSION, "").rpartition(".")
        if not body or not hmac.compare_digest(_digest(signature), _digest(self._signature(body))):
            return None
        ends_at, _, name = body.partition(".")
        return None if int(ends_at) < time.time() else urlsafe_b64decode(name).decode() or _ANYBODY

    def _signature(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), sha256).hexdigest()


def is_same_origin(request: HTTPConnection) -> bool:
    """Whether a page of this very origin sent it, or no page at all."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or URL(origin).netloc == request.headers.get("host", "")


def new_csrf() -> str:
    """A token that a form sends back, beside the cookie that holds it too."""
    return secrets.token_urlsafe(18)


def is_csrf(request: HTTPConnection, given: object) -> bool:
    """Whether a form has sent what the cookie holds."""
    held = request.cookies.get(CSRF, "")
    return bool(held) and isinstance(given, str) and hmac.compare_digest(_digest(given), _digest(held))


def is_loopback(host: str) -> bool:
    """Whether an address or a name leads to this machine and no other."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(request: HTTPConnection) -> str:
    """The name that the request was sent to, without the port."""
    host = request.headers.get("host", "").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_local(request: HTTPConnection) -> bool:
    return request.client is not None and is_loopback(request.client.host)


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogateescape")).digest()
