"""`Location`: what a URL of this backend says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from durable.errors import ConfigurationError
from durable.redact import redact_url

_FORMS: Final = "write postgresql://user:password@host:5432/database, and ?sslmode=... if need be"
_TLS: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_OPTIONS: Final = frozenset(
    [
        "application_name",
        "dbname",
        "host",
        "passfile",
        "password",
        "port",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslpassword",
        "sslrootcert",
        "target_session_attrs",
        "user",
    ]
)


@dataclass(frozen=True, slots=True, repr=False)
class Location:
    url: str
    shown: str
    """Without its secrets."""

    @classmethod
    def parse(cls, url: str) -> Location:
        """Raises: `ConfigurationError` when the URL means nothing to this backend."""
        shown = redact_url(url)
        try:
            parts = urlsplit(url)
            _ = [urlsplit(f"//{host}").port for host in parts.netloc.rpartition("@")[2].split(",")]
        except ValueError as error:
            raise ConfigurationError(f"{shown!r} is not a URL: {error}", _FORMS) from error
        if parts.scheme not in ("postgresql", "postgres"):
            raise ConfigurationError(f"{shown!r} is not the URL of a PostgreSQL", _FORMS)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if not (parts.netloc or "host" in options):
            raise ConfigurationError(f"{shown!r} names no host", _FORMS)
        if "/" in parts.path[1:] or not (parts.path[1:] or "dbname" in options) or parts.fragment:
            raise ConfigurationError(f"{shown!r} names no database", _FORMS)
        if unknown := sorted(options.keys() - _OPTIONS):
            raise ConfigurationError(f"{shown!r} has options that do not exist: {', '.join(unknown)}", _FORMS)
        if options.get("sslmode", _TLS[0]) not in _TLS:
            raise ConfigurationError(
                f"{shown!r} has no sslmode that exists", f"write one of {', '.join(_TLS)}"
            )
        return cls(url, shown)
