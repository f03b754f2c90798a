"""`Teller`: lets executions know of the ends that they watch for.

What one of them is to be told in one turn of the loop goes in one script: of hundreds of children that end together,
their parent hears at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from durable.backends.redis import scripts
from durable.backends.redis.letters import Letter, unpack_letter
from durable.backends.redis.records import as_bytes, as_list, pack_message, unpack_doorbell
from durable.backends.redis.verbs import Verbs
from durable.backends.redis.wire import Word
from durable.protocols import Doorbell, Message

_MOST: Final = 100
"""Ends in one script."""
_WORDS: Final = 4


@final
@dataclass(frozen=True, slots=True)
class Told:
    """What became of the end that somebody was told."""

    is_new: bool
    doorbells: Sequence[Doorbell] = ()
    letters: Sequence[Letter] = ()


@final
class Teller:
    """Belongs on one event loop."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._gathering: dict[str, tuple[list[Word], asyncio.Task[Sequence[Told]]]] = {}
        """By watcher: what it is to be told next, and who will."""

    async def tell(self, watcher: str, token: str, message: Message) -> Told:
        """Tell it, unless it has been told under this token. Raises as `Wire.run`."""
        if watcher not in self._gathering:
            words: list[Word] = []
            self._gathering[watcher] = words, asyncio.create_task(self._tell_all(watcher, words))
        words, telling = self._gathering[watcher]
        place = len(words) // _WORDS
        _, _, incarnation = token.partition(" ")
        words += token, incarnation, message.id, pack_message(message)
        if place + 1 == _MOST:
            del self._gathering[watcher]
        # Others are told together with this one, whoever gives up waiting.
        return (await asyncio.shield(telling))[place]

    async def _tell_all(self, watcher: str, words: list[Word]) -> Sequence[Told]:
        # It begins when all that was ready in this turn of the loop has added its words.
        if (gathering := self._gathering.get(watcher)) is not None and gathering[0] is words:
            del self._gathering[watcher]
        keys = self._verbs.space.of(watcher)
        reply = await self._verbs.wire.run(scripts.TELL, keys.tell, (watcher, *words), op_id=str(words[0]))
        answers, bell, written = as_list(reply)
        told = [Told(answer == b"p") for answer in as_list(answers)]
        if bell or written:
            bells = (unpack_doorbell(as_bytes(bell)),) if bell else ()
            letters = [unpack_letter(keys.part, each) for each in as_list(written)]
            # They are of all that was new; one of those who told it passes them on.
            first = next(place for place, each in enumerate(told) if each.is_new)
            told[first] = Told(True, bells, letters)
        return told
