"""What is known of workers, and how one of them is drained."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta

import pytest

from durable import Context, Durable, WorkerNotFound, WorkerRecord, __version__, workflow
from durable.presence import MOST_WORK, Presence, drain_mark, worker_record
from durable.protocols import WorkerInfo
from tests.support import World, until


@workflow
async def hold(ctx: Context, number: int) -> int:
    return await ctx.step("held", wait_for_the_end, number)


ends: dict[int, asyncio.Event] = {}


async def wait_for_the_end(number: int) -> int:
    await ends.setdefault(number, asyncio.Event()).wait()
    return number


@pytest.fixture(autouse=True)
def nothing_has_ended() -> None:
    ends.clear()


async def only(node: Durable) -> WorkerRecord:
    [worker] = await node.operator.workers()
    return worker


async def test_a_worker_is_known_by_what_it_serves_and_what_it_runs(world: World) -> None:
    node = await world.node(hold, lease=0.3, queues=["default", "email"], concurrency=20)
    handle = await node.start(hold, 1)

    async def runs() -> bool:
        return [work.step_id for work in (await only(node)).work] == ["held"]

    await until(runs)
    worker = await only(node)
    assert worker.id == node.worker.id
    assert (worker.version, worker.pid, worker.queues) == (__version__, os.getpid(), ["default", "email"])
    assert (worker.busy, worker.slots, worker.draining) == (1, 20, False)
    assert worker.workflows == ["hold@1"]
    [work] = worker.work
    assert (work.execution_id, work.workflow) == (handle.id, "hold")
    now = datetime.now(UTC)
    assert worker.started_at is not None
    for at in (worker.started_at, worker.beat_at, work.since):
        assert abs(now - at) < timedelta(seconds=30)
    ends[1].set()
    assert await handle.result(5) == 1
    await until(lambda: _is_idle(node))


async def _is_idle(node: Durable) -> bool:
    worker = await only(node)
    return (worker.busy, list(worker.work)) == (0, [])


async def test_who_has_left_is_no_worker_any_more(world: World) -> None:
    client = await world.node(worker=False)
    node = await world.node(hold)
    assert [worker.id for worker in await client.operator.workers()] == [node.worker.id]
    await world.stop(node)
    assert list(await client.operator.workers()) == []


async def test_a_worker_names_no_more_than_the_longest_of_what_it_runs(world: World) -> None:
    node = await world.node(hold, lease=0.3)
    for number in range(MOST_WORK + 2):
        await node.start(hold, number)

    async def all_run() -> bool:
        return (await only(node)).busy == MOST_WORK + 2

    await until(all_run)
    assert len((await only(node)).work) == MOST_WORK
    await until(lambda: len(ends) == MOST_WORK + 2)
    for end in ends.values():
        end.set()


async def test_a_drained_worker_takes_nothing_new_and_ends_what_it_runs(world: World) -> None:
    client = await world.node(hold, worker=False)
    drained = await world.node(hold, lease=0.5)
    first = await client.start(hold, 1)
    await until(lambda: 1 in ends)
    await client.operator.drain_worker(drained.worker.id)
    await until(drained.worker.told_to_drain.is_set)

    async def shows() -> bool:
        return (await only(client)).draining

    await until(shows)
    second = await client.start(hold, 2)
    assert [queue.queue for queue in await client.operator.queues()] == ["default"]
    ends[1].set()
    assert await first.result(5) == 1
    await until(lambda: drained.worker.idle)
    assert (await second.status()).status == "pending"
    other = await world.node(hold)
    await until(lambda: 2 in ends)
    ends[2].set()
    assert await second.result(5) == 2
    await world.stop(other)
    # It does not go on when its mark is gone, and takes the mark along when it leaves.
    store = drained._store
    await store.pause_queue(drain_mark(drained.worker.id), False)
    await drained.worker.sweeper.turn()
    assert (await only(client)).draining
    assert drained.worker.dispatcher.wanted.queues == ()
    await store.pause_queue(drain_mark(drained.worker.id), True)
    await world.stop(drained)
    assert list(await client._store.paused_queues()) == []


async def test_a_worker_drains_what_it_started_itself_too(world: World) -> None:
    """Its own starts are claimed without a doorbell, by the shortest way."""
    node = await world.node(hold, lease=0.5)
    await node.operator.drain_worker(node.worker.id)
    await until(node.worker.told_to_drain.is_set)
    handle = await node.start(hold, 1)
    await node.worker.sweeper.turn()
    assert (await handle.status()).status == "pending"


async def test_a_worker_that_is_not_alive_cannot_be_drained(world: World) -> None:
    client = await world.node(worker=False)
    with pytest.raises(WorkerNotFound):
        await client.operator.drain_worker("nobody:1:ab")
    assert list(await client._store.paused_queues()) == []


async def test_the_mark_of_a_worker_that_died_is_cleared_by_the_next_who_drains_one(world: World) -> None:
    node = await world.node(hold)
    await node._store.pause_queue(drain_mark("dead:1:ab"), True)
    await node._store.pause_queue("email", True)
    assert [queue.queue for queue in await node.operator.queues()] == ["email"]
    await node.operator.drain_worker(node.worker.id)
    assert sorted(await node._store.paused_queues()) == sorted([drain_mark(node.worker.id), "email"])


@pytest.mark.parametrize("said", [b"", b"\xff", b"[]", b'{"slots": "many"}', b'{"later": 1}'])
def test_what_another_version_says_is_no_error(said: bytes) -> None:
    record = worker_record(WorkerInfo("w", 5_000, said), 4_000)
    assert (record.id, record.slots, record.version) == ("w", 0, "")
    assert record.beat_at.timestamp() == 4


def test_the_last_beat_is_one_lease_before_its_end() -> None:
    record = worker_record(WorkerInfo("w", 35_000, Presence(lease_ms=30_000).pack()), 9_000)
    assert record.beat_at.timestamp() == 5
