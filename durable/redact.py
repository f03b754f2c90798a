"""URLs without their secrets, for logs, errors, traces and pages."""

from __future__ import annotations

import re
from urllib.parse import unquote

_HIDDEN = "***"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PLAIN_HOST = re.compile(r"(\[[^\[\]]*\]|[^:]*)(:[0-9]*)?")
_SECRET_KEY = re.compile(r"pass|pwd|secret|token|key|auth|cred|sig(?!nal)|sas", re.IGNORECASE)


def redact_url(url: str) -> str:
    """`url` with its password and the secrets of its query hidden, and on one printable line.

    Never raises. Where a malformed URL leaves open what is a password, all that might be one is hidden.
    """
    url = "".join(character if character.isprintable() else "�" for character in url)
    scheme = match[0] if (match := _SCHEME.match(url)) else ""
    rest = url[len(scheme) :]
    authority, *_ = re.split(r"[/?#]", rest, maxsplit=1)
    tail = rest[len(authority) :]
    before, at, _ = tail.partition("@")
    if at and (authority or ":" in before):
        return scheme + _HIDDEN  # a "/" in the password, perhaps: nobody can tell where it ends
    return scheme + _redact_authority(authority, is_url=bool(scheme)) + _redact_query(tail)


def _redact_authority(authority: str, *, is_url: bool) -> str:
    credentials, at, host = authority.rpartition("@")
    if at:
        user, colon, _ = credentials.partition(":")
        return f"{user}:{_HIDDEN}@{host}" if colon else f"{_HIDDEN}@{host}"  # a lone name may be a token
    if not is_url:
        return authority
    return ",".join(
        # What stands in the place of a port and is no number: a password whose "@host" was forgotten.
        host if _PLAIN_HOST.fullmatch(host) else f"{host.partition(':')[0]}:{_HIDDEN}"
        for host in authority.split(",")
    )


def _redact_query(tail: str) -> str:
    path, *parts = re.split(r"([?&;#])", tail)
    redacted = [path]
    is_hidden = False
    for separator, field in zip(parts[::2], parts[1::2], strict=True):
        key, equals, value = field.partition("=")
        # A field without "=" after a secret is the rest of that secret, which held a separator.
        is_hidden = bool(_SECRET_KEY.search(unquote(key))) if equals else is_hidden and separator != "?"
        hidden = f"{key}={_HIDDEN}" if equals and value else _HIDDEN
        redacted += [separator, hidden if is_hidden and field else field]
    return "".join(redacted)
