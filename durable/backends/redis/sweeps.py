"""Sweeps over one partition: timers, dead owners, doorbells, and what is to be deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from durable.backends.redis import scripts
from durable.backends.redis.courier import Courier
from durable.backends.redis.effects import Effects
from durable.backends.redis.keys import Partition
from durable.backends.redis.letters import unpack_letter
from durable.backends.redis.records import (
    STATUS_LETTERS,
    as_bytes,
    as_int,
    as_list,
    as_words,
    clamp,
    lane,
    unpack_doorbells,
)
from durable.backends.redis.verbs import Verbs, worker_place
from durable.backends.redis.wire import Word
from durable.models import ExecutionStatus
from durable.protocols import Doorbell, Live, Ticked, Wanted

_MOST: Final = 256
"""Items that one run of a script handles."""


@final
@dataclass(frozen=True, slots=True)
class _Look:
    """What there is to do in a partition now, and when there will be more."""

    now: int
    timers: Sequence[bytes]
    """Of each that is due: execution id, NUL, step id; the oldest first."""
    deserted: Sequence[tuple[str, bytes]]
    """What dead workers own: execution ids, with their places in the index."""
    next_at: int | None


async def tick(courier: Courier, part: Partition, live: Live, limit: int) -> Ticked:
    """A look; if there is anything to do, one pipeline with a script for each execution, and another look.

    Each of those scripts decides anew, so any number of processes may do this at once.
    """
    verbs = courier.verbs
    look = await _look(verbs, part, live, min(limit, _MOST))
    if not (look.timers or look.deserted):
        return Ticked((), (), more=False, next_at=look.next_at, now=look.now)
    steps: dict[str, list[bytes]] = {}
    gates: list[str] = []
    for member in look.timers:
        execution_id, _, step_id = member.partition(b"\0")
        if execution_id:
            steps.setdefault(execution_id.decode(), []).append(step_id)
        else:
            gates.append(step_id.decode())
    effects = Effects()
    changes = [_fire(courier, execution_id, due, effects) for execution_id, due in steps.items()]
    changes += [courier.turnstile.advance(gate, part, effects) for gate in gates]
    changes += [_take_over(verbs, part, *deserted, effects) for deserted in look.deserted]
    looking = _look(verbs, part, live, 1)
    _, then = await asyncio.gather(asyncio.gather(*changes), looking)
    await courier.clear(effects)
    instants = [at for at in (then.next_at, effects.next_at) if at is not None]
    return Ticked(
        effects.doorbells,
        list(effects.touched),
        more=bool(then.timers or then.deserted),
        next_at=min(instants, default=None),
        now=then.now,
    )


async def _look(verbs: Verbs, part: Partition, live: Live, limit: int) -> _Look:
    places = [worker_place(worker) for worker in live.workers]
    reply = await verbs.wire.run(
        scripts.SWEEP, (part.timers, part.later, part.owned), (limit, max(live.at, 0), *places)
    )
    now, timers, deserted, next_timer, next_ready = as_list(reply)
    found = as_words(deserted)
    instants = [int(float(as_words(each)[1])) for each in (next_timer, next_ready) if each]
    return _Look(
        as_int(now),
        as_words(timers),
        [(each.decode(), place) for each, place in zip(found[::2], found[1::2], strict=True)],
        min(instants, default=None),
    )


async def _fire(courier: Courier, execution_id: str, steps: Sequence[bytes], effects: Effects) -> None:
    verbs = courier.verbs
    keys = verbs.space.of(execution_id)
    reply = await verbs.wire.run(scripts.FIRE, keys.fire, (execution_id, *steps), op_id="tick")
    doorbell, number, letters = as_list(reply)
    effects.doorbells += unpack_doorbells((doorbell,))
    if number:
        effects.touched[execution_id] = None
    await courier.follow([unpack_letter(keys.part, letter) for letter in as_list(letters)], effects)


async def _take_over(
    verbs: Verbs, part: Partition, execution_id: str, place: bytes, effects: Effects
) -> None:
    keys = (verbs.space.of(execution_id).x, part.owned, part.ready)
    doorbell = await verbs.wire.run(scripts.TAKEOVER, keys, (execution_id, place), op_id="tick")
    effects.doorbells += unpack_doorbells((doorbell,))


async def due(verbs: Verbs, part: Partition, wanted: Wanted, limit: int, again_ms: int) -> Sequence[Doorbell]:
    """The lanes go in the order of their bytes, which is that of the index."""
    lanes: list[Word] = [
        *sorted(
            lane(queue, workflow).encode() for queue in set(wanted.queues) for workflow in wanted.workflows
        )
    ]
    if not lanes:
        return ()
    members = await verbs.wire.run(
        scripts.DUE, (part.ready, part.later, part.rung), (min(limit, _MOST), again_ms, *lanes), op_id="due"
    )
    return unpack_doorbells(as_list(members))


async def prune(
    verbs: Verbs, parts: Sequence[Partition], before: int, status: Sequence[ExecutionStatus], limit: int
) -> int:
    letters = [STATUS_LETTERS[each] for each in status if each.final]
    before = clamp(before)
    pages = await asyncio.gather(
        *[
            verbs.wire.call(
                "ZRANGEBYLEX",
                part.closed,
                f"[{letter}",
                f"({letter}{before:016}",
                "LIMIT",
                0,
                limit,
                key=part.closed,
            )
            for part in parts
            for letter in letters
        ]
    )
    # A member is the letter of the status, the instant of the end in 16 digits, and the id.
    found = sorted(as_bytes(member)[1:] for page in pages for member in as_list(page))[:limit]
    erased = 0
    for first in range(0, len(found), _MOST):
        erased += sum(
            await asyncio.gather(
                *[
                    _erase(verbs, member[16:].decode(), before, "".join(letters))
                    for member in found[first : first + _MOST]
                ]
            )
        )
    return erased


async def _erase(verbs: Verbs, execution_id: str, before: int, letters: str) -> int:
    keys = verbs.space.of(execution_id).erase
    while True:
        erased = await verbs.wire.run(scripts.ERASE, keys, (execution_id, before, letters), op_id="prune")
        if as_int(erased) >= 0:  # else some of what had joined it is left to forget
            return as_int(erased)
