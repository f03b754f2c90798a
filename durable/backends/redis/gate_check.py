"""What contradicts itself about gates and groups. It reads everything, and is meant for a store at rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, final

from durable.backends.redis.gates import unpack_gates
from durable.backends.redis.keys import Partition
from durable.backends.redis.records import as_pairs, as_words
from durable.backends.redis.replies import Reply
from durable.backends.redis.verbs import Verbs
from durable.protocols import GateKind

_SLOT: Final = 32
_LINE: Final = 42


@final
@dataclass(frozen=True, slots=True)
class Seeking:
    """What the record of an execution says about its gates."""

    execution_id: str
    state: bytes
    fields: dict[bytes, bytes]
    steps: dict[bytes, bytes]

    @property
    def held(self) -> bytes:
        return self.fields.get(b"hd", b"")


async def of_gate(
    verbs: Verbs, part: Partition, name: str, executions: dict[str, Seeking]
) -> AsyncIterator[str]:
    """A sentence for each contradiction between a gate and the records of all executions."""
    keys = verbs.space.of_gate(name)
    gate, line, slots, _ = keys.row
    commands: list[Sequence[str | int]] = [
        ("HGETALL", gate),
        ("HGETALL", keys.seekers),
        ("ZRANGE", line, 0, -1),
        ("ZRANGE", slots, 0, -1),
        ("HGET", part.limits, name.partition("|")[0]),
        ("ZSCORE", part.gates, name),
    ]
    fields, seekers, waiting, holding, limit, listed = await asyncio.gather(
        *[verbs.wire.call(*command, key=gate) for command in commands]
    )
    said = {holder: entry.split(b" ", 3) for holder, entry in as_pairs(seekers)}
    in_line = {member[_LINE:]: member[:_LINE] for member in as_words(waiting)}
    in_slots = {member[_SLOT:]: member[:_SLOT] for member in as_words(holding)}
    for letter, members in ((b"w", in_line), (b"h", in_slots)):
        if {holder: words[2] for holder, words in said.items() if words[0] == letter} != members:
            yield f"gate {name}: who is there is not who it knows"
    if (listed is not None) != bool(in_line or in_slots):
        yield f"gate {name}: it is in the index of gates, or not, wrongly"
    of_gate = dict(as_pairs(fields))
    if of_gate.get(b"k") == b"s" and limit is None and len(in_slots) > int(of_gate[b"l"]):
        yield f"gate {name}: {len(in_slots)} hold its {int(of_gate[b'l'])} slots"
    for holder, words in said.items():
        execution_id, _, step = holder.partition(b"\0")
        own = executions.get(execution_id.decode())
        if own is None or own.state == b"c" or (step and step not in own.steps):
            yield f"gate {name}: {holder!r} is there and seeks nothing"
        elif words[0] == b"w" and not step and (own.held, own.fields.get(b"hb")) != (b"s", name.encode()):
            yield f"gate {name}: {holder!r} waits there, and does not know it"


async def in_records(verbs: Verbs, executions: dict[str, Seeking]) -> AsyncIterator[str]:
    """A sentence for each execution that is held where nobody knows it, or has no slot that it must have."""
    for execution_id, own in executions.items():
        if own.held == b"s":
            name = own.fields.get(b"hb", b"").decode()
            if not name:
                yield f"{execution_id}: held, and waits at no gate"
            elif not await _entry(verbs, name, execution_id, b""):
                yield f"{execution_id}: held at {name}, which does not know it"
        elif own.state == b"o":
            for gate in unpack_gates(own.fields.get(b"gt", b"")):
                entry = await _entry(verbs, gate.name, execution_id, b"")
                if gate.kind is GateKind.SLOTS and not entry and not own.fields.get(b"iq"):
                    yield f"{execution_id}: owned, and has no slot of {gate.name}"
        for step, sought in own.steps.items():
            gates = unpack_gates(sought.partition(b" ")[2])
            if not any([await _entry(verbs, gate.name, execution_id, step) for gate in gates]):
                yield f"{execution_id}: its step {step!r} seeks gates that do not know it"


async def of_groups(verbs: Verbs, part: Partition, executions: dict[str, Seeking]) -> AsyncIterator[str]:
    groups, joins = await asyncio.gather(
        verbs.wire.call("HGETALL", part.groups, key=part.groups),
        verbs.wire.call("ZRANGE", part.joins, 0, -1, key=part.joins),
    )
    for group, pending in as_pairs(groups):
        own = executions.get(pending.decode())
        if own is None or own.fields.get(b"jg") != group:
            yield f"group {group!r} leads to another execution"
    members = as_words(joins)
    by_id = {(member[1:].partition(b"\0")[::2]) for member in members if member[:1] == b"i"}
    by_op: set[tuple[bytes, bytes]] = set()
    for member in members:
        if member[:1] == b"o":
            op, holder, _ = member[1:].split(b"\0")
            by_op.add((holder, op))
    if by_op != by_id:
        yield "the index of those who joined is not the same both ways"
    for holder, _ in by_op:
        if holder.decode() not in executions:
            yield f"{holder!r} was joined, and is not there"


async def _entry(verbs: Verbs, name: str, execution_id: str, step: bytes) -> Reply:
    key = verbs.space.of_gate(name).seekers
    return await verbs.wire.call("HGET", key, execution_id.encode() + b"\0" + step, key=key)
