"""What names, namespaces, keys, tags and priorities may be. Whatever comes from outside is held to it first of all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import cast

from durable._error import InvalidInput, shown

_NAME = re.compile(r"[A-Za-z0-9._:/#\[\]-]{1,200}")
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,100}")
_LONGEST_NAME = 200
_LONGEST_KEY = 512
_MOST_TAGS, _LONGEST_TAG = 50, 200
_LONGEST_ACTOR = 200
_GREATEST_PRIORITY = 2**31 - 1
_RESERVED = ("__", "rollback:", "#")


def check_name(name: str, what: str) -> str:
    """The name itself: of a workflow, step, signal, event, queue or schedule, or an execution's id.

    Raises:
        InvalidInput: it is not 1 to 200 letters, digits and `._:/#[]-`.
    """
    return _matched(_NAME, name, what, "use 1 to 200 of the characters A-Z a-z 0-9 . _ : / # [ ] -")


def check_own_name(name: str, what: str) -> str:
    """The name itself, when it is one that users may give.

    Raises:
        InvalidInput: as `check_name`, or it starts with `__`, `rollback:` or `#`, which are reserved.
    """
    if type(name) is str and len(name) <= _LONGEST_NAME and _is_own_name(name):
        return name
    name = check_name(name, what)
    if name.startswith(_RESERVED):
        raise InvalidInput(
            f"{what} must not start with '__', 'rollback:' or '#', which are reserved: {shown(name)}",
            "choose a name that starts otherwise",
        )
    return name


@lru_cache(maxsize=4096)
def _is_own_name(name: str) -> bool:
    # A workflow asks for the same few steps again and again.
    return _NAME.fullmatch(name) is not None and not name.startswith(_RESERVED)


def check_namespace(namespace: str) -> str:
    """The namespace itself.

    Raises:
        InvalidInput: it is not 1 to 100 letters, digits and `._-`.
    """
    return _matched(_NAMESPACE, namespace, "namespace", "use 1 to 100 of the characters A-Z a-z 0-9 . _ -")


def check_key(key: str) -> str:
    """The key itself.

    Raises:
        InvalidInput: it is not 1 to 512 printable characters.
    """
    if not (_is_text(key) and 1 <= len(key) <= _LONGEST_KEY and key.isprintable()):
        raise InvalidInput(
            f"key must be 1 to {_LONGEST_KEY} printable characters, not {shown(key)}",
            "make it from an id of your own, such as 'order:42'",
        )
    return key


def check_actor(by: str) -> str:
    """The name itself of who does something, which may be empty.

    Raises:
        InvalidInput: it is not up to 200 printable characters.
    """
    if not (_is_text(by) and len(by) <= _LONGEST_ACTOR and by.isprintable()):
        raise InvalidInput(
            f"by must be up to {_LONGEST_ACTOR} printable characters, not {shown(by)}",
            "say who it is, such as by='ada'",
        )
    return by


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The one of what is known that is spelled most alike, as a question with a space behind it, for the beginning of
    a hint; nothing if none is."""
    close = get_close_matches(name, [each for each in known if each != name], n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def check_tags(tags: object) -> Mapping[str, str]:
    """The tags themselves.

    Raises:
        InvalidInput: they are not a mapping of at most 50 printable texts to others, each up to 200 characters.
    """
    given: object = tags
    pairs = list(cast("Mapping[object, object]", tags).items()) if isinstance(tags, Mapping) else None
    if pairs is None or len(pairs) > _MOST_TAGS or not all(_is_tag(part) for pair in pairs for part in pair):
        raise InvalidInput(
            f"tags must map at most {_MOST_TAGS} printable texts to others, each of up to {_LONGEST_TAG} characters, "
            f"not {shown(given)}",
            "write tags={'region': 'eu'}; put larger things into the input",
        )
    return cast("Mapping[str, str]", tags)


def check_priority(priority: object) -> int:
    """The priority itself.

    Raises:
        InvalidInput: it is no whole number that 32 bits hold.
    """
    whole = isinstance(priority, int) and not isinstance(priority, bool)
    if not whole or abs(cast("int", priority)) > _GREATEST_PRIORITY:
        raise InvalidInput(
            f"priority must be a whole number within 32 bits, not {shown(priority)}",
            "0 is the usual one; greater goes first",
        )
    return cast("int", priority)


def _is_tag(part: object) -> bool:
    return isinstance(part, str) and len(part) <= _LONGEST_TAG and part.isprintable()


def _matched(pattern: re.Pattern[str], name: str, what: str, hint: str) -> str:
    if not (_is_text(name) and pattern.fullmatch(name)):
        raise InvalidInput(f"{what} must match {pattern.pattern}, not {shown(name)}", hint)
    # A plain str also of an enumeration's member, whose text in an f-string is another.
    return str.__str__(name)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
