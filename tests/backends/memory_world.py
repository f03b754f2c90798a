"""A memory store on a clock that stands still, and what is done to it, each in one call."""

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from durable.backends.memory import MemoryStore
from durable.clock import VirtualClock
from durable.ids import Ids
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Checkpoint,
    CheckpointStatus,
    Claimed,
    Close,
    Committed,
    Live,
    Message,
    MessageKind,
    NewExecution,
    Next,
    Park,
    Posted,
    Run,
    State,
    Wanted,
)

T = TypeVar("T")

START_MS = 1_700_000_000_000
WANTED = Wanted(("default",), frozenset({"order@1"}))
NOBODY = Live({}, at=0)
RUN = Run()
PARK = Park(ExecutionStatus.WAITING)
DONE = Close(ExecutionStatus.COMPLETED, b"42")

ids = Ids(seed=1)


def at_once(verb: Coroutine[Any, Any, T]) -> T:
    """Run a verb to its end in one step: it must not suspend."""
    try:
        verb.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it suspended")


def new(id: str, **fields: Any) -> NewExecution:
    return replace(NewExecution(id, "order", "1", b"{}"), **fields)


def signal(id: str | None = None) -> Message:
    return Message(id or ids.nonce(), MessageKind.SIGNAL, "go")


def step(step_id: str, status: CheckpointStatus = CheckpointStatus.COMPLETED) -> Checkpoint:
    return Checkpoint(step_id, "step", step_id, status)


def nap(step_id: str, wake_at: int) -> Checkpoint:
    return Checkpoint(step_id, "sleep", "sleep", CheckpointStatus.OPEN, wake_at=wake_at)


class World:
    """A store, its clock, and workers that make no mistakes."""

    def __init__(self) -> None:
        self.clock = VirtualClock(START_MS)
        self.store = MemoryStore(self.clock)

    def create(self, id: str, **fields: Any) -> str:
        at_once(self.store.create(new(id, **fields), op_id=f"create {id}"))
        return id

    def own(self, id: str) -> Claimed:
        claimed = at_once(self.store.claim(id, nonce=f"nonce {id}", worker="w"))
        assert isinstance(claimed, Claimed), claimed
        return claimed

    def send(self, id: str, next: Next = RUN, *, seen: int | None = None, **fields: Any) -> Any:
        """Commit as the owner, who by default has seen everything."""
        row = at_once(self.store.get(id))
        assert row is not None
        batch = Batch(row.inbox_seq if seen is None else seen, next, **fields)
        return at_once(
            self.store.commit(id, nonce=f"nonce {id}", ver=row.ver, op_id=ids.nonce(), batch=batch)
        )

    def commit(self, id: str, next: Next = RUN, *, seen: int | None = None, **fields: Any) -> Committed:
        answer = self.send(id, next, seen=seen, **fields)
        assert isinstance(answer, Committed), answer
        return answer

    def running(self, id: str, **fields: Any) -> str:
        self.own(self.create(id, **fields))
        return id

    def post(self, id: str, message: Message) -> Posted:
        answer = at_once(self.store.post(id, message))
        assert isinstance(answer, Posted), answer
        return answer

    def state(self, id: str) -> State:
        row = at_once(self.store.get(id))
        assert row is not None
        return row.state

    def unread(self, id: str) -> list[str]:
        return [entry.id for entry in at_once(self.store.peek({id: 0})).get(id, ())]

    def assert_sound(self) -> None:
        assert at_once(self.store.check()) == []
