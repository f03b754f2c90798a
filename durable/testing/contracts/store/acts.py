"""What clients and workers do to a store, each in one call, so that a test says only what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypedDict, Unpack

from durable.ids import Ids
from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Block,
    Checkpoint,
    CheckpointStatus,
    Claimed,
    Close,
    Committed,
    Continue,
    Created,
    Diverged,
    Doorbell,
    DurableStore,
    EventRow,
    ExecutionRow,
    Fenced,
    Full,
    Gate,
    InboxEntry,
    Join,
    Listen,
    Live,
    Message,
    MessageKind,
    NewExecution,
    Next,
    Out,
    Park,
    Posted,
    Query,
    Reach,
    Ready,
    Run,
    State,
    Ticked,
    Wanted,
    WorkerInfo,
    keyed_id,
)

SOON = 30
"""Milliseconds that a test lets pass."""
LATER = 600_000
"""Milliseconds that no test lives to see."""

WORKER = "worker-1"
HELD = Live({WORKER: WorkerInfo(WORKER, until=2**53)}, at=0)
"""A tick with it takes nothing from anybody."""
RUN = Run()
NEXTS: dict[str, Next] = {
    "run": RUN,
    "park": Park(ExecutionStatus.WAITING),
    "block": Block(ExecutionStatus.PAUSED, b"why"),
    "release": Ready(0, ExecutionStatus.PENDING, attempt=1),
    "retry": Ready(2**53, ExecutionStatus.RETRYING, attempt=2),
    "close": Close(ExecutionStatus.COMPLETED, b"42"),
    "continue": Continue(b"{}"),
}
WANTED = Wanted(("default",), frozenset({"order@1"}))

ids = Ids()


class Spec(TypedDict, total=False):
    id: str
    workflow: str
    version: str
    input: bytes
    queue: str
    priority: int
    key: str | None
    reuse_closed_key: bool
    tags: Mapping[str, str]
    options: bytes
    delay_ms: int
    at_ms: int | None
    timeout_ms: int | None
    parent_id: str | None
    gates: Sequence[Gate]
    join: Join | None
    listens: Sequence[Listen]
    cause: bytes
    history: Sequence[Checkpoint]
    values: Mapping[str, bytes]


def new(**fields: Unpack[Spec]) -> NewExecution:
    """An order that is to be created, with a fresh id."""
    spec = replace(NewExecution(ids.execution_id(), "order", "1", b"{}"), **fields)
    if spec.key is None or "id" in fields:
        return spec
    return replace(spec, id=keyed_id(spec.workflow, spec.key, again=ids.nonce()[:8]))


async def create(store: DurableStore, **fields: Unpack[Spec]) -> str:
    """Create one that must be new, and let it reach its gates; its id."""
    answer = await store.create(new(**fields), op_id=ids.nonce())
    assert isinstance(answer, Created), answer
    if fields.get("gates") or fields.get("listens"):
        await carry(store)
    return answer.id


def message(
    name: str = "go",
    data: bytes = b"",
    *,
    id: str | None = None,
    kind: MessageKind = MessageKind.SIGNAL,
    reach: Reach = Reach.PARKED,
) -> Message:
    return Message(ids.nonce() if id is None else id, kind, name, data, reach)


def cancel(reason: bytes = b"", *, id: str | None = None) -> Message:
    return message("cancel", reason, id=id, kind=MessageKind.CANCEL, reach=Reach.BLOCKED)


def reopen() -> Message:
    return message("retry", kind=MessageKind.OPERATOR, reach=Reach.CLOSED)


async def signal(store: DurableStore, execution_id: str, name: str = "go", data: bytes = b"") -> Posted:
    """Post one that must be taken."""
    return await post(store, execution_id, message(name, data))


async def post(store: DurableStore, execution_id: str, message: Message) -> Posted:
    """Post one that must be taken, and let it reach other partitions."""
    answer = await store.post(execution_id, message)
    assert isinstance(answer, Posted), answer
    await carry(store)
    return answer


def record(
    step_id: str,
    data: bytes = b"",
    status: CheckpointStatus = CheckpointStatus.COMPLETED,
    *,
    wake_at: int | None = None,
) -> Checkpoint:
    """A step's record."""
    return Checkpoint(step_id, "step", step_id, status, data, wake_at=wake_at)


def timer(step_id: str, wake_at: int | None) -> Checkpoint:
    """A sleep's record, still open."""
    return Checkpoint(step_id, "sleep", "sleep", CheckpointStatus.OPEN, wake_at=wake_at)


@dataclass(slots=True)
class Owner:
    """An execution and its worker's idea of it: the nonce, the version and what it has seen of the inbox."""

    store: DurableStore
    id: str
    nonce: str
    ver: int = 0
    seen: int = 0
    now: int = 0
    """The store's clock at the last answer."""
    inbox: Sequence[InboxEntry] = field(default_factory=tuple[InboxEntry, ...])
    """What was unread at the claim."""

    def batch(
        self,
        next: Next = RUN,
        *,
        checkpoints: Sequence[Checkpoint] = (),
        drop: Sequence[str] = (),
        consume: Sequence[tuple[int, str]] = (),
        out: Sequence[Out] = (),
        values: Mapping[str, bytes] | None = None,
        seen: int | None = None,
    ) -> Batch:
        seen = self.seen if seen is None else seen
        return Batch(seen, next, checkpoints, drop, consume, out, {} if values is None else values)

    async def send(
        self, batch: Batch, *, op_id: str | None = None, ver: int | None = None
    ) -> Committed | Fenced | Diverged | Full:
        """Commit, whatever comes of it."""
        return await self.store.commit(
            self.id,
            nonce=self.nonce,
            ver=self.ver if ver is None else ver,
            op_id=op_id or ids.nonce(),
            batch=batch,
        )

    async def commit(
        self,
        next: Next = RUN,
        *,
        checkpoints: Sequence[Checkpoint] = (),
        drop: Sequence[str] = (),
        consume: Sequence[tuple[int, str]] = (),
        out: Sequence[Out] = (),
        values: Mapping[str, bytes] | None = None,
        seen: int | None = None,
        op_id: str | None = None,
    ) -> Committed:
        """Commit what must be accepted, and let it reach other partitions."""
        batch = self.batch(
            next, checkpoints=checkpoints, drop=drop, consume=consume, out=out, values=values, seen=seen
        )
        answer = await self.send(batch, op_id=op_id)
        assert isinstance(answer, Committed), answer
        self.ver = answer.ver
        self.seen = max([self.seen, *[entry.seq for entry in answer.inbox]])
        self.now = answer.now
        carried = await carry(self.store)
        return replace(
            answer,
            doorbells=[*answer.doorbells, *carried.doorbells],
            touched=[*answer.touched, *carried.touched],
        )


async def own(store: DurableStore, execution_id: str | None = None, *, worker: str = WORKER) -> Owner:
    """Claim an execution that must be ready, by default a new one."""
    execution_id = execution_id or await create(store)
    nonce = ids.nonce()
    answer = await store.claim(execution_id, nonce=nonce, worker=worker)
    assert isinstance(answer, Claimed), answer
    row = answer.row
    return Owner(store, row.id, nonce, row.ver, row.inbox_seq, answer.now, answer.inbox)


def gist(answer: object) -> object:
    """An answer without its clock and its hints: a repeat may find that there is nothing left to ring."""
    if isinstance(answer, Committed):
        return replace(answer, inbox=list(answer.inbox), now=0, doorbells=(), touched=())
    return answer


class Situation(StrEnum):
    """Where an execution can be, as far as any verb can tell."""

    MISSING = "missing"
    NEW = "new"
    """Ready, never claimed."""
    DELAYED = "delayed"
    """Ready later, never claimed."""
    RELEASED = "released"
    """Ready, claimed before."""
    RETRYING = "retrying"
    """Ready later, claimed before."""
    OWNED = "owned"
    PARKED = "parked"
    BLOCKED = "blocked"
    CLOSED = "closed"

    @property
    def state(self) -> State | None:
        match self:
            case Situation.MISSING:
                return None
            case Situation.NEW | Situation.DELAYED | Situation.RELEASED | Situation.RETRYING:
                return State.READY
            case _:
                return State(self.value)


def situations(*without: Situation) -> list[Situation]:
    return [situation for situation in Situation if situation not in without]


async def bring(store: DurableStore, situation: Situation, **fields: Unpack[Spec]) -> Owner:
    """A new execution in this situation, with the nonce that owned it last."""
    match situation:
        case Situation.MISSING:
            return Owner(store, ids.execution_id(), ids.nonce())
        case Situation.NEW:
            return Owner(store, await create(store, **fields), ids.nonce())
        case Situation.DELAYED:
            delayed: Spec = {**fields, "delay_ms": LATER}
            return Owner(store, await create(store, **delayed), ids.nonce())
        case _:
            owner = await own(store, await create(store, **fields))
    match situation:
        case Situation.RELEASED:
            await owner.commit(Ready(0, ExecutionStatus.PENDING, attempt=1))
        case Situation.RETRYING:
            await owner.commit(Ready(owner.now + LATER, ExecutionStatus.RETRYING, attempt=2))
        case Situation.PARKED:
            await owner.commit(Park(ExecutionStatus.WAITING))
        case Situation.BLOCKED:
            await owner.commit(Block(ExecutionStatus.PAUSED))
        case Situation.CLOSED:
            await owner.commit(Close(ExecutionStatus.COMPLETED, b"42"))
        case _:
            pass
    return owner


async def complete(store: DurableStore, **fields: Unpack[Spec]) -> str:
    """Create, claim and complete one; its id."""
    return (await bring(store, Situation.CLOSED, **fields)).id


# ---- every partition, until nothing is left -----------------------------------------------------------


async def event_of(store: DurableStore, name: str, event_id: str) -> EventRow:
    """An event that must be there."""
    found = await store.event(name, event_id)
    assert found is not None, f"event {event_id} of {name} is missing"
    return found


async def partitions(store: DurableStore) -> range:
    return range((await store.capabilities()).partitions)


def together(answers: Sequence[Ticked]) -> Ticked:
    return Ticked(
        doorbells=[bell for answer in answers for bell in answer.doorbells],
        touched=[touched for answer in answers for touched in answer.touched],
        more=any(answer.more for answer in answers),
        next_at=min((answer.next_at for answer in answers if answer.next_at is not None), default=None),
        now=max(answer.now for answer in answers),
    )


async def tick_once(store: DurableStore, *, live: Live = HELD, limit: int = 100) -> Ticked:
    """One tick of each partition."""
    return together([await store.tick(number, live=live, limit=limit) for number in await partitions(store)])


async def tick(store: DurableStore, *, live: Live = HELD, limit: int = 100) -> Ticked:
    """Tick until there is nothing more to do now."""
    answers = [await tick_once(store, live=live, limit=limit)]
    while answers[-1].more:
        answers.append(await tick_once(store, live=live, limit=limit))
    return replace(together(answers), next_at=answers[-1].next_at)


async def due(
    store: DurableStore, *, wanted: Wanted = WANTED, limit: int = 100, again_ms: int = LATER
) -> list[Doorbell]:
    """At most `limit` doorbells of each partition."""
    rung = [
        await store.due(number, wanted, limit=limit, again_ms=again_ms) for number in await partitions(store)
    ]
    return [bell for bells in rung for bell in bells]


async def carry(store: DurableStore) -> Ticked:
    """Relay until every message has arrived, and the answers that it caused as well."""
    numbers = await partitions(store)
    answers = [Ticked((), (), more=False, next_at=None, now=0)]
    if len(numbers) > 1:
        for _ in range(
            6
        ):  # a watch goes to its target, and the target's end comes back; gates one after the other
            for number in numbers:
                answers.append(await store.relay(number, limit=100))
                while answers[-1].more:
                    answers.append(await store.relay(number, limit=100))
    return together(answers)


# ---- what is stored, to compare -----------------------------------------------------------------------


async def row(store: DurableStore, execution_id: str) -> ExecutionRow:
    """The row of an execution that must exist."""
    found = await store.get(execution_id)
    assert found is not None, f"execution {execution_id} is missing"
    return found


async def unread(store: DurableStore, execution_id: str) -> list[InboxEntry]:
    return list((await store.peek({execution_id: 0})).get(execution_id, ()))


async def everything(store: DurableStore) -> list[ExecutionRow]:
    """Every row, newest first."""
    page = await store.query(Query(limit=100))
    rows = list(page.rows)
    while page.cursor is not None:
        page = await store.query(Query(limit=100, cursor=page.cursor))
        rows += page.rows
    return rows


async def snapshot(store: DurableStore) -> object:
    """All that reads can tell, to be compared with what they tell later."""
    rows = {row.id: row for row in await everything(store)}
    return (
        rows,
        {found: list(await store.history(found)) for found in rows},
        {found: list(await store.inbox(found)) for found in rows},
        {found: list(entries) for found, entries in (await store.peek(dict.fromkeys(rows, 0))).items()},
        {status: number for status, number in (await store.counts()).items() if number},
    )


async def contradictions(store: DurableStore) -> list[str]:
    """What the store finds wrong with itself, and what does not fit together in its answers."""
    found = list(await store.check())
    rows = await everything(store)
    counted = dict.fromkeys((row.status for row in rows), 0)
    for each in rows:
        counted[each.status] += 1
        inbox, history = await store.inbox(each.id), await store.history(each.id)
        seqs = [entry.seq for entry in inbox]
        if each != await store.get(each.id):
            found.append(f"{each.id}: query and get disagree")
        if (each.state is State.CLOSED) != each.status.final:
            found.append(f"{each.id}: state {each.state} does not go with status {each.status}")
        if seqs != sorted(set(seqs)) or any(not 1 <= seq <= each.inbox_seq for seq in seqs):
            found.append(f"{each.id}: inbox {seqs} does not go with inbox_seq {each.inbox_seq}")
        if [entry for entry in inbox if entry.consumed_by is None] != await unread(store, each.id):
            found.append(f"{each.id}: inbox and peek disagree")
        if len({entry.seq for entry in history}) < len(history) or list(history) != sorted(
            history, key=lambda entry: entry.seq
        ):
            found.append(f"{each.id}: history is out of order")
        if len({entry.step_id for entry in history}) < len(history):
            found.append(f"{each.id}: history has a step id twice")
    if counted != {status: number for status, number in (await store.counts()).items() if number}:
        found.append(f"counts are not {counted}")
    return found
