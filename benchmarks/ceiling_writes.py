"""The durable writes that no workflow engine can do without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydantic_core import to_json

FENCE = "fence"

Write = tuple[str, tuple[object, ...]]
"""A statement, and what it is about. Memory and Redis understand the same six."""

ACCEPT = "INSERT INTO executions (id, fence, input) VALUES (?, ?, ?)"
COMMIT = (
    "INSERT INTO checkpoints (execution_id, step_id, value) "
    "SELECT id, ?, ? FROM executions WHERE id = ? AND fence = ?"
)
POST = "INSERT INTO signals (execution_id, payload) VALUES (?, ?)"
PARK = "INSERT INTO timers (execution_id, wake_at) SELECT id, ? FROM executions WHERE id = ? AND fence = ?"
FIRE = "DELETE FROM timers WHERE execution_id = ?"
COMPLETE = "UPDATE executions SET result = ? WHERE id = ? AND fence = ?"


def accept(id: str, input: object) -> Write:
    return ACCEPT, (id, FENCE, to_json(input))


def commit(id: str, step_id: str, value: object) -> Write:
    return COMMIT, (step_id, to_json(value), id, FENCE)


def post(id: str, payload: object) -> Write:
    return POST, (id, to_json(payload))


def park(id: str, wake_at: float) -> Write:
    return PARK, (wake_at, id, FENCE)


def fire(id: str) -> Write:
    return FIRE, (id,)


def complete(id: str, result: object) -> Write:
    return COMPLETE, (to_json(result), id, FENCE)


class Store(Protocol):
    async def write(self, *writes: Write) -> None:
        """Come back when all of them are stored."""
        ...

    async def result(self, id: str) -> object: ...

    async def history(self, id: str) -> Sequence[object]:
        """The values of all its checkpoints."""
        ...
