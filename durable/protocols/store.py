"""`DurableStore`: the only truth, in few verbs, each one an atomic decision.

    create ─▶ READY ──claim──▶ OWNED ──commit PARK──▶ PARKED ──post / timer──▶ READY
                ▲                │ ├───commit READY──▶ READY (at an instant: a retry, a release)
                │                │ ├───commit BLOCK──▶ BLOCKED (needs repair, or paused) ──operator, cancel──▶ READY
                └──owner died────┘ └───commit CLOSE──▶ CLOSED ──operator──▶ READY

What makes it safe, in every implementation:

* **Fence.** A claim carries a random nonce. A commit is accepted only from the nonce that owns the execution now, and
  only on top of the version (`ver`) that it has seen. Leases decide who *may* claim, never whether a write is good.
* **One commit.** Checkpoints, consumed inbox entries, timers, outgoing messages and the next state are written in one
  transaction or not at all.
* **One inbox.** Whatever reaches an execution from outside is appended to its inbox. Its order decides every race.
* **Park is a compare.** `Park` holds only if nothing came since `Batch.seen`; else the owner goes on with what came.
* **Repeatable.** Every write may be sent again after an unknown outcome (a timeout, a dead connection): the same
  `op_id`, nonce or message id gets the first answer and changes nothing.
* **Opaque.** Payloads are bytes that no store looks into. Reads give copies that share nothing with the store.

All instants are milliseconds since the epoch on the store's clock. A verb that cannot reach the store raises
`StoreUnavailable`, one whose outcome is unknown raises `OutcomeUnknown`; the only legal reaction to the second is the
same call again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from durable.models import ExecutionStatus
from durable.protocols.answers import (
    Capabilities,
    Claimed,
    Committed,
    Created,
    Depth,
    Diverged,
    Doorbell,
    Exists,
    Fenced,
    Full,
    Joined,
    Live,
    NotClaimed,
    NotPosted,
    Posted,
    Query,
    Rows,
    Sent,
    Ticked,
    Wanted,
)
from durable.protocols.batch import Batch, Emit
from durable.protocols.events import EventRow, Looked, Plan, Subscriber
from durable.protocols.execution import Checkpoint, ExecutionRow, InboxEntry, Message, NewExecution
from durable.protocols.gates import GateRow
from durable.protocols.schedules import Due, Saved, ScheduleRow


class DurableStore(Protocol):
    """Keeps executions. Every method is atomic: a process that dies halfway leaves all of it or nothing."""

    async def open(self) -> None:
        """Connect, and create or migrate the schema. Called again after `close`, it connects again.

        Raises: `StoreUnavailable` when it cannot be reached or written, or holds something that is not ours, or a
        newer schema; the hint names the remedy.
        """
        ...

    async def close(self) -> None:
        """Let accepted calls finish and disconnect. Called twice: nothing happens."""
        ...

    async def capabilities(self) -> Capabilities: ...

    # -- writes

    async def create(self, spec: NewExecution, *, op_id: str) -> Created | Joined | Exists:
        """Store a new execution, ready from its instant on, with its timeout's timer.

        With a key, the (workflow, key) is looked up and taken in the same write: of many callers at once, one gets
        `Created`, the others `Exists` with the winner's id. With a `join` it joins its group (see `Join`). With
        gates it seeks them, at its instant: it is claimable when it has passed them, and closed if one refuses it.
        What is to be in its history and its values from the beginning is written with it.
        The same `op_id` again: the first answer, and nothing is joined twice.
        """
        ...

    async def claim(
        self, execution_id: str, *, nonce: str, worker: str, have_op: str | None = None
    ) -> Claimed | NotClaimed:
        """Own a ready execution, if its instant has come. It leaves the ready index and is shown as running.

        Of many callers at once one gets it. The same nonce again, while it still owns: the same answer. The first
        claim of all sets `started_at`. The owner keeps it until it commits it away or its worker's lease has ended
        and `tick` has noticed.
        """
        ...

    async def commit(
        self, execution_id: str, *, nonce: str, ver: int, op_id: str, batch: Batch
    ) -> Committed | Fenced | Diverged | Full:
        """Write a batch and move on: the heart of it all. In this order, in one transaction:

        1. `op_id` is that of the last accepted commit: the answer to it, again.
        2. `nonce` does not own the execution: `Fenced`. Whether a lease has expired is not asked.
        3. `ver` is not the stored one, or a checkpoint is already there and final (and not in `drop`): `Diverged`.
        4. Something is above a limit: `Full`.
        5. All is written; `ver` + 1; `crashes` = 0. Entries in `consume` are no longer unread. Out messages are
           applied, or put into an outbox when they concern another partition, and delivered from there before this
           returns, if that succeeds; what is left there is relayed later.
        6. `Park`, but the inbox holds unread entries after `seen`: all else is written and the owner stays owner.
           `Block`, or `Ready` at a later instant, but one of those entries has reach `BLOCKED` or more: ready at once.
        7. Who is owner no more gives its slots back (see `GateKind`), to the first in line; a `Close` gives back
        those of
           its steps too, and ends all its listening. Who becomes ready again seeks its gates again.
        """
        ...

    async def post(self, execution_id: str, message: Message) -> Posted | NotPosted:
        """Append to the inbox, and wake the execution if its state is within the message's reach.

        A message id that the execution has seen: `NotPosted(duplicate=True)`, also after it was consumed. Closed
        and out of reach, or missing: `NotPosted`, nothing stored. A woken execution is ready now; a message of reach
        `BLOCKED` or more also makes one ready now that waits for a later instant (a delayed start, a retry), and a
        `CANCEL` closes one that was never claimed as cancelled, with the message's data as its error. One that is
        held at a gate goes past it for such a message: it is claimable, without the slot.

        Raises: `StoreFull` at 10,000 unread entries, for a signal.
        """
        ...

    async def tick(self, partition: int, *, live: Live, limit: int) -> Ticked:
        """Append the message of each due timer (oldest first, at most `limit`), once; and make ready again, with
        `crashes` + 1, what is owned since before `live.at` by a worker that is not in `live`. Any process may call
        it at any time; two at once do each thing once. The message of a run's timeout has reach `BLOCKED`, any
        other's reach is `PARKED`. What has gates seeks them here when its instant has come, and who waits at a gate
        that has room again (a rate whose instant has come, a limit that was raised) passes it here. One whose owner
        died keeps its slots, and seeks nothing anew."""
        ...

    async def due(self, partition: int, wanted: Wanted, *, limit: int, again_ms: int) -> Sequence[Doorbell]:
        """Doorbells of ready executions whose instant has come: greater priority first, then the longest ready. Fewer
        than `limit` say that there are no more, but for those that are being claimed.

        Each is not returned again within `again_ms`, to anybody, unless it becomes ready anew; it stays in the
        index until it is claimed, so a doorbell that got lost is rung again.
        """
        ...

    def beat(self, worker: str, *, ttl_ms: int, info: bytes = b"") -> None:
        """Hold the worker's lease for `ttl_ms` from now; 0 ends it.

        Blocking, and called from a thread of its own, over a connection of its own: an event loop that is busy or
        blocked does not cost the lease. Raises `StoreUnavailable`, to be tried again.
        """
        ...

    async def relay(self, partition: int, *, limit: int) -> Ticked:
        """Carry what commits have left in the outbox, because they died or could not reach it, to where it belongs;
        each arrives once, however often this is called or dies halfway. With one partition there is nothing to do."""
        ...

    async def send(self, events: Sequence[Emit], *, op_id: str) -> Sent:
        """Store events, start what they start, and tell who listens: all of them or none. One whose id is known
        among those of its name changes nothing and gets the first one's receipt; the same `op_id` again gets the
        first answer."""
        ...

    async def subscribe(self, add: Sequence[Subscriber], remove: Sequence[Subscriber] = ()) -> None:
        """Let workflows be known as started by events (again: with the data given now), or no more."""
        ...

    async def save_schedule(
        self, row: ScheduleRow, *, op_id: str, starts: Sequence[NewExecution] = ()
    ) -> Saved | None:
        """Store a schedule and start executions, if `row.ver` is the stored one (0: there is none); else None, and
        nothing is done. The same `op_id` as that of the last save: its answer, again."""
        ...

    async def remove_schedule(self, schedule_id: str) -> bool:
        """Forget a schedule; was it there?"""
        ...

    async def set_limit(self, rule: str, limit: int | None) -> None:
        """Let all gates of a rule have this limit from now on, whatever is declared; None: as declared. Those who may
        pass then do so at the next ticks; who holds a slot above the limit keeps it."""
        ...

    async def pause_queue(self, queue: str, paused: bool) -> None:
        """Say that workers are to claim nothing from a queue, or may again. What is claimed goes on. A store only keeps
        this: `claim` and `due` do not ask."""
        ...

    async def prune_events(self, *, before: int, limit: int) -> int:
        """Delete events that were stored before an instant; how many. Their ids are new again."""
        ...

    async def prune(self, *, before: int, status: Sequence[ExecutionStatus], limit: int) -> int:
        """Delete executions that closed before an instant with all that is theirs, each atomically; how many."""
        ...

    # -- reads

    async def live(self) -> Live: ...

    async def get(self, execution_id: str) -> ExecutionRow | None: ...

    async def history(self, execution_id: str) -> Sequence[Checkpoint]:
        """In order of `seq`."""
        ...

    async def inbox(self, execution_id: str) -> Sequence[InboxEntry]:
        """All entries, consumed ones too, in order."""
        ...

    async def peek(self, seen: Mapping[str, int]) -> Mapping[str, Sequence[InboxEntry]]:
        """For each execution, the unread entries after a sequence number; only those that have any."""
        ...

    async def value(self, execution_id: str, name: str) -> bytes | None: ...

    async def query(self, query: Query) -> Rows:
        """A page of executions, by index."""
        ...

    async def counts(self) -> Mapping[ExecutionStatus, int]:
        """Number of executions per status; statuses with none may be missing."""
        ...

    async def event(self, name: str, event_id: str) -> EventRow | None: ...

    async def plan(self, event: str) -> Plan:
        """The shapes of all that listened for events of a name so far, or were declared; and whom they start."""
        ...

    async def look(
        self, event: str, *, shape: str, topic: str, since: int, after: int = 0, limit: int = 100
    ) -> Looked:
        """Events of a name with a greater `seq` than `after`, stored at `since` or later, that have the topic or whose
        sender did not know the shape. Never more than `limit`, at most 1,000."""
        ...

    async def subscribers(self) -> Sequence[Subscriber]:
        """All of them."""
        ...

    async def schedule(self, schedule_id: str) -> ScheduleRow | None: ...

    async def schedules(self, *, after: str = "", limit: int = 100) -> Sequence[ScheduleRow]:
        """In order of their ids, from the first id greater than `after` on."""
        ...

    async def due_schedules(self, *, limit: int) -> Due: ...

    async def gate(self, name: str) -> GateRow | None:
        """None for a gate that nobody has sought, or that is as if nobody had."""
        ...

    async def gates(self, *, after: str = "", limit: int = 100) -> Sequence[GateRow]:
        """Those at which somebody holds a slot or waits, in order of their names."""
        ...

    async def limits(self) -> Mapping[str, int]:
        """What `set_limit` has set, by rule."""
        ...

    async def paused_queues(self) -> Sequence[str]: ...

    async def depths(self) -> Sequence[Depth]:
        """For each queue in which something waits."""
        ...

    async def first_timer(self) -> int | None:
        """The instant of the first of all timers, which is past when `tick` is late; None: there is none."""
        ...

    async def check(self) -> Sequence[str]:
        """What contradicts itself in the store, a sentence each; empty when all is well. Reads everything: slow."""
        ...
