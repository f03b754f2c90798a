"""Events: what a body sends to whomever it concerns, and waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from functools import partial
from typing import Any

from durable.codec import plain
from durable.engine.branch import Branch
from durable.engine.frames import TIMEOUT_FRAME, pack_event, unpack_event
from durable.engine.operations import CANCELLED, COMPLETED
from durable.engine.options import causes
from durable.engine.subscriptions import compose
from durable.engine.telling import emitted
from durable.engine.wait_operations import WaitOperations
from durable.engine.waits import Wait
from durable.errors import DurableError
from durable.matching import Match, matches, shape_of, topic_of
from durable.protocols import (
    Checkpoint,
    DurableStore,
    EventRow,
    InboxEntry,
    Listen,
    Looked,
    MessageKind,
    Unlisten,
)
from durable.signals import Event, Received, TimedOut

KIND = "wait_for_event"


class EventOperations(WaitOperations):
    """`ctx.emit` and `ctx.wait_for_event`."""

    def emit(self, event: Event[Any], payload: object, *, id: str | None) -> Coroutine[Any, Any, None]:
        branch = self.here()
        key = branch.key(id or f"emit:{event.name}")
        what = f"the payload of event {event.name}"
        value = event.schema.validate(payload, what)
        return self._emit(branch, key, event, event.schema.dump(value, what))

    async def _emit(self, branch: Branch, key: str, event: Event[Any], data: bytes) -> None:
        done = await self.found(key, "emit", event.name)
        if done is None:
            await self.driver.hold()
            event_id = f"{self.execution_id}:{self.driver.row.generation}:{key}"
            plan = await self.driver.ask(lambda store: store.plan(event.name))
            emit = compose(event, event_id, data, plan, self.driver.host.registry)
            self.journal.send(emitted(emit, self.driver.host.telemetry))
            done = self.record(branch, key, "emit", event.name, COMPLETED, data)
        branch.saw(done.finished_at or 0)

    def wait_for_event(
        self,
        event: Event[Any],
        *,
        match: Match,
        timeout_ms: int | None,
        lookback_ms: int | None,
        id: str | None,
    ) -> Coroutine[Any, Any, Received[Any] | TimedOut]:
        branch = self.here()
        return self._wait_for_event(
            branch, branch.key(id or event.name), event, match, timeout_ms, lookback_ms
        )

    async def _wait_for_event(
        self,
        branch: Branch,
        key: str,
        event: Event[Any],
        match: Match,
        timeout_ms: int | None,
        lookback_ms: int | None,
    ) -> Received[Any] | TimedOut:
        done = await self.found(key, KIND, event.name)
        if done is None or not done.status.final:
            is_new = done is None
            begun = await self.begin_wait(branch, key, KIND, event.name, timeout_ms, found=done)
            search = _Search(self, key, event.name, match, self._since(begun, lookback_ms))
            done = await search.first(begun)
            if done is None:
                if is_new:
                    self.journal.send(search.listen())
                done = await self._until_told(key, begun, search)
        await self.seen(branch, done)
        received = unpack_event(done.data)
        if received is None:
            return TimedOut()
        try:
            value = event.schema.load(received.data, f"the payload of event {event.name}")
            return Received(value, event.name, "event")
        except DurableError as error:
            await self.driver.needs_repair(error, key)

    async def _until_told(self, key: str, begun: Checkpoint, search: _Search) -> Checkpoint:
        """The final record of a wait: an event that matches, or its timeout, whichever is first in the inbox."""
        topics = ((MessageKind.EVENT, key), (MessageKind.TIMER, key))

        def settle(entry: InboxEntry) -> Checkpoint:
            """An open record means: look again."""
            self.journal.consume(entry, key)
            if entry.kind is MessageKind.TIMER:
                return search.settled(begun, TIMEOUT_FRAME, entry.at)
            row = EventRow.unpack(entry.data) if entry.data else None
            return begun if row is None else search.settled(begun, pack_event(row), entry.at)

        while True:
            entry = self.driver.expect(topics)
            try:
                done = (
                    settle(entry)
                    if entry is not None
                    else await self.driver.block(Wait(KIND, topics, settle, begun.wake_at))
                )
                assert done is not None
                if not done.status.final:
                    done = await search.first(begun) or done
            except asyncio.CancelledError:
                if self.driver.live and not self.driver.cancelling:
                    self.journal.settle(begun, CANCELLED, b"", finished_at=self.clock.now_ms())
                    self.journal.send(Unlisten(search.event, key))
                raise
            if done.status.final:
                return done

    def _since(self, begun: Checkpoint, lookback_ms: int | None) -> int | None:
        """The instant from which on an event counts; None: from now on."""
        if lookback_ms is not None:
            return begun.started_at - lookback_ms if lookback_ms else None
        row = self.driver.row
        if row.generation == 0:
            return row.created_at
        return min(record.started_at for record in self.journal.history.values())


class _Search:
    """Looking for the first event that a wait is for, among those that are stored."""

    def __init__(
        self, operations: EventOperations, key: str, event: str, match: Match, since: int | None
    ) -> None:
        self.event = event
        self._key = key
        self._driver, self._journal = operations.driver, operations.journal
        self._clock = operations.clock
        self._match, self._since = match, since
        self._shape, self._topic = shape_of(match), topic_of(match)
        self._seen: int | None = None if since is None else 0

    def listen(self) -> Listen:
        return Listen(self.event, self._key, self._topic, self._shape, self._seen)

    async def first(self, begun: Checkpoint) -> Checkpoint | None:
        """The final record, if the event that it waits for is there."""
        if self._since is None or self._driver.host.store is None:
            return None
        # What started this execution is no news to it, and what one wait has received no other one receives again.
        ours = {cause.id for cause in causes(self._driver.row.cause) if cause.name == self.event}
        taken = {
            row.seq
            for record in self._journal.history.values()
            if record.kind == KIND and record.name == self.event and (row := unpack_event(record.data))
        }
        more = True
        while more:
            looked = await self._driver.ask(partial(self._look, since=self._since, after=self._seen or 0))
            for row in looked.events:
                if row.id not in ours and row.seq not in taken and matches(plain(row.data), self._match):
                    self._journal.send(Unlisten(self.event, self._key))
                    return self.settled(begun, pack_event(row), self._clock.now_ms())
            self._seen, more = looked.seq, looked.more
        return None

    def _look(self, store: DurableStore, since: int, after: int) -> Awaitable[Looked]:
        return store.look(self.event, shape=self._shape, topic=self._topic, since=since, after=after)

    def settled(self, begun: Checkpoint, data: bytes, at: int) -> Checkpoint:
        if data == TIMEOUT_FRAME:
            self._journal.send(Unlisten(self.event, self._key))
        return self._journal.settle(begun, COMPLETED, data, finished_at=at)
