"""`Witness`: sees every write that the store accepts and every body that begins, and says what must never be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from durable.backends.memory import MemoryStore
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Checkpoint,
    CheckpointStatus,
    Claimed,
    Close,
    Committed,
    Continue,
    InboxEntry,
    MessageKind,
    Park,
    Ready,
)
from durable.steps import StepInfo
from durable.testing.simulation.loop import current_process


@dataclass(slots=True)
class _Seen:
    """What was seen of one execution."""

    ver: int = 0
    op_id: str = ""
    nonce: str = ""
    is_open: bool = False
    """A claim has not been committed away: another claim now means that its owner was lost."""
    losses: int = 0
    finals: dict[str, int] = field(default_factory=dict[str, int])
    """By step id: the version with which its final record was stored."""
    consumed: dict[int, str] = field(default_factory=dict[int, str])
    wakes: dict[str, int] = field(default_factory=dict[str, int])
    """By step id: the earliest instant of a timer of its record."""


@final
class Witness:
    """Everything that was stored and run, in order, and each thing in it that breaks a promise."""

    def __init__(self) -> None:
        self.trace: list[tuple[object, ...]] = []
        """Two runs of one seed have the same."""
        self.broken: list[str] = []
        self.bodies: Counter[str] = Counter()
        """How often each step's body began, by its idempotency key."""
        self.settled: set[str] = set()
        """The keys of the steps that have given or failed, so that no body of theirs was still to begin."""
        self.undone: list[str] = []
        """The keys of the compensations that ran, in order."""
        self.running: Counter[str] = Counter()
        """Bodies that run now, by process."""
        self.on_claim: Callable[[str], object] = lambda node: None
        """Called when a node has got a claim that it did not have before."""
        self.on_body: Callable[[bool], object] = lambda begins: None
        """Called with True before a step's body begins, and with False after it has ended."""
        self._executions: dict[str, _Seen] = defaultdict(_Seen)
        self._begun: dict[tuple[str, str], str] = {}
        """By execution and step: the idempotency key of what began last."""
        self._claims: dict[tuple[str, str], tuple[int, str]] = {}
        """By process and execution: the version at its last claim, and the nonce."""

    def note(self, *what: object) -> None:
        """Add a line to the trace."""
        self.trace.append(what)

    def losses(self, execution_id: str) -> int:
        """How often an owner was lost in the middle."""
        return self._executions[execution_id].losses

    def executions(self) -> list[str]:
        """All that were ever claimed."""
        return list(self._executions)

    # ---- what is stored

    def claimed(self, node: str, execution_id: str, nonce: str, claim: Claimed) -> None:
        seen = self._executions[execution_id]
        if seen.nonce != nonce:
            seen.losses += seen.is_open
            seen.nonce = nonce
            self.on_claim(node)
        seen.is_open = True
        self._claims[node, execution_id] = claim.row.ver, nonce

    def committed(self, execution_id: str, nonce: str, op_id: str, batch: Batch, answer: Committed) -> None:
        seen = self._executions[execution_id]
        if op_id == seen.op_id:
            if answer.ver != seen.ver:
                self.broken.append(f"commit {op_id} of {execution_id} got two answers")
            return
        if answer.ver != seen.ver + 1 or nonce != seen.nonce:
            self.broken.append(f"{execution_id}: commit {answer.ver} was not the owner's next one (I6)")
        seen.ver, seen.op_id = answer.ver, op_id
        for step_id in batch.drop:
            seen.finals.pop(step_id, None)
        for checkpoint in batch.checkpoints:
            self._stored(execution_id, seen, checkpoint, answer.ver)
        for seq, step_id in batch.consume:
            if seq in seen.consumed:
                self.broken.append(f"{execution_id}: inbox entry {seq} was taken twice (I9)")
            seen.consumed[seq] = step_id
        if isinstance(batch.next, Continue):
            seen.finals.clear()
            seen.wakes.clear()
        gives_back = isinstance(batch.next, Ready) and batch.next.status is ExecutionStatus.PENDING
        seen.is_open = answer.owned or gives_back

    def _stored(self, execution_id: str, seen: _Seen, checkpoint: Checkpoint, ver: int) -> None:
        step_id = checkpoint.step_id
        if step_id in seen.finals:
            self.broken.append(f"{execution_id}: the final record of {step_id} was replaced (I2)")
        if checkpoint.status.final:
            seen.finals[step_id] = ver
            if checkpoint.status is not CheckpointStatus.CANCELLED and (execution_id, step_id) in self._begun:
                self.settled.add(self._begun[execution_id, step_id])
        elif checkpoint.wake_at is not None:
            seen.wakes[step_id] = min(checkpoint.wake_at, seen.wakes.get(step_id, checkpoint.wake_at))

    # ---- what runs

    def begins(self, info: StepInfo) -> None:
        """The body of a step begins, here and now."""
        self.on_body(True)
        self.note("begin", _who(), info.execution_id, info.step_id, info.attempt)
        self.bodies[info.idempotency_key] += 1
        self._begun[info.execution_id, info.step_id] = info.idempotency_key
        self.running[_who()] += 1
        if info.step_id.startswith("rollback:"):
            self.undone.append(info.idempotency_key)
        seen = self._executions[info.execution_id]
        ver, nonce = self._claims.get((_who(), info.execution_id), (0, ""))
        stored = seen.finals.get(info.step_id)
        if stored is not None and stored <= ver:
            self.broken.append(f"{info.execution_id}: {info.step_id} ran again after it was stored (I4)")
        if nonce == seen.nonce and not seen.is_open:
            self.broken.append(
                f"{info.execution_id}: {info.step_id} began after the execution was given away (I4)"
            )

    def ends(self, info: StepInfo) -> None:
        self.on_body(False)
        self.note("end", _who(), info.execution_id, info.step_id, info.attempt)
        self.running[_who()] -= 1

    # ---- at the end

    async def look_at(self, store: MemoryStore, execution_id: str) -> None:
        """Hold what is stored at the end against what was seen."""
        history, inbox = await store.history(execution_id), await store.inbox(execution_id)
        self.broken += [f"{execution_id}: {what}" for what in _out_of_order(history)]
        self.broken += [f"{execution_id}: {what}" for what in self._inbox(execution_id, inbox)]

    def _inbox(self, execution_id: str, inbox: Sequence[InboxEntry]) -> Iterator[str]:
        seen = self._executions[execution_id]
        for entry in inbox:
            if entry.consumed_by != seen.consumed.get(entry.seq):
                yield f"inbox entry {entry.seq} is taken by {entry.consumed_by} and no commit said so (I9)"
            if entry.kind is MessageKind.TIMER and entry.at < seen.wakes.get(entry.name, 0):
                yield f"the timer of {entry.name} fired early (I8)"
        if len({entry.id for entry in inbox if entry.kind is MessageKind.SIGNAL}) != sum(
            entry.kind is MessageKind.SIGNAL for entry in inbox
        ):
            yield "a signal is in the inbox twice (I9)"


def _out_of_order(history: Sequence[Checkpoint]) -> Iterator[str]:
    """Compensations that were stored before one of a later step (I12). Sagas of other branches have their own order."""
    steps = {checkpoint.step_id: checkpoint for checkpoint in history}
    undone = [
        (checkpoint, steps[name])
        for checkpoint in history
        if checkpoint.status.final
        if (name := checkpoint.step_id.removeprefix("rollback:")) != checkpoint.step_id and name in steps
    ]
    for index, (first, of_first) in enumerate(undone):
        for _, of_later in undone[index + 1 :]:
            if _branch(of_first) == _branch(of_later) and of_first.seq < of_later.seq < first.seq:
                yield f"{of_first.step_id} was undone before {of_later.step_id}, which came after it (I12)"


def _branch(checkpoint: Checkpoint) -> str:
    return checkpoint.step_id.rpartition("/")[0]


def _who() -> str:
    process = current_process()
    return "main" if process is None else process.name


def shown(batch: Batch) -> str:
    """What a commit carries, for people."""
    parts = [f"{each.kind} {each.step_id!r} {each.status}" for each in batch.checkpoints]
    parts += [f"forgets {step_id!r}" for step_id in batch.drop]
    parts += [f"takes message {seq} for {step_id!r}" for seq, step_id in batch.consume]
    parts += [f"{type(out).__name__.lower()}s" for out in batch.out]
    match batch.next:
        case Close(status):
            parts.append(f"ends as {status}")
        case Park(status):
            parts.append(f"parks as {status}")
        case other:
            parts.append(type(other).__name__.lower())
    return ", ".join(parts)
