"""`Courier`: carries what lies in an outbox to those whom it is for.

    commit ─▶ outbox ─▶ deliver ─▶ create / post / watch / tell / emit / listen ─▶ taken off the outbox
                 └────── relay ────────────▲

Delivering is idempotent: an execution is created once by its id, a message counts once by its id, an event is stored
once by its name and id, an end is told once for each time that somebody began to watch, and an event once for each time
that somebody began to listen. So a letter is taken off only after it was delivered, and whoever dies between the two
leaves nothing worse than a letter to be delivered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, final

from durable.backends.redis import events, scripts
from durable.backends.redis.effects import Effects
from durable.backends.redis.events import Emitted
from durable.backends.redis.gates import Passing
from durable.backends.redis.keys import Partition
from durable.backends.redis.letters import (
    Ended,
    Heard,
    Hearer,
    Letter,
    Rest,
    told,
    unpack_letter,
)
from durable.backends.redis.records import (
    as_bytes,
    as_int,
    as_list,
    unpack_outcome,
)
from durable.backends.redis.teller import Teller
from durable.backends.redis.turnstile import Turnstile
from durable.backends.redis.verbs import Verbs
from durable.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from durable.protocols import (
    Created,
    Emit,
    Exists,
    Free,
    Listen,
    Message,
    NewExecution,
    NotPosted,
    Outcome,
    Post,
    Posted,
    Receipt,
    Seek,
    Start,
    Unlisten,
    Watch,
)

PASSING: Final = (StoreUnavailable, StoreFull, OutcomeUnknown)
"""What keeps a letter from being delivered, until the next relay."""
_PAGES: Final = 8


@final
class Courier:
    def __init__(self, verbs: Verbs) -> None:
        self.verbs = verbs
        self._teller = Teller(verbs)

    @property
    def turnstile(self) -> Turnstile:
        return Turnstile(self.verbs, self.follow, self._post)

    async def follow(self, letters: Sequence[Letter], effects: Effects) -> None:
        """Deliver what a delivery has put into an outbox."""
        if letters:
            effects.read += await self.deliver(letters, effects)

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
        found = await _side_by_side([self._try(unit, effects) for unit in units])
        started = {unit[0].to for unit in units if isinstance(unit[0].content, Start)}
        done: list[Letter] = []
        for unit, result in zip(units, found, strict=True):
            to = unit[0].to
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
            settling = [
                self._settle(letter.content, hearer)
                for letter in letters
                if isinstance(letter.content, Heard)
                for hearer in letter.content.hearers
            ]
            if settling:
                await asyncio.gather(*settling)
            await self.verbs.wire.call("XDEL", part.outbox, *entry_ids, key=part.outbox)

    async def clear(self, effects: Effects) -> None:
        """Take off what deliveries have put into outboxes, and was delivered."""
        read, effects.read = effects.read, []
        by_part: dict[int, list[Letter]] = {}
        for letter in read:
            by_part.setdefault(letter.part.number, []).append(letter)
        await asyncio.gather(*[self.take_off(letters[0].part, letters) for letters in by_part.values()])

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
            await self.clear(effects)
            if len(letters) < limit or done:
                return now, len(letters) == limit
            after = f"({letters[-1].entry_id.decode()}"
        return now, False

    async def _try(self, unit: Sequence[Letter], effects: Effects) -> object:
        """As `_deliver`; one of `PASSING` if that has failed."""
        try:
            return await self._deliver(unit, effects)
        except PASSING as error:
            return error

    async def _deliver(self, unit: Sequence[Letter], effects: Effects) -> object:
        """None when it arrived; `_NOBODY` when there is no such execution. Raises: one of `PASSING`."""
        letter = unit[0]
        match letter.content:
            case Start(spec):
                return await self._start(spec, letter, unit[1:], effects)
            case Post(to, message):
                posted = await self._post(to, message, effects)
                if isinstance(posted, NotPosted) and posted.state is None:
                    return _NOBODY
            case Watch():
                return await self._watch(letter, letter.content, effects)
            case Ended(target, outcome, watchers):
                await _side_by_side(
                    [
                        self._tell(watcher, Watch(target, step_id), token, outcome, effects)
                        for watcher, step_id, token in watchers
                    ]
                )
            case Emit():
                # Of a letter that no execution has sent, the incarnation is the operation.
                op_id = letter.token if letter.sender else letter.incarnation
                await self.emit(letter.content, op_id, effects)
            case Listen():
                await self.follow(await events.listen(self.verbs, letter, letter.content), effects)
            case Unlisten(event, step_id):
                await events.unlisten(self.verbs, event, f"{letter.sender}\0{step_id}", letter.entry_id)
            case Heard():
                await asyncio.gather(
                    *[self._tell_hearer(letter.content, hearer, effects) for hearer in letter.content.hearers]
                )
            case Rest():
                await self.follow(await events.tell_rest(self.verbs, letter.content), effects)
            case Passing():
                for each in unit:
                    assert isinstance(each.content, Passing)
                    await self.turnstile.deliver(each.content, effects)
            case Seek() | Free():
                raise TypeError(letter.content)
        return None

    async def emit(self, event: Emit, op_id: str, effects: Effects) -> Receipt:
        """Store an event, and deliver what it has for others."""
        emitted: Emitted = await events.emit(self.verbs, event, op_id)
        await self.follow(emitted.letters, effects)
        started = emitted.started
        if not emitted.duplicate:
            started = effects.names(started, emitted.places)
        return Receipt((*started, *emitted.waited), emitted.duplicate)

    async def _post(
        self, to: str, message: Message, effects: Effects, heard: tuple[str, str, str] | None = None
    ) -> Posted | NotPosted:
        posted, letters = await self.verbs.post(to, message, heard)
        if isinstance(posted, Posted):
            effects.touched[to] = None
            if posted.doorbell is not None:
                effects.doorbells.append(posted.doorbell)
            await self.follow(letters, effects)
        return posted

    async def _tell_hearer(self, heard: Heard, hearer: Hearer, effects: Effects) -> None:
        """Whoever listens no more gets nothing, and what listens again has another token."""
        where = (f"{heard.event}\0{hearer.step_id}", hearer.token, "1" if hearer.to_look else "")
        await self._post(hearer.execution_id, heard.message(hearer), effects, where)

    async def _settle(self, heard: Heard, hearer: Hearer) -> None:
        """Let the events know that the word has come to one who listened, and knows itself what it listens for."""
        listener = f"{hearer.execution_id}\0{hearer.step_id}"
        if hearer.to_look:
            await events.looked(self.verbs, heard.event, listener, hearer.token, heard.seq)
        else:
            await events.unlisten(self.verbs, heard.event, listener, hearer.token)

    async def _start(
        self, spec: NewExecution, letter: Letter, watches: Sequence[Letter], effects: Effects
    ) -> object:
        """Together with its first watch, if it has one: most children are started by who waits for them."""
        for watch in watches:
            assert isinstance(watch.content, Watch)
            watcher = f"{watch.sender}\0{watch.content.step_id}"
            started = await self.verbs.start(spec, letter.token, watcher, watch.token)
            if not started.is_new:
                await self._watch(watch, watch.content, effects)
            break
        else:
            started = await self.verbs.start(spec, letter.token)
        created, place = started.answer, letter.place
        if not isinstance(created, Exists) and created.doorbell is not None:
            effects.doorbells.append(created.doorbell)
        if isinstance(created, Created):
            effects.doorbells += created.doorbells
        if place is not None:
            effects.named[place] = created.id
            if created.id != spec.id:
                await events.name_start(self.verbs, place, created.id)
        await self.follow(started.letters, effects)
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
        answer = await self._teller.tell(watcher, token, told(watch.target, watch.step_id, outcome))
        if answer.is_new:
            effects.touched[watcher] = None
            effects.doorbells += answer.doorbells
            await self.follow(answer.letters, effects)


_NOBODY: Final = object()


async def _side_by_side(calls: Sequence[Coroutine[Any, Any, object]]) -> Sequence[object]:
    """What they give, in their order. One alone needs no task."""
    return [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)


def _units(letters: Sequence[Letter]) -> Sequence[Sequence[Letter]]:
    """What is delivered in one go: a start with the first watch of what it starts; what gates are to hear about one
    execution or step, in its order; and any other letter."""
    units: list[list[Letter]] = []
    starts: dict[str, list[Letter]] = {}
    passing: dict[str, list[Letter]] = {}
    for letter in letters:
        if isinstance(letter.content, Passing):
            unit = passing.get(letter.to)
            if unit is None:
                unit = passing[letter.to] = []
                units.append(unit)
            unit.append(letter)
            continue
        start = starts.get(letter.to)
        if isinstance(letter.content, Watch) and start is not None and len(start) == 1:
            start.append(letter)
        else:
            units.append([letter])
            if isinstance(letter.content, Start):
                starts.setdefault(letter.to, units[-1])
    return units
