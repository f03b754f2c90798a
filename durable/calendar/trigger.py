"""What every kind of calendar answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice


class Trigger(ABC):
    """Says at which instants a schedule fires. It does not change, and knows nothing of what has fired."""

    __slots__ = ()

    @abstractmethod
    def after(self, instant_ms: int) -> int | None:
        """The first instant after `instant_ms`, never that one itself. None when there is none before the year 9999."""

    def fires(self, after_ms: int, until_ms: int | None = None, limit: int | None = None) -> Iterator[int]:
        """The instants after `after_ms` and up to `until_ms`, which counts among them: at most `limit`, in order."""
        return islice(self._fires(after_ms, until_ms), limit)

    def latest(self, after_ms: int, until_ms: int) -> int | None:
        """The last of `fires(after_ms, until_ms)`, or None. It costs some forty looks ahead, however many there are."""
        found = self.after(after_ms)
        if found is None or found > until_ms:
            return None
        low, high = found, until_ms
        while low < high:  # `low` fires, and nothing fires after `high`
            middle = (low + high) // 2
            found = self.after(middle)
            if found is not None and found <= until_ms:
                low = found
            else:
                high = middle
        return low

    def _fires(self, after_ms: int, until_ms: int | None) -> Iterator[int]:
        at = self.after(after_ms)
        while at is not None and (until_ms is None or at <= until_ms):
            yield at
            at = self.after(at)
