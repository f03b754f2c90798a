"""`Courier`: carries what lies in an outbox to those whom it is for.

    commit ─▶ outbox ─▶ deliver ─▶ create / post / watch / tell ─▶ taken off the outbox
                 └────── relay ────────────▲

Delivering is idempotent: an execution is created once by its id, a message counts once by its id, an end is told once
for each time that somebody began to watch. So a letter is taken off only after it was delivered, and whoever dies
between the two leaves nothing worse than a letter to be delivered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

from durable.backends.redis import scripts
from durable.backends.redis.keys import Partition
from durable.backends.redis.letters import Ended, Letter, told, unpack_letter
from durable.backends.redis.records import (
    as_bytes,
    as_int,
    as_list,
    pack_message,
    unpack_doorbell,
    unpack_outcome,
)
from durable.backends.redis.verbs import Verbs
from durable.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from durable.protocols import Created, Doorbell, Emit, NewExecution, Outcome, Post, Posted, Start, Watch

PASSING: Final = (StoreUnavailable, StoreFull, OutcomeUnknown)
"""What keeps a letter from being delivered, until the next relay."""
_PAGES: Final = 8


@final
@dataclass(slots=True)
class Effects:
    """What deliveries mean for others: whom to ring and to hint."""

    doorbells: list[Doorbell] = field(default_factory=list[Doorbell])
    touched: dict[str, None] = field(default_factory=dict[str, None])


@final
@dataclass(frozen=True, slots=True)
class Courier:
    verbs: Verbs

    async def deliver(
        self, letters: Sequence[Letter], effects: Effects, blocked: set[str] | None = None
    ) -> Sequence[Letter]:
        """Deliver in order, all in one pipeline; the letters that nobody needs any more.

        The others stay: their addressee has no room, or could not be reached, and then none of the letters behind
        goes to it either. `blocked` are those, from letters before these. Without it there may be older letters,
        and nobody is taken for missing: whom they are to start may not be there yet.
        """
        is_oldest = blocked is not None
        blocked = set() if blocked is None else blocked
        units = _units(letters)
        found = await asyncio.gather(
            *[self._deliver(unit, effects) for unit in units], return_exceptions=True
        )
        started = {unit[0].to for unit in units if isinstance(unit[0].content, Start)}
        done: list[Letter] = []
        for unit, result in zip(units, found, strict=True):
            to = unit[0].to
            if isinstance(result, BaseException) and not isinstance(result, PASSING):
                raise result
            if result is not None and result is not _NOBODY:
                blocked.add(to)
            if to in blocked:
                continue
            if result is _NOBODY and to in started:
                # It overtook the start that it follows, which had to be sent twice.
                done += await self.deliver(unit, effects, blocked)
            elif result is None or (is_oldest and await self._tell_missing(unit[0], effects)):
                done += unit
        return done

    async def take_off(self, part: Partition, letters: Sequence[Letter]) -> None:
        if letters:
            entry_ids = [letter.entry_id for letter in letters]
            await self.verbs.wire.call("XDEL", part.outbox, *entry_ids, key=part.outbox)

    async def read(
        self, part: Partition, limit: int = 100, *, after: str = "-"
    ) -> tuple[int, Sequence[Letter]]:
        """The time where a partition is, and the oldest letters in its outbox."""
        now, entries = as_list(await self.verbs.wire.run(scripts.OUTBOX, (part.outbox,), (after, limit)))
        return as_int(now), [unpack_letter(part, entry) for entry in as_list(entries)]

    async def relay(self, part: Partition, limit: int, effects: Effects) -> tuple[int, bool]:
        """Deliver what lies in the outbox of a partition, from the oldest on: the time there, and is there more?

        A letter that cannot be delivered stays, and those behind it to others are delivered all the same.
        """
        now, after, blocked = 0, "-", set[str]()
        for _ in range(_PAGES):
            now, letters = await self.read(part, limit, after=after)
            done = await self.deliver(letters, effects, blocked)
            await self.take_off(part, done)
            if len(letters) < limit or done:
                return now, len(letters) == limit
            after = f"({letters[-1].entry_id.decode()}"
        return now, False

    async def _deliver(self, unit: Sequence[Letter], effects: Effects) -> object:
        """None when it arrived; `_NOBODY` when there is no such execution. Raises: one of `PASSING`."""
        letter = unit[0]
        match letter.content:
            case Start(spec):
                return await self._start(spec, letter, unit[1:], effects)
            case Post(to, message):
                posted, letters = await self.verbs.post(to, message)
                if isinstance(posted, Posted):
                    effects.touched[to] = None
                    if posted.doorbell is not None:
                        effects.doorbells.append(posted.doorbell)
                    done = await self.deliver(letters, effects)
                    await self.take_off(self.verbs.space.of(to).part, done)
                elif posted.state is None:
                    return _NOBODY
            case Watch():
                return await self._watch(letter, letter.content, effects)
            case Ended(target, outcome, watchers):
                await asyncio.gather(
                    *[
                        self._tell(watcher, Watch(target, step_id), token, outcome, effects)
                        for watcher, step_id, token in watchers
                    ]
                )
            case Emit(event_id, name, data):
                events = self.verbs.space.partition_of(event_id).events
                packed = b"%d %b%b" % (len(name.encode()), name.encode(), data)
                await self.verbs.wire.call("HSETNX", events, event_id, packed, key=events, op_id=event_id)
        return None

    async def _start(
        self, spec: NewExecution, letter: Letter, watches: Sequence[Letter], effects: Effects
    ) -> object:
        """Together with its first watch, if it has one: most children are started by who waits for them."""
        for watch in watches:
            assert isinstance(watch.content, Watch)
            watcher = f"{watch.sender}\0{watch.content.step_id}"
            created, is_new = await self.verbs.start(spec, letter.token, watcher, watch.token)
            if not is_new:
                await self._watch(watch, watch.content, effects)
            break
        else:
            created = await self.verbs.create(spec, letter.token)
        if isinstance(created, Created) and created.doorbell is not None:
            effects.doorbells.append(created.doorbell)
        return None

    async def _watch(self, letter: Letter, watch: Watch, effects: Effects) -> object:
        keys = self.verbs.space.of(watch.target)
        watcher = f"{letter.sender}\0{watch.step_id}"
        code, *rest = as_list(
            await self.verbs.wire.run(scripts.WATCH, keys.watch, (watcher, letter.token), op_id=letter.token)
        )
        if code == b"-":
            return _NOBODY
        if code == b"c":
            status, workflow, attempt, data = rest
            attempt = attempt if isinstance(attempt, int) else as_bytes(attempt)
            outcome = unpack_outcome(as_bytes(status), as_bytes(workflow), attempt, as_bytes(data))
            await self._tell(letter.sender, watch, letter.token, outcome, effects)
        return None

    async def _tell_missing(self, letter: Letter, effects: Effects) -> bool:
        """Let who watches nobody know so; could it be told?"""
        if isinstance(letter.content, Watch):
            missing = Outcome(None, "", 0, b"")
            try:
                await self._tell(letter.sender, letter.content, letter.token, missing, effects)
            except PASSING:
                return False
        return True

    async def _tell(self, watcher: str, watch: Watch, token: str, outcome: Outcome, effects: Effects) -> None:
        message = told(watch.target, watch.step_id, outcome)
        _, _, incarnation = token.partition(" ")
        code, *rest = as_list(
            await self.verbs.wire.run(
                scripts.TELL,
                self.verbs.space.of(watcher).tell,
                (watcher, token, incarnation, message.id, pack_message(message)),
                op_id=token,
            )
        )
        if code == b"p":
            effects.touched[watcher] = None
            if rest[0]:
                effects.doorbells.append(unpack_doorbell(as_bytes(rest[0])))


_NOBODY: Final = object()


def _units(letters: Sequence[Letter]) -> Sequence[Sequence[Letter]]:
    """What is delivered in one go: a start with the first watch of what it starts, and any other letter."""
    units: list[list[Letter]] = []
    starts: dict[str, list[Letter]] = {}
    for letter in letters:
        start = starts.get(letter.to)
        if isinstance(letter.content, Watch) and start is not None and len(start) == 1:
            start.append(letter)
        else:
            units.append([letter])
            if isinstance(letter.content, Start):
                starts.setdefault(letter.to, units[-1])
    return units
