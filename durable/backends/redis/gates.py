"""Gates as they are written in records and in letters, and what letters say about them.

A script copies packed gates and looks into none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast, final

from pydantic_core import from_json, to_json

from durable.protocols import Gate, GateKind, WhenFull

GATE_LETTERS: Final = dict(zip(GateKind, "srw", strict=True))
GATE_KINDS: Final = {letter.encode(): kind for kind, letter in GATE_LETTERS.items()}
_GateWords = tuple[str, str, str, int, int, int, str, bool, int]


class Word(StrEnum):
    """What a letter says."""

    SEEK = "s"
    """Pass the gates from `at` on."""
    SEEK_ANEW = "S"
    """Give back what is given back between two claims, then pass the gates."""
    GIVE_BACK = "g"
    """What is given back between two claims."""
    GIVE_BACK_BEFORE = "b"
    """The same, if it is of an earlier epoch."""
    END = "e"
    """Give back all."""
    LEAVE = "l"
    """Wait in no line."""
    PASSED = "p"
    """The last gate is passed."""
    HELD = "h"
    """It waits in line at the gate `at`."""
    REFUSED = "f"
    """By the gate `at`."""
    REPLACED = "x"
    """By who waits at the gate `at`."""
    LIMIT = "m"
    """A rule has another limit, in all partitions."""


@final
@dataclass(frozen=True, slots=True)
class Passing:
    """What is to be told to gates, or what a gate has to say, about an execution or a step of it."""

    word: Word
    execution_id: str
    """For a limit: the rule."""
    step_id: str
    epoch: str
    order: str
    """Its priority, as an index has it."""
    is_new: bool
    message_id: str
    """For a limit: the limit, or `-`."""
    gates: Sequence[Gate]
    packed: bytes
    at: int = 0

    @property
    def to(self) -> str:
        """Those with one of these are delivered in their order."""
        return f"\0{self.execution_id}\0{self.step_id}"


def pack_gates(gates: Sequence[Gate]) -> bytes:
    """A line of JSON, then the payloads; empty for no gates."""
    if not gates:
        return b""
    words = [
        (
            gate.rule,
            gate.key,
            GATE_LETTERS[gate.kind],
            gate.limit,
            gate.per_ms,
            gate.burst,
            gate.when_full.value,
            gate.keeps,
            len(gate.refusal),
        )
        for gate in gates
    ]
    return to_json(words) + b"\n" + b"".join(gate.refusal for gate in gates)


def unpack_gates(packed: bytes) -> Sequence[Gate]:
    if not packed:
        return ()
    head, _, body = packed.partition(b"\n")
    gates: list[Gate] = []
    for rule, key, kind, limit, per_ms, burst, when_full, keeps, size in cast(
        "list[_GateWords]", from_json(head)
    ):
        refusal, body = body[:size], body[size:]
        of_kind = GATE_KINDS[kind.encode()]
        gates.append(Gate(rule, key, of_kind, limit, per_ms, burst, WhenFull(when_full), keeps, refusal))
    return gates


def is_given_back(gate: Gate) -> bool:
    """Whether an execution gives something back there between two claims."""
    return gate.kind is GateKind.SLOTS and not gate.keeps


def unpack_passing(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Passing:
    """A letter about gates, in the outbox under this id."""
    word = Word(fields[b"o"].decode())
    return Passing(
        word,
        execution_id=fields[b"i"].decode(),
        step_id=fields[b"s"].decode(),
        epoch=fields.get(b"e", entry_id).decode(),
        order=fields[b"p"].decode(),
        is_new=fields[b"n"] == b"1",
        message_id=fields[b"m"].decode(),
        gates=unpack_gates(fields[b"g"]),
        packed=fields[b"g"],
        at=int(fields.get(b"a", 0)),
    )
