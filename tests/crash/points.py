"""Crash points: a store whose process dies right before or after a certain write, or that answers it by an error."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, final

from typing_extensions import override

from durable.backends.wrapped import WrappedStore
from durable.errors import OutcomeUnknown
from durable.protocols import (
    Batch,
    Claimed,
    Committed,
    Created,
    Diverged,
    Doorbell,
    DurableStore,
    Exists,
    Fenced,
    Full,
    Live,
    Message,
    NewExecution,
    NotClaimed,
    NotPosted,
    Posted,
    Saved,
    ScheduleRow,
    Ticked,
    Wanted,
)

T = TypeVar("T")

_FEW = 2


@final
class FaultyStore(WrappedStore):
    """Counts writes, by verb, from 1.

    `crash_at` is `verb.before:n` or `verb.after:n`: there the process kills itself. A `tick` or `due` that does
    nothing is not counted by `after`. `unknown` names verbs, with commas: each write of theirs is let through, and
    answered by `OutcomeUnknown` when it comes for the first time.
    """

    def __init__(self, store: DurableStore, *, crash_at: str = "", unknown: str = "") -> None:
        super().__init__(store)
        point, _, number = crash_at.partition(":")
        self._point = point
        self._number = int(number or 0)
        self._unknown = frozenset(unknown.split(","))
        self._begun: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._answered: set[tuple[str, str]] = set()

    @override
    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Exists:
        return await self._write("create", op_id, lambda: self.within.create(spec, op_id=op_id))

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        return await self._write(
            "claim",
            nonce,
            lambda: self.within.claim(execution_id, nonce=nonce, worker=worker, have_op=have_op),
        )

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        return await self._write(
            "commit",
            op_id,
            lambda: self.within.commit(execution_id, nonce=nonce, ver=ver, op_id=op_id, batch=batch),
        )

    @override
    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        return await self._write("post", message.id, lambda: self.within.post(execution_id, message))

    @override
    async def save_schedule(
        self, row: ScheduleRow, *, op_id: str, starts: Sequence[NewExecution] = ()
    ) -> Saved | None:
        return await self._write(
            "save_schedule", op_id, lambda: self.within.save_schedule(row, op_id=op_id, starts=starts)
        )

    @override
    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        # It has no id to tell a repeat by: the first few that do something are answered by an error.
        op_id = str(min(self._done["tick"], _FEW - 1))
        return await self._write("tick", op_id, lambda: self.within.tick(partition, live=live, limit=limit))

    @override
    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        op_id = str(min(self._done["due"], _FEW - 1))
        return await self._write(
            "due", op_id, lambda: self.within.due(partition, wanted, limit=limit, again_ms=again_ms)
        )

    async def _write(self, verb: str, op_id: str, call: Callable[[], Awaitable[T]]) -> T:
        self._begun[verb] += 1
        self._maybe_crash(f"{verb}.before", self._begun[verb])
        answer = await call()
        if not _did_something(answer):
            return answer
        self._done[verb] += 1
        self._maybe_crash(f"{verb}.after", self._done[verb])
        if verb in self._unknown and (verb, op_id) not in self._answered:
            self._answered.add((verb, op_id))
            raise OutcomeUnknown(op_id, "the answer got lost, as the test wants it")
        return answer

    def _maybe_crash(self, point: str, number: int) -> None:
        if point == self._point and number == self._number:
            os.kill(os.getpid(), signal.SIGKILL)


def _did_something(answer: object) -> bool:
    if isinstance(answer, Ticked):
        return bool(answer.doorbells or answer.touched)
    return answer is not None and (not isinstance(answer, list) or bool(answer))
