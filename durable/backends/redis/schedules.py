"""Schedules: all in one partition, so that who asks which are due asks once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from durable.backends.redis import scripts
from durable.backends.redis.events import pack_starts, unpack_ids, unpack_letters
from durable.backends.redis.letters import Letter, Place
from durable.backends.redis.records import as_bytes, as_int, as_list, as_words, digest
from durable.backends.redis.verbs import Verbs
from durable.protocols import Due, NewExecution, ScheduleRow


@final
@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a save, before its letters are delivered."""

    ver: int
    execution_ids: Sequence[str]
    letters: Sequence[Letter]
    places: Sequence[Place]
    """Where the kept answer names what it started."""


async def save(verbs: Verbs, row: ScheduleRow, op_id: str, starts: Sequence[NewExecution]) -> Kept | None:
    """Store it, if `row.ver` is the stored one."""
    keys = verbs.space.schedules
    op = digest(op_id.encode()).hex()
    code, *rest = as_list(
        await verbs.wire.run(
            scripts.SCHEDULE,
            (keys.rows, keys.ids, keys.due, keys.answers, keys.part.outbox),
            (
                row.id,
                row.ver,
                op,
                "-" if row.next_at is None else row.next_at,
                row.data,
                *pack_starts(starts),
            ),
            op_id=op_id,
        )
    )
    if code == b"x":
        return None
    ver, ids, *letters = rest
    return Kept(
        int(as_bytes(ver)),
        unpack_ids(ids)[1:],
        unpack_letters(keys.part, letters),
        [Place(keys.answers, row.id, op, number) for number in range(1, len(starts) + 1)],
    )


async def remove(verbs: Verbs, schedule_id: str) -> bool:
    keys = verbs.space.schedules
    declared = (keys.rows, keys.ids, keys.due, keys.answers)
    return bool(await verbs.wire.run(scripts.UNSCHEDULE, declared, (schedule_id,), op_id=schedule_id))


async def row(verbs: Verbs, schedule_id: str) -> ScheduleRow | None:
    key = verbs.space.schedules.rows
    return _unpack(schedule_id, await verbs.wire.call("HGET", key, schedule_id, key=key))


async def page(verbs: Verbs, after: str, limit: int) -> Sequence[ScheduleRow]:
    keys = verbs.space.schedules
    since = f"({after}" if after else "-"
    ids = as_words(
        await verbs.wire.call("ZRANGEBYLEX", keys.ids, since, "+", "LIMIT", 0, limit, key=keys.ids)
    )
    if not ids:
        return ()
    found = as_list(await verbs.wire.call("HMGET", keys.rows, *ids, key=keys.rows))
    rows = [_unpack(each.decode(), packed) for each, packed in zip(ids, found, strict=True)]
    return [each for each in rows if each is not None]


async def due(verbs: Verbs, limit: int) -> Due:
    keys = verbs.space.schedules
    now, found, then = as_list(await verbs.wire.run(scripts.AGENDA, (keys.rows, keys.due), (limit,)))
    rows = [_unpack(as_bytes(each[0]).decode(), each[1]) for each in map(as_list, as_list(found))]
    next_at = int(float(as_words(then)[1])) if then else None
    return Due([each for each in rows if each is not None], next_at, as_int(now))


def _unpack(schedule_id: str, reply: object) -> ScheduleRow | None:
    if not isinstance(reply, bytes):
        return None
    head, _, data = reply.partition(b"\n")
    ver, next_at, _ = head.split(b" ")
    return ScheduleRow(schedule_id, data, None if next_at == b"-" else int(next_at), int(ver))
