"""`Location`: what a URL of this backend says."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from typing_extensions import override

from durable.errors import ConfigurationError
from durable.redact import redact_url

_FORMS: Final = (
    "write redis://host:6379/0; redis+cluster://node1:6379,node2:6379; "
    "redis+sentinel://sentinel1:26379,sentinel2:26379/name-of-the-master; and rediss instead of redis for TLS"
)
_PORTS: Final = {"node": 6379, "sentinel": 26379}
_MASTER: Final = re.compile(r"[A-Za-z0-9._-]+")
"""What Sentinels take for a name. A user and a password, which are looked for elsewhere, are none."""
_DIGITS: Final = 10
"""More than any number in a URL has."""
_NUMBER: Final = re.compile(rf"\d{{0,{_DIGITS}}}")
_PARTITIONS: Final = range(1, 1025)
_TLS_OPTIONS: Final = (
    "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"
)  # fmt: skip
_YES_NO: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens."""

    host: str
    port: int

    @override
    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to a server; without a password nobody is asked."""

    user: str = "default"
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server proves who it is, and we to it. By default its certificate and its name are checked."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    check_certificate: bool = True
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Raises: `ConfigurationError` when a file cannot be read or is none of that kind."""
        try:
            context = ssl.create_default_context(cafile=self.ca_certs)
            context.check_hostname = self.check_hostname and self.check_certificate
            if not self.check_certificate:
                context.verify_mode = ssl.CERT_NONE
            if self.certfile is not None:
                context.load_cert_chain(self.certfile, self.keyfile)
        except OSError as error:  # an SSLError, too
            named = (self.ca_certs, self.certfile, self.keyfile)
            raise ConfigurationError(
                f"the TLS files {', '.join(each for each in named if each)} cannot be used: {error}",
                "ssl_ca_certs, ssl_certfile and ssl_keyfile name readable PEM files",
            ) from error
        return context


@dataclass(frozen=True, slots=True)
class Location:
    """Where the data is. Its `repr` holds no secret."""

    shown: str
    """The URL, redacted."""
    endpoints: tuple[Endpoint, ...]
    """The server; or nodes of a cluster; or the Sentinels."""
    is_cluster: bool = False
    """The URL says that it is a cluster. It may be one otherwise."""
    master: str | None = None
    """The master's name, which the Sentinels know. None: there are no Sentinels."""
    database: int = 0
    login: Login = field(default_factory=Login)
    sentinel_login: Login = field(default_factory=Login)
    tls: Tls | None = None
    partitions: int | None = None
    """None: as the namespace has them, or the default for a new one."""
    allow_ephemeral: bool = False

    @classmethod
    def parse(cls, url: str) -> Location:
        """Raises: `ConfigurationError` when the URL means nothing to this backend."""
        shown = redact_url(url)
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ConfigurationError(f"{shown!r} is not a URL: {error}", _FORMS) from error
        options = _Options(shown, parts.query)
        scheme, _, kind = parts.scheme.partition("+")
        path = unquote(parts.path).strip("/")
        master = path if path and not path.isdecimal() else None
        is_path = _NUMBER.fullmatch(path) if master is None else _MASTER.fullmatch(path)
        if parts.fragment or not is_path or kind not in ("", "cluster", "sentinel"):
            raise ConfigurationError(f"{shown!r} is not the URL of a Redis", _FORMS)
        credentials, _, hosts = parts.netloc.rpartition("@")
        default_port = _PORTS["sentinel" if master else "node"]
        endpoints = tuple(_endpoint(each, default_port, shown) for each in hosts.split(","))
        is_tls = scheme == "rediss"
        location = cls(
            shown=shown,
            endpoints=endpoints,
            is_cluster=kind == "cluster",
            master=master,
            database=(options.number("db", range(2**31)) or 0) if master else int(path or 0),
            login=_login(credentials),
            sentinel_login=Login(
                options.text("sentinel_username") or "default", options.text("sentinel_password")
            ),
            tls=options.tls() if is_tls else None,
            partitions=options.number("partitions", _PARTITIONS),
            allow_ephemeral=options.flag("allow_ephemeral", default=False),
        )
        options.refuse_the_rest(is_tls=is_tls)
        if kind == "sentinel" and master is None:
            raise ConfigurationError(
                f"{shown!r} names Sentinels and no master", f"end it with its name: {_FORMS}"
            )
        if location.database and master is None and (kind == "cluster" or len(endpoints) > 1):
            raise ConfigurationError(
                f"{shown!r} names a database number, and a cluster has none", f"leave it out: {_FORMS}"
            )
        if kind == "cluster" and master is not None:
            raise ConfigurationError(
                f"{shown!r} ends with a name, which only a master behind Sentinels has", _FORMS
            )
        return location


class _Options:
    """The query of a URL, taken one by one."""

    def __init__(self, shown: str, query: str) -> None:
        self._shown = shown
        self._left = dict(parse_qsl(query, keep_blank_values=True))

    def text(self, name: str) -> str | None:
        return self._left.pop(name, None)

    def number(self, name: str, allowed: range) -> int | None:
        text = self._left.pop(name, None)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS and int(text) in allowed):
            raise ConfigurationError(
                f"{self._shown!r}: {name} is a number from {allowed[0]} to {allowed[-1]}", f"correct {name}"
            )
        return int(text)

    def flag(self, name: str, *, default: bool) -> bool:
        text = self._left.pop(name, None)
        if text is None:
            return default
        if text.lower() not in _YES_NO:
            raise ConfigurationError(f"{self._shown!r}: {name} is 1 or 0", f"correct {name}")
        return _YES_NO[text.lower()]

    def tls(self) -> Tls:
        demanded = (self._left.pop("ssl_cert_reqs", None) or "required").lower()
        if demanded not in ("required", "none"):
            raise ConfigurationError(
                f"{self._shown!r}: ssl_cert_reqs is required or none", "leave it out to have it checked"
            )
        return Tls(
            ca_certs=self.text("ssl_ca_certs"),
            certfile=self.text("ssl_certfile"),
            keyfile=self.text("ssl_keyfile"),
            check_certificate=demanded == "required",
            check_hostname=self.flag("ssl_check_hostname", default=True),
        )

    def refuse_the_rest(self, *, is_tls: bool) -> None:
        if not self._left:
            return
        wrong = ", ".join(sorted(self._left))
        if not is_tls and any(name in _TLS_OPTIONS for name in self._left):
            raise ConfigurationError(
                f"{self._shown!r} has options of TLS and does not use it: {wrong}", "write rediss://"
            )
        raise ConfigurationError(f"{self._shown!r} has options that do not exist: {wrong}", _FORMS)


def _login(credentials: str) -> Login:
    user, colon, password = credentials.partition(":")
    return Login(unquote(user) or "default", unquote(password) if colon else None)


def _endpoint(text: str, default_port: int, shown: str) -> Endpoint:
    host, bracket, port = text.rpartition("]")
    if bracket:
        host, port = host.removeprefix("["), port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    if not (
        port == "" or (port.isascii() and port.isdecimal() and len(port) <= _DIGITS and 0 < int(port) < 2**16)
    ):
        raise ConfigurationError(f"{shown!r} has a port that is none", _FORMS)
    if not host and text:
        raise ConfigurationError(f"{shown!r} has a port without a host", _FORMS)
    return Endpoint(unquote(host) or "localhost", int(port) if port else default_port)
