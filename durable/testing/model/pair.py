"""`Pair`: a store beside its reference. Whatever is done to it is done to both, and the answers are compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from durable.models import ExecutionStatus
from durable.protocols import (
    Batch,
    Claimed,
    Committed,
    Created,
    Doorbell,
    DurableStore,
    ExecutionRow,
    InboxEntry,
    Live,
    Message,
    NewExecution,
    NotClaimed,
    Query,
    Ticked,
    Wanted,
)
from durable.testing.model.comparison import differences
from durable.testing.model.reference import Known, Reference, ids_of, rank

STEP_MS: Final = 3_600_000
"""All instants of the model are whole steps apart, or a little less than a whole one."""
HALF_MS: Final = STEP_MS // 2
SLACK_MS: Final = STEP_MS // 3
"""How much a clock that goes on by itself may have gone on in the time that one sequence takes."""

_ALL: Final = 1_000
_LOOKS: Final = 8
_CHECKED_EVERY: Final = 8


@dataclass(frozen=True, slots=True)
class World:
    """A store that is open and empty, and its clock."""

    store: DurableStore
    pass_time: Callable[[int], Awaitable[object]] | None = None
    """Let so many milliseconds pass on the store's clock, at once. None: it cannot be moved, and stands still as far
    as the model knows."""
    is_exact: bool = False
    """The clock moves by `pass_time` alone."""


class Mismatch(AssertionError):
    """A store did what the port does not say."""


class Pair:
    """What a rule of the model does to one store."""

    def __init__(self, name: str, world: World, reference: Reference, partitions: int) -> None:
        self.name = name
        self.reference = reference
        self._world = world
        self._store = world.store
        self._slack_ms = 0 if world.is_exact else SLACK_MS
        self._partitions = partitions
        self._turns = 0
        self._log: list[Callable[[], Awaitable[None]]] = []
        """The writes so far, to be repeated."""
        self._told: dict[str, int] = {}
        """The inbox sequence number up to which the owner of an execution knows its inbox."""

    @classmethod
    async def meet(cls, name: str, world: World, note: Callable[[str, str], None]) -> Pair:
        """A pair that has not done anything yet."""
        partitions = (await world.store.capabilities()).partitions
        now = (await world.store.live()).at
        return cls(name, world, Reference(now, has_outbox=partitions > 1, note=note), partitions)

    @property
    def clock_moves(self) -> bool:
        return self._world.pass_time is not None

    @property
    def writes(self) -> int:
        return len(self._log)

    def at(self, steps: int, *, less_ms: int = 0) -> int:
        """The instant so many steps from now on this store's clock, or a little before it."""
        return self.reference.now + steps * STEP_MS - less_ms

    def known(self, execution_id: str) -> Known | None:
        return self.reference.executions.get(execution_id)

    def told(self, execution_id: str) -> int:
        return self._told.get(execution_id, 0)

    # -- writes

    async def create(self, spec: NewExecution, op_id: str) -> None:
        self._log.append(lambda: self.create(spec, op_id))
        is_new = spec.id not in self.reference.executions
        expected = self.reference.create(spec, op_id)
        actual = await self._store.create(spec, op_id=op_id)
        if not is_new and isinstance(actual, Created) and isinstance(expected, Created):
            expected = replace(actual, id=expected.id)  # where it is now is no part of the answer to a repeat
        self._compare("create", actual, expected)
        await self._look("create")

    async def claim(self, execution_id: str, nonce: str, worker: str, have_op: str | None) -> None:
        self._log.append(lambda: self.claim(execution_id, nonce, worker, have_op))
        expected = self.reference.claim(execution_id, nonce, worker, have_op)
        actual = await self._store.claim(execution_id, nonce=nonce, worker=worker, have_op=have_op)
        self._compare("claim", actual, expected)
        if isinstance(expected, Claimed):
            self._told[execution_id] = expected.row.inbox_seq
        else:
            assert isinstance(expected, NotClaimed)
        await self._look("claim")

    async def commit(self, execution_id: str, nonce: str, ver: int, op_id: str, batch: Batch) -> None:
        self._log.append(lambda: self.commit(execution_id, nonce, ver, op_id, batch))
        known = self.known(execution_id)
        is_repeat = known is not None and known.answer is not None and known.row.op_id == op_id
        expected = self.reference.commit(execution_id, nonce, ver, op_id, batch)
        actual = await self._store.commit(execution_id, nonce=nonce, ver=ver, op_id=op_id, batch=batch)
        if is_repeat and isinstance(actual, Committed) and isinstance(expected, Committed):
            # The first answer, or what would be answered now: who goes on from either is told so by the next commit.
            assert known is not None
            news = expected.inbox if len(actual.inbox) == len(expected.inbox) else known.unread(batch.seen)
            owns = actual.owned if known.row.nonce == nonce or not actual.owned else expected.owned
            expected = replace(expected, inbox=news, owned=owns, now=actual.now)
        self._compare("commit", actual, expected)
        if isinstance(actual, Committed):
            self._told[execution_id] = max([self.told(execution_id), *[entry.seq for entry in actual.inbox]])
        carried = await self._carry()
        if isinstance(actual, Committed) and not is_repeat:
            self._compare_hints(
                "commit", (*actual.doorbells, *carried.doorbells), (*actual.touched, *carried.touched)
            )
        await self._look("commit")

    async def post(self, execution_id: str, message: Message) -> None:
        self._log.append(lambda: self.post(execution_id, message))
        expected = self.reference.post(execution_id, message)
        actual = await self._store.post(execution_id, message)
        self._compare("post", actual, expected)
        await self._carry()
        await self._look("post")

    async def tick(self, *, before: int, limit: int) -> None:
        """Tick until nothing is left, with the workers that live and what was owned before an instant."""
        live = await self._live()
        live = Live(live.workers, before)
        expected = self.reference.tick(live)
        answers: list[Ticked] = []
        for partition in range(self._partitions):
            answers.append(await self._store.tick(partition, live=live, limit=limit))
            while answers[-1].more:
                answers[-1] = replace(answers[-1], next_at=None)
                answers.append(await self._store.tick(partition, live=live, limit=limit))
        actual = _together(answers)
        self._compare("tick", actual, expected)
        self._compare_hints("tick", actual.doorbells, actual.touched)
        await self._look("tick")

    async def due(self, wanted: Wanted, *, limit: int, again_ms: int) -> None:
        expected = self.reference.due(wanted)
        by_id = {known.row.id: known for known in expected}
        rung: list[Known] = []
        for partition in range(self._partitions):
            bells = await self._store.due(partition, wanted, limit=limit, again_ms=again_ms)
            for bell in bells:
                if bell.id not in by_id:
                    raise self._mismatch("due", f"{bell} is rung, which is not due")
                self._compare("due", bell, by_id[bell.id].doorbell())
            ranks = [rank(by_id[bell.id]) for bell in bells]
            if ranks != sorted(ranks) or len(bells) > limit:
                raise self._mismatch("due", f"{bells} are too many or in the wrong order: {ranks}")
            rung += [by_id.pop(bell.id) for bell in bells]
        left = [known for known in expected if known not in rung]
        self.reference.ring(rung, again_ms)
        if len(rung) < min(limit, len(expected)):
            raise self._mismatch("due", f"of {ids_of(expected)} only {ids_of(rung)} were rung")
        if self._partitions == 1 and left and rung and min(map(rank, left)) < max(map(rank, rung)):
            raise self._mismatch("due", f"{ids_of(rung)} were rung before {ids_of(left)}")
        await self._look("due")

    async def beat(self, worker: str, ttl_ms: int, info: bytes) -> None:
        self._log.append(lambda: self.beat(worker, ttl_ms, info))
        self.reference.beat(worker, ttl_ms, info)
        await asyncio.to_thread(self._store.beat, worker, ttl_ms=ttl_ms, info=info)
        await self._live()

    async def relay(self) -> None:
        """Once more than needed."""
        self.reference.bells, self.reference.touched = {}, set()
        carried = await self._carry()
        self._compare_hints("relay", carried.doorbells, carried.touched)
        await self._look("relay")

    async def prune(self, *, before: int, status: Collection[ExecutionStatus], limit: int) -> None:
        expected = self.reference.prunable(before, status)
        number = await self._store.prune(before=before, status=list(status), limit=limit)
        deleted = {each for each in expected if await self._store.get(each) is None}
        self.reference.delete(deleted)
        if not number == len(deleted) == min(limit, len(expected)):
            raise self._mismatch(
                "prune", f"{number} deleted, of {expected} at most {limit}; {deleted} are missing"
            )
        await self._look("prune")

    async def repeat(self, number: int) -> None:
        """An earlier write again, as after an unknown outcome: the reference knows what comes of it."""
        again = self._log[-1 - number % len(self._log)]
        await again()
        self._log.pop()

    async def pass_time(self, steps: int) -> None:
        assert self._world.pass_time is not None
        await self._world.pass_time(steps * STEP_MS)
        self.reference.now += steps * STEP_MS
        await self._look("pass time")

    # -- reads

    async def query(self, query: Query) -> None:
        """All pages of it."""
        page = await self._store.query(query)
        rows = list(page.rows)
        while page.cursor is not None:
            page = await self._store.query(replace(query, cursor=page.cursor))
            if not 1 <= len(page.rows) <= query.limit:
                raise self._mismatch("query", f"a page of {query} has {len(page.rows)} rows")
            rows += page.rows
        self._compare_rows("query", rows, self.reference.matching(replace(query, cursor=None)))

    async def look_at_everything(self) -> None:
        """All that reads can tell, what the store finds wrong with itself included."""
        await self._look("look", everything=True)

    # -- comparing

    async def _live(self) -> Live:
        expected, actual = self.reference.live(), await self._store.live()
        self._compare("live", actual, expected)
        return actual

    async def _carry(self) -> Ticked:
        """Relay until everything has arrived that was sent, and what that caused as well."""
        answers = [Ticked((), (), more=False, next_at=None, now=0)]
        if self._partitions > 1:
            for _ in range(_LOOKS):
                fresh = [await self._store.relay(number, limit=_ALL) for number in range(self._partitions)]
                answers += fresh
                if not any(each.doorbells or each.touched or each.more for each in fresh):
                    break
        return _together(answers)

    async def _look(self, verb: str, *, everything: bool = False) -> None:
        """Compare what is stored now."""
        reference, store = self.reference, self._store
        self._turns += 1
        known = reference.executions
        reads = asyncio.gather(
            store.query(Query(limit=_ALL)), store.counts(), store.peek(dict.fromkeys(known, 0))
        )
        inboxes = asyncio.gather(*[store.inbox(each) for each in known])
        histories = asyncio.gather(*[store.history(each) for each in known])
        page, counts, news = await reads
        counted = {status: number for status, number in counts.items() if number}
        self._compare(verb, counted, reference.counts(), "counts")
        for each, inbox, history in zip(known.values(), await inboxes, await histories, strict=True):
            self._follow(each, inbox)
            self._compare(verb, inbox, each.inbox, f"inbox of {each.row.id}")
            self._compare(verb, history, list(each.history.values()), f"history of {each.row.id}")
        self._compare(verb, news, reference.peek(dict.fromkeys(known, 0)), "peek")
        self._compare_rows(verb, page.rows, [each.row for each in known.values()])
        is_checked = everything or self._turns % _CHECKED_EVERY == 0
        if is_checked and (wrong := await store.check()):
            raise self._mismatch(verb, f"the store contradicts itself: {wrong}")
        if everything:
            for each in known.values():
                self._compare(verb, await store.get(each.row.id), each.row, each.row.id)
                for name in ("v", "w"):
                    value = await store.value(each.row.id, name)
                    self._compare(verb, value, each.values.get(name), f"value {name} of {each.row.id}")
            for (name, event_id), data in reference.events.items():
                event = await store.event(name, event_id)
                self._compare(
                    verb, None if event is None else event.data, data, f"event {event_id} of {name}"
                )

    def _follow(self, known: Known, inbox: Sequence[InboxEntry]) -> None:
        """Take over the order in which an outbox was emptied: that is its own affair."""
        fresh = {entry.id: entry for entry in known.inbox if entry.seq > known.settled}
        order = [entry.id for entry in inbox if entry.seq > known.settled]
        if self._partitions > 1 and len(fresh) > 1 and sorted(order) == sorted(fresh):
            reach = {entry.id: known.reach[entry.seq] for entry in fresh.values()}
            seqs = [entry.seq for entry in fresh.values()]
            fresh = {each: replace(fresh[each], seq=seq) for each, seq in zip(order, seqs, strict=True)}
            known.inbox = [entry for entry in known.inbox if entry.seq <= known.settled] + list(
                fresh.values()
            )
            known.reach.update({entry.seq: reach[entry.id] for entry in fresh.values()})
        known.settled = known.row.inbox_seq

    def _compare(self, verb: str, actual: object, expected: object, path: str = "answer") -> None:
        found = list(differences(actual, expected, self._slack_ms, path))
        if found:
            raise self._mismatch(verb, "; ".join(found))

    def _compare_rows(
        self, verb: str, actual: Sequence[ExecutionRow], expected: Sequence[ExecutionRow]
    ) -> None:
        """Newest first; those of one instant in any order."""
        wanted = {row.id: row for row in expected}
        self._compare(verb, {row.id: row for row in actual}, wanted, "rows")
        created = [wanted[row.id].created_at for row in actual]
        if created != sorted(created, reverse=True) or len(actual) != len(expected):
            raise self._mismatch(verb, f"rows are not newest first, each once: {[row.id for row in actual]}")

    def _compare_hints(self, verb: str, doorbells: Collection[Doorbell], touched: Collection[str]) -> None:
        self._compare(verb, {bell.id: bell for bell in doorbells}, self.reference.bells, "doorbells")
        self._compare(verb, sorted(set(touched)), sorted(self.reference.touched), "touched")

    def _mismatch(self, verb: str, what: str) -> Mismatch:
        return Mismatch(f"{self.name}: {verb}: {what}")


def _together(answers: Sequence[Ticked]) -> Ticked:
    return Ticked(
        doorbells=[bell for answer in answers for bell in answer.doorbells],
        touched=[touched for answer in answers for touched in answer.touched],
        more=False,
        next_at=min((answer.next_at for answer in answers if answer.next_at is not None), default=None),
        now=max(answer.now for answer in answers),
    )
