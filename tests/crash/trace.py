"""The trace: what each node asked its store for, and what it was told, written beside the store.

A call is written down before it is made and its answer before anybody hears it. So a commit that was sent and never
answered is one whose process died in between, or whose connection did: it may have been applied or not. It is sent
again where that can be, and what comes then is the truth about the repeat alone: an owner that was replaced meanwhile
is told `Fenced`, whether or not the first one was applied.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from typing_extensions import override

from durable.backends.wrapped import WrappedStore
from durable.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from durable.protocols import (
    Batch,
    Checkpoint,
    CheckpointStatus,
    Claimed,
    Committed,
    Diverged,
    DurableStore,
    Fenced,
    Full,
    InboxEntry,
    NotClaimed,
)
from tests.crash.ledger import append, digest, read_lines


@dataclass(frozen=True, slots=True)
class Record:
    """A checkpoint, with a digest for its data."""

    step: str
    kind: str
    status: str
    digest: str
    wake_at: int | None = None

    @property
    def final(self) -> bool:
        return CheckpointStatus(self.status).final

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Record:
        data = digest(checkpoint.data)
        return cls(checkpoint.step_id, checkpoint.kind, str(checkpoint.status), data, checkpoint.wake_at)


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry of an inbox, as some node was told of it."""

    seq: int
    id: str
    kind: str
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that was granted."""

    execution: str
    nonce: str
    pid: int
    asked: float
    answered: float
    ver: int
    generation: int = 0
    crashes: int = 0
    history: tuple[Record, ...] | None = None


@dataclass(slots=True)
class Commit:
    """A commit that was sent once or more often, under one `op_id`."""

    execution: str
    nonce: str
    pid: int
    asked: float
    ver: int
    """What the owner has seen; it becomes `ver` + 1."""
    op_id: str
    next: str
    """`run`, `park`, `block`, `ready`, `close` or `continue`."""
    records: tuple[Record, ...] = ()
    drop: tuple[str, ...] = ()
    consume: tuple[tuple[int, str], ...] = ()
    unheard: int = 0
    """How often it was sent and nobody heard what came of it."""
    answer: str = ""
    """`committed`, `fenced`, `diverged`, `full`, `unavailable`: not executed, or empty: none came to any sending."""
    answered: float = 0.0
    owned: bool = False

    @property
    def acked(self) -> bool:
        return self.answer == "committed"

    @property
    def may_be_applied(self) -> bool:
        """Nobody was told that it was, nor that no sending of it was.

        Who still owns the execution is told so by any answer: had it been applied, that would be the answer.
        """
        return self.unheard > 0 and self.answer in ("", "fenced", "unavailable")


@dataclass(slots=True)
class Trace:
    """What all nodes together have written."""

    claims: list[Claim] = field(default_factory=list[Claim])
    commits: list[Commit] = field(default_factory=list[Commit])
    inbox: dict[tuple[str, int], Seen] = field(default_factory=dict[tuple[str, int], Seen])
    """By execution and sequence number."""
    acks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What API processes were told, as the fields of an `Ack`."""


@final
class TracingStore(WrappedStore):
    """Writes down the claims and the commits that pass through."""

    def __init__(self, store: DurableStore, path: str | os.PathLike[str]) -> None:
        super().__init__(store)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._pid = os.getpid()

    @override
    async def close(self) -> None:
        await super().close()
        os.close(self._fd)

    @override
    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        asked = time.monotonic()
        answer = await self.within.claim(execution_id, nonce=nonce, worker=worker, have_op=have_op)
        if isinstance(answer, Claimed):
            row = answer.row
            self._write(
                what="claim",
                execution=execution_id,
                nonce=nonce,
                asked=asked,
                answered=time.monotonic(),
                ver=row.ver,
                generation=row.generation,
                crashes=row.crashes,
                history=None if answer.history is None else _records(answer.history),
                inbox=_entries(answer.inbox),
            )
        return answer

    @override
    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        self._write(
            what="commit",
            execution=execution_id,
            nonce=nonce,
            asked=time.monotonic(),
            ver=ver,
            op_id=op_id,
            next=type(batch.next).__name__.lower(),
            records=_records(batch.checkpoints),
            drop=list(batch.drop),
            consume=[list(taken) for taken in batch.consume],
        )
        try:
            answer = await self.within.commit(execution_id, nonce=nonce, ver=ver, op_id=op_id, batch=batch)
        except OutcomeUnknown:
            raise
        except (StoreUnavailable, StoreFull):  # it says that nothing was executed, and is held to that
            self._write(what="answer", execution=execution_id, op_id=op_id, answer="unavailable")
            raise
        committed = answer if isinstance(answer, Committed) else None
        self._write(
            what="answer",
            execution=execution_id,
            op_id=op_id,
            answer=type(answer).__name__.lower(),
            answered=time.monotonic(),
            owned=committed is not None and committed.owned,
            inbox=_entries(committed.inbox) if committed is not None else [],
        )
        return answer

    @override
    async def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        news = await self.within.peek(seen)
        for execution, entries in news.items():
            self._write(what="peek", execution=execution, inbox=_entries(entries))
        return news

    def _write(self, **line: Any) -> None:
        append(self._fd, {"pid": self._pid, **line})


def read_trace(paths: Iterable[Path]) -> Trace:
    """All that was written to these files, by time."""
    trace = Trace()
    by_op: dict[tuple[str, str], Commit] = {}
    for path in paths:
        for line in read_lines(path):
            _take(trace, by_op, line)
    trace.claims.sort(key=lambda claim: claim.asked)
    trace.commits = sorted(by_op.values(), key=lambda commit: commit.asked)
    return trace


def _take(trace: Trace, by_op: dict[tuple[str, str], Commit], line: dict[str, Any]) -> None:
    what, execution = line.pop("what"), line["execution"]
    if what == "ack":
        trace.acks.append(line)
        return
    for entry in line.pop("inbox", ()):
        trace.inbox[execution, entry[0]] = Seen(*entry)
    if what == "claim":
        history = line.pop("history")
        known = None if history is None else tuple(Record(*record) for record in history)
        trace.claims.append(Claim(**line, history=known))
    elif what == "commit":
        records = tuple(Record(*record) for record in line.pop("records"))
        consume = tuple((seq, step) for seq, step in line.pop("consume"))
        drop = tuple(line.pop("drop"))
        first = Commit(**line, records=records, drop=drop, consume=consume)
        by_op.setdefault((execution, line["op_id"]), first).unheard += 1
    elif what == "answer":
        commit = by_op[execution, line["op_id"]]
        commit.unheard -= 1
        commit.answer = line["answer"]
        commit.answered, commit.owned = line.get("answered", 0.0), line.get("owned", False)


def _records(checkpoints: Iterable[Checkpoint]) -> list[list[Any]]:
    records = [Record.of(checkpoint) for checkpoint in checkpoints]
    return [[record.step, record.kind, record.status, record.digest, record.wake_at] for record in records]


def _entries(entries: Iterable[InboxEntry]) -> list[list[Any]]:
    return [[entry.seq, entry.id, str(entry.kind), entry.name, entry.at] for entry in entries]
