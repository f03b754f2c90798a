"""`Many`: rows that wait to be written together."""

from __future__ import annotations

import sqlite3
from typing import Final, final

_SIZES: Final = (64, 16, 4)


@final
class Many:
    """Rows of parameters for one statement, written 64, 16, 4 or 1 at a time.

    A long statement costs half of what its rows cost one by one, and lets go of the interpreter for longer: the event
    loop runs meanwhile.
    """

    __slots__ = ("_sizes", "_width", "values")

    def __init__(self, statement: str, width: int, single: str | None = None) -> None:
        """`statement` has `(?)` where the rows belong; a row has `width` values. `single` does the same for one row,
        if there is a cheaper way."""
        row = f"({', '.join('?' * width)})"
        self._sizes = [(size * width, statement.replace("(?)", ", ".join([row] * size))) for size in _SIZES]
        self._sizes.append((width, single or statement.replace("(?)", row)))
        self._width = width
        self.values: list[object] = []
        """Add the values of a row, all of them, at the end."""

    def write(self, db: sqlite3.Cursor) -> bool:
        """Write what waits. Whether each row was inserted or changed something."""
        values = self.values
        if not values:
            return True
        self.values = []
        changed = start = 0
        for size, statement in self._sizes:
            while len(values) - start >= size:
                db.execute(statement, values[start : start + size])
                changed += db.rowcount
                start += size
        return changed * self._width == len(values)

    def clear(self) -> None:
        self.values = []
