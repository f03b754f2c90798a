"""Texts as PostgreSQL can keep them: it refuses U+0000, which becomes two characters here, and so does U+0001.

Nothing else is changed, and texts are ordered, and begin with each other, as they did before.
"""

from __future__ import annotations

import re
from typing import Final

_PAIR: Final = re.compile("\1([\1\2])")


def stored(text: str) -> str:
    """As it goes into the database."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\1\2").replace("\0", "\1\1")
    return text


def given(text: str) -> str:
    """As it was before it was stored."""
    if "\1" in text:
        return _PAIR.sub(lambda pair: "\0" if pair[1] == "\1" else "\1", text)
    return text


def stored_or_none(text: str | None) -> str | None:
    return None if text is None else stored(text)


def given_or_none(text: str | None) -> str | None:
    return None if text is None else given(text)
