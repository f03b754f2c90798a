"""`Turnstile`: brings executions and steps from gate to gate, and tells them what the gates say.

    ready, held ─ letter ─▶ gate ─ passes ─▶ next gate ─ passes ─▶ admit ─▶ claimable
                             │ waits in line, is refused ───────────▶│
                             ◀────── asked in another epoch: gives back

A gate believes what it is told, and the record of the execution is the truth: whatever a gate says is compared with
the epoch in which the execution seeks, and what it has got for an epoch that is over it is told to take back. So
letters may come twice, late, or in another order, and whoever dies on the way leaves a letter in an outbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from durable.backends.redis import scripts
from durable.backends.redis.effects import Effects
from durable.backends.redis.gates import GATE_LETTERS, Passing, Word, is_given_back
from durable.backends.redis.keys import Partition
from durable.backends.redis.letters import Letter, unpack_letter
from durable.backends.redis.records import as_bytes, as_list, unpack_doorbell
from durable.backends.redis.verbs import Verbs
from durable.backends.redis.wire import Word as Argument
from durable.protocols import Gate, Message, MessageKind, Reach, WhenFull

Follow = Callable[[Sequence[Letter], Effects], Awaitable[None]]
"""Deliver what a delivery has put into an outbox."""
Post = Callable[[str, Message, Effects], Awaitable[object]]

_WHEN_FULL: Final = {WhenFull.WAIT: "w", WhenFull.REFUSE: "f", WhenFull.REPLACE: "r"}


@final
@dataclass(frozen=True, slots=True)
class Turnstile:
    verbs: Verbs
    follow: Follow
    post: Post

    async def deliver(self, passing: Passing, effects: Effects) -> None:
        match passing.word:
            case Word.SEEK:
                await self._seek(passing, effects)
            case Word.SEEK_ANEW:
                # Said twice, it does not take back what was sought after the first time.
                await self._give_back(passing, Word.GIVE_BACK_BEFORE, effects)
                await self._seek(passing, effects)
            case Word.GIVE_BACK | Word.GIVE_BACK_BEFORE | Word.END:
                await self._give_back(passing, passing.word, effects)
            case Word.LEAVE:
                await self._tell_all(passing, Word.LEAVE, passing.gates, effects)
            case Word.PASSED | Word.HELD | Word.REFUSED:
                await self._admit(passing, effects)
            case Word.REPLACED:
                gate = passing.gates[passing.at]
                cancel = Message(
                    f"replaced:{gate.name}", MessageKind.CANCEL, "cancel", gate.refusal, Reach.BLOCKED
                )
                await self.post(passing.execution_id, cancel, effects)
            case Word.LIMIT:
                await self._set_limit(passing)

    async def advance(self, name: str, part: Partition, effects: Effects) -> None:
        """Let pass who may by now."""
        await self._run(name, part, ("a", name, name.partition("|")[0], "", "", "0-0"), effects, "tick")

    async def _seek(self, passing: Passing, effects: Effects) -> None:
        gate = passing.gates[passing.at]
        await self._tell(
            passing,
            Word.SEEK,
            gate,
            effects,
            passing.order,
            int(passing.is_new),
            passing.message_id,
            passing.packed,
            passing.at,
            len(passing.gates),
            GATE_LETTERS[gate.kind],
            gate.limit,
            gate.per_ms,
            gate.burst,
            int(gate.keeps),
            _WHEN_FULL[gate.when_full],
        )

    async def _give_back(self, passing: Passing, word: Word, effects: Effects) -> None:
        """At its end all; between two claims slots that are not kept."""
        gates = [gate for gate in passing.gates if word is Word.END or is_given_back(gate)]
        await self._tell_all(passing, word, gates, effects)

    async def _tell_all(self, passing: Passing, word: Word, gates: Sequence[Gate], effects: Effects) -> None:
        # One gate may be there twice.
        by_name = {gate.name: gate for gate in gates}
        await asyncio.gather(
            *[self._tell(passing, word, gate, effects, int(gate.keeps)) for gate in by_name.values()]
        )

    async def _tell(
        self, passing: Passing, word: Word, gate: Gate, effects: Effects, *rest: Argument
    ) -> None:
        part = self.verbs.space.partition_of(gate.name)
        words: tuple[Argument, ...] = (
            word, gate.name, gate.rule, passing.execution_id, passing.step_id, passing.epoch, *rest,
        )  # fmt: skip
        await self._run(gate.name, part, words, effects, passing.epoch)

    async def _run(
        self, name: str, part: Partition, args: Sequence[Argument], effects: Effects, op_id: str
    ) -> None:
        keys = self.verbs.space.of_gate(name).gate
        letters, opens_at = as_list(await self.verbs.wire.run(scripts.GATE, keys, args, op_id=op_id))
        if opens_at != b"":
            effects.opens(int(opens_at if isinstance(opens_at, int) else as_bytes(opens_at)))
        await self.follow([unpack_letter(part, letter) for letter in as_list(letters)], effects)

    async def _admit(self, passing: Passing, effects: Effects) -> None:
        """Tell an execution what a gate said. What it has got for an epoch that is over is given back."""
        keys = self.verbs.space.of(passing.execution_id)
        gate = passing.gates[passing.at]
        reply = await self.verbs.wire.run(
            scripts.ADMIT,
            keys.admit,
            (
                passing.execution_id,
                passing.step_id,
                passing.epoch,
                passing.word,
                passing.at,
                gate.name,
                b"=" + gate.refusal,
            ),
            op_id=passing.epoch,
        )
        code, doorbell, letters = as_list(reply)
        if doorbell:
            effects.doorbells.append(unpack_doorbell(as_bytes(doorbell)))
        match code:
            case b"s":
                await self._tell_all(passing, Word.GIVE_BACK, passing.gates, effects)
            case b"e":
                await self._tell_all(passing, Word.END, passing.gates, effects)
            case b"o" if passing.word is Word.PASSED and passing.step_id:
                message = Message(passing.message_id, MessageKind.GATE, passing.step_id)
                await self.post(passing.execution_id, message, effects)
            case b"o" if passing.word is Word.HELD and passing.is_new and gate.when_full is WhenFull.REPLACE:
                await self._tell(passing, Word.REPLACED, gate, effects, passing.packed, passing.at)
            case b"o" if passing.word is Word.REFUSED:
                effects.touched[passing.execution_id] = None
            case _:
                pass
        await self.follow([unpack_letter(keys.part, letter) for letter in as_list(letters)], effects)

    async def _set_limit(self, passing: Passing) -> None:
        await asyncio.gather(
            *[
                set_limit(self.verbs, part, passing.execution_id, passing.message_id, passing.epoch)
                for part in self.verbs.space.partitions
            ]
        )


async def set_limit(verbs: Verbs, part: Partition, rule: str, limit: str, epoch: str) -> Sequence[Letter]:
    """Let a limit hold in one partition; without an epoch it begins here, and the letter to all is answered."""
    letters: list[Letter] = []
    after = ""
    while True:
        reply = await verbs.wire.run(
            scripts.LIMIT,
            (part.limits, part.gates, part.timers, part.outbox),
            (rule, limit, epoch, after),
            op_id=f"limit {rule}",
        )
        cursor, written = as_list(reply)
        letters += [unpack_letter(part, letter) for letter in as_list(written)]
        after = as_bytes(cursor).decode()
        if not after or letters:  # the letter goes on with the rest, here as everywhere
            return letters
