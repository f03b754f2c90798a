"""Values as PostgreSQL reads them in texts: composite values, arrays, and what they are made of."""

from __future__ import annotations


def literal(value: object) -> str:
    """A tuple is a composite value, a list is an array."""
    match value:
        case tuple():
            return f"({','.join(map(_part, value))})"
        case list():
            return f"{{{','.join(_quoted(literal(each)) for each in value)}}}"
        case bytes():
            return f"\\x{value.hex()}"
        case bool():
            return "t" if value else "f"
        case _:
            return str(value)


def _part(value: object) -> str:
    return "" if value is None else _quoted(literal(value))


def _quoted(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
