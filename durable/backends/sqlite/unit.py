"""`Unit`: what a group of requests reads and writes in one transaction.

A verb decides on heads, changes them and adds rows. Nothing is written before the group is through, or something has to
be read that waits to be written. So a verb that refuses does so before it changes anything, and harms nobody else.

Bytes are bound as bytearrays, which the driver takes at once; for bytes it looks for an adapter first.

Heads stay in memory from one transaction to the next, for as long as no other connection writes to the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, final

from durable.backends.sqlite import statements as sql
from durable.backends.sqlite.head import CLOSED, NO_END, End, Given, Head, checkpoint, inbox_entry, tag_text
from durable.backends.sqlite.many import Many
from durable.backends.sqlite.schema import NEVER, VERSION, newer
from durable.clock import Clock
from durable.protocols import Checkpoint, InboxEntry, Message, NewExecution

_MOST_HEADS: Final = 5_000
_LARGEST_KEPT: Final = 4_096

_ADVANCED: Final = 0
_MOVED: Final = 1
_ENDED: Final = 2


class Conflict(Exception):
    """A final checkpoint would have been replaced, or an id taken twice: nothing of this may be committed."""


@final
class Unit:
    """Used by one thread. `begin` and `flush` enclose a transaction; after anything else, `forget`."""

    def __init__(self, db: sqlite3.Connection, ns: int, clock: Clock) -> None:
        self.db = sqlite3.Cursor(db)  # and not `db.cursor()`, which a user may have changed
        self.ns = ns
        self.now = 0
        self.is_exact = False
        """Look for what may be in conflict before it is written: on the second try, after a `Conflict`."""
        self.has_seekers = False
        """Somebody seeks gates in this namespace, or a limit was changed."""
        self.has_listeners = False
        """Somebody listens for events in it."""
        self._clock = clock
        self._data_version: object = None
        self._last_n = 0
        self._heads: dict[str, Head] = {}
        self._numbers: dict[int, Head] = {}
        self._closed: list[Head] = []
        # What waits to be written.
        self._changes: dict[Head, int] = {}
        self._settling: set[int] = set()
        self._posted: set[tuple[int, str]] = set()
        self._keys: dict[tuple[str, str], Head] = {}
        self._insert_heads = Many(sql.INSERT_HEADS, 35)
        self._insert_inputs = Many(sql.INSERT_INPUTS, 7)
        self._insert_tags = Many(sql.INSERT_TAGS, 4)
        self._advance_heads = Many(sql.ADVANCE_HEADS, 11, sql.ADVANCE_HEAD)
        self._move_heads = Many(sql.MOVE_HEADS, 25, sql.MOVE_HEAD)
        self._end_heads = Many(sql.END_HEADS, 28, sql.END_HEAD)
        self._upsert_checkpoints = Many(sql.UPSERT_CHECKPOINTS, 11)
        self._insert_message_ids = Many(sql.INSERT_MESSAGE_IDS, 2)
        self._insert_inbox = Many(sql.INSERT_INBOX, 8)
        self._upsert_timers = Many(sql.UPSERT_TIMERS, 5)
        self._rows = (
            self._insert_heads,
            self._insert_inputs,
            self._insert_tags,
            self._advance_heads,
            self._move_heads,
            self._end_heads,
            self._insert_message_ids,
            self._insert_inbox,
            self._upsert_timers,
        )

    # -- the transaction

    def begin(self) -> int:
        """Called under the write lock. A number that has changed when another connection wrote since the last time."""
        version: int = self.db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version or len(self._heads) > _MOST_HEADS:
            self._heads.clear()
            self._numbers.clear()
            self._last_n, min_writer, has_seekers, has_listeners = self.db.execute(
                sql.STATE_OF_FILE, (self.ns, self.ns, self.ns)
            ).fetchone()
            self.has_seekers, self.has_listeners = bool(has_seekers), bool(has_listeners)
            if min_writer > VERSION:
                raise newer(min_writer)
            self._data_version = version
        for head in self._closed:
            self._heads.pop(head.id, None)
            self._numbers.pop(head.n, None)
        self._closed.clear()
        self.now = self._clock.now_ms()
        return version

    def forget(self) -> None:
        """Drop all that waits or is remembered, after a transaction that was not committed."""
        self._data_version = None
        for rows in (*self._rows, self._upsert_checkpoints):
            rows.values = []
        self._changes.clear()
        self._settled()

    def flush(self) -> None:
        """Write what waits.

        Raises: `Conflict`.
        """
        if self._changes:
            self._stage_heads()
        try:
            for rows in self._rows:
                if rows.values:
                    rows.write(self.db)
        except sqlite3.IntegrityError as error:
            raise Conflict from error
        if not self._upsert_checkpoints.write(self.db):
            raise Conflict
        self._settled()

    def settle(self, head: Head) -> None:
        """Let what was added to an execution be written, so that it can be read, changed or deleted."""
        if head.n in self._settling:
            self.flush()

    def _settled(self) -> None:
        self._settling.clear()
        self._posted.clear()
        self._keys.clear()

    def _stage_heads(self) -> None:
        counts: dict[str, int] = {}
        for head, change in self._changes.items():
            if head.status != head.stored_status:
                counts[head.status] = counts.get(head.status, 0) + 1
                if head.stored_status is not None:
                    counts[head.stored_status] = counts.get(head.stored_status, 0) - 1
            if head.stored_status is None:
                self._insert_heads.values += head.all_columns(self.ns)
            elif change == _ADVANCED:
                self._advance_heads.values += head.counters()
            elif change == _MOVED:
                self._move_heads.values += head.counters() + head.situation()
            if change == _ENDED and head.end is not None:
                self._end_heads.values += head.counters() + head.situation() + head.end
            head.stored_status = head.status
            if head.state == CLOSED:
                self._closed.append(head)
        self._changes.clear()
        for status, number in counts.items():
            self.db.execute(sql.COUNT, (self.ns, status, number))

    # -- heads

    def head(self, execution_id: str) -> Head | None:
        return self._heads.get(execution_id) or self._load(sql.HEAD_BY_ID, self.ns, execution_id)

    def head_if_taken(self, spec: NewExecution) -> Head | None:
        """Who has the id of a new execution. A random id is taken by nobody, and not looked for at first."""
        if self.is_exact or spec.key or spec.parent_id:
            return self.head(spec.id)
        return self._heads.get(spec.id)

    def head_by_n(self, n: int) -> Head | None:
        return self._numbers.get(n) or self._load(sql.HEAD_BY_N, n)

    def holder(self, workflow: str, key: str) -> Head | None:
        """Whose key it is."""
        if (head := self._keys.get((workflow, key))) is not None:
            return head
        found = self.db.execute(sql.HOLDER, (self.ns, workflow, key)).fetchone()
        return self.head_by_n(found[0]) if found else None

    def insert(self, head: Head, spec: NewExecution, op_id: str, tags: str) -> None:
        """Add an execution; its number is given to it here."""
        self._last_n += 1
        head.n = n = self._last_n
        if spec.key is not None:
            if (loser := self.holder(spec.workflow, spec.key)) is not None:
                self.flush()
                self.db.execute(sql.LOSE_KEY, (loser.n,))
            self._keys[spec.workflow, spec.key] = head
        self._keep(head)
        head.given = _if_small(Given(spec.input, spec.options, tags, spec.cause))
        self._changes[head] = _MOVED
        items = 0 if spec.join is None else spec.join.items
        self._insert_inputs.values += (
            n,
            op_id,
            bytearray(spec.input),
            bytearray(spec.options),
            tags,
            bytearray(spec.cause),
            items,
        )
        for tag in spec.tags.items():
            self._insert_tags.values += (self.ns, tag_text(*tag), self.now, n)

    def advanced(self, head: Head) -> None:
        """Its counters have changed."""
        if head not in self._changes:
            self._changes[head] = _ADVANCED

    def moved(self, head: Head) -> None:
        """Its state has changed, or something that goes with it."""
        if self._changes.get(head) != _ENDED:
            self._changes[head] = _MOVED

    def ended(self, head: Head, end: End) -> None:
        """So has its end."""
        head.end = end
        self._changes[head] = _ENDED

    def end(self, head: Head) -> End:
        return head.end or End(*self.db.execute(sql.END, (head.n,)).fetchone())

    def given(self, head: Head) -> Given:
        if head.given is not None:
            return head.given
        given = Given(*self.db.execute(sql.GIVEN, (head.n,)).fetchone())
        head.given = _if_small(given)
        return given

    def created(self, head: Head) -> tuple[str, bytes]:
        """The operation that created it, and with which input."""
        self.flush()
        op_id, first_input = self.db.execute(sql.CREATED, (head.n,)).fetchone()
        return op_id, first_input

    def _load(self, statement: str, *parameters: object) -> Head | None:
        row = self.db.execute(statement, parameters).fetchone()
        if row is None:
            return None
        *columns, has_no_end = row
        head = Head(*columns)
        head.stored_status = head.status
        head.end = NO_END if has_no_end else None
        self._keep(head)
        return head

    def _keep(self, head: Head) -> None:
        self._heads[head.id] = self._numbers[head.n] = head

    # -- checkpoints, messages and timers

    def add_checkpoint(self, head: Head, given: Checkpoint) -> None:
        head.history_seq += 1
        head.records += 1
        self._settling.add(head.n)
        self._upsert_checkpoints.values += (
            head.n,
            given.step_id,
            head.history_seq,
            given.kind,
            given.name,
            given.status._value_,
            bytearray(given.data),
            given.attempts,
            given.started_at,
            NEVER if given.finished_at is None else given.finished_at,
            NEVER if given.wake_at is None else given.wake_at,
        )

    def add_timer(self, head: Head, step_id: str, at: int, seq: int) -> None:
        self._settling.add(head.n)
        self._upsert_timers.values += (head.n, step_id, self.ns, at, seq)

    def add_message_id(self, head: Head, message_id: str) -> None:
        self._settling.add(head.n)
        self._posted.add((head.n, message_id))
        self._insert_message_ids.values += (head.n, message_id)

    def has_message_id(self, head: Head, message_id: str) -> bool:
        return (head.n, message_id) in self._posted or (
            self.db.execute(sql.HAS_MESSAGE_ID, (head.n, message_id)).fetchone() is not None
        )

    def add_message(self, head: Head, message: Message, *, is_urgent: bool) -> None:
        head.inbox_seq += 1
        head.unread += 1
        if is_urgent:
            head.urgent_seq = head.inbox_seq
        self._settling.add(head.n)
        self._insert_inbox.values += (
            head.n,
            head.inbox_seq,
            message.id,
            message.kind._value_,
            message.name,
            bytearray(message.data),
            self.now,
            1 if is_urgent else 0,
        )

    def unread(self, head: Head, seen: int) -> Sequence[InboxEntry]:
        """Unread entries after a sequence number, in order."""
        if head.inbox_seq <= seen or not head.unread:
            return ()
        self.settle(head)
        return [inbox_entry(*row) for row in self.db.execute(sql.UNREAD, (head.n, seen))]

    def has_unread(self, head: Head, message_id: str) -> bool:
        if not head.unread:
            return False
        self.settle(head)
        return self.db.execute(sql.HAS_UNREAD_ID, (head.n, message_id)).fetchone() is not None

    def has_urgent(self, head: Head, seen: int) -> bool:
        """Has a message come since that would have woken it from any wait for an instant or an operator?"""
        if head.urgent_seq <= seen or not head.unread:
            return False
        self.settle(head)
        return self.db.execute(sql.HAS_URGENT, (head.n, seen)).fetchone() is not None

    def history(self, head: Head) -> Sequence[Checkpoint]:
        if not head.records:
            return ()
        self.settle(head)
        return [checkpoint(*row) for row in self.db.execute(sql.HISTORY, (head.n,))]

    def change(self, statement: str, head: Head, *parameters: object) -> int:
        """Change what has been written of an execution; how many rows."""
        self.settle(head)
        self.db.execute(statement, (*parameters, head.n))
        return self.db.rowcount

    def remember_bell(self, n: int, bell: int, ring_at: int) -> None:
        """The bell of an execution was changed in the file."""
        if (head := self._numbers.get(n)) is not None:
            head.bell, head.ring_at = bell, ring_at

    def lose(self, numbers: Iterable[int]) -> None:
        """These were deleted from the file."""
        for n in numbers:
            if (head := self._numbers.pop(n, None)) is not None:
                del self._heads[head.id]


def _if_small(given: Given) -> Given | None:
    """What is kept in memory for the next claim."""
    return given if len(given.input) + len(given.options) + len(given.tags) <= _LARGEST_KEPT else None
