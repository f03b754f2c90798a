"""Runs: starting them, waiting for them, keys, delays, attempts and timeouts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durable import (
    Context,
    Durable,
    ExecutionFailed,
    ExecutionNotFound,
    Fail,
    InvalidInput,
    KeyConflict,
    Retry,
    RetryAfter,
    Signal,
    UnknownWorkflow,
    WaitTimeout,
    workflow,
)
from tests.support import World, ends, reaches, steps, until

Go = Signal("go")


@workflow
async def double(ctx: Context, number: int) -> int:
    return number * 2


@workflow
async def patient(ctx: Context, number: int) -> int:
    await ctx.wait_for_signal(Go)
    return number


@workflow(retry=1)
async def broken(ctx: Context) -> None:
    raise ConnectionError("no route")


# ---- waiting


async def test_start_returns_before_the_end_and_a_handle_waits_for_it(world: World) -> None:
    node = await world.node(patient)
    handle = await node.start(patient, 1)
    assert handle.created
    assert not (await handle.status()).status.final
    await handle.signal(Go)
    assert await handle.result(5) == 1
    assert await handle.wait(5) == 1
    assert await node.wait(handle.id, 5) == 1
    assert await node.handle(handle.id, patient).result() == 1


async def test_a_result_is_waited_for_from_another_node(world: World) -> None:
    client = await world.node(patient, worker=False)
    await world.node(patient)
    handle = await client.start(patient, 5)
    waiting = asyncio.ensure_future(handle.result(5))
    await reaches(handle, "waiting")
    await handle.signal(Go)
    assert await waiting == 5


async def test_a_wait_that_times_out_leaves_the_run_alone(world: World) -> None:
    node = await world.node(patient)
    handle = await node.start(patient, 1)
    with pytest.raises(WaitTimeout) as timeout:
        await handle.result(timeout="50ms")
    assert isinstance(timeout.value, TimeoutError)
    assert timeout.value.execution_id == handle.id
    await handle.signal(Go)
    assert await handle.result(5) == 1


async def test_start_and_wait_times_out_too(world: World) -> None:
    node = await world.node(patient)
    with pytest.raises(WaitTimeout):
        await node.start_and_wait(patient, 1, timeout=0.05)


async def test_a_failed_run_raises_who_what_and_why(world: World) -> None:
    node = await world.node(broken)
    handle = await node.start(broken)
    with pytest.raises(ExecutionFailed, match="no route") as failed:
        await handle.result(5)
    error = failed.value
    assert (error.execution_id, error.workflow, error.attempt) == (handle.id, "broken", 1)
    assert (error.error_type, error.message, error.code) == ("ConnectionError", "no route", "failed")


async def test_an_unknown_id_is_an_error(world: World) -> None:
    node = await world.node(double)
    for call in (node.wait("nobody"), node.handle("nobody").result(1), node.status("nobody")):
        with pytest.raises(ExecutionNotFound) as missing:
            await call
        assert isinstance(missing.value, LookupError)


async def test_a_wait_that_begins_late_or_early_misses_no_end(world: World) -> None:
    node = await world.node(double)
    handles = [await node.start(double, number) for number in range(30)]
    results = await asyncio.gather(*(handle.result(5) for handle in handles for _ in range(2)))
    assert results == [number * 2 for number in range(30) for _ in range(2)]


async def test_an_execution_shows_where_it_is(world: World) -> None:
    node = await world.node(double)
    before = datetime.now(UTC) - timedelta(seconds=1)
    handle = await node.start(double, 4, tags={"tenant": "a"}, key="k")
    await handle.result(5)
    execution = await handle.status()
    assert (execution.id, execution.workflow, execution.version) == (handle.id, "double", "1")
    assert (execution.status, execution.attempt, execution.generation) == ("completed", 1, 0)
    assert (execution.input, execution.result, execution.error) == (4, 8, None)
    assert (execution.tags, execution.queue, execution.priority) == ({"tenant": "a"}, "default", 0)
    assert (execution.parent_id, execution.key) == (None, "k")
    assert execution.started_at is not None
    assert execution.finished_at is not None
    assert before <= execution.created_at <= execution.started_at <= execution.finished_at


# ---- keys


async def test_the_same_key_is_the_same_execution(world: World) -> None:
    node = await world.node(patient)
    first = await node.start(patient, 1, key="order:42")
    await reaches(first, "waiting")
    second = await node.start(patient, 1, key="order:42")
    assert (second.id, second.created) == (first.id, False)
    node = await world.restart()
    third = await node.start(patient, 1, key="order:42")
    assert (third.id, third.created) == (first.id, False)
    await third.signal(Go)
    assert await third.result(5) == 1
    fourth = await node.start(patient, 1, key="order:42")
    assert (fourth.id, fourth.created) == (first.id, False)
    assert await fourth.result(5) == 1


async def test_fifty_at_once_with_one_key_are_one_execution(world: World) -> None:
    ran: list[int] = []

    @workflow
    async def counted(ctx: Context) -> int:
        await ctx.step("ran", ran.append, 1)
        return len(ran)

    nodes: list[Durable] = [await world.node(counted), await world.node(counted, worker=False)]
    handles = await asyncio.gather(*(nodes[n % 2].start(counted, key="k") for n in range(50)))
    assert len({handle.id for handle in handles}) == 1
    assert sum(handle.created for handle in handles) == 1
    assert await handles[0].result(5) == 1
    assert ran == [1]


async def test_one_key_with_another_input_is_a_conflict_and_nothing_is_stored(world: World) -> None:
    node = await world.node(patient)
    first = await node.start(patient, 1, key="k")
    with pytest.raises(KeyConflict) as conflict:
        await node.start(patient, 2, key="k")
    assert conflict.value.execution_id == first.id
    assert len((await node.operator.list_executions()).items) == 1
    assert (await first.status()).input == 1


async def test_one_key_of_two_workflows_is_two_executions(world: World) -> None:
    node = await world.node(double, patient)
    first = await node.start(double, 1, key="k")
    second = await node.start(patient, 1, key="k")
    assert first.id != second.id
    assert second.created


async def test_a_key_may_be_used_again_when_its_execution_has_ended(world: World) -> None:
    node = await world.node(patient)
    first = await node.start(patient, 1, key="k", key_reuse="when_closed")
    again = await node.start(patient, 1, key="k", key_reuse="when_closed")
    assert (again.id, again.created) == (first.id, False)
    await first.signal(Go)
    await first.result(5)
    second = await node.start(patient, 2, key="k", key_reuse="when_closed")
    assert second.created
    assert second.id != first.id
    assert await first.result(5) == 1
    found = await node.start(patient, 2, key="k")
    assert (found.id, found.created) == (second.id, False)


async def test_fifty_at_once_that_reuse_a_closed_key_are_one_execution(world: World) -> None:
    node = await world.node(double)
    first = await node.start(double, 1, key="k", key_reuse="when_closed")
    await first.result(5)
    client = await world.node(double, worker=False)
    await world.stop(node)
    handles = await asyncio.gather(
        *(client.start(double, 1, key="k", key_reuse="when_closed") for _ in range(50))
    )
    assert len({handle.id for handle in handles}) == 1
    assert sum(handle.created for handle in handles) == 1


@pytest.mark.parametrize("key", ["order:42", "ö \u4e2d\u6587", "'; DROP TABLE x; --", "}{", "x" * 512])
async def test_a_key_is_any_printable_text(world: World, key: str) -> None:
    node = await world.node(double)
    first = await node.start(double, 1, key=key)
    assert (await node.start(double, 1, key=key)).id == first.id
    assert (await first.status()).key == key


# ---- delays


async def test_a_delayed_start_begins_at_its_instant(still_world: World) -> None:
    node = await still_world.node(double)
    now = datetime.fromtimestamp(still_world.clock.now_ms() / 1000, UTC)
    delayed = await node.start(double, 1, delay="60s")
    at = await node.start(double, 2, at=now + timedelta(seconds=60))
    await still_world.advance("59s")
    assert [(await handle.status()).status for handle in (delayed, at)] == ["pending", "pending"]
    await still_world.advance("1s")
    assert [await delayed.result(5), await at.result(5)] == [2, 4]


async def test_a_delayed_start_of_another_node_begins_at_its_instant(still_world: World) -> None:
    client = await still_world.node(double, worker=False)
    await still_world.node(double)
    handle = await client.start(double, 1, delay="1h")
    await still_world.advance("59m")
    assert (await handle.status()).status == "pending"
    await still_world.advance("61s")
    assert (await handle.status()).status == "completed"


async def test_a_start_in_the_past_begins_at_once(world: World) -> None:
    node = await world.node(double)
    handle = await node.start(double, 1, at=datetime(2020, 1, 1, tzinfo=UTC))
    assert await handle.result(5) == 2


async def test_a_delayed_start_may_be_signalled_and_waited_for(still_world: World) -> None:
    node = await still_world.node(patient)
    handle = await node.start(patient, 3, delay="1h")
    await handle.signal(Go)
    await still_world.until_idle()
    assert (await handle.status()).status == "pending"
    await still_world.advance("1h")
    assert await handle.result(5) == 3


# ---- attempts


async def test_a_run_is_tried_three_times_by_itself(still_world: World) -> None:
    attempts: list[int] = []

    @workflow
    async def order(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise ConnectionError("no route")

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.until_idle()
    execution = await handle.status()
    assert (execution.status, execution.attempt) == ("retrying", 2)
    assert execution.wake_at is not None
    await still_world.advance("1m")
    with pytest.raises(ExecutionFailed, match="no route") as failed:
        await handle.result(5)
    assert failed.value.attempt == 3
    assert attempts == [1, 2, 3]


async def test_completed_steps_keep_their_values_and_failed_ones_run_again(world: World) -> None:
    ran: list[str] = []

    def flaky() -> str:
        ran.append("flaky")
        if ran.count("flaky") < 3:
            raise ConnectionError
        return "at last"

    @workflow(retry=Retry(5, base="1ms"))
    async def order(ctx: Context) -> list[str]:
        first = await ctx.step("first", lambda: ran.append("first") or "first")
        await ctx.sleep("1ms")
        return [first, await ctx.step("flaky", flaky)]

    node = await world.node(order)
    handle = await node.start(order)
    assert await handle.result(5) == ["first", "at last"]
    assert (await handle.status()).attempt == 3
    assert ran == ["first", "flaky", "flaky", "flaky"]


async def test_a_failure_that_the_body_caught_happens_again_in_the_next_attempt(world: World) -> None:
    """It is recorded for the attempt: what depended on it may turn out otherwise."""
    outcomes: list[str] = []
    calls: list[int] = []

    def flaky() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return "ok"

    @workflow(retry=Retry(3, base="1ms"))
    async def order(ctx: Context) -> str:
        try:
            outcome = await ctx.step("flaky", flaky)
        except ConnectionError:
            outcome = "failed"
        outcomes.append(outcome)
        if outcome == "failed":
            raise ValueError("try the whole again")
        return outcome

    node = await world.node(order)
    assert await node.start_and_wait(order, timeout=5) == "ok"
    assert outcomes[-1] == "ok"
    assert len(calls) == 2


async def test_the_tries_of_a_step_begin_anew_with_each_attempt_of_the_run(world: World) -> None:
    tries: list[tuple[int, int]] = []

    @workflow(retry=Retry(2, base="1ms"))
    async def order(ctx: Context) -> None:
        def flaky() -> None:
            from durable import current_step

            tries.append((ctx.attempt, current_step().attempt))
            raise ConnectionError

        await ctx.step("flaky", retry=Retry(2, base="1ms")).up(flaky)

    node = await world.node(order)
    await ends(await node.start(order))
    assert tries == [(1, 1), (1, 2), (2, 1), (2, 2)]


async def test_consumed_signals_stay_consumed_in_the_next_attempt(world: World) -> None:
    Number = Signal("number", int)  # noqa: N806

    @workflow(retry=Retry(3, base="1ms"))
    async def order(ctx: Context) -> list[int]:
        first = await ctx.wait_for_signal(Number)
        if ctx.attempt == 1:
            raise ConnectionError
        return [first, await ctx.wait_for_signal(Number)]

    node = await world.node(order)
    handle = await node.start(order)
    await handle.signal(Number, 1)
    await handle.signal(Number, 2)
    assert await handle.result(5) == [1, 2]


async def test_a_fail_ends_the_run_at_once(world: World) -> None:
    attempts: list[int] = []

    @workflow
    async def order(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise Fail("no", code="refused", details=[1])

    node = await world.node(order)
    handle = await node.start(order)
    execution = await ends(handle)
    assert (execution.status, execution.code, execution.attempt) == ("failed", "refused", 1)
    assert attempts == [1]


async def test_a_group_of_errors_with_a_fail_in_it_ends_the_run_at_once(world: World) -> None:
    @workflow
    async def order(ctx: Context) -> None:
        raise ExceptionGroup("several", [ValueError(), Fail("no", code="refused")])

    node = await world.node(order)
    execution = await ends(await node.start(order))
    assert execution.attempt == 1


async def test_a_run_that_asks_for_it_is_tried_again_after_its_delay(still_world: World) -> None:
    @workflow(retry=Retry(3, base="1h"))
    async def order(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise RetryAfter("10s")
        return ctx.attempt

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("9s")
    assert (await handle.status()).status == "retrying"
    await still_world.advance("1s")
    assert await handle.result(5) == 2


@pytest.mark.parametrize("retry", [1, Retry(1), False])
async def test_the_policy_of_a_start_wins_over_the_definitions(world: World, retry: Any) -> None:
    @workflow(retry=Retry(5, base="1ms"))
    async def order(ctx: Context) -> None:
        raise ConnectionError

    node = await world.node(order)
    execution = await ends(await node.start(order, retry=retry))
    assert execution.attempt == 1


async def test_the_next_attempt_is_durable(still_world: World) -> None:
    @workflow(retry=Retry(3, base="1h", jitter=0))
    async def order(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise ConnectionError
        return ctx.attempt

    handle = await (await still_world.node(order)).start(order)
    await still_world.advance("30m")
    node = await still_world.restart()
    await still_world.advance("29m")
    assert (await node.status(handle.id)).status == "retrying"
    await still_world.advance("1m")
    assert await node.handle(handle.id, order).result(5) == 2


# ---- timeouts


async def test_a_runs_timeout_ends_it_while_it_waits(still_world: World) -> None:
    @workflow(timeout="1h")
    async def slow(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)

    node = await still_world.node(slow)
    handle = await node.start(slow)
    await still_world.advance("59m")
    assert (await handle.status()).status == "waiting"
    await still_world.advance("1m")
    with pytest.raises(ExecutionFailed) as failed:
        await handle.result(5)
    assert failed.value.code == "timeout"
    assert (await handle.status()).attempt == 1


async def test_a_runs_timeout_ends_it_while_it_waits_for_its_next_attempt(still_world: World) -> None:
    ran: list[int] = []

    @workflow(timeout="30m", retry=Retry(3, base="1h", jitter=0))
    async def order(ctx: Context) -> None:
        await ctx.step("work", ran.append, ctx.attempt)
        await ctx.step("fail", lambda: 1 // 0)

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("29m")
    assert (await handle.status()).status == "retrying"
    await still_world.advance("1m")
    assert (await ends(handle)).code == "timeout"
    await still_world.advance("3h")
    assert ran == [1]


async def test_a_runs_timeout_ends_it_while_a_step_runs(still_world: World) -> None:
    seen: list[str] = []
    begun = asyncio.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @workflow(timeout="1h")
    async def order(ctx: Context) -> None:
        await ctx.step("slow", slow)

    node = await still_world.node(order)
    handle = await node.start(order)
    await begun.wait()
    await still_world.advance("1h")
    assert (await ends(handle)).code == "timeout"
    assert seen == ["cancelled"]


async def test_no_step_begins_after_a_runs_timeout(still_world: World) -> None:
    ran: list[str] = []

    @workflow(timeout="1h")
    async def order(ctx: Context) -> str:
        try:
            await ctx.wait_for_signal(Go)
        except asyncio.CancelledError:
            ran.append("told")
        await ctx.step("after", ran.append, "after")
        return "?"

    node = await still_world.node(order)
    handle = await node.start(order)
    await still_world.advance("1h")
    assert (await ends(handle)).code == "timeout"
    assert ran == ["told"]


async def test_a_runs_timeout_counts_from_its_creation(still_world: World) -> None:
    @workflow
    async def slow(ctx: Context) -> None:
        await ctx.wait_for_signal(Go)

    node = await still_world.node(slow)
    delayed = await node.start(slow, delay="40m", timeout="1h")
    await still_world.advance("59m")
    assert (await delayed.status()).status == "waiting"
    await still_world.advance("1m")
    assert (await ends(delayed)).code == "timeout"


async def test_a_run_that_nobody_began_times_out_too(still_world: World) -> None:
    @workflow(timeout="1h")
    async def slow(ctx: Context) -> None: ...

    client = await still_world.node(slow, worker=False)
    handle = await client.start(slow)
    await still_world.advance("2h")
    await still_world.node(slow)
    await still_world.until_idle()
    assert (await ends(handle)).code == "timeout"


async def test_a_run_that_ends_in_time_is_not_timed_out(still_world: World) -> None:
    @workflow(timeout="1h")
    async def quick(ctx: Context) -> int:
        return 1

    node = await still_world.node(quick)
    handle = await node.start(quick)
    await still_world.advance("2h")
    assert await handle.result(5) == 1


# ---- queues, priorities, tags, versions


async def test_a_worker_takes_only_from_its_queues(world: World) -> None:
    @workflow(queue="media")
    async def encode(ctx: Context) -> str:
        return "encoded"

    client = await world.node(encode, worker=False)
    other = await world.node(encode, queues=["email", "default"])
    waits, moved = await client.start(encode), await client.start(encode, queue="email")
    assert await moved.result(5) == "encoded"
    assert (await waits.status()).status == "pending"
    assert "media" in await client.operator.explain(waits.id)
    await world.stop(other)
    await world.node(encode, queues=["media"])
    assert await waits.result(5) == "encoded"


async def test_greater_priority_goes_first(one_index_world: World) -> None:
    world = one_index_world
    order: list[int] = []

    @workflow(priority=1)
    async def job(ctx: Context, number: int) -> None:
        await ctx.step("work", order.append, number)

    client = await world.node(job, worker=False)
    given = [await client.start(job, number, priority=number) for number in (2, 5, 0, 3)]
    given.append(await client.start(job, 1))
    await world.node(job, concurrency=1)
    await asyncio.gather(*(handle.result(5) for handle in given))
    assert order == [5, 3, 2, 1, 0]


async def test_priority_counts_where_the_index_is_divided_too(world: World) -> None:
    """Strictly so within a part of it, and so by and large."""
    order: list[int] = []

    @workflow
    async def job(ctx: Context, number: int) -> None:
        await ctx.step("work", order.append, number)

    client = await world.node(job, worker=False)
    given = [await client.start(job, number, key=str(number)) for number in range(60)]
    given += [await client.start(job, number, key=str(number), priority=1) for number in range(60, 64)]
    await world.node(job, concurrency=1)
    await asyncio.gather(*(handle.result(20) for handle in given))
    assert sum(order.index(number) for number in range(60, 64)) / 4 < 32


async def test_first_come_first_served_within_a_priority(one_index_world: World) -> None:
    world = one_index_world
    order: list[int] = []

    @workflow
    async def job(ctx: Context, number: int) -> None:
        await ctx.step("work", order.append, number)

    client = await world.node(job, worker=False)
    given = [await client.start(job, number) for number in range(10)]
    await world.node(job, concurrency=1)
    await asyncio.gather(*(handle.result(5) for handle in given))
    assert order == list(range(10))


async def test_no_more_run_at_once_than_there_are_slots(world: World) -> None:
    running = peak = 0

    async def work() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.01)
        running -= 1

    @workflow
    async def job(ctx: Context) -> None:
        await ctx.step("work", work)

    node = await world.node(job, concurrency=4)
    handles = await asyncio.gather(*(node.start(job) for _ in range(20)))
    await asyncio.gather(*(handle.result(5) for handle in handles))
    assert peak == 4


async def test_tags_come_from_the_workflow_and_the_start(world: World) -> None:
    seen: list[dict[str, str]] = []

    @workflow(tags={"category": "orders", "tenant": "none"})
    async def order(ctx: Context) -> None:
        seen.append(dict(ctx.tags))

    node = await world.node(order)
    handle = await node.start(order, tags={"tenant": "a"})
    other = await node.start(order)
    await handle.result(5)
    await other.result(5)
    assert {"category": "orders", "tenant": "a"} in seen
    assert [e.id for e in (await node.operator.list_executions(tags={"tenant": "a"})).items] == [handle.id]


async def test_live_executions_finish_on_the_version_they_began_with(world: World) -> None:
    def version(number: str) -> Any:
        @workflow(name="order", version=number)
        async def order(ctx: Context) -> str:
            await ctx.wait_for_signal(Go)
            return ctx.version

        return order

    one, two = version("1"), version("2")
    node = await world.node(one)
    old = await node.start(one)
    await reaches(old, "waiting")
    node = await world.restart(one, two)
    new = await node.start(two)
    for handle in (old, new):
        await node.signal(handle.id, Go)
    assert await node.wait(old.id, 5) == "1"
    assert await node.wait(new.id, 5) == "2"


async def test_discovery_lists_what_is_registered(world: World) -> None:
    @workflow(version="2", tags={"a": "b"}, queue="q")
    async def order(ctx: Context, number: int) -> str:
        return str(number)

    node = await world.node(order, double, worker=False)
    infos = {info.name: info for info in node.workflows()}
    assert set(infos) == {"order", "double"}
    assert (infos["order"].version, infos["order"].queue) == ("2", "q")
    assert infos["order"].input_schema["type"] == "integer"
    assert infos["order"].output_schema["type"] == "string"


async def test_a_failed_run_that_an_operator_retries_goes_on_where_it_failed(world: World) -> None:
    ran: list[str] = []
    broken = [True]

    def second() -> str:
        ran.append("second")
        if broken[0]:
            raise ConnectionError
        return "ok"

    @workflow(retry=1)
    async def order(ctx: Context) -> str:
        await ctx.step("first", ran.append, "first")
        return await ctx.step("second", second)

    node = await world.node(order)
    handle = await node.start(order)
    assert (await ends(handle)).status == "failed"
    broken[0] = False
    await node.operator.retry(handle.id)
    await until(lambda: len(ran) == 3)
    assert await handle.result(5) == "ok"
    assert ran == ["first", "second", "second"]
    assert "first" in await steps(node, handle)


async def test_unknown_workflows_are_refused(world: World) -> None:
    node = await world.node(double)
    with pytest.raises(UnknownWorkflow, match="patient"):
        await node.start(patient, 1)
    with pytest.raises(InvalidInput):
        await node.start(double, 1, delay="1s", at=datetime.now(UTC))
    assert (await node.operator.list_executions()).items == []
