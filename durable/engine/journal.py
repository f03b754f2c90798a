"""The journal of one execution, in the memory of its owner: what is stored, and what the next commit will store.

It is the only writer of the execution's commits, one at a time, so `ver` never races with itself. What branches record
while a commit is in flight piles up and leaves with the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, final, overload

from durable.engine.persist import persist
from durable.protocols import (
    Batch,
    Checkpoint,
    CheckpointStatus,
    Claimed,
    Committed,
    Diverged,
    ExecutionRow,
    Fenced,
    Full,
    InboxEntry,
    MessageKind,
    Next,
    Out,
    Ready,
)


class Commits(Protocol):
    """The one verb of a store that a journal needs."""

    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        """As `DurableStore.commit`."""
        ...


Answer = Committed | Fenced | Diverged | Full
Write = Callable[[Batch], Awaitable[tuple[Batch, str, Answer] | None]]
"""Stores a batch, with more in it if need be: what was stored, by which `op_id`, and the answer."""
Topic = tuple[MessageKind, str]
"""What an inbox entry is about: its kind and its name."""


@final
class Journal:
    """History, unread inbox and pending writes of one claimed execution."""

    def __init__(self, store: Commits, claimed: Claimed, nonce: str) -> None:
        assert claimed.history is not None
        self._store = store
        self.row: ExecutionRow = claimed.row
        self.nonce = nonce
        self.ver = claimed.row.ver
        self.op_id = claimed.row.op_id
        self.seen = 0
        self.now = claimed.now
        self.history: dict[str, Checkpoint] = {c.step_id: c for c in claimed.history}
        self._stored = set(self.history)
        self.order = max((c.seq for c in claimed.history), default=0)
        """The position of the last record, counted as the store counts."""
        self._unread: dict[Topic, deque[InboxEntry]] = {}
        self._checkpoints: dict[str, Checkpoint] = {}
        self._drop: list[str] = []
        self._consume: list[tuple[int, str]] = []
        self._out: list[Out] = []
        self._values: dict[str, bytes] = {}
        self._dirty = False
        self._soonest: int | None = None

    def adopt(self, claimed: Claimed, nonce: str) -> None:
        """Go on under another claim, when nobody has committed in between."""
        self.row, self.nonce, self.now = claimed.row, nonce, claimed.now

    # ---- what the owner adds

    @property
    def dirty(self) -> bool:
        """Something is recorded that is not stored yet, nor on its way."""
        return self._dirty

    @property
    def pending(self) -> int:
        """How many records the next commit will store."""
        return len(self._checkpoints)

    def record(
        self,
        step_id: str,
        kind: str,
        name: str,
        status: CheckpointStatus,
        data: bytes = b"",
        *,
        attempts: int = 1,
        started_at: int,
        finished_at: int | None = None,
        wake_at: int | None = None,
    ) -> Checkpoint:
        """Make a checkpoint part of the history, from now on in memory and with the next commit in the store."""
        self.order += 1
        checkpoint = Checkpoint(
            step_id, kind, name, status, data, attempts, started_at, finished_at, wake_at, self.order
        )
        self.history[step_id] = checkpoint
        self._checkpoints.pop(step_id, None)  # a record that is replaced moves to the end
        self._checkpoints[step_id] = checkpoint
        self._dirty = True
        if wake_at is not None:
            self._note(wake_at)
        return checkpoint

    def settle(
        self, begun: Checkpoint, status: CheckpointStatus, data: bytes, *, finished_at: int
    ) -> Checkpoint:
        """Replace an open record by its final one."""
        return self.record(
            begun.step_id,
            begun.kind,
            begun.name,
            status,
            data,
            attempts=begun.attempts,
            started_at=begun.started_at,
            finished_at=max(finished_at, begun.started_at),
        )

    def renew(self, begun: Checkpoint) -> None:
        """Store an open record again, with its timer."""
        self.record(
            begun.step_id,
            begun.kind,
            begun.name,
            begun.status,
            begun.data,
            attempts=begun.attempts,
            started_at=begun.started_at,
            wake_at=begun.wake_at,
        )

    def amend(self, final: Checkpoint, data: bytes) -> None:
        """Give a final record other data. It keeps its place: the final ones behind it are recorded again."""
        behind = [c for c in self.history.values() if c.status.final and c.seq >= final.seq]
        behind.sort(key=lambda c: c.seq)
        self.forget([c.step_id for c in behind])
        for c in behind:
            self.record(
                c.step_id,
                c.kind,
                c.name,
                c.status,
                data if c is final else c.data,
                attempts=c.attempts,
                started_at=c.started_at,
                finished_at=c.finished_at,
            )

    def forget(self, step_ids: Iterable[str]) -> None:
        """Drop records, so that what they stand for happens again."""
        for step_id in step_ids:
            del self.history[step_id]
            self._checkpoints.pop(step_id, None)
            if step_id in self._stored:
                self._drop.append(step_id)
        self._dirty = True

    def send(self, out: Out) -> None:
        """Let a message leave with the next commit."""
        self._out.append(out)
        self._dirty = True

    def set_value(self, name: str, data: bytes) -> None:
        self._values[name] = data
        self._dirty = True

    # ---- what comes from outside

    def watcher(self, key: str) -> str:
        """The name under which the end of another execution is reported to the wait at `key` (no name has an `@`)."""
        return f"{key}@{self.row.generation}"

    def is_stale(self, entry: InboxEntry) -> bool:
        """Whether a message is for a wait that is over, or of an earlier generation."""
        if entry.kind is MessageKind.TIMER:
            begun = self.history.get(entry.name)
            return begun is None or begun.wake_at is None or begun.wake_at > entry.at
        if entry.kind is MessageKind.CHILD:
            key, _, generation = entry.name.partition("@")
            begun = self.history.get(key)
            return begun is None or begun.status.final or int(generation) != self.row.generation
        if entry.kind in (MessageKind.EVENT, MessageKind.GATE):
            begun = self.history.get(entry.name)
            return begun is None or begun.status.final
        return False

    def deliver(self, entries: Iterable[InboxEntry]) -> list[InboxEntry]:
        """Take in entries of the inbox; those that are new, in order."""
        new = [entry for entry in entries if entry.seq > self.seen]
        for entry in new:
            self._unread.setdefault((entry.kind, entry.name), deque()).append(entry)
        if new:
            self.seen = new[-1].seq
        return new

    def first(self, topics: Iterable[Topic]) -> InboxEntry | None:
        """The unread entry about one of `topics` that came first."""
        heads = [queue[0] for topic in topics if (queue := self._unread.get(topic))]
        return min(heads, key=lambda entry: entry.seq) if heads else None

    def is_unread(self, entry: InboxEntry) -> bool:
        return entry in self._unread.get((entry.kind, entry.name), ())

    def consume(self, entry: InboxEntry, step_id: str) -> None:
        """`step_id` takes the entry, which must be unread."""
        topic = (entry.kind, entry.name)
        queue = self._unread[topic]
        queue.remove(entry)
        if not queue:
            del self._unread[topic]
        self._consume.append((entry.seq, step_id))
        self._dirty = True

    # ---- commits

    @overload
    async def commit(self, next: Next) -> Answer: ...
    @overload
    async def commit(self, next: Next, write: Write | None) -> Answer | None: ...
    async def commit(self, next: Next, write: Write | None = None) -> Answer | None:
        """Store all that is pending, and `next`, however often the call must be repeated.

        It goes on trying for as long as the store cannot be reached: whoever stops waiting cancels the call and
        gives the execution up. With a `write` of another it is made once: None, or an exception, says that nothing is
        stored, and all is pending as it was.
        """
        batch = Batch(
            seen=self.seen,
            next=next,
            checkpoints=tuple(self._checkpoints.values()),
            drop=tuple(self._drop),
            consume=tuple(self._consume),
            out=tuple(self._out),
            values=self._values,
        )
        self._clear()
        if isinstance(next, Ready):
            self._note(next.at_ms)
        if write is None:
            op_id = f"{self.nonce}:{self.ver}"
            answer = await persist(
                lambda: self._store.commit(
                    self.row.id, nonce=self.nonce, ver=self.ver, op_id=op_id, batch=batch
                )
            )
        else:
            try:
                written = await write(batch)
            except BaseException:
                self._put_back(batch)
                raise
            if written is None:
                self._put_back(batch)
                return None
            batch, op_id, answer = written
        if isinstance(answer, Committed):
            self.ver, self.op_id, self.now = answer.ver, op_id, answer.now
            self._stored.difference_update(batch.drop)
            self._stored.update(c.step_id for c in batch.checkpoints)
        return answer

    def _put_back(self, batch: Batch) -> None:
        """It is not stored: let it be pending again, before what was recorded since."""
        drawn = {c.step_id: c for c in batch.checkpoints if c.step_id not in self._checkpoints}
        self._checkpoints = {**drawn, **self._checkpoints}
        self._drop = [*batch.drop, *self._drop]
        self._consume = [*batch.consume, *self._consume]
        self._out = [*batch.out, *self._out]
        self._values = {**batch.values, **self._values}
        self._dirty = bool(self._checkpoints or self._drop or self._consume or self._out or self._values)

    def soonest(self) -> int | None:
        """The earliest instant at which something that was stored since the last call is due."""
        soonest, self._soonest = self._soonest, None
        return soonest

    def _note(self, due: int) -> None:
        self._soonest = due if self._soonest is None else min(due, self._soonest)

    def discard(self) -> None:
        """Forget what is pending: it will never be stored."""
        self._clear()

    def _clear(self) -> None:
        self._checkpoints = {}
        self._drop = []
        self._consume = []
        self._out = []
        self._values = {}
        self._dirty = False
