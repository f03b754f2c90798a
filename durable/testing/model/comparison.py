"""`differences`: where an answer of a store is not what the reference says, each by its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Final, cast

HINTS: Final = frozenset({"doorbells", "touched"})
"""They may be told at any time and in any order; `Pair` compares them by itself."""


def differences(actual: object, expected: object, slack_ms: int, path: str = "answer") -> Iterator[str]:
    """A sentence for each. Instants may be later than expected by up to `slack_ms`."""
    if is_dataclass(expected) and not isinstance(expected, type):
        if type(actual) is not type(expected):
            yield f"{path} is {actual!r}, not {expected!r}"
            return
        for each in fields(expected):
            if each.compare and each.name not in HINTS:
                values = getattr(actual, each.name), getattr(expected, each.name)
                yield from differences(*values, slack_ms, f"{path}.{each.name}")
    elif isinstance(expected, Mapping):
        if not isinstance(actual, Mapping) or actual.keys() != expected.keys():
            yield f"{path} is {actual!r}, not {expected!r}"
            return
        found = cast("Mapping[object, object]", actual)
        for key, value in cast("Mapping[object, object]", expected).items():
            yield from differences(found[key], value, slack_ms, f"{path}[{key!r}]")
    elif isinstance(expected, Sequence) and not isinstance(expected, str | bytes):
        items = list(cast("Sequence[object]", actual)) if isinstance(actual, Sequence) else None
        wanted = list(cast("Sequence[object]", expected))
        if items is None or len(items) != len(wanted):
            yield f"{path} is {actual!r}, not {expected!r}"
            return
        for number, (one, other) in enumerate(zip(items, wanted, strict=True)):
            yield from differences(one, other, slack_ms, f"{path}[{number}]")
    elif isinstance(expected, int) and isinstance(actual, int) and _is_instant(path):
        if not expected <= actual <= expected + slack_ms:
            yield f"{path} is {actual}, {actual - expected:+} ms from what it should be"
    elif type(actual) is not type(expected) or actual != expected:
        yield f"{path} is {actual!r}, not {expected!r}"


def _is_instant(path: str) -> bool:
    name = path.rpartition(".")[2]
    return name.endswith("_at") or name in {"at", "now", "until"}
