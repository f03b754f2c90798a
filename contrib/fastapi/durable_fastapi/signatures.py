"""Who has sent a delivery, and that nobody has changed or kept it: the signatures of webhooks."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, Protocol, final

from typing_extensions import override

from durable import ConfigurationError

_SHORTEST_SECRET: Final = 16
_PREFIX: Final = "whsec_"
_MOST_SIGNATURES: Final = 10


class BadSignature(Exception):
    """A delivery is not signed as it must be. The text is for the log, and not for who has sent it."""


class Signatures(Protocol):
    """How deliveries are signed. One of another provider's kind is a class of your own with this method."""

    def check(self, headers: Mapping[str, str], body: bytes, now_s: float) -> str:
        """The id of the delivery, which is the same when it is delivered again.

        `headers` are found by their names in lower case; `now_s` is the time, in seconds since the epoch.

        Raises:
            BadSignature: it is not signed, by nobody who has the secret, or too long ago.
        """
        ...


@final
class StandardWebhooks(Signatures):
    """Signatures of the Standard Webhooks specification: HMAC-SHA256 of id, timestamp and body.

    `secrets` are one or more, `whsec_...` as providers give them, so that one can be replaced while both are in use.
    A delivery that is signed more than `tolerance_s` seconds before now, or after, is refused.

    Raises:
        ConfigurationError: there is no secret, or one is too short or no base64.
    """

    def __init__(self, *secrets: str, tolerance_s: float = 300) -> None:
        if not secrets:
            raise ConfigurationError("webhooks need a secret", "pass the one that the sender has: whsec_...")
        self._keys: Sequence[bytes] = [_key(secret) for secret in secrets]
        self._tolerance_s = tolerance_s

    @override
    def check(self, headers: Mapping[str, str], body: bytes, now_s: float) -> str:
        id, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not id or not (sent_at.isascii() and sent_at.isdigit() and len(sent_at) <= 12):
            raise BadSignature("webhook-id or webhook-timestamp is missing or malformed")
        if abs(now_s - int(sent_at)) > self._tolerance_s:
            raise BadSignature(f"the delivery was signed {now_s - int(sent_at):.0f} s ago")
        given = [
            signature.encode(errors="replace")
            for version, _, signature in (
                each.partition(",")
                for each in headers.get("webhook-signature", "").split(" ")[:_MOST_SIGNATURES]
            )
            if version == "v1"
        ]
        wanted = [_signature(key, id, sent_at, body) for key in self._keys]
        if not any(hmac.compare_digest(one, other) for one in given for other in wanted):
            raise BadSignature("no signature is made with a secret that is known here")
        return id

    def sign(self, id: str, body: bytes, at_s: float) -> dict[str, str]:
        """The headers of a delivery that is sent from here at this time: for tests, and for webhooks of your own."""
        sent_at = str(int(at_s))
        signature = _signature(self._keys[0], id, sent_at, body).decode()
        return {"webhook-id": id, "webhook-timestamp": sent_at, "webhook-signature": f"v1,{signature}"}

    @override
    def __repr__(self) -> str:
        return f"<StandardWebhooks with {len(self._keys)} secrets>"


def _signature(key: bytes, id: str, sent_at: str, body: bytes) -> bytes:
    signed = b".".join((id.encode(errors="replace"), sent_at.encode(), body))
    return b64encode(hmac.digest(key, signed, sha256))


def _key(secret: str) -> bytes:
    try:
        key = b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (NotBase64, ValueError):
        raise ConfigurationError(
            "a webhook's secret is no base64", "pass it as the sender shows it: whsec_..."
        ) from None
    if len(key) < _SHORTEST_SECRET:
        raise ConfigurationError(
            f"a webhook's secret has {len(key)} bytes, and must have {_SHORTEST_SECRET} or more",
            "make one: 'whsec_' + base64.b64encode(secrets.token_bytes(32)).decode()",
        )
    return key
