"""Values in a payload by their dotted paths, and what makes two of them equal.

What is compared is the JSON that is stored: `True` is not 1 and "7" is not 7, but 7 and 7.0 are one number. An enum's
member, a UUID, a Decimal or an instant equals what is stored of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, cast

from pydantic_core import PydanticSerializationError, to_jsonable_python

from durable._error import InvalidInput, shown

Match = Mapping[str, object]
"""The values that are wanted, by their dotted paths."""

MISSING: Final = object()
_LONGEST_PATH = 200


def check_path(path: str, what: str) -> str:
    """The path itself.

    Raises:
        InvalidInput: it is no dotted path.
    """
    given = cast("object", path)
    if not isinstance(given, str) or not all(given.split(".")) or len(given) > _LONGEST_PATH:
        raise InvalidInput(f"{what} is no dotted path: {shown(given)}", 'write one such as "order.tenant_id"')
    return path


def value_at(structure: object, path: str) -> object:
    """What stands at a dotted path of plain JSON, a number picking an item of a list; `MISSING` if nothing does."""
    for part in path.split("."):
        if isinstance(structure, dict):
            structure = cast("dict[str, object]", structure).get(part, MISSING)
        elif isinstance(structure, list) and part.isdecimal():
            items = cast("list[object]", structure)
            structure = items[int(part)] if int(part) < len(items) else MISSING
        else:
            return MISSING
    return structure


def canonical(value: object) -> str:
    """One text for each value; equal values have equal texts."""
    try:
        structure = to_jsonable_python(value)
    except (PydanticSerializationError, ValueError) as error:
        raise InvalidInput(f"{shown(value)} cannot be compared with what is stored") from error
    return json.dumps(_numbers(structure), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _numbers(structure: object) -> object:
    match structure:
        case float() if structure.is_integer():
            return int(structure)
        case dict():
            return {key: _numbers(item) for key, item in cast("dict[str, object]", structure).items()}
        case list():
            return [_numbers(item) for item in cast("list[object]", structure)]
        case _:
            return structure


def check_match(match: Match, what: str) -> Match:
    """The match itself.

    Raises:
        InvalidInput: one of its paths is none, or a value that cannot be compared.
    """
    for path, value in match.items():
        check_path(path, f"a path of {what}")
        canonical(value)
    return match


def matches(payload: object, match: Match) -> bool:
    """Whether plain JSON has all these values."""
    return all(
        (found := value_at(payload, path)) is not MISSING and canonical(found) == canonical(wanted)
        for path, wanted in match.items()
    )


# ---- topics: what is compared instead of the values, where nobody looks into payloads


def shape_of(paths: Sequence[str] | Match) -> str:
    """Which values a topic is made of; empty for none."""
    return json.dumps(sorted(paths), separators=(",", ":")) if paths else ""


def topic_of(match: Match) -> str:
    """The topic of the events that have these values; empty for all events."""
    return _topic(shape_of(match), [canonical(match[path]) for path in sorted(match)]) if match else ""


def topics_in(payload: object, shapes: Sequence[str]) -> list[str]:
    """The topic that plain JSON has in each of these shapes, where it has one."""
    topics: list[str] = []
    for shape in shapes:
        values = [value_at(payload, path) for path in cast("list[str]", json.loads(shape))]
        if MISSING not in values:
            topics.append(_topic(shape, [canonical(value) for value in values]))
    return topics


def _topic(shape: str, values: Sequence[str]) -> str:
    return sha256(json.dumps([shape, *values]).encode()).hexdigest()[:32]
