"""`PostgresQueue`: doorbells in a table, for whoever takes them first.

    ring ─▶ at the end of the loop's turn: INSERT ─▶ durable.doorbells ─▶ DELETE ... SKIP LOCKED ─▶ receive
                                             └─ hint ─▶ who waits looks at once

A doorbell that was received is in the hand of its worker and nowhere else: with the worker it is lost, as it may be,
and so is the table, which is not logged, when the server crashes.

A store of the same database needs none of this: its index of ready executions is a queue already. This one is for
executions that are kept elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final, final

from typing_extensions import override

from durable.errors import DurableError, QueueUnavailable, StoreUnavailable
from durable.protocols import Delivery, Doorbell, DurableQueue, Subscription, Wanted, work_topic
from durable_postgres import schema
from durable_postgres.answers import bells_of
from durable_postgres.bus import PostgresBus
from durable_postgres.errors import FAILURES
from durable_postgres.location import Location
from durable_postgres.pool import Pool, Share, check_sessions
from durable_postgres.texts import stored
from durable_postgres.writer import run

logger = logging.getLogger("durable.postgres")

_RING: Final = "SELECT durable.ring($1, $2::durable.bell[])"
_TAKE: Final = "SELECT * FROM durable.take($1, $2, $3, $4)"
_CONNECTIONS: Final = 2
_PATIENCE_S: Final = 10.0
_POLL_S: Final = 2.0
"""So often is looked without a hint."""
_MOST_PENDING: Final = 10_000
"""Doorbells that are kept while there is no connection. Those above it are lost, and rung again by a sweep."""


@final
class PostgresQueue(DurableQueue):
    """Any number of them, in any number of processes, share the doorbells of one database and one namespace."""

    def __init__(self, url: str, namespace: str = "default") -> None:
        self._location = Location.parse(url)
        self._namespace = namespace
        self._bus = PostgresBus(url, f"{namespace}/queue")
        self._pool: Pool | None = None
        self._share: Share | None = None
        self._ns = 0
        self._held: dict[object, Doorbell] = {}
        """By token: what was delivered and not settled."""
        self._pending: dict[str, Doorbell] = {}
        self._ringing: asyncio.Task[None] | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._waiting: set[asyncio.Event] = set()
        self._returning: set[asyncio.Task[Sequence[Doorbell]]] = set()

    @override
    async def open(self) -> None:
        if self._pool is not None:
            return
        pool = Pool(self._location, patience_s=_PATIENCE_S)
        share = Share(pool, _CONNECTIONS)
        try:
            async with share.connection() as connection:
                await check_sessions(self._location, connection)
                await schema.check_server(connection)
                await schema.migrate(connection)
                self._ns = await schema.namespace_number(connection, self._namespace)
            await self._bus.open()
        except BaseException as error:
            await pool.close()
            if isinstance(error, (*FAILURES, StoreUnavailable)):
                raise QueueUnavailable(f"no queue on {self._location.shown}: {error}") from error
            raise
        self._pool, self._share = pool, share

    @override
    async def close(self) -> None:
        if self._pool is None:
            return
        held, self._held = self._held, {}
        self.ring(list(held.values()))
        while self._returning:
            await asyncio.wait(self._returning)
        if self._ringing is not None:
            await self._ringing
        pool, self._pool, self._share = self._pool, None, None
        self._subscriptions.clear()
        await self._bus.close()
        await pool.close()

    @override
    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        if self._pool is None:
            return
        for bell in doorbells:
            if len(self._pending) < _MOST_PENDING:
                self._pending[bell.id] = bell
        if self._pending and self._ringing is None:
            self._ringing = asyncio.get_running_loop().create_task(self._ring())

    @override
    async def receive(self, wanted: Wanted, *, limit: int) -> Sequence[Delivery]:
        hinted = asyncio.Event()
        self._waiting.add(hinted)
        try:
            await self._subscribe(wanted.queues)
            while True:
                hinted.clear()
                if bells := await self._take(wanted, limit):
                    deliveries = [Delivery(bell, token=object()) for bell in bells]
                    self._held |= {delivery.token: delivery.doorbell for delivery in deliveries}
                    return deliveries
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S):
                        await hinted.wait()
        finally:
            self._waiting.discard(hinted)

    @override
    def ack(self, delivery: Delivery) -> None:
        self._held.pop(delivery.token, None)

    @override
    def release(self, delivery: Delivery) -> None:
        bell = self._held.pop(delivery.token, None)
        if bell is not None:
            self.ring([bell])

    @override
    async def dead_letters(self) -> int | None:
        return None

    # -- ringing

    async def _ring(self) -> None:
        try:
            while self._pending and self._share is not None:
                bells, self._pending = list(self._pending.values()), {}
                try:
                    await run(self._share, _RING, self._ns, [_fields(bell) for bell in bells], op_id="ring")
                except DurableError as error:
                    logger.warning("%d doorbells are lost, and will be rung again: %s", len(bells), error)
                    continue
                self._bus.publish(dict.fromkeys(work_topic(bell.queue) for bell in bells))
        finally:
            self._ringing = None

    # -- receiving

    async def _subscribe(self, queues: Sequence[str]) -> None:
        for queue in queues:
            if queue not in self._subscriptions:
                self._subscriptions[queue] = await self._bus.subscribe(work_topic(queue), self._look)

    def _look(self) -> None:
        for hinted in self._waiting:
            hinted.set()

    async def _take(self, wanted: Wanted, limit: int) -> Sequence[Doorbell]:
        """What there is. Cancelled, it gives back what it gets."""
        taking = asyncio.get_running_loop().create_task(self._taken(wanted, limit))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._returning.add(taking)
            taking.add_done_callback(self._return)
            raise

    def _return(self, taking: asyncio.Task[Sequence[Doorbell]]) -> None:
        self._returning.discard(taking)
        if not taking.cancelled() and taking.exception() is None:
            self.ring(taking.result())

    async def _taken(self, wanted: Wanted, limit: int) -> Sequence[Doorbell]:
        if self._share is None:
            raise QueueUnavailable("the queue is not open", "await queue.open() first")
        queues = [stored(queue) for queue in wanted.queues]
        workflows = [stored(name) for name in wanted.workflows]
        try:
            return bells_of(await run(self._share, _TAKE, self._ns, queues, workflows, limit, op_id="take"))
        except DurableError as error:
            logger.warning("the queue cannot be asked, and is asked again: %s", error)
            return ()


def _fields(bell: Doorbell) -> tuple[object, ...]:
    return (
        stored(bell.id),
        stored(bell.workflow),
        stored(bell.version),
        stored(bell.queue),
        bell.priority,
        bell.crashes,
        bell.ready_at,
    )
