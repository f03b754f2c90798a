"""`Location`: what a URL of this backend says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from durable.errors import ConfigurationError
from durable.redact import redact_url

_FORMS = (
    "write sqlite:///relative.db or sqlite:////absolute/path.db, and ?synchronous=normal or full, "
    "or ?foreign_keys=on or off, if need be"
)


@dataclass(frozen=True, slots=True)
class Location:
    path: Path
    synchronous: str = "full"
    foreign_keys: bool = False
    """On the connections that steps get."""

    @classmethod
    def parse(cls, url: str) -> Location:
        """Raises: `ConfigurationError` when the URL means nothing to this backend."""
        shown = redact_url(url)
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ConfigurationError(f"{shown!r} is not a URL: {error}", _FORMS) from error
        path = unquote(parts.path).removeprefix("/")
        if parts.netloc:
            raise ConfigurationError(
                f"{shown!r} names a host, and a SQLite database is a file",
                f"there are three slashes before the path: {_FORMS}",
            )
        if path in ("", ":memory:"):
            raise ConfigurationError(
                f"{shown!r} has no path", f"{_FORMS}; for a store that is gone with the process use memory://"
            )
        if path.endswith("/") or "\0" in path or parts.fragment:
            raise ConfigurationError(f"{shown!r} is not the URL of a file", _FORMS)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        synchronous = options.pop("synchronous", "full").lower()
        foreign_keys = options.pop("foreign_keys", "off").lower()
        if options:
            raise ConfigurationError(
                f"{shown!r} has options that do not exist: {', '.join(sorted(options))}", _FORMS
            )
        if synchronous not in ("normal", "full"):
            raise ConfigurationError(f"{shown!r}: synchronous is normal or full", _FORMS)
        if foreign_keys not in ("on", "off"):
            raise ConfigurationError(f"{shown!r}: foreign_keys is on or off", _FORMS)
        return cls(Path(path), synchronous, foreign_keys == "on")
