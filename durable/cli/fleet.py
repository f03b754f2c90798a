"""The worker processes of a supervisor: how many are wanted, and those that there are."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_SETTLED_S: Final = 60.0
"""After so long a worker that ends has not ended because of how it began."""


@dataclass(frozen=True, slots=True)
class Load:
    """What there is to do for the workers of a supervisor."""

    ready: int
    """Executions that wait for a worker."""
    busy: int
    """Slots that are held."""
    oldest_s: float
    """For which the first of the ready ones is."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How many workers a load is to have."""

    least: int
    most: int
    slots: int
    """Of each worker."""
    patience_s: float
    """After which what is ready should have found a worker, whatever the number of slots says."""

    def wanted(self, load: Load, running: int) -> int:
        """Enough to have a slot for all; and one more than there are, while something waits for too long."""
        wanted = -(-(load.ready + load.busy) // self.slots)
        if load.ready and load.oldest_s > self.patience_s:
            wanted = max(wanted, running + 1)
        return min(max(wanted, self.least), self.most)


@final
@dataclass(eq=False)
class Member:
    """A worker process."""

    process: asyncio.subprocess.Process
    since: float
    is_leaving: bool = False
    busy: int = 0
    """As far as is known."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def drain(self) -> None:
        """Called again: at once."""
        # Two of one kind that come close together are one.
        number = signal.SIGINT if self.is_leaving else signal.SIGTERM
        self.is_leaving = True
        if self.process.returncode is None:
            self.process.send_signal(number)


@final
@dataclass
class Fleet:
    """Starts and drains workers, and knows of those that died.

    They are no part of the terminal's foreground, so that a Ctrl-C there reaches the supervisor alone; and each ends by
    itself when its supervisor is gone, which it notices at the end of its stdin.
    """

    arguments: Sequence[str]
    """Of `durable worker`."""
    say: Callable[[str], object]
    members: list[Member] = field(default_factory=list[Member])
    _watches: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _pause_s: float = _FIRST_PAUSE_S
    _not_before: float = 0.0

    @property
    def staying(self) -> list[Member]:
        """Those that were not told to leave."""
        return [member for member in self.members if not member.is_leaving]

    async def grow(self, wanted: int, why: str) -> None:
        """Start workers until there are so many; none soon after one has died."""
        while len(self.staying) < wanted and asyncio.get_running_loop().time() >= self._not_before:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "durable.cli", "worker", "--until-eof", *self.arguments),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            member = Member(process, asyncio.get_running_loop().time())
            self.members.append(member)
            self.say(f"started worker {member.pid}, {len(self.staying)} of {wanted}: {why}")
            watch = asyncio.create_task(self._watch(member))
            self._watches.add(watch)
            watch.add_done_callback(self._watches.discard)

    def shrink(self, wanted: int) -> None:
        """Drain the least busy until there are so many."""
        for member in sorted(self.staying, key=lambda member: member.busy)[: len(self.staying) - wanted]:
            self.say(f"draining worker {member.pid}")
            member.drain()

    def drain(self) -> None:
        """Drain all; called again: end them at once."""
        for member in self.members:
            member.drain()

    async def ended(self) -> None:
        """Come back when there is none any more."""
        if self._watches:
            await asyncio.wait(self._watches)

    async def _watch(self, member: Member) -> None:
        code = await member.process.wait()
        self.members.remove(member)
        loop = asyncio.get_running_loop()
        if member.is_leaving or code == 0:
            self.say(f"worker {member.pid} has ended")
            return
        if loop.time() - member.since > _SETTLED_S:
            self._pause_s = _FIRST_PAUSE_S
        self._not_before = loop.time() + self._pause_s
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        self.say(f"worker {member.pid} {how}; the next one in {self._pause_s:.0f} s at the earliest")
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
