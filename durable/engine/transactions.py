"""A step in a transaction: what its function writes and its checkpoint are stored together, or neither.

take the turn ─▶ begin ─▶ the function, with the connection ─▶ the checkpoint, in the same transaction ─▶ COMMIT
                   ▲                    │                                  │                                │
                   └── the store failed ┴─────────── rolled back ◀─────────┘        unknown: look, then ◀───┘

Commits of one execution are ordered, and the transaction's is one of them: so nobody else commits from before it begins
until it has ended. (On SQLite who waits for the file's lock would wait for us, and we for him.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import count
from typing import Any, Final, TypeVar, final

from durable.engine.attempt import Attempt
from durable.engine.journal import Answer
from durable.engine.persist import pauses, persist
from durable.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from durable.protocols import (
    Batch,
    Checkpoint,
    Claimed,
    Committed,
    Diverged,
    Fenced,
    Out,
    TransactionalStore,
    transactional,
)

T = TypeVar("T")

_NOT_THERE: Final = (StoreUnavailable, StoreFull, OutcomeUnknown)
_MOST_LOST: Final = 5
"""So often a function may lose its transaction before that counts as a failed try: it may be what kills it."""
_numbers: Final = count(1)


class _RolledBack(Exception):
    """Leaves a transaction that is not to be committed."""


@final
class StepTransaction:
    """The right of one step to commit for its execution, from `begin` until `end`."""

    def __init__(self, attempt: Attempt, store: TransactionalStore) -> None:
        self._attempt = attempt
        self._journal = attempt.journal
        self._store = store
        self._has_turn = True
        self._lost = 0

    @classmethod
    async def begin(cls, attempt: Attempt, key: str) -> StepTransaction:
        """Wait until a side effect may begin and nobody else commits.

        Raises: `ConfigurationError` when the store takes part in no transactions.
        """
        await attempt.take_turn()
        store = attempt.host.store
        assert store is not None
        try:
            return cls(attempt, await transactional(store, f"ctx.transaction({key!r}, ...)"))
        except BaseException:
            attempt.end_turn()
            raise

    def end(self) -> None:
        """Let others commit. Called twice: nothing happens."""
        if self._has_turn:
            self._has_turn = False
            self._attempt.end_turn()

    async def run(
        self, body: Callable[[object], Awaitable[Checkpoint]], out: Sequence[Out] = ()
    ) -> Checkpoint:
        """Run `body` with a connection, and store the checkpoint that it gives with what it has written, and let
        messages leave with them.

        When the store fails and nothing is stored, it runs again in another transaction, for as long as it takes; but
        no more than five times while `body` runs.

        Raises: whatever `body` raises, or what the database says to it at the commit. It is rolled back then.
        """
        for pause in pauses():
            done = await self._once(body, out)
            if done is not None:
                return done
            await asyncio.sleep(pause)
        raise AssertionError("there is always another pause")

    async def _once(
        self, body: Callable[[object], Awaitable[Checkpoint]], out: Sequence[Out]
    ) -> Checkpoint | None:
        """None: it is surely not stored, because of the store."""
        block = self._store.transaction()
        try:
            connection = await block.__aenter__()
        except _NOT_THERE:
            return None
        try:
            done = await body(connection)
        except BaseException as error:
            is_lost = await _leave(block, error)
            self._lost += is_lost
            if is_lost and self._lost < _MOST_LOST and isinstance(error, Exception):
                return None
            raise

        async def write(pending: Batch) -> tuple[Batch, str, Answer] | None:
            journal = self._journal
            journal.order += 1
            stored = replace(done, seq=journal.order)
            batch = replace(pending, checkpoints=(*pending.checkpoints, stored), out=(*pending.out, *out))
            op_id = f"{journal.nonce}:{journal.ver}:{next(_numbers)}"  # of this transaction and no other
            answer = await self._write(block, connection, batch, op_id)
            if isinstance(answer, Committed):
                journal.history[done.step_id] = stored
            return None if answer is None else (batch, op_id, answer)

        answer, cancelled = await _to_the_end(self._attempt.commit_by(write))
        is_stored = isinstance(answer, Committed)
        if cancelled is not None and (not is_stored or self._attempt.cancelling or not self._attempt.live):
            raise cancelled  # and else it came too late
        if answer is not None and not is_stored:
            self.end()
            await asyncio.get_running_loop().create_future()  # the driver knows the answer, and puts us aside
        return self._journal.history[done.step_id] if is_stored else None

    async def _write(
        self, block: AbstractAsyncContextManager[object], connection: object, batch: Batch, op_id: str
    ) -> Answer | None:
        """The answer to the commit; None: it is surely not stored."""
        row, journal = self._attempt.row, self._journal
        try:
            writes = await self._store.enlist(connection)
            answer = await writes.commit(
                row.id, nonce=journal.nonce, ver=journal.ver, op_id=op_id, batch=batch
            )
        except BaseException as error:
            await _leave(block, error)
            if isinstance(error, _NOT_THERE):
                return None  # and nobody has asked for a COMMIT
            raise
        if not isinstance(answer, Committed):
            await _leave(block, _RolledBack())
            return answer
        try:
            await block.__aexit__(None, None, None)
        except (StoreUnavailable, StoreFull):
            return None
        except OutcomeUnknown:
            return await self._look(batch, op_id)
        return answer

    async def _look(self, batch: Batch, op_id: str) -> Committed | Fenced | Diverged | None:
        """What became of a commit. A repeat would store the checkpoint without what the function has written.

        Should it be stored after we have looked, the next transaction finds another version, and is rolled back.
        """
        row, journal = self._attempt.row, self._journal
        claimed = await persist(
            lambda: self._store.claim(
                row.id, nonce=journal.nonce, worker=self._attempt.row.worker or "", have_op=op_id
            )
        )
        if not isinstance(claimed, Claimed):
            return Fenced()
        if claimed.row.op_id == op_id:
            news = [entry for entry in claimed.inbox if entry.seq > batch.seen]
            return Committed(claimed.row.ver, owned=True, inbox=news, now=claimed.now)
        return None if claimed.row.ver == journal.ver else Diverged()


async def _leave(block: AbstractAsyncContextManager[object], error: BaseException) -> bool:
    """Roll back, because of an error. Was the transaction lost before?"""
    try:
        await block.__aexit__(type(error), error, error.__traceback__)
    except StoreUnavailable as instead:
        return instead is not error
    except (*_NOT_THERE, type(error)):
        pass
    return False


async def _to_the_end(work: Coroutine[Any, Any, T]) -> tuple[T, asyncio.CancelledError | None]:
    """What it gives, and what has cancelled this task meanwhile: a commit that was asked for has an outcome."""
    task = asyncio.Task(
        work, loop=asyncio.get_running_loop()
    )  # not by the factory: it is no branch of the body
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    return task.result(), cancelled
