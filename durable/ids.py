"""Random identifiers: execution ids, claim nonces, operation ids.

One source for the whole process, seeded from the operating system and again after a fork; a simulation seeds its own.
"""

from __future__ import annotations

import os
import random
from typing import final

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u


@final
class Ids:
    """A source of identifiers. `seed` makes it reproducible; without one it is seeded by the operating system."""

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed
        self._pid = os.getpid()
        self.random = random.Random(int.from_bytes(os.urandom(32)) if seed is None else seed)

    def nonce(self) -> str:
        """128 random bits as 32 hexadecimal digits."""
        if self._seed is None and self._pid != os.getpid():
            self.__init__()  # a forked child must not repeat its parent's nonces
        return f"{self.random.getrandbits(128):032x}"

    def execution_id(self) -> str:
        """100 random bits as 20 characters that are easy to read, to type and to select."""
        bits = int(self.nonce(), 16)
        return "".join([_ALPHABET[(bits >> shift) & 31] for shift in range(0, 100, 5)])
