"""`Turn`: who may commit now, the driver of an attempt or one of its steps' transactions."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import final


@final
class Turn(deque["asyncio.Future[None]"]):
    """The line of transactions that want to commit. One takes the turn while no commit is under way, or waits here and
    gets it after the next one. The driver commits whenever nobody has it.
    """

    is_taken = False

    async def wait(self) -> None:
        """Wait in line: when this comes back it is taken, for the caller."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.append(mine)
        try:
            await mine
        except BaseException:
            if mine.done() and not mine.cancelled():
                self.pass_on()
            raise

    def pass_on(self) -> None:
        """Give it to the first in line, if somebody is there."""
        self.is_taken = False
        while self and not self.is_taken:
            first = self.popleft()
            if not first.done():
                self.is_taken = True
                first.set_result(None)
