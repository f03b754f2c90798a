"""`Location`: what a URL of this backend says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from durable.errors import ConfigurationError
from durable.redact import redact_url

_HEARTBEAT_S: Final = "15"
_FORMS: Final = "write amqp://user:password@host:5672/vhost, and ?declare=passive or required=0 if need be"


@dataclass(frozen=True, slots=True)
class Location:
    url: str = field(repr=False)
    """For the driver: without our own options."""
    shown: str
    """Without the password."""
    passive: bool = False
    """Exchanges and queues are only checked."""
    required: bool = True
    """A broker that cannot be reached is an error at `open`."""

    @classmethod
    def parse(cls, url: str) -> Location:
        """Raises: `ConfigurationError` when the URL means nothing to this backend."""
        shown = redact_url(url)
        try:
            parts = urlsplit(url)
            has_host = bool(parts.hostname)
            parts.port  # noqa: B018 it raises
        except ValueError as error:
            raise ConfigurationError(f"{shown!r} is no URL of a broker: {error}", _FORMS) from error
        if not has_host or parts.fragment:
            raise ConfigurationError(f"{shown!r} names no broker", _FORMS)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        declare = options.pop("declare", "active")
        required = options.pop("required", "1")
        if declare not in ("active", "passive") or required not in ("0", "1"):
            raise ConfigurationError(f"{shown!r}: declare is active or passive, required is 1 or 0", _FORMS)
        options.setdefault("heartbeat", _HEARTBEAT_S)
        bare = urlunsplit(parts._replace(query=urlencode(options)))
        return cls(bare, shown, passive=declare == "passive", required=required == "1")
