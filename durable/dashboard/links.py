"""Addresses within the dashboard, wherever it is mounted and whatever stands in front of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+){0,8}")
_WITHIN = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}")


def locate(scope: Scope) -> None:
    """Note where the dashboard is mounted, and which of its paths is asked for: mounts within it change both."""
    root: str = scope.get("root_path", "")
    path: str = scope["path"]
    forwarded = Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/")
    prefix = forwarded if _PREFIX.fullmatch(forwarded) else ""
    scope["durable.base"] = prefix + quote(root)
    scope["durable.path"] = path.removeprefix(root) or "/"


def base_of(request: HTTPConnection) -> str:
    """What precedes every path: where the application is mounted, behind what a proxy has taken off."""
    base: str = request.scope["durable.base"]
    return base


def path_of(request: HTTPConnection) -> str:
    """The path within the dashboard."""
    path: str = request.scope["durable.path"]
    return path


def run_path(execution_id: str) -> str:
    """The page of an execution. Slashes within the id are hidden, so that no `..` in it leads elsewhere."""
    return f"/runs/{quote(execution_id, safe='')}"


def with_query(path: str, query: Mapping[str, str | Iterable[str] | None]) -> str:
    """A path with what is not empty of a query."""
    pairs = [(name, value) for name, value in query.items() if value]
    return f"{path}?{urlencode(pairs, doseq=True)}" if pairs else path


def within(path: str) -> str:
    """The path itself if it is one of this site, else the first page: what a form says may lead anywhere."""
    return path if _WITHIN.fullmatch(path) else "/"
