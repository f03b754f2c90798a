"""The password of the brokers: nothing that a test logs, raises or prints may show it (see `tests.canary`)."""

from __future__ import annotations

from typing import Final

PASSWORD: Final = "canary-4Yq2b8-password"


def with_password(url: str) -> str:
    """The URL of a Redis that asks nobody for a password, and so takes any that is given."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://default:{PASSWORD}@{rest}"
